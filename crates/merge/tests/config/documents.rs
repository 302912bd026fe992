//! Several merges in one file.

use std::path::{Path, PathBuf};

use posttrain_merge::config::MergeConfig;

use super::texts;

fn all(text: &str) -> Result<Vec<MergeConfig>, String> {
    MergeConfig::parse_all("merge.yaml", text).map_err(|error| error.to_string())
}

fn wrong(text: &str) -> String {
    all(text).unwrap_err().strip_prefix("merge.yaml: ").unwrap().to_owned()
}

/// A document with one model.
fn uses(name: &str, model: &str) -> String {
    format!("---\nname: {name}\nmerge_method: linear\nmodels: [{{model: {model}}}]\n")
}

#[test]
fn each_stands_behind_what_it_uses() {
    let text = texts().into_iter().find(|(file, _)| file == "multi.yaml").unwrap().1;
    let documents = all(&text).unwrap();
    let names: Vec<Option<&str>> = documents.iter().map(|one| one.name.as_deref()).collect();
    assert_eq!(names, [Some("first"), Some("second"), None]);
    assert_eq!(documents[2].uses(&documents), ["first", "second"]);
    assert_eq!(documents[1].uses(&documents), ["first"]);
    assert_eq!(documents[0].uses(&documents), [""; 0]);
    let mut last = documents[2].clone();
    last.place_documents(&documents, Path::new("out"));
    let paths: Vec<PathBuf> =
        last.references().into_iter().map(|(_, model)| model.path.clone()).collect();
    assert_eq!(paths, ["out/first", "out/first", "out/second", "out/second"].map(PathBuf::from));
    let mut second = documents[1].clone();
    second.place_documents(&documents, Path::new("out"));
    assert_eq!(second.models()[1].path, Path::new("./models/c"));
}

#[test]
fn the_file_keeps_its_order_where_it_can() {
    let text = [uses("c", "./x"), uses("a", "./x"), uses("b", "./x")].concat();
    let names: Vec<String> = all(&text).unwrap().into_iter().filter_map(|one| one.name).collect();
    assert_eq!(names, ["c", "a", "b"]);
    // A name with an adapter or a revision is that name too; empty documents are none.
    let text = [uses("a", "b@x+./lora"), "---\n".into(), uses("b", "./x")].concat();
    let names: Vec<String> = all(&text).unwrap().into_iter().filter_map(|one| one.name).collect();
    assert_eq!(names, ["b", "a"]);
}

#[test]
fn what_is_wrong_between_documents() {
    assert_eq!(
        wrong(&[uses("a", "c"), uses("b", "a"), uses("c", "b"), uses("d", "a")].concat()),
        "documents use each other: a -> c -> b -> a"
    );
    assert_eq!(
        wrong(&[uses("d", "a"), uses("a", "a")].concat()),
        "documents use each other: a -> a"
    );
    assert_eq!(
        wrong(&[uses("a", "./x"), uses("a", "./x")].concat()),
        "line 6: the name `a` is that of the document in line 2 too"
    );
    assert_eq!(
        wrong(&[uses("first", "./x"), uses("b", "frist")].concat()),
        "line 8: `models[0].model` is `frist`, no document of that name and no path (did you mean `first`?)"
    );
    let unnamed = "merge_method: linear\nmodels: [{model: ./a}]\n";
    assert_eq!(
        wrong(&format!("{unnamed}---\n{unnamed}")),
        "line 4: no `name`, as in the document in line 1, expected one in all documents but the last merge"
    );
    assert_eq!(
        wrong(&uses("union", "./x")),
        "line 2: `name` is `union`, which means something else as a tokenizer"
    );
    for name in ["../a", "/a", "a/../../b"] {
        let expected =
            format!("line 2: `name` is `{name}`, expected a folder below that of the results");
        assert_eq!(wrong(&uses(name, "./x")), expected);
    }
    assert!(all(&uses("a/b", "./x")).is_ok());
    assert!(wrong("# nothing\n").starts_with("the file is empty"));
    // The problems of all documents at once.
    assert_eq!(
        wrong("name: a\nmodels: [{model: ./x}]\n---\nname: b\nmerge_method: linear\n"),
        "2 problems:\n  line 1: `merge_method` is missing, expected the name of a method\n  \
         line 4: the configuration has none of `models`, `slices`, `modules`, expected one"
    );
}

#[test]
fn one_merge_is_one_document() {
    let text = [uses("a", "./x"), uses("b", "./x")].concat();
    assert_eq!(super::wrong(&text), "2 documents (the second from line 6), expected one");
}
