//! Several merges in one file: documents between `---`, of which each but one has a `name:`. A document
//! uses the result of another by naming it where a model could stand.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use super::reader::Problems;
use super::suggestion::did_you_mean;
use super::types::MergeConfig;
use super::{node, read};
use crate::Error;

impl MergeConfig {
    /// Reads all documents of a file.
    ///
    /// # Errors
    /// [`Error::Io`], and those of [`parse_all`](Self::parse_all).
    pub fn read_all(path: impl AsRef<Path>) -> Result<Vec<Self>, Error> {
        let path = path.as_ref();
        Self::parse_all(path, &super::text(path)?)
    }

    /// Reads all documents of a text, in an order in which each stands behind those that it uses; `path`
    /// is what errors name.
    ///
    /// # Errors
    /// [`Error::ConfigFile`] with all that is wrong in any of them, and for a name that two documents
    /// have, a second document without a name, a name that cannot be a folder's or means something
    /// else, a model that is neither a document nor a path, and documents that use each other.
    pub fn parse_all(path: impl AsRef<Path>, text: &str) -> Result<Vec<Self>, Error> {
        let path = path.as_ref();
        let fail = |reason| Error::ConfigFile { path: path.to_owned(), reason };
        let nodes = node::documents(text).map_err(fail)?;
        let mut problems = Problems::default();
        if nodes.is_empty() {
            problems.add(0, super::EMPTY);
        }
        let read = |node| read::config(path, node, &mut problems);
        let documents: Vec<Self> = nodes.iter().filter_map(read).collect();
        check_names(&documents, &mut problems);
        if documents.len() == nodes.len() {
            check_references(&documents, &mut problems);
        }
        problems.finish().map_err(fail)?;
        in_order(documents).map_err(fail)
    }

    /// The names among `documents` that this one uses, each once.
    pub fn uses<'a>(&self, documents: &'a [Self]) -> Vec<&'a str> {
        let references = self.references();
        let used = |name: &&str| references.iter().any(|(_, model)| model.path == Path::new(name));
        documents.iter().filter_map(|document| document.name.as_deref()).filter(used).collect()
    }

    /// Puts the folder `results/NAME` in the place of each name of `documents`. (The results of
    /// intermediate merges have their place there.)
    pub fn place_documents(&mut self, documents: &[Self], results: &Path) {
        let names: Vec<&str> = documents.iter().filter_map(|one| one.name.as_deref()).collect();
        self.change_models(|model| {
            if names.iter().any(|name| model.path == Path::new(name)) {
                model.path = results.join(&model.path);
            }
        });
    }
}

fn check_names(documents: &[MergeConfig], problems: &mut Problems) {
    let mut before: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    for document in documents {
        let name = document.name.as_deref();
        let line = document.line("name").or(document.line("")).unwrap_or(0);
        if let Some(first) = before.get(&name) {
            let problem = match name {
                Some(name) => {
                    format!("the name `{name}` is that of the document in line {first} too")
                }
                None => format!(
                    "no `name`, as in the document in line {first}, expected one in all documents but \
                     the last merge"
                ),
            };
            problems.add(line, problem);
        }
        before.entry(name).or_insert(line);
        let Some(name) = name else { continue };
        let plain = |part| matches!(part, Component::Normal(_));
        if ["union", "base"].contains(&name) {
            problems.add(
                line,
                format!("`name` is `{name}`, which means something else as a tokenizer"),
            );
        } else if !Path::new(name).components().all(plain) {
            problems.add(
                line,
                format!("`name` is `{name}`, expected a folder below that of the results"),
            );
        }
    }
}

/// A name without `/` that is no document's and no path's is a mistake.
fn check_references(documents: &[MergeConfig], problems: &mut Problems) {
    if documents.len() < 2 {
        return;
    }
    let names: Vec<&str> = documents.iter().filter_map(|one| one.name.as_deref()).collect();
    for document in documents {
        for (path, model) in document.references() {
            let text = model.path.to_string_lossy();
            let known = names.iter().any(|name| model.path == Path::new(name));
            if known || text.contains(['/', '\\']) || model.path.exists() {
                continue;
            }
            let near = did_you_mean(&text, names.iter().copied());
            let line = document.line(&path).unwrap_or(0);
            let problem =
                format!("`{path}` is `{text}`, no document of that name and no path{near}");
            problems.add(line, problem);
        }
    }
}

/// Each document behind those that it uses, otherwise in the order of the file.
fn in_order(mut documents: Vec<MergeConfig>) -> Result<Vec<MergeConfig>, String> {
    let mut uses: Vec<Vec<String>> = documents
        .iter()
        .map(|document| document.uses(&documents).into_iter().map(str::to_owned).collect())
        .collect();
    let mut ordered: Vec<MergeConfig> = Vec::new();
    while !documents.is_empty() {
        let done = |name: &String| ordered.iter().any(|one| one.name.as_ref() == Some(name));
        let Some(next) = uses.iter().position(|uses| uses.iter().all(done)) else {
            return Err(format!("documents use each other: {}", cycle(&documents, &uses)));
        };
        uses.remove(next);
        ordered.push(documents.remove(next));
    }
    Ok(ordered)
}

/// `a -> b -> a`. Every document that is left uses one that is left.
fn cycle(documents: &[MergeConfig], uses: &[Vec<String>]) -> String {
    let place = |name: &str| documents.iter().position(|one| one.name.as_deref() == Some(name));
    let mut walked: Vec<usize> = Vec::new();
    let mut here = 0;
    while !walked.contains(&here) {
        walked.push(here);
        here = uses[here].iter().find_map(|name| place(name)).unwrap_or(here);
    }
    let start = walked.iter().position(|place| *place == here).unwrap_or(0);
    let name = |place: &usize| documents[*place].name.as_deref().unwrap_or("(no name)");
    let names: Vec<&str> = walked[start..].iter().chain([&here]).map(name).collect();
    names.join(" -> ")
}
