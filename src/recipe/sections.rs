//! The sections of a recipe: their keys, defaults and ranges.

use std::fmt;
use std::ops::Bound::{Excluded, Unbounded};

use serde::Serialize;

use super::reader::Section;
use crate::graph::{Graph, Node};
use crate::models::{self, ModelOptions};
use crate::optim::{Decay, GroupRule, SgdConfig};
use crate::schedule::{Schedule, sgdr_epochs};
use crate::{Error, ErrorKind, Result};

/// The most epochs of a phase; above it a run would never end, and products with it stay far from overflow.
pub(super) const MAX_EPOCHS: u32 = 1_000_000;

const ABOVE_ZERO: (std::ops::Bound<f64>, std::ops::Bound<f64>) = (Excluded(0.0), Unbounded);

/// `[model]`: which network, and its options. `model = "name"` is short for a section with the name alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelRecipe {
    /// Its name among the built-in models.
    pub name: String,
    /// Compute what the published code did, quirks included.
    pub published: bool,
    /// Probability of dropping a feature before the last linear layer; only for models that have such a layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
}

impl ModelRecipe {
    pub(super) fn read(root: &mut Section<'_>) -> Result<Self> {
        if root.has("model") && !root.is_table("model") {
            return Ok(ModelRecipe { name: root.required_text("model")?, published: false, dropout: None });
        }
        let mut s = root.section("model")?;
        let model = ModelRecipe {
            name: s.required_text("name")?,
            published: s.flag("published", false)?,
            dropout: s.optional_number("dropout", 0.0..1.0)?,
        };
        s.finish()?;
        Ok(model)
    }

    /// The network for `classes` classes and images of `size` × `size` pixels.
    ///
    /// # Errors
    /// `Usage` for an unknown name or a dropout where the model has none, `Shape` where images are too small for it.
    pub fn build(&self, classes: usize, size: usize) -> Result<Graph> {
        let dropout = self.dropout.unwrap_or(0.0);
        let options = ModelOptions { classes, size, dropout, published: self.published, norm_eps: None };
        let graph = models::build(&self.name, &options)?;
        let drops = |node: &Node| node.op().is_some_and(|op| op.kind() == "dropout");
        if self.dropout.is_some() && !graph.nodes().iter().any(drops) {
            let found = format!("a dropout for the model {}, which has no such layer", self.name);
            return Err(Error::new(ErrorKind::Usage, "model.dropout", found).hint("leave it out, or take resnet2"));
        }
        Ok(graph)
    }
}

/// `[optimizer]`: how gradients become steps. Each phase starts a new optimizer with these settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptimizerRecipe {
    /// Which optimizer.
    pub name: OptimizerName,
    /// μ in `[0, 1)`.
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// λ of the weight decay; a group can have its own.
    pub weight_decay: f64,
    /// How the weight decay enters.
    pub decay: DecayKind,
    /// Clip the norm of the whole gradient to this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Batches per step, weighted by their number of images.
    pub accumulate: u32,
    /// Parameters with settings of their own; the first pattern that matches a name decides.
    #[serde(rename = "group", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupRecipe>,
}

/// The optimizers that a recipe can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// [`crate::optim::Sgd`].
    Sgd,
}

/// The two kinds of [`Decay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayKind {
    /// Part of the gradient.
    Coupled,
    /// Outside of the gradient.
    Decoupled,
}

/// `[[optimizer.group]]`: see [`GroupRule`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupRecipe {
    /// A parameter's name in which `*` stands for any characters.
    pub pattern: String,
    /// Factor on the learning rate.
    pub lr_scale: f64,
    /// Weight decay instead of the optimizer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

impl OptimizerRecipe {
    pub(super) fn read(root: &mut Section<'_>) -> Result<Self> {
        let mut s = root.section("optimizer")?;
        let mut optimizer = OptimizerRecipe {
            name: s.choice("name", OptimizerName::Sgd, &[("sgd", OptimizerName::Sgd)])?,
            momentum: s.number("momentum", 0.9, 0.0..1.0)?,
            nesterov: s.flag("nesterov", false)?,
            weight_decay: s.number("weight_decay", 0.0, 0.0..)?,
            decay: s.choice(
                "decay",
                DecayKind::Coupled,
                &[("coupled", DecayKind::Coupled), ("decoupled", DecayKind::Decoupled)],
            )?,
            clip_norm: s.optional_number("clip_norm", ABOVE_ZERO)?,
            accumulate: s.count("accumulate", 1, 1..=65_536)?,
            groups: Vec::new(),
        };
        if optimizer.nesterov && optimizer.momentum == 0.0 {
            return Err(s.error("nesterov", "true without momentum").expected("momentum above 0"));
        }
        optimizer.groups = s.sections("group")?.into_iter().map(GroupRecipe::read).collect::<Result<_>>()?;
        s.finish()?;
        Ok(optimizer)
    }

    /// The settings for [`crate::optim::Sgd::new`].
    pub fn sgd(&self) -> SgdConfig {
        let decay = match self.decay {
            DecayKind::Coupled => Decay::Coupled(self.weight_decay),
            DecayKind::Decoupled => Decay::Decoupled(self.weight_decay),
        };
        SgdConfig { momentum: self.momentum, nesterov: self.nesterov, decay }
    }

    /// The rules for [`crate::optim::ParamTable::new`].
    pub fn rules(&self) -> Vec<GroupRule> {
        let rule = |g: &GroupRecipe| {
            let GroupRecipe { pattern, lr_scale, weight_decay } = g.clone();
            GroupRule { pattern, lr_scale, weight_decay }
        };
        self.groups.iter().map(rule).collect()
    }
}

impl GroupRecipe {
    fn read(mut s: Section<'_>) -> Result<Self> {
        let group = GroupRecipe {
            pattern: s.required_text("pattern")?,
            lr_scale: s.number("lr_scale", 1.0, 0.0..)?,
            weight_decay: s.optional_number("weight_decay", 0.0..)?,
        };
        s.finish()?;
        Ok(group)
    }
}

/// `[[phase]]`: a stretch of training. Phases run in sequence on the same weights, each with a new optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// The learning rate that the schedule starts from.
    pub lr: f64,
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
    Sgdr,
}

impl Phase {
    /// Its length in epochs; a cycle of any other schedule than SGDR is one epoch.
    pub fn epochs(&self) -> u32 {
        match (self.length, self.schedule) {
            (Length::Cycles(n), Schedule::Sgdr { cycle_len, cycle_mult, .. }) => {
                sgdr_epochs(n, cycle_len, cycle_mult).unwrap_or(u32::MAX)
            }
            (Length::Epochs(n) | Length::Cycles(n), _) => n,
        }
    }

    pub(super) fn read(mut s: Section<'_>) -> Result<Self> {
        let kinds = [("constant", Kind::Constant), ("step", Kind::Step), ("sgdr", Kind::Sgdr)];
        let kind = s.choice("schedule", Kind::Constant, &kinds)?;
        let lr = s.required_number("lr", ABOVE_ZERO)?;
        let phase = match kind {
            Kind::Sgdr => {
                if s.has("epochs") {
                    let found = "not a key of the schedule sgdr, whose length is a number of cycles";
                    return Err(s.error("epochs", found).hint("write `cycles = …` instead"));
                }
                let length = Length::Cycles(s.required_count("cycles", 1..=MAX_EPOCHS)?);
                let cycle_len = s.count("cycle_len", 1, 1..=MAX_EPOCHS)?;
                let cycle_mult = s.count("cycle_mult", 1, 1..=MAX_EPOCHS)?;
                let warm_start = s.flag("warm_start", true)?;
                Phase { lr, length, schedule: Schedule::Sgdr { cycle_len, cycle_mult, warm_start } }
            }
            Kind::Constant | Kind::Step => {
                if s.has("cycles") {
                    let found = "not a key of this schedule, whose length is a number of epochs";
                    return Err(s.error("cycles", found).hint("write `epochs = …`, or `schedule = \"sgdr\"`"));
                }
                let length = Length::Epochs(s.required_count("epochs", 1..=MAX_EPOCHS)?);
                let schedule = match kind {
                    Kind::Step => Schedule::Step {
                        every_epochs: s.required_count("every_epochs", 1..=MAX_EPOCHS)?,
                        gamma: s.number("gamma", 0.1, (Excluded(0.0), Excluded(1e3)))?,
                    },
                    _ => Schedule::Constant,
                };
                Phase { lr, length, schedule }
            }
        };
        if phase.epochs() > MAX_EPOCHS {
            return Err(s.error("cycles", "too many epochs together").expected(format!("at most {MAX_EPOCHS} epochs")));
        }
        s.finish()?;
        Ok(phase)
    }

    /// The same phase lasting `epochs`: cycles of SGDR become one cycle, so that it still anneals to the end.
    pub(super) fn lasting(self, epochs: u32) -> Phase {
        match self.schedule {
            _ if self.epochs() == epochs => self,
            Schedule::Sgdr { warm_start, .. } => {
                let schedule = Schedule::Sgdr { cycle_len: epochs, cycle_mult: 1, warm_start };
                Phase { length: Length::Cycles(1), schedule, ..self }
            }
            _ => Phase { length: Length::Epochs(epochs), ..self },
        }
    }
}

/// `[train]`: the rest of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainRecipe {
    /// What every random number of the run follows from.
    pub seed: u64,
    /// ε in `[0, 1)`: targets are `(1 − ε)` of the class and `ε` spread over all.
    pub label_smoothing: f64,
    /// Minutes between checkpoints inside an epoch; 0 writes them at epoch ends alone.
    pub checkpoint_minutes: f64,
    /// Augmented passes that the last evaluation averages with the plain one; 0 evaluates plainly.
    pub tta: u32,
    /// The arithmetic.
    pub precision: Precision,
}

/// The arithmetic of a run; what a backend lacks it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is the name of a number format")]
pub enum Precision {
    F32,
    Bf16,
    Tf32,
    Fp16,
    Int8,
}

impl Precision {
    /// Each precision under its name.
    pub const ALL: [(&'static str, Precision); 5] = [
        ("f32", Precision::F32),
        ("bf16", Precision::Bf16),
        ("tf32", Precision::Tf32),
        ("fp16", Precision::Fp16),
        ("int8", Precision::Int8),
    ];
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Precision::ALL.iter().find(|(_, p)| p == self).map_or("", |(name, _)| name))
    }
}

impl std::str::FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Precision::ALL.iter().find(|(n, _)| *n == name).map(|(_, p)| *p).ok_or_else(|| {
            let names = Precision::ALL.map(|(n, _)| n).join(", ");
            Error::new(ErrorKind::Usage, "precision", format!("\"{name}\"")).expected(format!("one of {names}"))
        })
    }
}

impl TrainRecipe {
    pub(super) fn read(root: &mut Section<'_>) -> Result<Self> {
        let mut s = root.section("train")?;
        let train = TrainRecipe {
            // TOML's integers have a sign: 63 bits.
            seed: s.optional_count("seed", 0..=i64::MAX as u64)?.unwrap_or(0),
            label_smoothing: s.number("label_smoothing", 0.0, 0.0..1.0)?,
            checkpoint_minutes: s.number("checkpoint_minutes", 5.0, 0.0..=1e6)?,
            tta: s.count("tta", 0, 0..=1000)?,
            precision: s.choice("precision", Precision::F32, &Precision::ALL)?,
        };
        s.finish()?;
        Ok(train)
    }
}
