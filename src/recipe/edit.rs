//! Changing a recipe from the command line.

use toml::{Table, Value};

use super::reader::Source;
use super::{OptimizerRecipe, Phase, Recipe};
use crate::{Error, ErrorKind, Result};

/// No key lies deeper than `data.normalise.mean`; far deeper ones would overflow the stack.
const MAX_DEPTH: usize = 8;

impl Recipe {
    /// Applies `key=value`, such as `optimizer.weight_decay=1e-4` or `phase.0.lr=0.05`, with the checks of a file.
    ///
    /// The value is TOML, or a text that needs no quotes; an empty one takes the key out, which leaves its default.
    /// Another `optimizer.name` or `phase.N.schedule` begins with the defaults of that one.
    ///
    /// # Errors
    /// `Usage`, and the recipe stays as it was: those of [`Recipe::parse`], or a text that is no `key=value`.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        match assignment.split_once('=') {
            Some((key, value)) => self.set_by("--set", key.trim(), value.trim()),
            None => Err(Error::new(ErrorKind::Usage, "--set", format!("\"{assignment}\"")).expected("key=value")),
        }
    }

    /// [`Recipe::set`] on behalf of `flag`, which errors then name: `set_by("--batch", "data.batch", "64")`.
    ///
    /// # Errors
    /// As [`Recipe::set`].
    pub fn set_by(&mut self, flag: &str, key: &str, value: &str) -> Result<()> {
        let mut table = Table::try_from(&*self).map_err(|e| Error::new(ErrorKind::Usage, flag, e))?;
        let wrong = |found: String| Error::new(ErrorKind::Usage, format!("{flag}: {key}"), found);
        let path: Vec<&str> = key.split('.').collect();
        match path.split_last() {
            Some((last, parents)) if !path.contains(&"") && path.len() <= MAX_DEPTH => {
                let parent = descend(&mut table, parents).map_err(wrong)?;
                // The other keys are those of the optimizer, the schedule or the colour that goes.
                match path[..] {
                    ["optimizer", "name"] => parent.retain(|key, _| OptimizerRecipe::COMMON.contains(&key)),
                    ["phase", _, "schedule"] => parent.retain(|key, _| Phase::COMMON.contains(&key)),
                    ["data", "augment", "affine", "outside"] => parent.retain(|key, _| key != "fill"),
                    _ => {}
                }
                if value.is_empty() {
                    parent.remove(*last);
                } else {
                    parent.insert((*last).to_string(), value_of(value));
                }
            }
            _ => return Err(wrong("not a key".into()).expected("names with dots between, such as data.batch")),
        }
        let text = toml::to_string(&table).map_err(|e| wrong(e.to_string()))?;
        *self = Recipe::read(&Source { name: flag, text: &text, lines: false }, &self.name)?;
        Ok(())
    }

    /// Makes the recipe last `epochs` in all: later phases are dropped or shortened, or the last one lasts longer.
    /// A phase of SGDR whose length changes becomes one cycle, so that its rate still falls to the end.
    ///
    /// # Errors
    /// `Usage` unless `epochs` is from 1 to 1,000,000.
    pub fn set_epochs(&mut self, epochs: u32) -> Result<()> {
        if !(1..=super::phase::MAX_EPOCHS).contains(&epochs) {
            return Err(Error::new(ErrorKind::Usage, "--epochs", epochs).expected("a number from 1 to 1000000"));
        }
        let mut left = epochs;
        let mut phases = Vec::new();
        for (i, phase) in self.phases.iter().enumerate() {
            let last = i + 1 == self.phases.len();
            let own = if last { left } else { left.min(phase.epochs()) };
            if own > 0 {
                phases.push(phase.lasting(own));
            }
            left -= own;
        }
        self.phases = phases;
        Ok(())
    }
}

/// The table at `path`: sections that are not there yet are made, numbers count the elements of a list.
fn descend<'a>(table: &'a mut Table, path: &[&str]) -> Result<&'a mut Table, String> {
    let Some((first, rest)) = path.split_first() else { return Ok(table) };
    let mut value = table.entry(*first).or_insert_with(|| Value::Table(Table::new()));
    let mut rest = rest;
    if let Value::Array(items) = value {
        let len = items.len();
        let numbered = rest.split_first().and_then(|(i, after)| Some((i.parse::<usize>().ok()?, after)));
        let (index, after) = numbered.ok_or(format!("{first} is a list: {first}.0, {first}.1, …"))?;
        let place = items.get_mut(index);
        value = place.ok_or(format!("{first} has {len} entries, counted from 0"))?;
        rest = after;
    }
    match value {
        Value::Table(inner) => descend(inner, rest),
        _ => Err(format!("{first} is a single value, not a section")),
    }
}

/// A value of TOML, or of Rust's wider number syntax (`.5`), or the text itself.
fn value_of(text: &str) -> Value {
    let toml = format!("x = {text}").parse::<Table>().ok().filter(|t| t.len() == 1).and_then(|mut t| t.remove("x"));
    toml.or_else(|| text.parse().ok().map(Value::Float)).unwrap_or_else(|| Value::String(text.to_string()))
}
