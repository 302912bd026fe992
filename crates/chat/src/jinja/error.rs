//! What goes wrong while a template is parsed or rendered.

use std::fmt;

/// The kind of a template error, named after the Python exception that Jinja2 would raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The template cannot be parsed.
    Syntax,
    /// The template called `raise_exception`: the message is the template author's.
    Raised,
    /// An undefined value was used where a value is needed.
    Undefined,
    /// The sandbox refuses it: a mutating method, a private attribute.
    Security,
    /// A value of the wrong type.
    Type,
    /// A value of the right type that cannot be used.
    Value,
    /// A filter or test with this name does not exist, or another run-time failure.
    Runtime,
}

/// An error of a template, with the line where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// The message; for [`ErrorKind::Raised`] exactly what the template said.
    pub message: String,
    /// Line of the template, counted from 1; 0 while it is not known.
    pub line: usize,
}

/// An [`Error`] on its way out of the engine: boxed, so that a result is as small as its value.
#[derive(Debug)]
pub(crate) struct Failure(Box<Error>);

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Error { kind, message: message.into(), line: 0 }))
    }

    pub(crate) fn at(mut self, line: usize) -> Self {
        if self.0.line == 0 {
            self.0.line = line;
        }
        self
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        *failure.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == ErrorKind::Raised {
            return f.write_str(&self.message);
        }
        let kind = match self.kind {
            ErrorKind::Syntax => "syntax error",
            ErrorKind::Raised | ErrorKind::Runtime => "error",
            ErrorKind::Undefined => "undefined value",
            ErrorKind::Security => "refused by the sandbox",
            ErrorKind::Type => "type error",
            ErrorKind::Value => "value error",
        };
        write!(f, "{kind} in line {} of the template: {}", self.line, self.message)
    }
}

impl std::error::Error for Error {}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

pub(crate) fn syntax(line: usize, message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Syntax, message).at(line)
}

pub(crate) fn type_error(message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Type, message)
}

pub(crate) fn value_error(message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Value, message)
}

pub(crate) fn runtime(message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Runtime, message)
}
