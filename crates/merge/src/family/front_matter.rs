//! What a model card says of the model's parents: the front matter, and the YAML of a merge in its text.

use serde_json::Value;

/// The parts of a `README.md` that tell a model's parents.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Card {
    /// `base_model`, a name or a list of them.
    pub(super) base_models: Vec<String>,
    /// `base_model_relation`: `finetune`, `adapter`, `merge` or `quantized`.
    pub(super) relation: Option<String>,
    /// The configuration of a merge, from the first YAML block that is one.
    pub(super) config: Option<Value>,
}

/// Reads a card. The error is what is wrong, for a sentence that names the file.
pub(super) fn read(text: &str) -> Result<Card, String> {
    let text = text.trim_start_matches('\u{feff}');
    let mut card = Card::default();
    if let Some(matter) = matter(text) {
        let matter = yaml(matter).map_err(|error| format!("front matter: {error}"))?;
        let name = |value: &Value| match value {
            Value::String(name) => Ok(name.clone()),
            other => Err(format!("front matter: `base_model` has {other}, expected a name")),
        };
        card.base_models = match matter.get("base_model") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list.iter().map(name).collect::<Result<_, _>>()?,
            Some(one) => vec![name(one)?],
        };
        card.relation =
            matter.get("base_model_relation").and_then(Value::as_str).map(str::to_owned);
    }
    for block in blocks(text) {
        if block.contains("merge_method:") || block.contains("experts:") {
            card.config = Some(yaml(&block).map_err(|error| format!("YAML block: {error}"))?);
            break;
        }
    }
    Ok(card)
}

/// YAML as JSON.
pub(super) fn yaml(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

/// The text between `---` lines at the start.
fn matter(text: &str) -> Option<&str> {
    let start = text.find('\n')? + 1;
    if text[..start].trim_end() != "---" {
        return None;
    }
    let mut end = start;
    for line in text[start..].split_inclusive('\n') {
        if line.trim_end() == "---" {
            return Some(&text[start..end]);
        }
        end += line.len();
    }
    None
}

/// The fenced blocks that are marked as YAML.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start();
        let ticks = line.len() - line.trim_start_matches('`').len();
        if ticks < 3 {
            continue;
        }
        let inside: Vec<&str> = lines
            .by_ref()
            .take_while(|line| {
                let line = line.trim();
                line.len() < ticks || !line.trim_start_matches('`').is_empty()
            })
            .collect();
        if matches!(line[ticks..].trim(), "yaml" | "yml") {
            blocks.push(inside.join("\n"));
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_of_mergekit() {
        let text = "---\nbase_model:\n- org/a\n- org/b\ntags:\n- merge\n---\n# x\n\n```sh\nls\n```\n\n\
                    ````yaml\nmerge_method: linear\nmodels:\n- model: org/a\nchat_template: '```'\n````\n";
        let card = read(text).expect("a card");
        assert_eq!(card.base_models, ["org/a", "org/b"]);
        assert_eq!(card.config.expect("a configuration")["chat_template"], "```");
    }

    #[test]
    fn cards_without_parents_and_broken_ones() {
        assert_eq!(read("# Only text\n---\nbase_model: x\n---\n"), Ok(Card::default()));
        assert_eq!(read(""), Ok(Card::default()));
        assert_eq!(read("---\nnot closed: [\n"), Ok(Card::default()));
        let error = read("---\nbase_model: [1]\n---\n").expect_err("a number is no name");
        assert_eq!(error, "front matter: `base_model` has 1, expected a name");
        assert!(read("---\nbase_model: [\n---\n").is_err());
        assert!(read("```yaml\nmerge_method: [\n```").is_err());
    }
}
