//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(5);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Images.
    Images,
    /// Bytes of a download.
    Bytes,
}

/// Shows how far a long task is, and the messages that arise meanwhile.
pub struct Progress {
    bar: Option<ProgressBar>,
    unit: Unit,
    total: Option<u64>,
    done: u64,
    last_line: Instant,
    quiet: bool,
}

impl Progress {
    /// A display for `total` units (if known), `done` of which are there already.
    pub fn new(unit: Unit, total: Option<u64>, done: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(unit, total, done));
        Progress { bar, unit, total, done, last_line: Instant::now(), quiet: false }
    }

    /// A display that shows nothing: for tests.
    pub fn silent() -> Self {
        Progress { bar: None, unit: Unit::Images, total: None, done: 0, last_line: Instant::now(), quiet: true }
    }

    /// Counts `n` more.
    pub fn advance(&mut self, n: u64) {
        self.done += n;
        if let Some(bar) = &self.bar {
            bar.inc(n);
        } else if !self.quiet && self.last_line.elapsed() >= EVERY {
            self.last_line = Instant::now();
            self.warn(&self.line());
        }
    }

    fn line(&self) -> String {
        let count = |n: u64| match self.unit {
            Unit::Images => format!("{n} images"),
            Unit::Bytes => format!("{} MB", n / 1_000_000),
        };
        match self.total {
            Some(total) if total > 0 => {
                format!("{} of {} ({} %)", count(self.done), count(total), self.done.saturating_mul(100) / total)
            }
            _ => count(self.done),
        }
    }

    /// A line that stays above the bar.
    pub fn warn(&self, line: &str) {
        if self.quiet {
            return;
        }
        // Nobody may be listening; that is no reason to stop.
        let print = || drop(writeln!(std::io::stderr(), "{line}"));
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(unit: Unit, total: Option<u64>, done: u64) -> ProgressBar {
    let template = match unit {
        Unit::Images => "{bar:40} {human_pos}/{human_len} images, {per_sec}, {eta} left",
        Unit::Bytes => "{bar:40} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
    };
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    // The template is a constant that a test parses; the default style stands in for the impossible.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_position(done)
}
