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
        let (scale, unit) = match self.unit {
            Unit::Images => (1, "images"),
            Unit::Bytes => (1_000_000, "MB"),
        };
        let done = self.done / scale;
        match self.total {
            Some(total) if total > 0 => {
                let percent = self.done.saturating_mul(100) / total;
                format!("{done} of {} {unit} ({percent} %)", total / scale)
            }
            _ => format!("{done} {unit}"),
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

const IMAGES_BAR: &str = "{bar:40} {human_pos}/{human_len} images, {per_sec}, {eta} left";
const BYTES_BAR: &str = "{bar:40} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";

fn bar(unit: Unit, total: Option<u64>, done: u64) -> ProgressBar {
    let template = if unit == Unit::Images { IMAGES_BAR } else { BYTES_BAR };
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    // The templates are constants that a test parses; the default style stands in for the impossible.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_position(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_parse_and_lines_read_well() {
        assert!([IMAGES_BAR, BYTES_BAR].iter().all(|template| ProgressStyle::with_template(template).is_ok()));
        let line = |unit, total, done| {
            let mut progress = Progress::silent();
            (progress.unit, progress.total, progress.done) = (unit, total, done);
            progress.line()
        };
        assert_eq!(line(Unit::Images, Some(200), 50), "50 of 200 images (25 %)");
        assert_eq!(line(Unit::Bytes, Some(10_000_000), 3_000_000), "3 of 10 MB (30 %)");
        assert_eq!(line(Unit::Images, None, 7), "7 images");
    }
}
