//! A plan as text.

use std::fmt;

use super::Plan;
use super::coverage::Fate;
use super::output::{Origin, Output};
use crate::dtype;
use crate::methods::{Resolved, Value};

impl fmt::Display for Plan {
    /// The inputs, what becomes of their tensors, the outputs in groups that are made alike, bytes,
    /// warnings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, seed {}", self.config().merge_method, self.seed())?;
        for (input, coverage) in self.inputs().iter().zip(self.coverage()) {
            let [merged, copied, left] = coverage.counts();
            write!(f, "  {}: {merged} tensors merged, {copied} copied", input.name)?;
            if left > 0 {
                write!(f, ", {left} left behind")?;
            }
            writeln!(f)?;
            for (reason, names) in left_behind(&coverage.tensors) {
                let more = names.len().saturating_sub(3);
                let first = names[..names.len() - more].join(", ");
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                writeln!(f, "    left: {first}{more}: {reason}")?;
            }
        }
        writeln!(f, "output: {} tensors, {}", self.outputs().len(), bytes(self.written()))?;
        for output in self.outputs() {
            writeln!(f, "  {}", line(output, self))?;
        }
        for (name, content) in self.companions().files() {
            writeln!(f, "  {name} ({})", bytes(content.len() as u64))?;
        }
        for warning in self.warnings() {
            writeln!(f, "warning: {warning}")?;
        }
        write!(f, "reads {}, writes {}", bytes(self.read()), bytes(self.written()))
    }
}

/// What is left behind, by reason.
fn left_behind(tensors: &[(String, Fate)]) -> Vec<(&str, Vec<&str>)> {
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, fate) in tensors {
        let Fate::Left(reason) = fate else { continue };
        match by_reason.iter_mut().find(|(known, _)| known == reason) {
            Some((_, names)) => names.push(name),
            None => by_reason.push((reason, vec![name])),
        }
    }
    by_reason
}

fn line(output: &Output, plan: &Plan) -> String {
    let input = |place: &usize| plan.inputs()[*place].name.as_str();
    let from = match &output.origin {
        Origin::Copy { input: place, tensor } => {
            let place_ = &plan.inputs()[*place];
            let name = place_.name_of(tensor).unwrap_or_default();
            let name = if name == output.name { String::new() } else { format!(" {name}") };
            format!("copy of {}{name}", input(place))
        }
        Origin::Merge { parameters, base, inputs, .. } => {
            let mut parts: Vec<String> =
                base.iter().map(|(place, _)| format!("base {}", input(place))).collect();
            for (index, (place, _)) in inputs.iter().enumerate() {
                parts.push(format!("{}{}", input(place), of_input(parameters, index)));
            }
            format!("{}{}", parts.join(" + "), shared(parameters))
        }
    };
    format!("{} {:?} {}: {from}", output.name, output.shape, dtype::name(output.dtype))
}

fn of_input(parameters: &Resolved, index: usize) -> String {
    let Some(values) = parameters.inputs.get(index).filter(|values| !values.is_empty()) else {
        return String::new();
    };
    let values: Vec<String> = values.iter().map(|(k, v)| format!("{k} {}", value(v))).collect();
    format!(" ({})", values.join(", "))
}

fn shared(parameters: &Resolved) -> String {
    let values: Vec<String> =
        parameters.shared.iter().map(|(k, v)| format!("{k} {}", value(v))).collect();
    if values.is_empty() { String::new() } else { format!("; {}", values.join(", ")) }
}

fn value(value: &Value) -> String {
    match value {
        Value::Flag(flag) => flag.to_string(),
        Value::Number(number) => format!("{}", (number * 1e6).round() / 1e6),
        Value::Choice(word) => (*word).to_owned(),
    }
}

/// A size for people.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} bytes"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}
