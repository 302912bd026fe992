//! Small conversations that show what a template does.

use posttrain_core::{Arguments, Conversation, Message, Tool, ToolCall};
use serde_json::{Map, json};

fn object(value: serde_json::Value) -> Map<String, serde_json::Value> {
    match value {
        serde_json::Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// A tool that no template knows by itself.
pub(crate) fn tool() -> Tool {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Name of the city"}},
        "required": ["city"],
    });
    Tool::function("get_tide_table", "Tides of a harbour", parameters)
}

/// A tool call with its result. The id has the nine characters that Mistral's templates ask for.
pub(crate) fn tool_call() -> Conversation {
    let arguments = Arguments::Object(object(json!({"city": "Zanzibar"})));
    let call =
        ToolCall { id: Some("call00001".into()), ..ToolCall::new("get_tide_table", arguments) };
    let mut result = Message::tool("call00001", "high water at 06:12");
    result.name = Some("get_tide_table".into());
    Conversation {
        tools: vec![tool()],
        ..Conversation::new([
            Message::user("When is high water?"),
            Message { content: Some("".into()), ..Message::tool_calling(vec![call]) },
            result,
            Message::assistant("At 06:12."),
        ])
    }
}

/// Two exchanges; the texts are unlike anything in a template.
pub(crate) fn two_turns() -> Conversation {
    Conversation::new([
        Message::user("Quokka one?"),
        Message::assistant("Wombat one."),
        Message::user("Quokka two?"),
        Message::assistant("Wombat two."),
    ])
}
