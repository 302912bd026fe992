//! The error of the five traits and of value checks.

/// What a model, an endpoint or a verifier answers when it cannot do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field holds a value outside its range.
    #[error("`{field}` is {found}, expected {expected}")]
    InvalidValue {
        /// Name of the field, as it stands in the configuration.
        field: &'static str,
        /// The value found.
        found: String,
        /// The values allowed.
        expected: &'static str,
    },
    /// The implementation does not offer this (an endpoint without log-probs, say).
    #[error("{what} is not supported by {by}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Who cannot do it.
        by: String,
    },
    /// A verifier or reward model could not judge this sample; it is neither right nor wrong.
    #[error("the sample cannot be scored: {reason}")]
    Unscorable {
        /// Why not.
        reason: String,
    },
    /// The caller cancelled the request.
    #[error("the request was cancelled")]
    Cancelled,
    /// The implementation failed: a tensor error, a server's answer, a broken file.
    #[error("{0}")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps the error of an implementation.
    ///
    /// ```
    /// let error = posttrain_core::Error::backend("the server answered 503");
    /// assert_eq!(error.to_string(), "the server answered 503");
    /// ```
    pub fn backend(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Backend(source.into())
    }
}
