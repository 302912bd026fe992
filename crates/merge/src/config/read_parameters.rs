//! From a tree to parameters.

use super::key_path::key;
use super::node::Yaml;
use super::parameter::{Conditional, Parameters, ScalarOrGradient, Setting};
use super::reader::{At, Fields, Problems};

/// The `parameters` of a mapping; none where there are none.
pub(crate) fn parameters(fields: &Fields<'_>, problems: &mut Problems) -> Parameters {
    let expected = "a mapping from the names of parameters to their values";
    let Some(at) = fields.optional("parameters") else { return Parameters::default() };
    let entries = problems.entries(&at, expected).unwrap_or_default();
    let mut settings = Vec::new();
    for (name, _, node) in entries {
        let at = At { path: key(&at.path, name), node };
        settings.extend(setting(&at, problems).map(|setting| (name.clone(), setting)));
    }
    Parameters(settings)
}

fn setting(at: &At<'_>, problems: &mut Problems) -> Option<Setting> {
    match &at.node.yaml {
        Yaml::Map(_) => conditional(at, problems).map(Setting::Conditional),
        Yaml::List(items) if items.iter().any(|item| matches!(item.yaml, Yaml::Map(_))) => {
            let mut all = Vec::new();
            for item in problems.items(at, "a list") {
                all.extend(conditional(&item, problems));
            }
            Some(Setting::Conditionals(all))
        }
        _ => {
            let expected = "a scalar, a list of scalars, {value, filter} or a list of those";
            scalar_or_gradient(at, expected, problems).map(Setting::Value)
        }
    }
}

fn conditional(at: &At<'_>, problems: &mut Problems) -> Option<Conditional> {
    let fields = problems.fields(at, &["value", "filter"], "a mapping of value and filter")?;
    let filter = fields
        .optional("filter")
        .and_then(|at| problems.text(&at, "a part of the names of tensors"));
    let expected = "a scalar or a list of scalars";
    let at = fields.required(problems, "value", expected)?;
    let value = scalar_or_gradient(&at, expected, problems)?;
    Some(Conditional { value, filter })
}

fn scalar_or_gradient(
    at: &At<'_>,
    expected: &str,
    problems: &mut Problems,
) -> Option<ScalarOrGradient> {
    let Yaml::List(_) = at.node.yaml else {
        return problems
            .scalar(at, expected, |one| Some(one.clone()))
            .map(ScalarOrGradient::Scalar);
    };
    let mut values = Vec::new();
    for item in problems.items(at, "at least one value") {
        values.extend(problems.scalar(&item, "a scalar", |one| Some(one.clone())));
    }
    Some(ScalarOrGradient::Gradient(values))
}
