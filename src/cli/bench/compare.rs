//! `handgrad bench --compare`: the same weights and images on several backends.

use serde::Serialize;

use super::setup::{Contestant, Setup};
use super::{Args, Measured};
use crate::backend::{Precision, Real};
use crate::cli::backend::{Backend, in_pool, on_backend};
use crate::cli::out;
use crate::{Error, ErrorKind, Result};

/// A backend's rates, and how far its first step is from that of the first backend.
#[derive(Serialize)]
struct Compared {
    #[serde(flatten)]
    measured: Measured,
    /// Relative to the first backend's loss.
    loss_difference: f64,
    /// The largest difference of a parameter's gradient, relative to the largest element of that gradient.
    gradient_difference: f64,
    /// Whose that is.
    gradient: String,
}

/// A backend's rates and its first step.
struct Probed {
    measured: Measured,
    loss: f64,
    gradients: Vec<(String, Vec<f64>)>,
}

pub fn run(args: &Args) -> Result<()> {
    if args.compare.len() < 2 {
        let e = Error::new(ErrorKind::Usage, "--compare", "one backend");
        return Err(e.expected("two or more, such as reference,cpu"));
    }
    let wanted = args.recipe()?.train.precision;
    // One of them has it; the others are what it is held against.
    let has_it = |backend: &Backend| backend.precisions().contains(&wanted);
    if !args.compare.iter().any(has_it) {
        args.compare[0].check(wanted)?;
    }
    let probed = in_pool(args.threads, || {
        let probe = |backend: &Backend| {
            let precision = if has_it(backend) { wanted } else { Precision::F32 };
            on_backend!((*backend, precision), B => probe(Setup::<B>::new(args)?, args))
        };
        args.compare.iter().map(probe).collect::<Result<Vec<_>>>()
    })?;
    let first = &probed[0];
    let compared: Vec<Compared> = probed.iter().map(|other| other.beside(first)).collect();
    if args.json { out::json(&compared) } else { print(&compared) }
}

fn probe<B: Contestant>(mut setup: Setup<B>, args: &Args) -> Result<Probed> {
    let loss = setup.engine.train_step(setup.images.view(), setup.targets.view())?.loss;
    setup.engine.set_step(0);
    let params = setup.engine.params();
    let trained = params.table().iter().filter(|info| info.used && !info.frozen);
    let gradients = trained.map(|info| {
        let gradient = params.grad_to_torch(&info.name).unwrap_or_default();
        (info.name.clone(), gradient.into_iter().map(Real::wide).collect())
    });
    let gradients = gradients.collect();
    Ok(Probed { loss, gradients, measured: setup.measure(args)? })
}

impl Probed {
    fn beside(&self, first: &Probed) -> Compared {
        let largest = |values: &[f64]| values.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
        // Gradients that vanish but for rounding, as that of a bias before a batch-norm, are held against the others.
        let floor = 1e-6 * first.gradients.iter().map(|(_, values)| largest(values)).fold(f64::MIN_POSITIVE, f64::max);
        let (mut gradient_difference, mut gradient) = (0.0, "");
        for ((name, ours), (_, theirs)) in self.gradients.iter().zip(&first.gradients) {
            let apart = ours.iter().zip(theirs).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
            let relative = apart / largest(theirs).max(floor);
            if relative > gradient_difference {
                (gradient_difference, gradient) = (relative, name);
            }
        }
        Compared {
            measured: self.measured.clone(),
            loss_difference: (self.loss - first.loss).abs() / first.loss.abs().max(f64::MIN_POSITIVE),
            gradient_difference,
            gradient: gradient.to_owned(),
        }
    }
}

fn print(compared: &[Compared]) -> Result<()> {
    let first = &compared[0].measured;
    let Measured { recipe, batch, size, threads, .. } = first;
    out::line(format!(
        "{recipe}: batch {batch}, {size} px, {threads} threads; × is how many times as fast as {}",
        first.backend
    ))?;
    out::line("backend     training, images/s   inference, images/s         one image, ms      loss   gradients")?;
    for Compared { measured, loss_difference, gradient_difference, gradient } in compared {
        let rate = |ours: f64, theirs: f64| format!("{ours:>12.1} ×{:<7.4}", ours / theirs);
        out::line(format!(
            "{:10}{}  {}  {:>12.3} ×{:<7.4} {loss_difference:>8.1e}  {gradient_difference:>8.1e} {gradient}",
            measured.name(),
            rate(measured.train_images_per_second, first.train_images_per_second),
            rate(measured.infer_images_per_second, first.infer_images_per_second),
            measured.latency_ms,
            first.latency_ms / measured.latency_ms,
        ))?;
    }
    out::line("loss and gradients: the largest difference of the first step, relative to the first backend's")
}
