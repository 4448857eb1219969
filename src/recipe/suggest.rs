//! "Did you mean …?"

/// The candidate that looks most like `word`, if any looks enough like it.
///
/// ```
/// use handgrad::recipe::nearest;
/// assert_eq!(nearest("momentun", ["momentum", "nesterov"]), Some("momentum"));
/// assert_eq!(nearest("colour", ["momentum", "nesterov"]), None);
/// ```
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Jaro–Winkler takes quadratic time; no name is that long.
    let word: String = word.chars().take(100).collect();
    let likeness = |candidate: &&str| strsim::jaro_winkler(&word, candidate);
    let best = candidates.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.75).then_some(best)
}
