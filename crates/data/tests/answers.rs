//! Prompts with what answers them: completions, preferences, labels, steps.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use posttrain_data::{Body, Error, Example, Format, ReadOptions, Sequence};
use serde_json::{Value as Json, json};
use support::{fault, fixture, one};

fn text(text: &str) -> Body {
    Body::Text(text.into())
}

#[test]
fn implicit_prompts_are_those_of_trl() {
    let cases = std::fs::read_to_string(fixture("implicit_prompts.json")).unwrap();
    let cases: Vec<Json> = serde_json::from_str(&cases).unwrap();
    assert!(cases.len() > 10);
    for case in &cases {
        let row = one(&case["row"], &ReadOptions::default()).unwrap();
        let Example::Preference { prompt, chosen, rejected, margin: None } = row.example else {
            panic!()
        };
        let ours = json!([prompt.to_json(), chosen.to_json(), rejected.to_json()]);
        // Where we differ on purpose the case says so.
        assert_eq!(&ours, case.get("ours").unwrap_or(&case["trl"]), "{}", case["row"]);
    }
}

#[test]
fn preferences_that_say_nothing_are_faults() {
    let user = json!({"role": "user", "content": "Hi"});
    let says = |text: &str| json!({"role": "assistant", "content": text});
    for (row, expected) in [
        (
            json!({"prompt": "a", "chosen": "b", "rejected": "b"}),
            "`chosen` and `rejected` are the same",
        ),
        (json!({"prompt": "a", "chosen": "b", "rejected": " "}), "`rejected` is empty"),
        (json!({"prompt": "", "chosen": "b", "rejected": "c"}), "`prompt` is empty"),
        (json!({"prompt": "a", "chosen": "b"}), "`rejected` is missing"),
        (
            json!({"prompt": "a", "chosen": "b", "rejected": 1}),
            "`rejected` is the number 1, expected a string or a list of messages",
        ),
        (
            json!({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "NaN"}),
            "`margin` is a string, expected a number",
        ),
        (
            json!({"prompt": [user], "chosen": "b", "rejected": "c"}),
            "`chosen, rejected` is text and text, expected texts where the prompt is text",
        ),
        (
            json!({"prompt": "a", "chosen": "b", "rejected": [says("c")]}),
            "`chosen, rejected` is text and messages",
        ),
        (
            json!({"prompt": [user], "chosen": [user], "rejected": [says("c")]}),
            "`chosen[0]` is a message of the role \"user\", expected one of the assistant",
        ),
        (
            json!({"prompt": [user], "chosen": [says("b"), user], "rejected": [says("c")]}),
            "`chosen[1]` is a message of the role \"user\"",
        ),
        (
            json!({"chosen": [user, says("b")], "rejected": [user]}),
            "all of `rejected` stands in the other as well",
        ),
        (json!({"chosen": [says("b")], "rejected": [says("c")]}), "their first messages differ"),
        (
            json!({"chosen": [user, says("b")], "rejected": [{"role": "user", "content": "Ho"}, says("c")]}),
            "`chosen[0]`, where they part, has the role \"user\"",
        ),
        (json!({"chosen": "blue", "rejected": "green"}), "no word in common"),
        (json!({"chosen": "Yes", "rejected": "You"}), "no word in common"),
        (
            json!({"prompt": "other", "chosen": [user, says("b")], "rejected": [user, says("c")]}),
            "`prompt` is a string, expected a list of messages, or what a user asks",
        ),
    ] {
        let message = fault(row.clone(), Format::Preference);
        assert!(message.contains(expected), "{row}: {message}");
    }
    let row = json!({"prompt": [user], "chosen": says("b"), "rejected": {"from": "gpt", "value": "c"}, "margin": 2});
    let read = one(&row, &ReadOptions::default()).unwrap();
    let Example::Preference { rejected, margin, .. } = &read.example else { panic!() };
    assert_eq!(margin, &Some(2.0));
    assert_eq!(rejected.to_json(), json!([says("c")]));
}

#[test]
fn labels_are_read_as_they_are_written() {
    for (label, expected) in [(json!(true), true), (json!(0), false), (json!(1.0), true)] {
        let row = json!({"prompt": "a", "completion": "b", "label": label});
        let read = one(&row, &ReadOptions::default()).unwrap().example;
        assert_eq!(
            read,
            Example::Unpaired { prompt: text("a"), completion: text("b"), label: expected }
        );
    }
    let message =
        fault(json!({"prompt": "a", "completion": "b", "label": "good"}), Format::Unpaired);
    assert!(message.contains("`label` is a string, expected true, false, 1 or 0"), "{message}");
    let row = json!({"prompt": "a", "completions": ["b", "c"], "labels": [true, 0.25], "extra": 1});
    let read = one(&row, &ReadOptions::default()).unwrap();
    let steps = vec!["b".to_owned(), "c".to_owned()];
    assert_eq!(read.example, Example::Steps { prompt: text("a"), steps, labels: vec![1.0, 0.25] });
    for (row, expected) in [
        (json!({"prompt": "a", "steps": [], "labels": []}), "`steps` is empty"),
        (json!({"prompt": "a", "steps": ["b", ""], "labels": [1, 1]}), "`steps[1]` is empty"),
        (
            json!({"prompt": "a", "steps": ["b", 1], "labels": [1, 1]}),
            "`steps[1]` is the number 1, expected a string",
        ),
        (
            json!({"prompt": "a", "steps": ["b"], "labels": [1, 1]}),
            "`labels` is a list of 2, expected a list of 1",
        ),
        (
            json!({"prompt": "a", "steps": ["b"], "labels": [1.5]}),
            "`labels[0]` is the number 1.5, expected true, false or a number from 0 to 1",
        ),
        (
            json!({"prompt": "a", "steps": "b", "labels": [1]}),
            "`steps` is a string, expected a list of strings",
        ),
        (json!({"prompt": "a", "labels": [1]}), "`completions` is missing"),
    ] {
        let message = fault(row, Format::Steps);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn answers_with_scores() {
    let row = json!({"prompt": "a", "completions": ["b", "c", "d"], "rewards": [1, -0.5, 2]});
    let read = one(&row, &ReadOptions::default()).unwrap().example;
    let completions = ["b", "c", "d"].map(text).to_vec();
    let scores = vec![1.0, -0.5, 2.0];
    assert_eq!(read, Example::Ranked { prompt: text("a"), completions, scores });
    for (row, expected) in [
        (json!({"prompt": "a", "completions": ["b"], "scores": [1]}), "at least two answers"),
        (
            json!({"prompt": "a", "completions": ["b", "c", "b"], "scores": [1, 2, 3]}),
            "`completions[0]` and `completions[2]` are the same",
        ),
        (
            json!({"prompt": "a", "completions": ["b", "c"], "scores": [1]}),
            "`scores` is a list of 1, expected a list of 2",
        ),
        (
            json!({"prompt": "a", "completions": ["b", "c"], "scores": [1, "x"]}),
            "`scores[1]` is a string, expected a number",
        ),
        (json!({"prompt": "a", "completions": ["b", " "], "scores": [1, 2]}), "is empty"),
    ] {
        let message = fault(row, Format::Ranked);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn completions_are_of_the_prompts_kind() {
    let user = json!([{"role": "user", "content": "Hi"}]);
    let answer = json!([{"role": "assistant", "content": "Ho"}]);
    for (row, expected) in [
        (
            json!({"prompt": "a", "completion": answer}),
            "`completion` is a list, expected a string, as the prompt is one",
        ),
        (
            json!({"prompt": user, "completion": "b"}),
            "`completion` is a string, expected a list of messages",
        ),
        (json!({"prompt": user, "completion": []}), "`completion` is empty"),
        (json!({"prompt": [], "completion": answer}), "`prompt` is empty"),
        (
            json!({"prompt": user, "completion": user}),
            "`completion[0]` is a message of the role \"user\"",
        ),
        (json!({"prompt": "a", "completion": ""}), "`completion` is empty"),
        (json!({"prompt": "a", "completion": "\n"}), "`completion` is empty"),
    ] {
        let message = fault(row, Format::PromptCompletion);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn rows_become_sequences() {
    let row = one(&json!({"text": ""}), &ReadOptions::default()).unwrap();
    assert_eq!(
        row.sequence().unwrap(),
        Sequence::Text { prompt: String::new(), answer: String::new() }
    );
    let row = one(&json!({"prompt": "a", "completion": "b"}), &ReadOptions::default()).unwrap();
    assert_eq!(row.sequence().unwrap(), Sequence::Text { prompt: "a".into(), answer: "b".into() });
    let row =
        one(&json!({"prompt": "a", "completion": "b", "label": true}), &ReadOptions::default())
            .unwrap();
    assert!(matches!(row.sequence(), Err(Error::Form { found: "a labelled answer", .. })));
    assert!(row.answered(&text("a"), &Body::Messages(vec![])).is_err());
}
