//! From a tree to a model.

use std::path::{Path, PathBuf};

use super::model_ref::{Lora, ModelRef, model_path};
use super::node::Yaml;
use super::reader::{At, Problems};

pub(crate) const MODEL: &str = "a model: `path[@revision][+lora[@revision]]`";

/// A model as a text or as `{model, lora, override_architecture}`.
pub(crate) fn model(at: &At<'_>, problems: &mut Problems) -> Option<ModelRef> {
    if let Yaml::Text(text) = &at.node.yaml {
        return ModelRef::parse(text)
            .map_err(|reason| problems.wrong(at, &format!("{MODEL} ({reason})")))
            .ok();
    }
    if !matches!(at.node.yaml, Yaml::Map(_)) {
        problems.text(at, MODEL);
        return None;
    }
    let fields = problems.fields(at, &["model", "lora", "override_architecture"], MODEL)?;
    let lora = fields.optional("lora").and_then(|at| path(&at, problems));
    let class = "the name of a class";
    let override_architecture =
        fields.optional("override_architecture").and_then(|at| problems.text(&at, class));
    let at = fields.required(problems, "model", "a path")?;
    let (path, revision) = path(&at, problems)?;
    let lora = lora.map(|(path, revision)| Lora { path, revision });
    Some(ModelRef { path, revision, lora, override_architecture })
}

/// `path[@revision]`, or `{path, revision}`, where the path is not cut.
fn path(at: &At<'_>, problems: &mut Problems) -> Option<(PathBuf, Option<String>)> {
    let expected = "a path: `path[@revision]` or {path, revision}";
    if !matches!(at.node.yaml, Yaml::Map(_)) {
        let text = problems.text(at, expected)?;
        return model_path(Path::new(""), &text)
            .map_err(|reason| problems.wrong(at, &format!("{expected} ({reason})")))
            .ok();
    }
    let fields = problems.fields(at, &["path", "revision"], expected)?;
    let revision = fields.optional("revision").and_then(|at| problems.text(&at, "a revision"));
    let at = fields.required(problems, "path", "a path")?;
    Some((problems.text(&at, "a path")?.into(), revision))
}
