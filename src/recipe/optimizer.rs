//! `[optimizer]`: its keys, defaults and ranges, and the optimizer that they make.

use std::ops::Bound::{Excluded, Included};

use serde::Serialize;

use super::phase::MAX_EPOCHS;
use super::reader::{ABOVE_ZERO, Section};
use crate::Result;
use crate::backend::Real;
use crate::optim::{
    Adam, AdamConfig, Decay, GroupRule, Lamb, Lookahead, Muon, MuonConfig, Optimizer, ParamTable, RmsProp,
    RmsPropConfig, Sgd, SgdConfig,
};

/// `[optimizer]`: how gradients become steps. Each phase starts a new optimizer with these settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptimizerRecipe {
    /// Which optimizer, and the settings that it alone has.
    #[serde(flatten)]
    pub method: Method,
    /// λ of the weight decay; a group can have its own.
    pub weight_decay: f64,
    /// How the weight decay enters.
    pub decay: DecayKind,
    /// Whether weight decay covers the parameters of normalisations and biases too.
    pub decay_norm_and_bias: bool,
    /// Slow weights behind those of the optimizer.
    #[serde(flatten)]
    pub lookahead: Option<LookaheadKeys>,
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Method {
    /// [`Sgd`].
    Sgd {
        /// μ in `[0, 1)`.
        momentum: f64,
        /// Nesterov's form of momentum.
        nesterov: bool,
    },
    /// [`Adam`] with the defaults of fastai.
    Adam(AdamKeys),
    /// [`Adam`] with the defaults of PyTorch's AdamW.
    AdamW(AdamKeys),
    /// [`Adam`], rectified, with the defaults of fastai's RAdam.
    RAdam(RAdamKeys),
    /// [`Lookahead`] around RAdam, with the defaults of fastai's ranger.
    Ranger(RAdamKeys),
    /// [`Lamb`] with the defaults of fastai.
    Lamb(AdamKeys),
    /// [`RmsProp`].
    RmsProp {
        /// μ in `[0, 1)`.
        momentum: f64,
        /// β in `[0, 1)`.
        sqr_momentum: f64,
        /// ε above 0.
        eps: f64,
        /// See [`RmsPropConfig::divide_first`].
        divide_first: bool,
    },
    /// [`Muon`].
    Muon(MuonKeys),
}

/// What Muon has; see [`MuonConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MuonKeys {
    /// μ in `[0, 1)`.
    pub momentum: f64,
    /// Look ahead along the moment.
    pub nesterov: bool,
    /// Steps of the iteration.
    pub ns_steps: u32,
    /// Scale steps to the size of Adam's.
    pub match_rms: bool,
    /// The factor on the learning rate of what is no hidden matrix.
    pub adam_lr_scale: f64,
    /// Its β₁.
    pub adam_momentum: f64,
    /// Its β₂.
    pub adam_sqr_momentum: f64,
    /// Its ε.
    pub adam_eps: f64,
}

/// What Adam, rectified or not, and its like have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AdamKeys {
    /// β₁ in `[0, 1)`.
    pub momentum: f64,
    /// β₂ in `[0, 1)`.
    pub sqr_momentum: f64,
    /// ε above 0.
    pub eps: f64,
}

/// [`AdamKeys`], and what RAdam has besides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RAdamKeys {
    /// β₁, β₂, ε.
    #[serde(flatten)]
    pub adam: AdamKeys,
    /// See [`AdamConfig::eps_before_debias`].
    pub eps_before_debias: bool,
    /// See [`AdamConfig::beta`].
    pub beta: f64,
}

/// The settings of [`Lookahead`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LookaheadKeys {
    /// Every so many steps the weights are pulled back to the slow ones.
    #[serde(rename = "lookahead")]
    pub k: u32,
    /// The share of the way that the slow weights then go towards the fast ones.
    #[serde(rename = "lookahead_alpha")]
    pub alpha: f64,
    /// What that share becomes over the phase: α + (end − α)·s^power at the share s of its steps.
    #[serde(rename = "lookahead_alpha_end", skip_serializing_if = "Option::is_none")]
    pub alpha_end: Option<f64>,
    /// The power.
    #[serde(rename = "lookahead_power", skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    /// Running statistics are averaged too.
    #[serde(rename = "lookahead_states", skip_serializing_if = "std::ops::Not::not")]
    pub states: bool,
    /// A phase ends with the slow weights.
    #[serde(rename = "lookahead_finish", skip_serializing_if = "std::ops::Not::not")]
    pub finish: bool,
}

impl LookaheadKeys {
    /// Constant α.
    pub const fn of(k: u32, alpha: f64) -> Self {
        LookaheadKeys { k, alpha, alpha_end: None, power: None, states: false, finish: false }
    }

    /// α where a share of the phase's steps is done, if it moves.
    pub fn alpha_at(&self, share: f64) -> Option<f64> {
        self.alpha_end.map(|end| self.alpha + (end - self.alpha) * share.powf(self.power.unwrap_or(1.0)))
    }
}

/// The names of [`Method`], before their keys are read.
#[derive(Clone, Copy)]
enum Name {
    Sgd,
    Adam,
    AdamW,
    RAdam,
    Ranger,
    Lamb,
    RmsProp,
    Muon,
}

const NAMES: [(&str, Name); 8] = [
    ("sgd", Name::Sgd),
    ("rmsprop", Name::RmsProp),
    ("adam", Name::Adam),
    ("adamw", Name::AdamW),
    ("radam", Name::RAdam),
    ("ranger", Name::Ranger),
    ("lamb", Name::Lamb),
    ("muon", Name::Muon),
];

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
    /// Train them in the first so many epochs of the run; they stay as they are from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u32>,
}

impl OptimizerRecipe {
    /// Keys that mean the same for every optimizer.
    pub(super) const COMMON: [&str; 4] = ["decay_norm_and_bias", "clip_norm", "accumulate", "group"];

    pub(super) fn read(root: &mut Section<'_>) -> Result<Self> {
        let mut s = root.section("optimizer")?;
        let name = s.choice("name", Name::Sgd, &NAMES)?;
        // Defaults of weight decay, its kind, and lookahead.
        let (weight_decay, decay, lookahead) = match name {
            Name::Sgd => (0.0, DecayKind::Coupled, None),
            Name::Adam | Name::AdamW => (0.01, DecayKind::Decoupled, None),
            Name::RAdam | Name::Lamb | Name::RmsProp => (0.0, DecayKind::Decoupled, None),
            Name::Ranger => (0.01, DecayKind::Decoupled, Some(6)),
            Name::Muon => (MuonConfig::DEFAULT.weight_decay, DecayKind::Decoupled, None),
        };
        let mut optimizer = OptimizerRecipe {
            method: Method::read(&mut s, name)?,
            weight_decay: s.number("weight_decay", weight_decay, 0.0..)?,
            decay: s.choice("decay", decay, &[("coupled", DecayKind::Coupled), ("decoupled", DecayKind::Decoupled)])?,
            decay_norm_and_bias: s.flag("decay_norm_and_bias", true)?,
            lookahead: LookaheadKeys::read(&mut s, lookahead)?,
            clip_norm: s.optional_number("clip_norm", ABOVE_ZERO)?,
            accumulate: s.count("accumulate", 1, 1..=65_536)?,
            groups: Vec::new(),
        };
        if let (Method::Muon(_), DecayKind::Coupled) = (optimizer.method, optimizer.decay) {
            return Err(s
                .error("decay", "\"coupled\" for muon, whose steps forget a gradient's size")
                .expected("decoupled"));
        }
        optimizer.groups = s.sections("group")?.into_iter().map(GroupRecipe::read).collect::<Result<_>>()?;
        s.finish()?;
        Ok(optimizer)
    }

    /// The optimizer for the parameters of `table`, and for a model's `states` running statistics where it averages those,
    /// at step 0.
    ///
    /// # Errors
    /// `Usage` for settings that were changed from outside to what no recipe can say.
    pub fn build<E: Real>(&self, table: ParamTable, states: usize) -> Result<Box<dyn Optimizer<E>>> {
        let table = table.decay_norm_and_bias(self.decay_norm_and_bias);
        let decay = match self.decay {
            DecayKind::Coupled => Decay::Coupled(self.weight_decay),
            DecayKind::Decoupled => Decay::Decoupled(self.weight_decay),
        };
        let adam = |keys: AdamKeys| AdamConfig {
            momentum: keys.momentum,
            sqr_momentum: keys.sqr_momentum,
            eps: keys.eps,
            decay,
            ..AdamConfig::fastai(0.0)
        };
        let fast: Box<dyn Optimizer<E>> = match self.method {
            Method::Sgd { momentum, nesterov } => Box::new(Sgd::new(SgdConfig { momentum, nesterov, decay }, table)?),
            Method::Adam(keys) | Method::AdamW(keys) => Box::new(Adam::new(adam(keys), table)?),
            Method::RAdam(keys) | Method::Ranger(keys) => {
                let RAdamKeys { adam: own, eps_before_debias, beta } = keys;
                Box::new(Adam::new(AdamConfig { rectified: true, eps_before_debias, beta, ..adam(own) }, table)?)
            }
            Method::Lamb(keys) => Box::new(Lamb::new(adam(keys), table)?),
            Method::RmsProp { momentum, sqr_momentum, eps, divide_first } => {
                let config = RmsPropConfig { momentum, sqr_momentum, eps, divide_first, decay };
                Box::new(RmsProp::new(config, table)?)
            }
            Method::Muon(keys) => {
                let MuonKeys { momentum, nesterov, ns_steps, match_rms, adam_lr_scale, .. } = keys;
                let (momentum1, eps) = (keys.adam_momentum, keys.adam_eps);
                let adam = adam(AdamKeys { momentum: momentum1, sqr_momentum: keys.adam_sqr_momentum, eps });
                let weight_decay = self.weight_decay;
                let config = MuonConfig { momentum, nesterov, ns_steps, match_rms, weight_decay, adam, adam_lr_scale };
                Box::new(Muon::new(config, table)?)
            }
        };
        match self.lookahead {
            Some(LookaheadKeys { k, alpha, states: averaged, .. }) => {
                let ahead = Lookahead::new(fast, k, alpha)?;
                Ok(Box::new(if averaged { ahead.with_states(states) } else { ahead }))
            }
            None => Ok(fast),
        }
    }

    /// The bytes that the optimizer for the parameters of `table` and `states` running statistics keeps.
    pub fn bytes<E: Real>(&self, table: &ParamTable, states: usize) -> usize {
        let states = if self.lookahead.is_some_and(|ahead| ahead.states) { states } else { 0 };
        let work = if let Method::Muon(_) = self.method { Muon::<E>::work_len(table) } else { 0 };
        self.moments()
            .saturating_mul(table.len())
            .saturating_add(work)
            .saturating_add(states)
            .saturating_mul(size_of::<E>())
    }

    /// How many buffers as long as all parameters the optimizer keeps.
    pub fn moments(&self) -> usize {
        let own = match self.method {
            Method::Sgd { momentum, .. } => usize::from(momentum > 0.0),
            Method::RmsProp { momentum, .. } => 1 + usize::from(momentum > 0.0),
            _ => 2,
        };
        own + usize::from(self.lookahead.is_some())
    }

    /// μ, or β₁ of Adam and its like.
    pub fn momentum(&self) -> f64 {
        match self.method {
            Method::Sgd { momentum, .. } | Method::RmsProp { momentum, .. } => momentum,
            Method::Adam(keys) | Method::AdamW(keys) | Method::Lamb(keys) => keys.momentum,
            Method::RAdam(keys) | Method::Ranger(keys) => keys.adam.momentum,
            Method::Muon(keys) => keys.momentum,
        }
    }

    /// Whether a schedule can move its momentum.
    pub(super) fn has_momentum(&self) -> bool {
        !matches!(self.method, Method::Sgd { momentum: 0.0, .. } | Method::RmsProp { momentum: 0.0, .. })
    }

    /// Whether a parameter stays as it is in an epoch, counted from 0: its group has a rate of 0, or is done by then.
    pub fn freezes(&self, parameter: &str, epoch: u64) -> bool {
        let group = self.rules().iter().position(|rule| rule.matches(parameter)).map(|i| &self.groups[i]);
        group.is_some_and(|g| g.lr_scale == 0.0 || g.epochs.is_some_and(|epochs| epoch >= epochs.into()))
    }

    /// The epochs, counted from 0, in which other parameters are frozen than in the one before; 0 among them.
    pub fn freezing_epochs(&self) -> Vec<u64> {
        std::iter::once(0).chain(self.groups.iter().filter_map(|g| g.epochs.map(u64::from))).collect()
    }

    /// The rules for [`ParamTable::of`].
    pub fn rules(&self) -> Vec<GroupRule> {
        let rule = |g: &GroupRecipe| {
            let GroupRecipe { pattern, lr_scale, weight_decay, .. } = g.clone();
            GroupRule { pattern, lr_scale, weight_decay }
        };
        self.groups.iter().map(rule).collect()
    }
}

impl Method {
    fn read(s: &mut Section<'_>, name: Name) -> Result<Self> {
        Ok(match name {
            Name::Sgd => {
                let method = Method::Sgd {
                    momentum: s.number("momentum", 0.9, 0.0..1.0)?,
                    nesterov: s.flag("nesterov", false)?,
                };
                if let Method::Sgd { momentum: 0.0, nesterov: true } = method {
                    return Err(s.error("nesterov", "true without momentum").expected("momentum above 0"));
                }
                method
            }
            Name::Adam => Method::Adam(AdamKeys::read(s, AdamConfig::fastai(0.0))?),
            Name::AdamW => Method::AdamW(AdamKeys::read(s, AdamConfig::adamw(0.0))?),
            Name::RAdam => Method::RAdam(RAdamKeys::read(s, AdamConfig::radam(0.0))?),
            Name::Ranger => Method::Ranger(RAdamKeys::read(s, AdamConfig::ranger(0.0))?),
            Name::Muon => Method::Muon(MuonKeys::read(s)?),
            Name::Lamb => Method::Lamb(AdamKeys::read(s, AdamConfig::fastai(0.0))?),
            Name::RmsProp => {
                let default = RmsPropConfig::DEFAULT;
                Method::RmsProp {
                    momentum: s.number("momentum", default.momentum, 0.0..1.0)?,
                    sqr_momentum: s.number("sqr_momentum", default.sqr_momentum, 0.0..1.0)?,
                    eps: s.number("eps", default.eps, ABOVE_ZERO)?,
                    divide_first: s.flag("divide_first", default.divide_first)?,
                }
            }
        })
    }
}

impl AdamKeys {
    fn read(s: &mut Section<'_>, default: AdamConfig) -> Result<Self> {
        Ok(AdamKeys {
            momentum: s.number("momentum", default.momentum, 0.0..1.0)?,
            sqr_momentum: s.number("sqr_momentum", default.sqr_momentum, 0.0..1.0)?,
            eps: s.number("eps", default.eps, ABOVE_ZERO)?,
        })
    }
}

impl RAdamKeys {
    fn read(s: &mut Section<'_>, default: AdamConfig) -> Result<Self> {
        Ok(RAdamKeys {
            adam: AdamKeys::read(s, default)?,
            eps_before_debias: s.flag("eps_before_debias", false)?,
            beta: s.number("beta", 0.0, 0.0..)?,
        })
    }
}

impl MuonKeys {
    fn read(s: &mut Section<'_>) -> Result<Self> {
        let default = MuonConfig::DEFAULT;
        Ok(MuonKeys {
            momentum: s.number("momentum", default.momentum, 0.0..1.0)?,
            nesterov: s.flag("nesterov", default.nesterov)?,
            ns_steps: s.count("ns_steps", default.ns_steps, 1..=99)?,
            match_rms: s.flag("match_rms", default.match_rms)?,
            adam_lr_scale: s.number("adam_lr_scale", default.adam_lr_scale, 0.0..)?,
            adam_momentum: s.number("adam_momentum", default.adam.momentum, 0.0..1.0)?,
            adam_sqr_momentum: s.number("adam_sqr_momentum", default.adam.sqr_momentum, 0.0..1.0)?,
            adam_eps: s.number("adam_eps", default.adam.eps, ABOVE_ZERO)?,
        })
    }
}

impl LookaheadKeys {
    fn read(s: &mut Section<'_>, default: Option<u64>) -> Result<Option<Self>> {
        let Some(k) = s.optional_count("lookahead", 1..=1_000_000)?.or(default) else { return Ok(None) };
        let share = (Excluded(0.0), Included(1.0));
        let alpha = s.number("lookahead_alpha", 0.5, share)?;
        let alpha_end = s.optional_number("lookahead_alpha_end", share)?;
        let power = match alpha_end {
            Some(_) => Some(s.number("lookahead_power", 1.0, (Excluded(0.0), Included(100.0)))?),
            None => None,
        };
        let (states, finish) = (s.flag("lookahead_states", false)?, s.flag("lookahead_finish", false)?);
        // The range is one of u32, so nothing is lost.
        Ok(Some(LookaheadKeys { k: k as u32, alpha, alpha_end, power, states, finish }))
    }
}

impl GroupRecipe {
    fn read(mut s: Section<'_>) -> Result<Self> {
        let group = GroupRecipe {
            pattern: s.required_text("pattern")?,
            lr_scale: s.number("lr_scale", 1.0, 0.0..)?,
            weight_decay: s.optional_number("weight_decay", 0.0..)?,
            epochs: s.optional_count("epochs", 1..=MAX_EPOCHS.into())?.map(|n| n as u32),
        };
        s.finish()?;
        Ok(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::ParamEntry;
    use crate::recipe::Recipe;
    use crate::recipe::tests::SMALL;

    /// Every optimizer's own defaults, and that its keys survive a round trip.
    #[test]
    fn optimizers_have_the_defaults_of_fastai_and_pytorch() {
        let read = |keys: &str| {
            let r = Recipe::parse(&SMALL.replace("momentum = 0.5", keys), "small.toml").unwrap();
            assert_eq!(Recipe::parse(&r.to_toml().unwrap(), "small.toml").unwrap(), r, "{keys}");
            r.optimizer
        };
        let adam = |momentum, sqr_momentum, eps| AdamKeys { momentum, sqr_momentum, eps };
        let radam = |adam, eps_before_debias, beta| RAdamKeys { adam, eps_before_debias, beta };
        let (fastai, ranger) = (adam(0.9, 0.99, 1e-5), adam(0.95, 0.99, 1e-6));
        let muon = MuonKeys {
            momentum: 0.95,
            nesterov: true,
            ns_steps: 5,
            match_rms: false,
            adam_lr_scale: 0.015,
            adam_momentum: 0.9,
            adam_sqr_momentum: 0.95,
            adam_eps: 1e-10,
        };
        let rmsprop = Method::RmsProp { momentum: 0.0, sqr_momentum: 0.99, eps: 1e-8, divide_first: false };
        for (name, method, wd, moments) in [
            ("adam", Method::Adam(fastai), 0.01, 2),
            ("adamw", Method::AdamW(adam(0.9, 0.999, 1e-8)), 0.01, 2),
            ("radam", Method::RAdam(radam(fastai, false, 0.0)), 0.0, 2),
            ("ranger", Method::Ranger(radam(ranger, false, 0.0)), 0.01, 3),
            ("lamb", Method::Lamb(fastai), 0.0, 2),
            ("rmsprop", rmsprop, 0.0, 1),
            ("muon", Method::Muon(muon), 0.1, 2),
        ] {
            let optimizer = read(&format!("name = \"{name}\""));
            assert_eq!((optimizer.method, optimizer.weight_decay, optimizer.moments()), (method, wd, moments));
            let lookahead = (name == "ranger").then_some(LookaheadKeys::of(6, 0.5));
            assert_eq!((optimizer.decay, optimizer.lookahead), (DecayKind::Decoupled, lookahead));
            let table = ParamTable::new([ParamEntry::vector("w", 0, 3)], 3, &[]).unwrap();
            assert_eq!(optimizer.build::<f32>(table, 0).unwrap().moments().len(), moments, "{name}");
        }
        let e3 = read("name = \"ranger\"\neps_before_debias = true\nbeta = 50\nlookahead = 5\nlookahead_alpha = 0.8");
        assert_eq!(e3.method, Method::Ranger(radam(ranger, true, 50.0)));
        assert_eq!(e3.lookahead, Some(LookaheadKeys::of(5, 0.8)));
        assert_eq!(read("name = \"rmsprop\"\nmomentum = 0.5").moments(), 2);
        assert_eq!(read("momentum = 0\nlookahead = 3").moments(), 1);
    }
}
