//! `[[phase]]`: its keys, defaults and ranges.

use std::ops::Bound::{Excluded, Included};

use serde::Serialize;

use super::reader::{ABOVE_ZERO, Section};
use crate::Result;
use crate::schedule::{Schedule, sgdr_epochs};

/// The most epochs of a phase; above it a run would never end, and products with it stay far from overflow.
pub(super) const MAX_EPOCHS: u32 = 1_000_000;

/// The largest divisor or factor of a rate.
const LARGE: f64 = 1e12;

/// `[[phase]]`: a stretch of training. Phases run in sequence on the same weights, each with a new optimizer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// The learning rate that the schedule starts from, or its peak.
    pub lr: f64,
    /// Before the phase, scale each layer until its output has mean 0 and deviation 1.
    pub lsuv: bool,
    /// How long it lasts.
    #[serde(flatten)]
    pub length: Length,
    /// How the learning rate moves.
    #[serde(flatten)]
    pub schedule: Schedule,
}

/// How long a phase lasts: the key `epochs`, or `cycles` under the schedule `sgdr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// Passes over the training images.
    Epochs(u32),
    /// Cycles of the schedule.
    Cycles(u32),
}

#[derive(Clone, Copy)]
enum Kind {
    Constant,
    Step,
    MultiStep,
    Sgdr,
    FlatCosine,
    OneCycle,
    OneCycleTorch,
    CosineUpDown,
    Cosine,
    Polynomial,
    Piecewise,
}

const KINDS: [(&str, Kind); 11] = [
    ("constant", Kind::Constant),
    ("step", Kind::Step),
    ("multi_step", Kind::MultiStep),
    ("sgdr", Kind::Sgdr),
    ("flat_cosine", Kind::FlatCosine),
    ("one_cycle", Kind::OneCycle),
    ("one_cycle_torch", Kind::OneCycleTorch),
    ("cosine_up_down", Kind::CosineUpDown),
    ("cosine", Kind::Cosine),
    ("polynomial", Kind::Polynomial),
    ("piecewise", Kind::Piecewise),
];

impl Phase {
    /// Keys that mean the same for every schedule, sgdr's length aside.
    pub(super) const COMMON: [&str; 3] = ["lr", "epochs", "lsuv"];

    /// Its length in epochs; a cycle of any other schedule than SGDR is one epoch.
    pub fn epochs(&self) -> u32 {
        match (self.length, &self.schedule) {
            (Length::Cycles(n), &Schedule::Sgdr { cycle_len, cycle_mult, .. }) => {
                sgdr_epochs(n, cycle_len, cycle_mult).unwrap_or(u32::MAX)
            }
            (Length::Epochs(n) | Length::Cycles(n), _) => n,
        }
    }

    /// `has_momentum`: whether the recipe's optimizer keeps a momentum that a schedule could move.
    pub(super) fn read(mut s: Section<'_>, has_momentum: bool) -> Result<Self> {
        let kind = s.choice("schedule", Kind::Constant, &KINDS)?;
        let lr = s.required_number("lr", ABOVE_ZERO)?;
        let length = match kind {
            Kind::Sgdr => {
                if s.has("epochs") {
                    let found = "not a key of the schedule sgdr, whose length is a number of cycles";
                    return Err(s.error("epochs", found).hint("write `cycles = …` instead"));
                }
                Length::Cycles(s.required_count("cycles", 1..=MAX_EPOCHS)?)
            }
            _ => {
                if s.has("cycles") {
                    let found = "not a key of this schedule, whose length is a number of epochs";
                    return Err(s.error("cycles", found).hint("write `epochs = …`, or `schedule = \"sgdr\"`"));
                }
                Length::Epochs(s.required_count("epochs", 1..=MAX_EPOCHS)?)
            }
        };
        let lsuv = s.flag("lsuv", false)?;
        let phase = Phase { lr, lsuv, length, schedule: schedule(&mut s, kind)? };
        if phase.epochs() > MAX_EPOCHS {
            return Err(s.error("cycles", "too many epochs together").expected(format!("at most {MAX_EPOCHS} epochs")));
        }
        if phase.schedule.moves_momentum() && !has_momentum {
            let e = s.error("cycle_momentum", "a momentum that moves, and an optimizer without one");
            return Err(e.hint("write `cycle_momentum = false`, or give the optimizer a momentum above 0"));
        }
        s.finish()?;
        Ok(phase)
    }

    /// The same phase lasting `epochs`: cycles of SGDR become one cycle, so that it still anneals to the end.
    pub(super) fn lasting(&self, epochs: u32) -> Phase {
        match self.schedule {
            _ if self.epochs() == epochs => self.clone(),
            Schedule::Sgdr { warm_start, .. } => {
                let schedule = Schedule::Sgdr { cycle_len: epochs, cycle_mult: 1, warm_start };
                Phase { length: Length::Cycles(1), schedule, ..*self }
            }
            _ => Phase { length: Length::Epochs(epochs), ..self.clone() },
        }
    }
}

/// The keys of one schedule.
fn schedule(s: &mut Section<'_>, kind: Kind) -> Result<Schedule> {
    let gamma_range = (Excluded(0.0), Excluded(1e3));
    let share = 0.0..=1.0;
    let factor = 0.0..=LARGE;
    let divisor = (Excluded(0.0), Included(LARGE));
    Ok(match kind {
        Kind::Constant => Schedule::Constant,
        Kind::Step => Schedule::Step {
            every_epochs: s.required_count("every_epochs", 1..=MAX_EPOCHS)?,
            gamma: s.number("gamma", 0.1, gamma_range)?,
        },
        Kind::MultiStep => Schedule::MultiStep {
            milestones: s.required_counts("milestones", 1..=MAX_EPOCHS)?,
            gamma: s.number("gamma", 0.1, gamma_range)?,
        },
        Kind::Sgdr => Schedule::Sgdr {
            cycle_len: s.count("cycle_len", 1, 1..=MAX_EPOCHS)?,
            cycle_mult: s.count("cycle_mult", 1, 1..=MAX_EPOCHS)?,
            warm_start: s.flag("warm_start", true)?,
        },
        Kind::FlatCosine => Schedule::FlatCosine {
            start: s.number("start", 0.75, share)?,
            end_factor: s.number("end_factor", 1e-5, factor)?,
        },
        Kind::OneCycle => Schedule::OneCycle {
            up: s.number("up", 0.25, share)?,
            div: s.number("div", 25.0, divisor)?,
            final_div: s.number("final_div", 1e5, divisor)?,
            cycle_momentum: s.flag("cycle_momentum", true)?,
            momentum_high: s.number("momentum_high", 0.95, 0.0..1.0)?,
            momentum_low: s.number("momentum_low", 0.85, 0.0..1.0)?,
        },
        Kind::OneCycleTorch => Schedule::OneCycleTorch {
            up: s.number("up", 0.3, share)?,
            div: s.number("div", 25.0, divisor)?,
            final_div: s.number("final_div", 1e4, divisor)?,
            cycle_momentum: s.flag("cycle_momentum", true)?,
            momentum_high: s.number("momentum_high", 0.95, 0.0..1.0)?,
            momentum_low: s.number("momentum_low", 0.85, 0.0..1.0)?,
        },
        Kind::CosineUpDown => Schedule::CosineUpDown {
            up: s.number("up", 0.3, share)?,
            start_lr: s.required_number("start_lr", 0.0..)?,
            end_lr: s.required_number("end_lr", 0.0..)?,
        },
        Kind::Cosine => Schedule::Cosine {
            warmup_epochs: s.number("warmup_epochs", 0.0, 0.0..=f64::from(MAX_EPOCHS))?,
            warmup_factor: s.number("warmup_factor", 0.01, share)?,
            end_factor: s.number("end_factor", 0.0, factor)?,
        },
        Kind::Polynomial => Schedule::Polynomial {
            power: s.number("power", 1.0, (Excluded(0.0), Included(1e3)))?,
            end_factor: s.number("end_factor", 0.0, factor)?,
        },
        Kind::Piecewise => {
            let (at, factors) = (s.required_numbers("at", share)?, s.required_numbers("factors", factor)?);
            if !at.is_sorted_by(|a, b| a < b) {
                return Err(s.error("at", "shares that do not rise").expected("each above the one before"));
            }
            if at.len() != factors.len() {
                let found = format!("{} factors for {} points", factors.len(), at.len());
                return Err(s.error("factors", found).expected("one for each of `at`"));
            }
            Schedule::Piecewise { at, factors }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use crate::recipe::tests::SMALL;

    #[test]
    fn schedules_have_the_defaults_of_fastai_and_pytorch() {
        let read = |keys: &str| {
            let r = Recipe::parse(&SMALL.replace("lr = 0.1", &format!("lr = 0.1\n{keys}")), "small.toml").unwrap();
            assert_eq!(Recipe::parse(&r.to_toml().unwrap(), "small.toml").unwrap(), r, "{keys}");
            r.phases[0].schedule.clone()
        };
        let (cycle_momentum, momentum_high, momentum_low) = (true, 0.95, 0.85);
        for (keys, schedule) in [
            ("schedule = \"flat_cosine\"", Schedule::FlatCosine { start: 0.75, end_factor: 1e-5 }),
            (
                "schedule = \"flat_cosine\"\nstart = 0.72\nend_factor = 0",
                Schedule::FlatCosine { start: 0.72, end_factor: 0.0 },
            ),
            (
                "schedule = \"one_cycle\"",
                Schedule::OneCycle { up: 0.25, div: 25.0, final_div: 1e5, cycle_momentum, momentum_high, momentum_low },
            ),
            (
                "schedule = \"one_cycle_torch\"",
                Schedule::OneCycleTorch {
                    up: 0.3,
                    div: 25.0,
                    final_div: 1e4,
                    cycle_momentum,
                    momentum_high,
                    momentum_low,
                },
            ),
            (
                "schedule = \"cosine_up_down\"\nstart_lr = 0.1\nend_lr = 0.05",
                Schedule::CosineUpDown { up: 0.3, start_lr: 0.1, end_lr: 0.05 },
            ),
            (
                "schedule = \"cosine\"\nwarmup_epochs = 0.5",
                Schedule::Cosine { warmup_epochs: 0.5, warmup_factor: 0.01, end_factor: 0.0 },
            ),
            ("schedule = \"polynomial\"\npower = 2", Schedule::Polynomial { power: 2.0, end_factor: 0.0 }),
            (
                "schedule = \"multi_step\"\nmilestones = [1, 2]",
                Schedule::MultiStep { milestones: vec![1, 2], gamma: 0.1 },
            ),
            (
                "schedule = \"piecewise\"\nat = [0, 0.5]\nfactors = [0.5, 1]",
                Schedule::Piecewise { at: vec![0.0, 0.5], factors: vec![0.5, 1.0] },
            ),
        ] {
            assert_eq!(read(keys), schedule);
        }
    }
}
