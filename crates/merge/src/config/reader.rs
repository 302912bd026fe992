//! Reading a tree: what is wrong is noted, all of it, and reading goes on.

use super::key_path::{index, key};
use super::node::{Node, Yaml, duplicates};
use super::parameter::Scalar;
use super::suggestion::did_you_mean;

/// What is wrong so far, each with its line.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<(usize, String)>);

/// A mapping with known keys.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) path: String,
    pub(crate) line: usize,
    entries: &'a [(String, usize, Node)],
}

/// A node and its key path.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    pub(crate) path: String,
    pub(crate) node: &'a Node,
}

impl Problems {
    pub(crate) fn add(&mut self, line: usize, problem: impl Into<String>) {
        self.0.push((line, problem.into()));
    }

    /// `path` is something else than expected.
    pub(crate) fn wrong(&mut self, at: &At<'_>, expected: &str) {
        self.add(at.node.line, format!("`{}` is {}, expected {expected}", at.path, at.node.yaml));
    }

    /// All of it in the order of the lines; `Ok` if nothing is wrong.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        self.0.sort_by_key(|(line, _)| *line);
        self.0.dedup();
        let written = |(line, problem): &(usize, String)| match line {
            0 => problem.clone(),
            line => format!("line {line}: {problem}"),
        };
        match &*self.0 {
            [] => Ok(()),
            [one] => Err(written(one)),
            several => {
                let lines: Vec<String> = several.iter().map(written).collect();
                Err(format!("{} problems:\n  {}", lines.len(), lines.join("\n  ")))
            }
        }
    }

    /// A mapping. Unknown and repeated keys are noted.
    pub(crate) fn fields<'a>(
        &mut self,
        at: &At<'a>,
        known: &[&str],
        expected: &str,
    ) -> Option<Fields<'a>> {
        let entries = self.entries(at, expected)?;
        for (name, line, _) in entries {
            if !known.contains(&&**name) {
                let near = did_you_mean(name, known.iter().copied());
                let path = key(&at.path, name);
                self.add(*line, format!("unknown key `{path}`{near}"));
            }
        }
        Some(Fields { path: at.path.clone(), line: at.node.line, entries })
    }

    /// A mapping with free keys. Repeated ones are noted.
    pub(crate) fn entries<'a>(
        &mut self,
        at: &At<'a>,
        expected: &str,
    ) -> Option<&'a [(String, usize, Node)]> {
        let Yaml::Map(entries) = &at.node.yaml else {
            self.wrong(at, expected);
            return None;
        };
        for (name, first, line) in duplicates(entries) {
            let before =
                if first == 0 { String::new() } else { format!(" (first in line {first})") };
            self.add(line, format!("duplicate key `{}`{before}", key(&at.path, name)));
        }
        Some(entries)
    }

    /// The items of a list with at least one.
    pub(crate) fn items<'a>(&mut self, at: &At<'a>, expected: &str) -> Vec<At<'a>> {
        match &at.node.yaml {
            Yaml::List(items) if !items.is_empty() => {
                let item = |(i, node)| At { path: index(&at.path, i), node };
                items.iter().enumerate().map(item).collect()
            }
            _ => {
                self.wrong(at, expected);
                Vec::new()
            }
        }
    }

    pub(crate) fn text(&mut self, at: &At<'_>, expected: &str) -> Option<String> {
        match &at.node.yaml {
            Yaml::Text(text) if !text.is_empty() => Some(text.clone()),
            Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) => {
                self.wrong(at, &format!("{expected}: put it in quotes if it is meant"));
                None
            }
            _ => {
                self.wrong(at, expected);
                None
            }
        }
    }

    /// What a kind of parameter takes, here for a key of its own.
    pub(crate) fn scalar<T>(
        &mut self,
        at: &At<'_>,
        expected: &str,
        convert: impl Fn(&Scalar) -> Option<T>,
    ) -> Option<T> {
        let value = at.node.scalar().as_ref().and_then(convert);
        if value.is_none() {
            self.wrong(at, expected);
        }
        value
    }
}

impl<'a> Fields<'a> {
    /// What stands under a key, null too.
    pub(crate) fn get(&self, name: &str) -> Option<At<'a>> {
        let (_, _, node) = self.entries.iter().find(|(known, ..)| known == name)?;
        Some(At { path: key(&self.path, name), node })
    }

    /// What stands under a key, if it is not null.
    pub(crate) fn optional(&self, name: &str) -> Option<At<'a>> {
        self.get(name).filter(|at| !matches!(at.node.yaml, Yaml::Null))
    }

    /// What has to stand under a key.
    pub(crate) fn required(
        &self,
        problems: &mut Problems,
        name: &str,
        expected: &str,
    ) -> Option<At<'a>> {
        let found = self.optional(name);
        if found.is_none() {
            let line = self.get(name).map_or(self.line, |at| at.node.line);
            problems
                .add(line, format!("`{}` is missing, expected {expected}", key(&self.path, name)));
        }
        found
    }
}

impl Node {
    /// The scalar that a parameter could be.
    pub(crate) fn scalar(&self) -> Option<Scalar> {
        match &self.yaml {
            Yaml::Bool(value) => Some(Scalar::Bool(*value)),
            Yaml::Int(value) => Some(Scalar::Int(*value)),
            Yaml::Float(value) => Some(Scalar::Float(*value)),
            Yaml::Text(text) => Some(Scalar::Text(text.clone())),
            Yaml::Null | Yaml::List(_) | Yaml::Map(_) => None,
        }
    }
}
