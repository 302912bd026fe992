//! Every probe of `tests/fixtures/jinja` renders as the environment of transformers renders it.

use serde_json::Value as Json;

use super::{Template, convert::from_json};

/// Probes that differ, by reason. `COMPATIBILITY.md` says the same for users.
const DIFFERENCES: &[(&str, &[&str])] = &[
    (
        "`striptags` knows the entities of escaping, not all of HTML",
        &["{{ '&eacute;&#39;&nosuch;'|striptags }}"],
    ),
    (
        "`wordwrap` leaves out rare rules of `textwrap`",
        &["{{ 'the quick brown fox'|wordwrap(width=3) }}"],
    ),
    (
        "bytes are not supported",
        &[
            "{{ 'abc'.encode() }}",
            "{{ 'é'.encode('utf-8') }}",
            "{{ 'é'.encode('ascii', 'ignore') }}",
            "{{ n.to_bytes(2, 'big') }}",
        ],
    ),
    ("`float.hex` is not supported", &["{{ f.hex() }}"]),
    (
        "a number cannot be sliced: Jinja2 only lets it pass where it folds constants",
        &["{{ 5[1:] }}"],
    ),
    ("complex numbers are not supported", &["{{ (-8) ** 0.5 }}"]),
    (
        "integers end at 128 bits",
        &["{{ 123456789012345678901234567890 * 123456789012345678901234567890 }}"],
    ),
    ("`\\N{...}` escapes are not supported", &[r"{{ '\N{BULLET}' }}"]),
    (
        "`self` and its blocks are not supported",
        &[
            "{{ self }}",
            "{{ self._TemplateReference__context }}",
            "{% block a %}x{% endblock a %}{{ self.a() }}",
            "{{ self.a is defined }}{% block a %}{% endblock %}",
        ],
    ),
    (
        "`Markup.unescape` and `Markup.striptags` are not supported",
        &["{{ ('&lt;b&gt;'|safe).unescape() }}", "{{ ('<i>x</i>'|safe).striptags() }}"],
    ),
    (
        "the tag `autoescape` is refused; no chat template uses it",
        &[
            "{% autoescape true %}{{ html }}{{ html|safe }}{% endautoescape %}{{ html }}",
            "{% autoescape false %}{{ html }}{% endautoescape %}",
            "{% autoescape true %}{{ l }}{{ '<' ~ '&' }}{% endautoescape %}",
            "{% autoescape true %}{{ ['<', '>']|join('&') }}{{ html|replace('a', '<') }}{% endautoescape %}",
            "{% autoescape true %}{% set x %}<b>{{ '<' }}{% endset %}{{ x }}{{ x is escaped }}{% endautoescape %}",
            "{% autoescape true %}{% macro m() %}<b>{{ '<' }}{% endmacro %}{{ m() }}{{ m() is escaped }}{% endautoescape %}",
            "{% autoescape true %}{{ d|tojson }}{{ html|tojson }}{% endautoescape %}",
            "{% autoescape true %}{% filter upper %}<b>{{ '<' }}{% endfilter %}{% endautoescape %}",
            "{% autoescape yes %}{{ html }}{% endautoescape %}",
            "{% autoescape no %}{{ html }}{% endautoescape %}",
            "{% macro m() %}<{{ '<' }}{% endmacro %}{% autoescape true %}{{ m() }}{% endautoescape %}",
            "{% generation %}{{ '<' }}{% autoescape true %}{{ '<' }}{% endautoescape %}{% endgeneration %}",
            "{% autoescape true %}a{% generation %}{{ '<' }}b<{% endgeneration %}{% endautoescape %}",
        ],
    ),
    (
        "ours is right: transformers records a wrong place inside captured text, and drops `caller`",
        &[
            "{% macro m(x) %}[{% generation %}{{ x }}{% endgeneration %}]{% endmacro %}ab{{ m('xyz') }}cd",
            "{% macro m(x) %}[{% generation %}{{ x }}{% endgeneration %}]{% endmacro %}{{ m('a') }}{{ m('b') }}",
            "ab{% set x %}[{% generation %}xyz{% endgeneration %}]{% endset %}cd{{ x }}",
            "ab{% filter upper %}c{% generation %}xyz{% endgeneration %}{% endfilter %}",
            "a{% generation %}b{% generation %}c{% endgeneration %}d{% endgeneration %}e",
            "{% macro m() %}{% generation %}{{ caller() }}{% endgeneration %}{% endmacro %}a{% call m() %}b{% endcall %}",
            "{% for x in [1, 2] recursive %}{{ x }}{% generation %}g{% endgeneration %}{% endfor %}",
            "{% for x in [[1], 2] recursive %}{% if x is iterable %}<{{ loop(x) }}>{% else %}{% generation %}{{ x }}{% endgeneration %}{% endif %}{% endfor %}",
        ],
    ),
];

fn clock() -> jiff::civil::DateTime {
    jiff::civil::date(2024, 7, 26).at(13, 5, 9, 0)
}

fn render(probe: &Json) -> Result<(String, Json), String> {
    let source = probe["template"].as_str().unwrap();
    let template = Template::parse(source).map_err(|error| error.to_string())?;
    let arena = bumpalo::Bump::new();
    let variables: Vec<_> = probe["vars"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(k, v)| (k.as_str(), from_json(&arena, v)))
        .collect();
    let rendered =
        template.render(&arena, &variables, &clock).map_err(|error| error.to_string())?;
    let rendered = match template.render_spans(&arena, &variables, &clock) {
        Ok(marked) if marked.text == rendered.text => marked,
        _ => rendered,
    };
    let chars = |at: usize| rendered.text[..at].chars().count();
    let spans = rendered.generation.iter().map(|r| vec![chars(r.start), chars(r.end)]);
    let spans: Vec<_> = spans.collect();
    Ok((rendered.text, serde_json::json!(spans)))
}

fn compare(probes: &[Json]) -> usize {
    let mut wrong = Vec::new();
    let mut differing = 0;
    for probe in probes {
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
        let listed = DIFFERENCES.iter().any(|(_, listed)| listed.contains(&template));
        if equal == listed {
            wrong.push(format!("{probe}\n    found {found:?}"));
        }
        differing += usize::from(listed);
    }
    assert!(wrong.is_empty(), "{} of {} probes:\n{}", wrong.len(), probes.len(), wrong.join("\n"));
    differing
}

fn read(path: &str) -> Vec<Json> {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn probes_equal_jinja2() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/jinja/probes.json");
    let probes = read(path);
    assert!(probes.len() > 2_500, "only {} probes", probes.len());
    let listed: usize = DIFFERENCES.iter().map(|(_, listed)| listed.len()).sum();
    assert_eq!(compare(&probes), listed, "a listed difference is no longer a probe");
}

#[test]
#[ignore = "needs the templates of random_probes.py"]
fn random_probes_equal_jinja2() {
    let path = std::env::var("POSTTRAIN_JINJA_PROBES");
    compare(&read(&path.expect("POSTTRAIN_JINJA_PROBES names the file of random_probes.py")));
}

#[test]
fn nesting_ends_in_an_error_and_not_in_the_stack() {
    let parens = |n: usize| format!("{{{{ {}1{} }}}}", "(".repeat(n), ")".repeat(n));
    let ifs = |n: usize| "{% if 1 %}".repeat(n) + &"{% endif %}".repeat(n);
    let probe = |template: &str| render(&serde_json::json!({"template": template, "vars": {}}));
    assert!(probe(&parens(20)).is_ok() && probe(&ifs(90)).is_ok());
    let endless = [
        parens(10_000),
        ifs(10_000),
        format!("{{{{ {}1 }}}}", "-".repeat(10_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(10_000)),
        format!("{{{{ {}{} }}}}", "[".repeat(10_000), "]".repeat(10_000)),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% macro m() %}{{ caller() }}{% call m() %}{% endcall %}{% endmacro %}\
         {% call m() %}{% endcall %}"
            .to_owned(),
        "{% set l = [1] %}{% for x in l recursive %}{{ loop(l) }}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=1) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}\
         {% endfor %}{{ ns.x }}"
            .to_owned(),
    ];
    for template in endless {
        let error = probe(&template).unwrap_err();
        assert!(error.contains("deeper than"), "{error}");
    }
}
