//! Schedules: the rates of a step as a pure function of where it lies.
//!
//! Nothing is remembered between steps, so a resumed run continues on the curve, and a curve can be drawn without
//! training. Steps are optimizer steps: with accumulation one step stands for several batches. The rates for step i are
//! set before step i: the first step has position 0, the last one (n − 1)/n.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::optim::Rates;

/// Where a step lies in its phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Steps made before this one in the phase: 0 is the first.
    pub step: u64,
    /// Steps per epoch.
    pub steps_per_epoch: u64,
    /// Steps of the whole phase.
    pub total_steps: u64,
}

impl Position {
    /// The same place one step later.
    #[must_use]
    pub fn after(self) -> Position {
        Position { step: self.step.saturating_add(1), ..self }
    }

    /// The share of the phase that is done, from 0 to 1.
    pub fn share(self) -> f64 {
        (self.step as f64 / self.total_steps.max(1) as f64).min(1.0)
    }

    /// Epochs done.
    fn epochs(self) -> f64 {
        self.step as f64 / self.steps_per_epoch.max(1) as f64
    }
}

/// How the learning rate, and sometimes the momentum, move over a phase.
///
/// ```
/// use handgrad::schedule::{Position, Schedule};
/// let sgdr = Schedule::Sgdr { cycle_len: 1, cycle_mult: 1, warm_start: true };
/// let at = |step| sgdr.rates(0.1, Position { step, steps_per_epoch: 196, total_steps: 196 });
/// assert_eq!((at(0).lr, at(0).momentum), (0.001, None));
/// assert!((at(98).lr - 0.05).abs() < 1e-12);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schedule", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The same rate at every step.
    Constant,
    /// The rate times `gamma` after every `every_epochs` epochs.
    Step {
        /// Epochs between two changes; 0 counts as 1.
        every_epochs: u32,
        /// The factor of each change.
        gamma: f64,
    },
    /// Cosine annealing with warm restarts (Loshchilov and Hutter 2017) as fastai 0.7 computes it, which is what
    /// E1's `fit(lr, n, cycle_len, cycle_mult)` trained with.
    ///
    /// With `nb` the steps of the current cycle (`cycle_len` epochs in the first, times `cycle_mult` at each cycle's
    /// end) and `c` the steps made in it, the rate is `lr/2·(1 + cos(π·c/nb))`. The warm start replaces it by
    /// `lr/100` while `c < nb/20`, in the first cycle only.
    ///
    /// What the published callback does at its edges, and so does this: `c` counts the warm steps too, so the cosine
    /// takes over where it would have been without them (196 steps: ten warm ones, then `cos(10π/196)`); `nb/20` is
    /// not rounded, so even the shortest cycle has one warm step; the rate for step `i` is set before step `i`; and
    /// the last step of a cycle has `c = nb − 1`, so the rate ends just above 0 and never is 0. Left out: a first
    /// cycle of one step, which the published code never ends, and a second warm start where `cycle_mult` is above
    /// 20, an accident of counting steps from the start of the fit.
    Sgdr {
        /// Epochs of the first cycle; 0 counts as 1.
        cycle_len: u32,
        /// Each cycle is this many times as long as the one before; 0 counts as 1.
        cycle_mult: u32,
        /// The published warm start.
        warm_start: bool,
    },
    /// The rate times `gamma` after each of some epochs: PyTorch's MultiStepLR.
    MultiStep {
        /// Epochs, counted from the phase's start, after which the rate changes; in any order.
        milestones: Vec<u32>,
        /// The factor of each change.
        gamma: f64,
    },
    /// The full rate until a share of the phase is done, then a cosine down to `end_factor` times it: fastai's
    /// `fit_flat_cos` (.75 and 1e-5, what E2 trained with); E3 has .72 and 0.
    FlatCosine {
        /// The share of the phase at which the rate begins to fall, 0 to 1.
        start: f64,
        /// What is left of the rate at the end.
        end_factor: f64,
    },
    /// fastai's `fit_one_cycle` (after Smith and Topin 2017): cosines lr/div → lr → lr/final_div, and for the momentum
    /// high → low → high.
    OneCycle {
        /// The share of the phase in which the rate rises, 0 to 1; fastai has .25.
        up: f64,
        /// The rate starts at lr/div; fastai has 25.
        div: f64,
        /// It ends at lr/final_div; fastai has 1e5.
        final_div: f64,
        /// Whether the momentum (μ, or Adam's β₁) moves against the rate; otherwise the optimizer's own stays.
        cycle_momentum: bool,
        /// The momentum at both ends.
        momentum_high: f64,
        /// The momentum at the peak of the rate.
        momentum_low: f64,
    },
    /// PyTorch's OneCycleLR, which E5 trained with: as [`Schedule::OneCycle`], but the rate ends at
    /// lr/div/final_div, exactly there, and reaches lr one step earlier: with T steps the peak is at `up·T − 1` and the
    /// end at `T − 1`.
    OneCycleTorch {
        /// The share of the phase in which the rate rises, 0 to 1; PyTorch has .3.
        up: f64,
        /// The rate starts at lr/div; PyTorch has 25.
        div: f64,
        /// It ends at lr/div/final_div; PyTorch has 1e4.
        final_div: f64,
        /// Whether the momentum (μ, or Adam's β₁) moves against the rate; otherwise the optimizer's own stays.
        cycle_momentum: bool,
        /// The momentum at both ends.
        momentum_high: f64,
        /// The momentum at the peak of the rate.
        momentum_low: f64,
    },
    /// Two cosines: from `start_lr` up to the phase's rate, then down to `end_lr`. E4 has .1 → .3 over 30 %, then
    /// .3 → .05.
    CosineUpDown {
        /// The share of the phase in which the rate rises, 0 to 1.
        up: f64,
        /// The rate of the first step.
        start_lr: f64,
        /// The rate towards which it falls.
        end_lr: f64,
    },
    /// A line from `warmup_factor` times the rate up to the rate, then a cosine down to `end_factor` times it.
    Cosine {
        /// Epochs of the line, whole or not; 0 leaves it out.
        warmup_epochs: f64,
        /// What the first step has of the rate.
        warmup_factor: f64,
        /// What is left of the rate at the end.
        end_factor: f64,
    },
    /// `end + (1 − end)·(1 − share)^power` times the rate: PyTorch's PolynomialLR, whose end is 0.
    Polynomial {
        /// 1 is a line.
        power: f64,
        /// What is left of the rate at the end.
        end_factor: f64,
    },
    /// Lines through given points.
    Piecewise {
        /// Shares of the phase, 0 to 1, each above the one before.
        at: Vec<f64>,
        /// What the rate is multiplied by there; before the first and behind the last point it stays.
        factors: Vec<f64>,
    },
}

impl Schedule {
    /// The rates of the step at `at`, where the phase's rate is `lr`. A phase with no steps per epoch counts as one
    /// step per epoch.
    pub fn rates(&self, lr: f64, at: Position) -> Rates {
        match *self {
            Schedule::Constant => Rates::of(lr),
            Schedule::Step { every_epochs, gamma } => {
                let changes = at.step / at.steps_per_epoch.max(1) / u64::from(every_epochs.max(1));
                Rates::of(lr * gamma.powf(changes as f64))
            }
            Schedule::MultiStep { ref milestones, gamma } => {
                let epoch = at.step / at.steps_per_epoch.max(1);
                let changes = milestones.iter().filter(|&&milestone| epoch >= u64::from(milestone)).count();
                Rates::of(lr * gamma.powf(changes as f64))
            }
            Schedule::Sgdr { cycle_len, cycle_mult, warm_start } => {
                let first = at.steps_per_epoch.max(1).saturating_mul(cycle_len.max(1).into());
                let cycle = Cycle::of(at.step, first, cycle_mult);
                let (c, nb) = (cycle.step as f64, cycle.steps as f64);
                if warm_start && cycle.index == 0 && c < nb / 20.0 {
                    return Rates::of(lr / 100.0);
                }
                Rates::of(lr / 2.0 * (1.0 + (PI * c / nb).cos()))
            }
            Schedule::FlatCosine { start, end_factor } => {
                Rates::of(up_down(start, lr, lr, lr * end_factor, at.share()))
            }
            Schedule::OneCycle { up, div, final_div, cycle_momentum, momentum_high: high, momentum_low: low } => {
                let share = at.share();
                let momentum = cycle_momentum.then(|| up_down(up, high, low, high, share));
                Rates { momentum, ..Rates::of(up_down(up, lr / div, lr, lr / final_div, share)) }
            }
            Schedule::OneCycleTorch { up, div, final_div, cycle_momentum, momentum_high: high, momentum_low: low } => {
                let half = torch_half(up, at);
                let momentum = cycle_momentum.then(|| half.between(high, low, high));
                Rates { momentum, ..Rates::of(half.between(lr / div, lr, lr / div / final_div)) }
            }
            Schedule::CosineUpDown { up, start_lr, end_lr } => Rates::of(up_down(up, start_lr, lr, end_lr, at.share())),
            Schedule::Cosine { warmup_epochs, warmup_factor, end_factor } => {
                let (done, all) = (at.epochs(), at.total_steps.max(1) as f64 / at.steps_per_epoch.max(1) as f64);
                if done < warmup_epochs {
                    return Rates::of(lr * (warmup_factor + (1.0 - warmup_factor) * done / warmup_epochs));
                }
                let share = ((done - warmup_epochs) / (all - warmup_epochs).max(f64::MIN_POSITIVE)).min(1.0);
                Rates::of(cosine(lr, lr * end_factor, share))
            }
            Schedule::Polynomial { power, end_factor } => {
                Rates::of(lr * (end_factor + (1.0 - end_factor) * (1.0 - at.share()).powf(power)))
            }
            Schedule::Piecewise { at: ref points, ref factors } => {
                Rates::of(lr * interpolate(points, factors, at.share()))
            }
        }
    }

    /// Whether the momentum moves.
    pub fn moves_momentum(&self) -> bool {
        match self {
            Schedule::OneCycle { cycle_momentum, .. } | Schedule::OneCycleTorch { cycle_momentum, .. } => {
                *cycle_momentum
            }
            _ => false,
        }
    }
}

/// A cosine's half from `start` to `end`, `share` of which is done.
fn cosine(start: f64, end: f64, share: f64) -> f64 {
    start + (1.0 + (PI * (1.0 - share)).cos()) * (end - start) / 2.0
}

/// Half a cosine from `start` to `middle`, which is reached at `up`, and another one to `end`.
fn up_down(up: f64, start: f64, middle: f64, end: f64, share: f64) -> f64 {
    if share < up {
        cosine(start, middle, share / up)
    } else {
        cosine(middle, end, (share - up) / (1.0 - up).max(f64::MIN_POSITIVE))
    }
}

/// A step's place in a cycle of PyTorch's.
enum Half {
    /// Share of the way up.
    Up(f64),
    /// Share of the way down.
    Down(f64),
}

fn torch_half(up: f64, at: Position) -> Half {
    let (step, last) = (at.step as f64, at.total_steps.max(1) as f64 - 1.0);
    let peak = up * at.total_steps as f64 - 1.0;
    if step <= peak && peak > 0.0 {
        return Half::Up(step / peak);
    }
    let peak = peak.max(0.0);
    Half::Down(((step - peak) / (last - peak).max(f64::MIN_POSITIVE)).min(1.0))
}

impl Half {
    fn between(&self, start: f64, middle: f64, end: f64) -> f64 {
        match *self {
            Half::Up(share) => cosine(start, middle, share),
            Half::Down(share) => cosine(middle, end, share),
        }
    }
}

/// The line through the points around `x`; 1 without points.
fn interpolate(points: &[f64], values: &[f64], x: f64) -> f64 {
    let next = points.iter().position(|&point| point > x).unwrap_or(points.len());
    let point = |i: usize| Some((*points.get(i)?, *values.get(i)?));
    match (next.checked_sub(1).and_then(point), point(next)) {
        (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
        (Some((_, y)), None) | (None, Some((_, y))) => y,
        (None, None) => 1.0,
    }
}

/// Epochs of `cycles` SGDR cycles: `cycle_len·(1 + m + m² + …)`; `None` if they do not fit in 32 bits.
///
/// ```
/// use handgrad::schedule::sgdr_epochs;
/// assert_eq!(sgdr_epochs(3, 1, 2), Some(7)); // 1 + 2 + 4
/// assert_eq!(sgdr_epochs(8, 4, 1), Some(32));
/// ```
pub fn sgdr_epochs(cycles: u32, cycle_len: u32, cycle_mult: u32) -> Option<u32> {
    if cycle_mult <= 1 {
        return cycles.checked_mul(cycle_len);
    }
    let (mut total, mut len) = (0u32, cycle_len);
    for cycle in 0..cycles {
        total = total.checked_add(len)?;
        // The length of a cycle that is not run may overflow.
        len = if cycle + 1 < cycles { len.checked_mul(cycle_mult)? } else { len };
    }
    Some(total)
}

/// A step's place among the cycles.
struct Cycle {
    index: u64,
    /// Steps made in this cycle.
    step: u64,
    /// Steps of this cycle.
    steps: u64,
}

impl Cycle {
    fn of(step: u64, first: u64, mult: u32) -> Cycle {
        if mult <= 1 {
            return Cycle { index: step / first, step: step % first, steps: first };
        }
        let mut cycle = Cycle { index: 0, step, steps: first };
        while cycle.step >= cycle.steps {
            cycle.step -= cycle.steps;
            cycle.steps = cycle.steps.saturating_mul(mult.into());
            cycle.index += 1;
        }
        cycle
    }
}

#[cfg(test)]
mod tests;
