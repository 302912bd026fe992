//! Parameters: what one may be, and what it is for one tensor.
//!
//! A setting is a scalar, a list (a gradient over the layers), a `{value, filter}`, or a list of those.
//! For a tensor at the relative depth `t` in `[0, 1]`:
//!
//! ```text
//! numbers v_0 .. v_{n-1}:  x = t (n - 1),  i = floor(x),  f = x - i,  (1 - f) v_i + f v_{min(i+1, n-1)}
//! booleans and texts:      v_{floor(t (n - 1))}
//! ```
//!
//! The first of several filters that fits the tensor decides. A filter is a part of the tensor's name;
//! none and `*` fit all. Where none fits, the setting says nothing and the next scope is asked, from
//! the nearest to the widest: source or model, slice, module, whole configuration. Behaviour of
//! mergekit 0.1.5, whose list of what counts as a boolean or a number is that of pydantic 2.

use std::fmt;

use crate::Error;

/// One value as it is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number with a point or an exponent.
    Float(f64),
    /// Anything else; `1e-5` in quotes too.
    Text(String),
}

/// What a parameter's value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A finite number; `true` is 1, and a text is taken if it is one number.
    Number,
    /// A whole number; also as `10.0`, `"10"` or `"10.0"`.
    Integer,
    /// `true`, `yes`, `on`, `y`, `t`, `1` and their opposites, in any case.
    Boolean,
    /// A text.
    Text,
}

/// A scalar or a gradient.
#[derive(Clone, Debug, PartialEq)]
pub enum ScalarOrGradient {
    /// The same at each depth.
    Scalar(Scalar),
    /// At least one value, spread evenly over the depth.
    Gradient(Vec<Scalar>),
}

/// A value for the tensors whose name has `filter` in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditional {
    /// The value for these tensors.
    pub value: ScalarOrGradient,
    /// A part of a tensor's name; none and `*` mean all tensors.
    pub filter: Option<String>,
}

/// All forms of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// `weight: 0.5`, or `weight: [0, 1]`.
    Value(ScalarOrGradient),
    /// `weight: {value: 0.5, filter: mlp}`.
    Conditional(Conditional),
    /// `weight: [{value: 0.5, filter: mlp}, {value: 1}]`.
    Conditionals(Vec<Conditional>),
}

/// The settings of one `parameters` block, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters(pub Vec<(String, Setting)>);

impl Parameters {
    /// The setting of a name.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, setting)| setting)
    }

    /// Whether the block says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The value of a parameter for one tensor: of the first scope that says one, the nearest first. `tensor`
/// is the name that filters are held against (for per-input parameters that of the input tensor), `t` the
/// depth in `[0, 1]`. `None` where no scope says anything: then the method's default counts.
///
/// # Errors
/// [`Error::Value`] for what is not of the kind, and for a gradient of integers that is between two at
/// this depth.
pub fn resolve(
    name: &str,
    kind: Kind,
    tensor: &str,
    t: f64,
    scopes: &[&Parameters],
) -> Result<Option<Scalar>, Error> {
    let mut said = scopes.iter().filter_map(|scope| scope.get(name)?.for_tensor(tensor));
    let Some(value) = said.next() else { return Ok(None) };
    let fail = |found| Error::value(name, format!("{found} (for `{tensor}`)"), kind.to_string());
    value.at(t, kind).map(Some).map_err(fail)
}

/// [`resolve`] for a number.
///
/// # Errors
/// Those of [`resolve`].
pub fn resolve_number(
    name: &str,
    tensor: &str,
    t: f64,
    scopes: &[&Parameters],
) -> Result<Option<f64>, Error> {
    Ok(resolve(name, Kind::Number, tensor, t, scopes)?.and_then(|scalar| scalar.number()))
}

/// [`resolve`] for a boolean.
///
/// # Errors
/// Those of [`resolve`].
pub fn resolve_boolean(
    name: &str,
    tensor: &str,
    t: f64,
    scopes: &[&Parameters],
) -> Result<Option<bool>, Error> {
    Ok(resolve(name, Kind::Boolean, tensor, t, scopes)?.and_then(|scalar| scalar.boolean()))
}

/// [`resolve`] for a whole number.
///
/// # Errors
/// Those of [`resolve`].
pub fn resolve_integer(
    name: &str,
    tensor: &str,
    t: f64,
    scopes: &[&Parameters],
) -> Result<Option<i64>, Error> {
    Ok(resolve(name, Kind::Integer, tensor, t, scopes)?.and_then(|scalar| scalar.integer()))
}

impl Setting {
    /// What it says for a tensor, before the depth: the value of the first filter that fits.
    pub fn for_tensor(&self, tensor: &str) -> Option<&ScalarOrGradient> {
        match self {
            Self::Value(value) => Some(value),
            Self::Conditional(one) => one.fits(tensor).then_some(&one.value),
            Self::Conditionals(all) => {
                all.iter().find(|one| one.fits(tensor)).map(|one| &one.value)
            }
        }
    }

    /// Every scalar in it, with its key path below the setting's own: `""`, `[1]`, `.value`,
    /// `[0].value[2]`.
    pub fn scalars(&self) -> Vec<(String, &Scalar)> {
        match self {
            Self::Value(one) => one.scalars(""),
            Self::Conditional(one) => one.value.scalars(".value"),
            Self::Conditionals(all) => all
                .iter()
                .enumerate()
                .flat_map(|(i, one)| one.value.scalars(&format!("[{i}].value")))
                .collect(),
        }
    }
}

impl Conditional {
    fn fits(&self, tensor: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| filter == "*" || tensor.contains(filter))
    }
}

impl ScalarOrGradient {
    fn scalars(&self, path: &str) -> Vec<(String, &Scalar)> {
        match self {
            Self::Scalar(scalar) => vec![(path.into(), scalar)],
            Self::Gradient(values) => {
                let item = |(i, value)| (format!("{path}[{i}]"), value);
                values.iter().enumerate().map(item).collect()
            }
        }
    }

    /// The value at depth `t`; `Err` is what was found where the kind does not allow it.
    fn at(&self, t: f64, kind: Kind) -> Result<Scalar, String> {
        let values = match self {
            Self::Scalar(scalar) => return scalar.convert(kind),
            Self::Gradient(values) => values,
        };
        let values: Vec<Scalar> =
            values.iter().map(|value| value.convert(kind)).collect::<Result<_, _>>()?;
        let Some(last) = values.len().checked_sub(1) else { return Err("an empty list".into()) };
        let x = t.clamp(0.0, 1.0) * last as f64;
        let i = x as usize;
        if matches!(kind, Kind::Boolean | Kind::Text) {
            return Ok(values[i].clone());
        }
        let (Some(low), Some(high)) = (values[i].number(), values[last.min(i + 1)].number()) else {
            return Ok(values[i].clone());
        };
        let f = x - i as f64;
        Scalar::Float((1.0 - f) * low + f * high).convert(kind)
    }
}

impl Scalar {
    /// The scalar as one of the kind; `Err` is what was found instead.
    ///
    /// # Errors
    /// What it is, for a message.
    pub fn convert(&self, kind: Kind) -> Result<Self, String> {
        let converted = match kind {
            Kind::Number => self.number().map(Self::Float),
            Kind::Integer => self.integer().map(Self::Int),
            Kind::Boolean => self.boolean().map(Self::Bool),
            Kind::Text => matches!(self, Self::Text(_)).then(|| self.clone()),
        };
        converted.ok_or_else(|| self.to_string())
    }

    /// As a finite number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            Self::Text(text) if octal_in_yaml_1_1(text) => None,
            Self::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        }
    }

    /// As a whole number.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Bool(value) => Some(i64::from(*value)),
            Self::Int(value) => Some(*value),
            Self::Float(value) => whole(*value),
            Self::Text(text) if octal_in_yaml_1_1(text) => None,
            Self::Text(text) => text.trim().parse().ok().or_else(|| self.number().and_then(whole)),
        }
    }

    /// As a boolean.
    pub fn boolean(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Int(0) => Some(false),
            Self::Int(1) => Some(true),
            Self::Float(value) if *value == 0.0 => Some(false),
            Self::Float(value) if *value == 1.0 => Some(true),
            Self::Int(_) | Self::Float(_) => None,
            Self::Text(text) => match &*text.to_lowercase() {
                "true" | "yes" | "on" | "y" | "t" | "1" => Some(true),
                "false" | "no" | "off" | "n" | "f" | "0" => Some(false),
                _ => None,
            },
        }
    }
}

/// Beyond 2^53 a float does not say which integer is meant.
fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i64)
}

/// `010` is 8 in YAML 1.1 and 10 elsewhere; so it is nothing here.
fn octal_in_yaml_1_1(text: &str) -> bool {
    let digits = text.trim().trim_start_matches(['-', '+']);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

/// What a message says was found.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "the number {value}"),
            Self::Float(value) => write!(f, "the number {value:?}"),
            Self::Text(text) if octal_in_yaml_1_1(text) => {
                write!(f, "the text {text:?}, octal in YAML 1.1")
            }
            Self::Text(text) => write!(f, "the text {text:?}"),
        }
    }
}

/// What a message says was expected.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "a finite number",
            Self::Integer => "a whole number",
            Self::Boolean => "true or false",
            Self::Text => "a text",
        })
    }
}
