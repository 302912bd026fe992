//! Calls written as the chat templates write them are read back as they were.

use std::fmt::Write as _;

use posttrain_core::{Arguments, Tool, ToolCall};
use serde_json::{Map, Value, json};

use super::super::{ResponseFormat, ResponseParser};
use super::laws::Random;

/// Strings that collide with the markers of the formats.
const STRINGS: &[&str] = &[
    "",
    " ",
    "7",
    "true",
    "null",
    "\n",
    "a\nb",
    "\n\na\n\n",
    "é☃ 漢字",
    "\"",
    "\\",
    "\\\"}",
    "}}",
    "]}",
    "{\"a\": 1}",
    "[1]",
    "</tool_call>",
    "<tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]{",
    "<|python_tag|>",
    "<｜tool▁call▁end｜>",
    "```",
    "\n```<｜tool▁call▁end｜>",
    "<|tool_call_end|>",
    "\u{1}\u{7f}",
    "; {",
    "</parameter>",
    "</arg_value>",
    "<function=f>",
    "</function>",
    "</think>",
];

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "s": {"type": "string"}, "i": {"type": "integer"}, "n": {"type": "number"},
        "b": {"type": "boolean"}, "z": {"type": "null"}, "l": {"type": "array"}, "o": {"type": "object"},
    }})
}

fn random_arguments(random: &mut Random) -> Map<String, Value> {
    let mut arguments = Map::new();
    for _ in 0..random.below(5) {
        let text = random.pick(STRINGS);
        let (key, value) = match random.below(7) {
            0 => ("s", json!(text)),
            1 => ("i", json!(random.below(1000) as i64 - 500)),
            2 => ("n", json!(random.below(1000) as f64 / 8.0)),
            3 => ("b", json!(random.below(2) == 0)),
            4 => ("z", Value::Null),
            5 => ("l", json!([text, {"k": text}, 1])),
            _ => ("o", json!({"k": {"k": [text, null]}, "é": text})),
        };
        arguments.insert(key.into(), value);
    }
    arguments
}

fn random_calls(random: &mut Random, ids: bool) -> Vec<ToolCall> {
    (0..=random.below(3))
        .map(|_| {
            let name = random.pick(&["f", "get_weather", "a.b-c", "größe", "function"]);
            let call = ToolCall::new(name, Arguments::Object(random_arguments(random)));
            let id = ids.then(|| format!("call{:05}", random.below(100_000)));
            ToolCall { id, ..call }
        })
        .collect()
}

fn json_call(call: &ToolCall, key: &str) -> String {
    let name = json!(call.function.name);
    format!("{{\"name\": {name}, \"{key}\": {}}}", call.function.arguments.to_text())
}

fn pairs(call: &ToolCall) -> Map<String, Value> {
    call.function.arguments.to_object().unwrap()
}

/// Qwen's template: texts as they are, lists and objects as JSON, everything else as Python's str.
fn qwen_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Null => "None".into(),
        other => other.to_string(),
    }
}

fn each(calls: &[ToolCall], separator: &str, write: impl Fn(&ToolCall) -> String) -> String {
    calls.iter().map(write).collect::<Vec<_>>().join(separator)
}

fn render(format: ResponseFormat, calls: &[ToolCall]) -> String {
    let list = |call: &ToolCall| {
        let id = call.id.as_ref().map(|id| format!(", \"id\": {}", json!(id))).unwrap_or_default();
        json_call(call, "arguments").strip_suffix('}').unwrap().to_owned() + &id + "}"
    };
    match format {
        ResponseFormat::Json => format!("[{}]", each(calls, ", ", list)),
        ResponseFormat::Hermes => each(calls, "\n", |call| {
            format!("<tool_call>\n{}\n</tool_call>", json_call(call, "arguments"))
        }),
        ResponseFormat::QwenXml => each(calls, "\n", |call| {
            let mut text = format!("<tool_call>\n<function={}>\n", call.function.name);
            for (key, value) in pairs(call) {
                let value = qwen_value(&value);
                write!(text, "<parameter={key}>\n{value}\n</parameter>\n").unwrap();
            }
            text + "</function>\n</tool_call>"
        }),
        ResponseFormat::Glm => each(calls, "\n", |call| {
            let mut text = format!("<tool_call>{}\n", call.function.name);
            for (key, value) in pairs(call) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                write!(text, "<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n").unwrap();
            }
            text + "</tool_call>"
        }),
        ResponseFormat::Llama3 => each(calls, "; ", |call| json_call(call, "parameters")),
        ResponseFormat::Mistral => format!("[TOOL_CALLS][{}]", each(calls, ", ", list)),
        ResponseFormat::DeepSeek => {
            let calls = each(calls, "\n", |call| {
                let (name, arguments) = (&call.function.name, call.function.arguments.to_text());
                format!(
                    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```\
                     <｜tool▁call▁end｜>"
                )
            });
            format!("<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>")
        }
        ResponseFormat::Kimi => {
            let calls = each(calls, "", |call| {
                let (id, arguments) =
                    (call.id.as_ref().unwrap(), call.function.arguments.to_text());
                format!(
                    "<|tool_call_begin|>{id}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
                )
            });
            format!("<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>")
        }
        ResponseFormat::Plain => String::new(),
    }
}

fn check(format: ResponseFormat, text: &str, calls: &[ToolCall]) {
    let names = ["f", "get_weather", "a.b-c", "größe", "function"];
    let tools = names.map(|name| Tool::function(name, "", schema()));
    let parser = ResponseParser::new(format).tools(&tools);
    let parsed = parser.parse(text);
    assert!(parsed.is_whole(), "{text}\n{parsed:?}");
    assert_eq!(parsed.message.tool_calls, calls, "{text}");
    assert_eq!(parsed.message.content, None, "{text}");

    let parsed = parser.parse(&format!(" Let me look.\n\n{text}\n"));
    assert_eq!(parsed.message.tool_calls, calls, "{text}");
    assert_eq!(parsed.message.text(), "Let me look.", "{text}");
}

#[test]
fn calls_survive_in_every_format() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for format in super::laws::FORMATS.into_iter().filter(|&format| format != ResponseFormat::Plain)
    {
        let ids = matches!(format, ResponseFormat::Mistral | ResponseFormat::Json);
        for _ in 0..300 {
            let mut calls = random_calls(&mut random, ids);
            if format == ResponseFormat::Kimi {
                for (index, call) in calls.iter_mut().enumerate() {
                    call.id = Some(format!("functions.{}:{index}", call.function.name));
                }
            }
            check(format, &render(format, &calls), &calls);
        }
    }
}

#[test]
fn calls_survive_in_the_other_forms() {
    let mut random = Random(0x5851_f42d_4c95_7f2d);
    for _ in 0..300 {
        let calls = random_calls(&mut random, false);
        let json = |call: &ToolCall| call.function.arguments.to_text();

        let text = each(&calls, "", |call| {
            format!("[TOOL_CALLS]{}[ARGS]{}", call.function.name, json(call))
        });
        check(ResponseFormat::Mistral, &text, &calls);

        let body = each(&calls, "", |call| {
            let name = &call.function.name;
            format!("<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{}<｜tool▁call▁end｜>", json(call))
        });
        let text = format!("<｜tool▁calls▁begin｜>{body}<｜tool▁calls▁end｜>");
        check(ResponseFormat::DeepSeek, &text, &calls);

        let text = each(&calls, "; ", |call| json_call(call, "parameters"));
        check(ResponseFormat::Llama3, &format!("<|python_tag|>{text}"), &calls);
        check(ResponseFormat::Llama3, &text.replace("}}; {\"name\"", "}}\n{\"name\""), &calls);

        // Arguments that are text already, as OpenAI sends them.
        let text = each(&calls, "\n", |call| {
            let name = json!(call.function.name);
            format!(
                "<tool_call>{{\"name\": {name}, \"arguments\": {}}}</tool_call>",
                json!(json(call))
            )
        });
        check(ResponseFormat::Hermes, &text, &calls);

        let calls = random_calls(&mut random, true);
        let text = each(&calls, "", |call| {
            let id = call.id.as_ref().unwrap();
            format!("[TOOL_CALLS]{}[CALL_ID]{id}[ARGS]{}", call.function.name, json(call))
        });
        check(ResponseFormat::Mistral, &text, &calls);
    }
}
