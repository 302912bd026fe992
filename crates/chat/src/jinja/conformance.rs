//! Every probe of `tests/fixtures/jinja` renders as the environment of transformers renders it.

use serde_json::Value as Json;

use super::{Template, convert::from_json};

/// Probes that differ, each with the reason. `COMPATIBILITY.md` says the same for users.
const DIFFERENCES: &[(&str, &str)] = &[];

fn clock() -> jiff::civil::DateTime {
    jiff::civil::date(2024, 7, 26).at(13, 5, 9, 0)
}

fn render(probe: &Json) -> Result<(String, Json), String> {
    let source = probe["template"].as_str().unwrap();
    let template = Template::parse(source).map_err(|error| error.to_string())?;
    let variables: Vec<_> =
        probe["vars"].as_object().unwrap().iter().map(|(k, v)| (k.as_str(), from_json(v))).collect();
    let rendered = template.render(&variables, &clock).map_err(|error| error.to_string())?;
    let chars = |at: usize| rendered.text[..at].chars().count();
    let spans = rendered.generation.iter().map(|r| vec![chars(r.start), chars(r.end)]);
    let spans: Vec<_> = spans.collect();
    Ok((rendered.text, serde_json::json!(spans)))
}

#[test]
fn probes_equal_jinja2() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/jinja/probes.json");
    let probes: Vec<Json> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(probes.len() > 2_500, "only {} probes", probes.len());
    let mut wrong = Vec::new();
    let mut differing = 0;
    for probe in &probes {
        let found = render(probe);
        let equal = match (&found, probe["text"].as_str()) {
            (Ok((text, spans)), Some(expected)) => {
                text == expected
                    && probe.get("generation_chars").is_none_or(|expected| expected == spans)
            }
            (Err(_), None) => true,
            _ => false,
        };
        let template = probe["template"].as_str().unwrap();
        let listed = DIFFERENCES.iter().any(|(listed, _)| *listed == template);
        if equal == listed {
            wrong.push(format!("{probe}\n    found {found:?}"));
        }
        differing += usize::from(listed);
    }
    assert!(wrong.is_empty(), "{} of {} probes:\n{}", wrong.len(), probes.len(), wrong.join("\n"));
    assert_eq!(differing, DIFFERENCES.len(), "a listed difference is no longer a probe");
}
