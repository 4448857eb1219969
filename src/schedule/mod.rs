//! Schedules: the learning rate as a pure function of the step.
//!
//! Nothing is remembered between steps, so a resumed run continues on the curve, and a curve can be drawn without
//! training. Steps are optimizer steps: with accumulation one step stands for several batches.

use serde::{Deserialize, Serialize};

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

/// How the learning rate moves over a phase.
///
/// ```
/// use handgrad::schedule::{Position, Schedule};
/// let sgdr = Schedule::Sgdr { cycle_len: 1, cycle_mult: 1, warm_start: true };
/// let at = |step| sgdr.lr(0.1, Position { step, steps_per_epoch: 196, total_steps: 196 });
/// assert_eq!(at(0), 0.001);
/// assert!((at(98) - 0.05).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schedule", rename_all = "lowercase", deny_unknown_fields)]
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
}

impl Schedule {
    /// The rate of the step at `at`, where the phase's peak rate is `peak`. A phase with no steps per epoch counts
    /// as one step per epoch.
    pub fn lr(&self, peak: f64, at: Position) -> f64 {
        let steps_per_epoch = at.steps_per_epoch.max(1);
        match *self {
            Schedule::Constant => peak,
            Schedule::Step { every_epochs, gamma } => {
                let changes = at.step / steps_per_epoch / u64::from(every_epochs.max(1));
                peak * gamma.powf(changes as f64)
            }
            Schedule::Sgdr { cycle_len, cycle_mult, warm_start } => {
                let cycle = Cycle::of(at.step, steps_per_epoch.saturating_mul(cycle_len.max(1).into()), cycle_mult);
                let (c, nb) = (cycle.step as f64, cycle.steps as f64);
                if warm_start && cycle.index == 0 && c < nb / 20.0 {
                    return peak / 100.0;
                }
                peak / 2.0 * (1.0 + (std::f64::consts::PI * c / nb).cos())
            }
        }
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
mod tests {
    use super::*;
    use std::f64::consts::PI;

    fn rates(schedule: Schedule, peak: f64, steps_per_epoch: u64, epochs: u64) -> Vec<f64> {
        let total_steps = steps_per_epoch * epochs;
        (0..total_steps).map(|step| schedule.lr(peak, Position { step, steps_per_epoch, total_steps })).collect()
    }

    /// E1's scheduler told as what it is, a machine with a state: one answer before the first batch and one after
    /// each batch; `i` counts batches of the whole fit.
    fn published(peak: f64, batches: u64, cycle_len: u64, cycle_mult: u64, steps: u64) -> Vec<f64> {
        let (mut nb, mut c) = (batches * cycle_len, 0);
        let mut answers = Vec::new();
        for i in 0..steps {
            if (i as f64) < nb as f64 / 20.0 {
                c += 1;
                answers.push(peak / 100.0);
                continue;
            }
            answers.push(peak / 2.0 * (1.0 + (PI * c as f64 / nb as f64).cos()));
            c += 1;
            if c == nb {
                c = 0;
                nb *= cycle_mult;
            }
        }
        answers
    }

    #[test]
    fn sgdr_equals_the_published_state_machine() {
        for (batches, cycle_len, cycle_mult, epochs) in
            [(196, 1, 1, 4), (196, 1, 2, 7), (196, 4, 1, 32), (20, 1, 1, 3), (21, 1, 3, 13), (2, 1, 2, 7), (7, 3, 2, 9)]
        {
            let schedule =
                Schedule::Sgdr { cycle_len: cycle_len as u32, cycle_mult: cycle_mult as u32, warm_start: true };
            let ours = rates(schedule, 0.3, batches, epochs);
            assert_eq!(ours, published(0.3, batches, cycle_len, cycle_mult, batches * epochs));
        }
    }

    #[test]
    fn sgdr_by_hand() {
        let ours = rates(Schedule::Sgdr { cycle_len: 1, cycle_mult: 2, warm_start: true }, 1.0, 196, 3);
        assert!(ours[..10].iter().all(|&lr| lr == 0.01));
        assert!((ours[10] - 0.993_590_891_707).abs() < 1e-12, "{}", ours[10]); // (1 + cos(10π/196))/2
        assert!((ours[98] - 0.5).abs() < 1e-15);
        assert!(ours[195] > 0.0 && ours[195] < 1e-4);
        assert_eq!(ours[196], 1.0); // the second cycle has no warm start
        assert!((ours[392] - 0.5).abs() < 1e-15);
        let cold = rates(Schedule::Sgdr { cycle_len: 1, cycle_mult: 2, warm_start: false }, 1.0, 196, 3);
        assert_eq!(cold[0], 1.0);
        assert_eq!(cold[10..], ours[10..]);
    }

    #[test]
    fn constant_and_step() {
        assert!(rates(Schedule::Constant, 0.1, 3, 2).iter().all(|&lr| lr == 0.1));
        let ours = rates(Schedule::Step { every_epochs: 2, gamma: 0.5 }, 1.0, 3, 5);
        assert_eq!(ours, [[1.0; 6].as_slice(), &[0.5; 6], &[0.25; 3]].concat());
    }

    #[test]
    fn epochs_of_cycles() {
        for cycles in 0..6u32 {
            for mult in 1..4u32 {
                let expected: u32 = (0..cycles).map(|i| 5 * mult.pow(i)).sum();
                assert_eq!(sgdr_epochs(cycles, 5, mult), Some(expected));
            }
        }
        assert_eq!(sgdr_epochs(32, 1, 2), Some(u32::MAX));
        assert_eq!(sgdr_epochs(33, 1, 2), None);
        assert_eq!(sgdr_epochs(u32::MAX, 2, 1), None);
    }

    /// No value of a field or of a position may panic or hang.
    #[test]
    fn extreme_values_answer() {
        for n in [0, 1, u32::MAX] {
            for step in [0, 1, u64::MAX] {
                let at = Position { step, steps_per_epoch: step, total_steps: 0 };
                for s in [
                    Schedule::Sgdr { cycle_len: n, cycle_mult: n, warm_start: true },
                    Schedule::Step { every_epochs: n, gamma: 0.5 },
                ] {
                    assert!(s.lr(1.0, at).is_finite() && s.lr(1.0, Position { steps_per_epoch: 0, ..at }).is_finite());
                }
            }
        }
    }

    #[test]
    fn reads_and_writes_text() {
        let sgdr = Schedule::Sgdr { cycle_len: 1, cycle_mult: 2, warm_start: true };
        let text = serde_json::to_string(&sgdr).unwrap();
        assert_eq!(text, r#"{"schedule":"sgdr","cycle_len":1,"cycle_mult":2,"warm_start":true}"#);
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), sgdr);
        assert!(serde_json::from_str::<Schedule>(&text.replace("mult", "muls")).is_err());
    }
}
