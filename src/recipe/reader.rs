//! Reading a TOML text strictly: every value has a range, every unknown key is an error that names the nearest one.
//!
//! A [`Section`] hands out the values of one table and remembers what it was asked for; [`Section::finish`] refuses
//! what is left over. So the keys of the format are stated once, where they are read, with default and range.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::{Bound, RangeBounds, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::suggest::nearest;
use crate::{Error, ErrorKind, Result};

/// Where a text came from, for errors.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// A file, or a flag.
    pub name: &'a str,
    pub text: &'a str,
    /// Whether the user has seen the text, so that its line numbers mean something.
    pub lines: bool,
}

impl Source<'_> {
    /// An error about `key`, whose place in the text starts at byte `at`.
    pub fn error(&self, at: Option<usize>, key: &str, found: impl Display) -> Error {
        let line = at.filter(|_| self.lines).and_then(|at| self.text.get(..at));
        let line = line.map(|before| format!(":{}", before.matches('\n').count() + 1)).unwrap_or_default();
        let key = if key.is_empty() { String::new() } else { format!(" {key}") };
        Error::new(ErrorKind::Usage, format!("{}{line}:{key}", self.name).trim_end_matches(':'), found)
    }

    /// The text as a table.
    pub fn parse(&self) -> Result<DeTable<'_>> {
        DeTable::parse(self.text)
            .map(Spanned::into_inner)
            .map_err(|e| self.error(e.span().map(|s| s.start), "", e.message().lines().next().unwrap_or("no TOML")))
    }
}

/// The range of a number above 0.
pub(super) const ABOVE_ZERO: (Bound<f64>, Bound<f64>) = (Excluded(0.0), Unbounded);

/// The longest list of numbers.
const MAX_LIST: usize = 1000;

type Value<'a> = &'a Spanned<DeValue<'a>>;

/// One table of the text, or an absent one, whose keys all have their defaults.
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    /// Its dotted path; empty for the whole text.
    path: String,
    /// Where its header is.
    at: Option<usize>,
    table: Option<&'a DeTable<'a>>,
    asked: Vec<&'static str>,
    missing: Option<&'static str>,
}

impl<'a> Section<'a> {
    pub fn root(source: &'a Source<'a>, table: &'a DeTable<'a>) -> Self {
        Section { source, path: String::new(), at: None, table: Some(table), asked: Vec::new(), missing: None }
    }

    fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", _) => key.to_string(),
            (path, "") => path.to_string(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// The error that `key`, or the section itself for an empty one, is `found`.
    pub fn error(&self, key: &str, found: impl Display) -> Error {
        let value = self.table.and_then(|t| t.get(key)).map(|v| v.span().start);
        self.source.error(value.or(self.at), &self.path_of(key), found)
    }

    fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        self.table?.get(key)
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|t| t.contains_key(key))
    }

    /// Whether `key` holds a table rather than a single value.
    pub fn is_table(&self, key: &str) -> bool {
        self.table.and_then(|t| t.get(key)).is_some_and(|v| v.get_ref().is_table())
    }

    /// Whether `key` holds a text.
    pub fn is_text(&self, key: &str) -> bool {
        self.table.and_then(|t| t.get(key)).is_some_and(|v| v.get_ref().is_str())
    }

    /// A finite number within `range`.
    pub fn optional_number(&mut self, key: &'static str, range: impl RangeBounds<f64>) -> Result<Option<f64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        self.number_of(key, value, &range).map(Some)
    }

    pub fn number(&mut self, key: &'static str, default: f64, range: impl RangeBounds<f64>) -> Result<f64> {
        Ok(self.optional_number(key, range)?.unwrap_or(default))
    }

    /// A number without which the section means nothing: [`Section::finish`] reports its absence, after unknown
    /// keys, since a misspelt key is both.
    pub fn required_number(&mut self, key: &'static str, range: impl RangeBounds<f64>) -> Result<f64> {
        let found = self.optional_number(key, range)?;
        if found.is_none() {
            self.missing.get_or_insert(key);
        }
        Ok(found.unwrap_or_default())
    }

    fn number_of(&self, key: &str, value: Value<'a>, range: &impl RangeBounds<f64>) -> Result<f64> {
        let expected = || format!("a finite number{}", words(range));
        let number = match value.get_ref() {
            DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok().map(|i| i as f64),
            DeValue::Float(f) => f.as_str().parse::<f64>().ok(),
            other => return Err(self.error(key, describe(other)).expected(expected())),
        };
        match number {
            Some(number) if number.is_finite() && range.contains(&number) => Ok(number),
            _ => Err(self.error(key, describe(value.get_ref())).expected(expected())),
        }
    }

    /// Three numbers within `range`.
    pub fn required_triple(&mut self, key: &'static str, range: impl RangeBounds<f64>) -> Result<[f64; 3]> {
        self.require(key);
        Ok(self.optional_triple(key, range)?.unwrap_or_default())
    }

    /// Three numbers within `range`, if the key is there.
    pub fn optional_triple(&mut self, key: &'static str, range: impl RangeBounds<f64>) -> Result<Option<[f64; 3]>> {
        self.numbers(key, range, "three numbers: red, green, blue")
    }

    /// Two numbers within `range`.
    pub fn optional_pair(&mut self, key: &'static str, range: impl RangeBounds<f64>) -> Result<Option<[f64; 2]>> {
        self.numbers(key, range, "two numbers: the smaller one first")
    }

    fn numbers<const N: usize>(
        &mut self,
        key: &'static str,
        range: impl RangeBounds<f64>,
        expected: &str,
    ) -> Result<Option<[f64; N]>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let array = value.get_ref().as_array().filter(|array| array.len() == N);
        let array = array.ok_or_else(|| self.error(key, describe(value.get_ref())).expected(expected))?;
        let mut numbers = [0.0; N];
        for (number, value) in numbers.iter_mut().zip(array.iter()) {
            *number = self.number_of(key, value, &range)?;
        }
        Ok(Some(numbers))
    }

    /// [`Section::finish`] reports the absence of `key`.
    pub fn require(&mut self, key: &'static str) {
        if !self.has(key) {
            self.missing.get_or_insert(key);
        }
    }

    /// The values of a list that is not empty, reported by [`Section::finish`] if absent.
    fn required_list(&mut self, key: &'static str) -> Result<&'a [Spanned<DeValue<'a>>]> {
        let Some(value) = self.value(key) else {
            self.missing.get_or_insert(key);
            return Ok(&[]);
        };
        match value.get_ref().as_array() {
            Some(list) if (1..=MAX_LIST).contains(&list.len()) => Ok(list),
            Some(list) => {
                let found = format!("a list of {} numbers", list.len());
                Err(self.error(key, found).expected(format!("1 to {MAX_LIST}")))
            }
            None => Err(self.error(key, describe(value.get_ref())).expected("a list of numbers: [1, 2]")),
        }
    }

    /// Numbers within `range`, at least one.
    pub fn required_numbers(&mut self, key: &'static str, range: impl RangeBounds<f64>) -> Result<Vec<f64>> {
        self.required_list(key)?.iter().map(|value| self.number_of(key, value, &range)).collect()
    }

    /// Whole numbers within `range`, at least one.
    pub fn required_counts(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Result<Vec<u32>> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        let list = self.required_list(key)?.iter();
        list.map(|value| self.count_of(key, value, &range).map(|n| n as u32)).collect()
    }

    /// A whole number within `range`.
    pub fn optional_count(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        self.count_of(key, value, &range).map(Some)
    }

    /// [`Section::optional_count`] for sizes.
    pub fn optional_size(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Result<Option<usize>> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        // The range is one of u32, so nothing is lost.
        Ok(self.optional_count(key, range)?.map(|n| n as usize))
    }

    fn count_of(&self, key: &str, value: Value<'a>, range: &RangeInclusive<u64>) -> Result<u64> {
        let count = match value.get_ref() {
            DeValue::Integer(i) => u64::from_str_radix(i.as_str(), i.radix()).ok(),
            _ => None,
        };
        match count {
            Some(count) if range.contains(&count) => Ok(count),
            _ => Err(self.error(key, describe(value.get_ref())).expected(format!(
                "a whole number from {} to {}",
                range.start(),
                range.end()
            ))),
        }
    }

    /// A list of as many whole numbers as `len` allows, each within `range`.
    pub fn counts(
        &mut self,
        key: &'static str,
        len: RangeInclusive<usize>,
        range: RangeInclusive<usize>,
    ) -> Result<Option<Vec<usize>>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let count = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
            DeValue::Integer(i) => usize::from_str_radix(i.as_str(), i.radix()).ok().filter(|n| range.contains(n)),
            _ => None,
        };
        let items = value.get_ref().as_array().filter(|items| len.contains(&items.len()));
        match items.and_then(|items| items.iter().map(count).collect()) {
            Some(counts) => Ok(Some(counts)),
            None => Err(self.error(key, describe(value.get_ref())).expected(format!(
                "a list of {} to {} whole numbers from {} to {}",
                len.start(),
                len.end(),
                range.start(),
                range.end()
            ))),
        }
    }

    /// [`Section::optional_count`] for numbers of 32 bits.
    pub fn count(&mut self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> Result<u32> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        // The range is one of u32, so nothing is lost.
        Ok(self.optional_count(key, range)?.map_or(default, |n| n as u32))
    }

    /// [`Section::count`], reported by [`Section::finish`] if absent.
    pub fn required_count(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Result<u32> {
        self.require(key);
        self.count(key, 0, range)
    }

    pub fn flag(&mut self, key: &'static str, default: bool) -> Result<bool> {
        Ok(self.optional_flag(key)?.unwrap_or(default))
    }

    pub fn optional_flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        match self.value(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::Boolean(b)) => Ok(Some(*b)),
            Some(other) => Err(self.error(key, describe(other)).expected("true or false")),
        }
    }

    /// A text of one line that is not empty.
    pub fn optional_text(&mut self, key: &'static str) -> Result<Option<String>> {
        match self.value(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::String(s)) if !s.trim().is_empty() && !s.contains(char::is_control) => {
                Ok(Some(s.to_string()))
            }
            Some(other) => Err(self.error(key, describe(other)).expected("a text of one line, in quotes")),
        }
    }

    /// [`Section::optional_text`], reported by [`Section::finish`] if absent.
    pub fn required_text(&mut self, key: &'static str) -> Result<String> {
        let found = self.optional_text(key)?;
        if found.is_none() {
            self.missing.get_or_insert(key);
        }
        Ok(found.unwrap_or_default())
    }

    /// One of a list of names.
    pub fn choice<T: Copy>(&mut self, key: &'static str, default: T, choices: &[(&'static str, T)]) -> Result<T> {
        Ok(self.optional_choice(key, choices)?.unwrap_or(default))
    }

    /// One of a list of names, if the key is there.
    pub fn optional_choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Result<Option<T>> {
        let Some(name) = self.optional_text(key)? else { return Ok(None) };
        if let Some((_, choice)) = choices.iter().find(|(n, _)| *n == name) {
            return Ok(Some(*choice));
        }
        let names: Vec<&str> = choices.iter().map(|(n, _)| *n).collect();
        let error = self.error(key, format!("\"{name}\"")).expected(format!("one of {}", names.join(", ")));
        Err(with_suggestion(error, &name, &names))
    }

    /// The table under `key`.
    pub fn section(&mut self, key: &'static str) -> Result<Section<'a>> {
        let value = self.value(key);
        let table = match value.map(|v| (v, v.get_ref().as_table())) {
            Some((v, None)) => {
                return Err(self
                    .error(key, describe(v.get_ref()))
                    .expected(format!("a section: [{}]", self.path_of(key))));
            }
            found => found.and_then(|(_, table)| table),
        };
        Ok(self.child(key.to_string(), value, table))
    }

    /// The tables of the array under `key`, in order.
    pub fn sections(&mut self, key: &'static str) -> Result<Vec<Section<'a>>> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let wrong = |v: Value<'a>| {
            self.error(key, describe(v.get_ref())).expected(format!("sections: [[{}]]", self.path_of(key)))
        };
        let array = value.get_ref().as_array().ok_or_else(|| wrong(value))?;
        let one = |(i, v): (usize, Value<'a>)| {
            let table = v.get_ref().as_table().ok_or_else(|| wrong(v))?;
            Ok(self.child(format!("{key}.{i}"), Some(v), Some(table)))
        };
        array.iter().enumerate().map(one).collect()
    }

    fn child(&self, key: String, value: Option<Value<'a>>, table: Option<&'a DeTable<'a>>) -> Section<'a> {
        let (asked, missing) = (Vec::new(), None);
        let at = value.map(|v| v.span().start).or(self.at);
        Section { source: self.source, path: self.path_of(&key), at, table, asked, missing }
    }

    /// Refuses keys other than `known`.
    pub fn refuse_unknown(&self, known: &[&str]) -> Result<()> {
        let unknown = |k: &&Spanned<_>| -> bool { !known.contains(&Cow::as_ref(k.get_ref())) };
        let Some(key) = self.table.and_then(|t| t.keys().find(unknown)) else { return Ok(()) };
        let (name, at) = (key.get_ref(), key.span().start);
        let error = self.source.error(Some(at), &self.path_of(name), "unknown key");
        Err(with_suggestion(error.expected(format!("one of {}", known.join(", "))), name, known))
    }

    /// Refuses keys that nothing asked for, then reports a required key that was not there.
    pub fn finish(self) -> Result<()> {
        self.refuse_unknown(&self.asked)?;
        match self.missing {
            Some(key) => Err(self.error(key, "missing").hint(format!("add a line: {key} = …"))),
            None => Ok(()),
        }
    }
}

fn with_suggestion(error: Error, word: &str, candidates: &[&str]) -> Error {
    match nearest(word, candidates.iter().copied()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

/// What was found, short enough for one line.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(s) if s.chars().count() <= 40 => format!("{s:?}"),
        DeValue::Integer(i) if i.as_str().len() <= 40 => i.to_string(),
        DeValue::Float(f) if f.as_str().len() <= 40 => f.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::String(_) => "a long text".into(),
        other => format!("a value of type {}", other.type_str()),
    }
}

/// A range as the end of a sentence.
fn words(range: &impl RangeBounds<f64>) -> String {
    let low = match range.start_bound() {
        Included(low) => format!(" from {low}"),
        Excluded(low) => format!(" above {low}"),
        Unbounded => String::new(),
    };
    let high = match range.end_bound() {
        Included(high) => format!(" up to {high}"),
        Excluded(high) => format!(" to below {high}"),
        Unbounded => String::new(),
    };
    low + &high
}
