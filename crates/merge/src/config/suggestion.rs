//! "Did you mean": the nearest of several names.

/// The nearest of `candidates` to `name`, if one is near: at most one edit (an exchange of neighbours
/// counts as one) and one more for each four letters.
///
/// # Examples
/// ```
/// use posttrain_merge::config::suggestion;
///
/// assert_eq!(suggestion("weigth", ["density", "weight"]), Some("weight"));
/// assert_eq!(suggestion("banana", ["density", "weight"]), None);
/// ```
pub fn suggestion<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let distance =
        |known: &'a str| (strsim::damerau_levenshtein(&lower, &known.to_lowercase()), known);
    let (edits, near) = candidates.into_iter().map(distance).min()?;
    (edits <= 1 + name.chars().count() / 4).then_some(near)
}

/// ` (did you mean ...?)`, or nothing.
pub(crate) fn did_you_mean<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    suggestion(name, candidates).map_or(String::new(), |near| format!(" (did you mean `{near}`?)"))
}
