//! The learning rate finder: a short training at a rate that grows, and what its losses suggest.
//!
//! It trains a model of its own and writes no file, so that a run behind it is what it would have been without.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::walk::walk;
use crate::Result;
use crate::backend::Backend;
use crate::data::Dataset;
use crate::optim::Rates;
use crate::recipe::Recipe;

/// How the rate grows, how losses are smoothed, and when to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LrRule {
    /// fastai's: 100 steps, lr = 1e-7·(10/1e-7)^(i/100); the mean of the losses, each weighing .98 of the next one, its
    /// bias taken out; it stops above 4 times the least.
    Fastai,
    /// E1's (fastai 0.7): one epoch of n steps, lr = 1e-5·(10/1e-5)^(i/n); the same smoothing; it stops above 4 times the
    /// least of all but the first 11.
    E1,
    /// torch-lr-finder's, as E5 ran it: 50 steps, lr = 1e-8·1e9^(i/49); from the second on .05 of the loss and .95 of the
    /// smoothed one before; it stops above 5 times the least.
    Torch,
}

impl FromStr for LrRule {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "fastai" => Ok(LrRule::Fastai),
            "e1" => Ok(LrRule::E1),
            "torch" => Ok(LrRule::Torch),
            _ => Err("expected fastai, e1 or torch".into()),
        }
    }
}

/// The points at both ends that suggestions leave out, the same in all three.
const SKIPPED: (usize, usize) = (10, 5);

/// One step of the finder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LrPoint {
    /// The rate of the step.
    pub lr: f64,
    /// The smoothed loss before it.
    pub loss: f64,
}

/// Rates that the losses suggest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Suggestions {
    /// A tenth of the rate with the least loss.
    pub minimum: f64,
    /// The rate where the loss falls fastest.
    pub steep: f64,
    /// Two thirds of the way along the longest stretch of falling losses: fastai's default.
    pub valley: f64,
}

/// What a finder found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LrCurve {
    /// Each step, until the loss was too high or no number.
    pub points: Vec<LrPoint>,
    /// What they suggest; `None` where too few are left.
    pub suggestions: Option<Suggestions>,
}

impl LrRule {
    /// How many steps there are where an epoch has `epoch` of them.
    fn steps(self, epoch: usize) -> usize {
        match self {
            LrRule::Fastai => 100,
            LrRule::E1 => epoch,
            LrRule::Torch => 50,
        }
    }

    /// The rate of step `i`.
    fn lr(self, i: usize, steps: usize) -> f64 {
        let (start, end, last) = match self {
            LrRule::Fastai => (1e-7, 10.0, steps),
            LrRule::E1 => (1e-5, 10.0, steps),
            LrRule::Torch => (1e-8, 10.0, steps - 1),
        };
        start * f64::powf(end / start, i as f64 / last as f64)
    }

    /// What the points suggest; `None` where fewer than two are left without the first 10 and the last 5.
    ///
    /// ```
    /// use handgrad::train::lr_find::{LrPoint, LrRule};
    /// let loss = |i: i32| if i < 60 { 2.0 - 0.01 * f64::from(i) } else { 1.4 + 0.1 * f64::from(i - 59) };
    /// let points: Vec<LrPoint> =
    ///     (0..75).map(|i| LrPoint { lr: 1e-7 * f64::powf(1e8, f64::from(i) / 100.0), loss: loss(i) }).collect();
    /// let found = LrRule::Fastai.suggest(&points).unwrap();
    /// assert!((found.minimum / (0.1 * points[59].lr) - 1.0).abs() < 1e-12);
    /// ```
    pub fn suggest(self, points: &[LrPoint]) -> Option<Suggestions> {
        let kept = SKIPPED.0..points.len().saturating_sub(SKIPPED.1);
        let points = points.get(kept).filter(|kept| kept.len() > 1)?;
        let least = least(points.iter().map(|point| point.loss))?;
        let slopes: Vec<f64> = match self {
            LrRule::Torch => (0..points.len()).map(|i| gradient(points, i)).collect(),
            LrRule::Fastai | LrRule::E1 => points
                .windows(2)
                .map(|pair| (pair[1].loss - pair[0].loss) / (pair[1].lr.ln() - pair[0].lr.ln()))
                .collect(),
        };
        let steep = self::least(slopes.into_iter())?;
        Some(Suggestions {
            minimum: points[least].lr / 10.0,
            steep: points[steep].lr,
            valley: points[valley(points)].lr,
        })
    }
}

/// The place of the least value, the first of equals.
fn least(values: impl Iterator<Item = f64>) -> Option<usize> {
    values.enumerate().reduce(|best, next| if next.1 < best.1 { next } else { best }).map(|(i, _)| i)
}

/// The slope at `i` by index: central differences, one-sided ones at the ends.
fn gradient(points: &[LrPoint], i: usize) -> f64 {
    let (before, after) = (i.saturating_sub(1), (i + 1).min(points.len() - 1));
    (points[after].loss - points[before].loss) / (after - before) as f64
}

/// fastai's `valley`: of the longest falling subsequence that ends at some point (the first such point), taken to begin
/// as many points before as it is long, two thirds in thirds and halves rounded down.
///
/// Of curves above 2000 points a part is looked at, evenly spread: the search takes the square of their number.
fn valley(points: &[LrPoint]) -> usize {
    let stride = points.len().div_ceil(2000);
    let losses: Vec<f64> = points.iter().step_by(stride).map(|point| point.loss).collect();
    let mut longest = vec![1; losses.len()];
    let (mut start, mut end) = (0isize, 0);
    for i in 1..losses.len() {
        for j in 0..i {
            if losses[i] < losses[j] && longest[i] < longest[j] + 1 {
                longest[i] = longest[j] + 1;
            }
            if longest[end] < longest[i] {
                end = i;
                start = end as isize - longest[end] as isize;
            }
        }
    }
    let sections = (end as isize - start) as f64 / 3.0;
    let at = start + sections as isize + (sections / 2.0) as isize;
    stride * at.max(0) as usize
}

/// Smooths losses and says when to stop.
struct Watch {
    rule: LrRule,
    steps: u32,
    average: f64,
    best: f64,
}

impl Watch {
    fn new(rule: LrRule) -> Self {
        Watch { rule, steps: 0, average: 0.0, best: f64::INFINITY }
    }

    /// The smoothed loss after one more, and whether it is too high to go on.
    fn take(&mut self, loss: f64) -> (f64, bool) {
        const KEEP: f64 = 0.98;
        self.steps += 1;
        let (smooth, limit) = match self.rule {
            LrRule::Torch => {
                self.average = if self.steps == 1 { loss } else { 0.05 * loss + 0.95 * self.average };
                (self.average, 5.0)
            }
            LrRule::Fastai | LrRule::E1 => {
                self.average = KEEP * self.average + (1.0 - KEEP) * loss;
                (self.average / (1.0 - KEEP.powi(self.steps as i32)), 4.0)
            }
        };
        let counts = self.rule != LrRule::E1 || self.steps > 11;
        if counts {
            self.best = self.best.min(smooth);
        }
        (smooth, smooth > limit * self.best)
    }
}

/// Runs the finder: a new model by the recipe (its seed, data, optimizer and clipping), trained at a growing rate.
/// `report` is told steps done and all. `stop` set from outside ends it.
///
/// # Errors
/// What the recipe or the dataset gets wrong; kind [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) after `stop`.
pub fn run<B: Backend>(
    recipe: &Recipe,
    dataset: &Arc<Dataset>,
    rule: LrRule,
    stop: &AtomicBool,
    mut report: impl FnMut(usize, usize),
) -> Result<LrCurve> {
    let (mut watch, mut points) = (Watch::new(rule), Vec::new());
    walk::<B>(recipe, dataset, ("lr-find", stop), |setup, reached| {
        let steps = rule.steps(setup.train.steps_per_epoch().div_ceil(recipe.optimizer.accumulate as usize));
        let lr = rule.lr(reached.step, steps);
        let (loss, too_high) = watch.take(reached.loss?);
        points.push(LrPoint { lr, loss });
        report(points.len(), steps);
        (!too_high && points.len() < steps).then_some(Rates::of(lr))
    })?;
    let suggestions = rule.suggest(&points);
    Ok(LrCurve { points, suggestions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_each_rule() {
        let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-12, "{a} {b}");
        near(LrRule::Fastai.lr(0, 100), 1e-7);
        near(LrRule::Fastai.lr(50, 100), 1e-3);
        near(LrRule::Fastai.lr(99, 100), 10.0 / f64::powf(1e8, 0.01));
        near(LrRule::E1.lr(98, 196), 1e-2);
        near(LrRule::Torch.lr(49, 50), 10.0);
        assert_eq!((LrRule::E1.steps(196), LrRule::Fastai.steps(196), LrRule::Torch.steps(1)), (196, 100, 50));
        near(LrRule::E1.lr(0, 1), 1e-5);
    }

    #[test]
    fn smoothing_takes_its_bias_out_and_stops() {
        let mut fastai = Watch::new(LrRule::Fastai);
        assert!((fastai.take(2.0).0 - 2.0).abs() < 1e-12);
        let (second, stop) = fastai.take(1.0);
        assert!((second - (0.02 + 0.98 * 0.04) / (1.0 - 0.98 * 0.98)).abs() < 1e-12 && !stop);
        assert!(fastai.take(1000.0).1);
        let mut torch = Watch::new(LrRule::Torch);
        assert_eq!(torch.take(2.0), (2.0, false));
        assert!((torch.take(1.0).0 - 1.95).abs() < 1e-12);
        assert!((torch.take(9.0).0 - (0.45 + 0.95 * 1.95)).abs() < 1e-12);
        assert!(torch.take(1000.0).1);
        // E1 does not look at the first losses.
        let mut e1 = Watch::new(LrRule::E1);
        assert!((0..11).all(|i| !e1.take(f64::from(i * i)).1));
        let (least, stop) = e1.take(0.0);
        assert!(!stop && !e1.take(1.0).1);
        assert_eq!(e1.best.min(least), e1.best);
        assert!(e1.take(50_000.0).1);
    }

    #[test]
    fn few_points_suggest_nothing_and_many_are_thinned() {
        let points = |n: usize| -> Vec<LrPoint> {
            (0..n).map(|i| LrPoint { lr: 1.0 + i as f64, loss: (i as f64 - 0.7 * n as f64).abs() }).collect()
        };
        for rule in [LrRule::Fastai, LrRule::E1, LrRule::Torch] {
            assert!((0..17).all(|n| rule.suggest(&points(n)).is_none()));
            assert!(rule.suggest(&points(17)).is_some());
            let many = rule.suggest(&points(100_000)).unwrap();
            assert_eq!(many.minimum, 7000.1);
            assert!((many.valley - 35_000.0).abs() < 200.0, "{many:?}");
        }
    }
}
