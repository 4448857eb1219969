//! Where the time of a training step goes: a table by step and one by op.

use std::fmt;

use serde::Serialize;

use super::{Pass, Plan};

/// What one step of a plan takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepProfile {
    /// The layer's path.
    pub layer: String,
    /// Its op.
    pub op: String,
    /// Whether the step belongs to the backward pass.
    pub backward: bool,
    /// Seconds, the mean over the steps that were timed.
    pub seconds: f64,
    /// Floating-point operations on the batch, 2 per multiply-add; 0 for what only moves memory.
    pub flops: u64,
}

impl StepProfile {
    /// Operations per second, in 10⁹.
    pub fn gflops(&self) -> f64 {
        self.flops as f64 / self.seconds.max(1e-12) / 1e9
    }
}

/// The times of a plan's steps; `Display` draws the tables.
///
/// ```
/// use handgrad::{backend::Cpu, engine::Engine, models};
/// use ndarray::{Array2, Array4};
/// let graph = models::build("simplenet", &Default::default())?;
/// let mut engine = Engine::<Cpu>::new(&graph, 8, 42)?;
/// let (images, targets) = (Array4::<f32>::zeros((8, 32, 32, 3)), Array2::<f32>::ones((8, 10)));
/// let profile = engine.profile(images.view(), targets.view(), 3)?;
/// println!("{profile}");
/// assert!(profile.steps.iter().any(|step| step.op == "linear" && step.backward));
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// In the order in which they run.
    pub steps: Vec<StepProfile>,
}

impl Profile {
    /// Of a plan whose steps took `seconds` in all of `rounds` runs on `n` images.
    pub(crate) fn new(plan: &Plan, seconds: &[f64], rounds: usize, n: usize) -> Profile {
        let steps = plan.steps.iter().zip(seconds).map(|(step, seconds)| {
            let node = &plan.graph.nodes()[step.node];
            StepProfile {
                layer: node.name.clone(),
                op: node.op().map_or("", |op| op.kind()).to_owned(),
                backward: !matches!(step.pass, Pass::Forward { .. }),
                seconds: seconds / rounds.max(1) as f64,
                flops: plan.flops(step).saturating_mul(n as u64),
            }
        });
        Profile { steps: steps.collect() }
    }

    /// Seconds of all steps.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|step| step.seconds).sum()
    }

    /// The sums over steps of the same op and pass, the longest first.
    pub fn by_op(&self) -> Vec<StepProfile> {
        let mut sums: Vec<StepProfile> = Vec::new();
        for step in &self.steps {
            match sums.iter_mut().find(|sum| (&sum.op, sum.backward) == (&step.op, step.backward)) {
                Some(sum) => {
                    sum.seconds += step.seconds;
                    sum.flops += step.flops;
                }
                None => sums.push(StepProfile { layer: String::new(), ..step.clone() }),
            }
        }
        sums.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        sums
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.seconds().max(1e-12);
        let width = self.steps.iter().map(|step| step.layer.len()).max().unwrap_or(0);
        let mut row = |step: &StepProfile| {
            let arrow = if step.backward { "←" } else { "→" };
            let (ms, share) = (1e3 * step.seconds, 100.0 * step.seconds / all);
            let (op, layer) = (&step.op, &step.layer);
            write!(f, "{arrow} {layer:width$}  {op:<18} {ms:>9.3} ms {share:>5.1} %")?;
            match step.flops {
                0 => writeln!(f),
                _ => writeln!(f, " {:>8.1} GFLOP/s", step.gflops()),
            }
        };
        self.steps.iter().try_for_each(&mut row)?;
        row(&StepProfile { layer: "sums".into(), op: String::new(), backward: false, seconds: all, flops: 0 })?;
        self.by_op().iter().try_for_each(&mut row)
    }
}
