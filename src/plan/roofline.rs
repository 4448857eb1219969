//! What the steps of a plan take at least on a machine of given speed (Williams, Waterman, Patterson 2009).

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::{DxPlace, Pass, Place, Plan, Step};
use crate::{Error, ErrorKind, Result};

/// A machine's speed.
///
/// ```
/// use handgrad::plan::Speed;
/// let gpu: Speed = "h100".parse()?;
/// assert_eq!(gpu, "67e12,3.35e12".parse()?);
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Floating-point operations per second, in f32.
    pub flops: f64,
    /// Bytes per second between memory and processor.
    pub bytes: f64,
}

/// Data sheets: NVIDIA H100 SXM, A100 SXM 80 GB, T4.
const NAMED: [(&str, Speed); 3] = [
    ("h100", Speed { flops: 67e12, bytes: 3.35e12 }),
    ("a100", Speed { flops: 19.5e12, bytes: 2.04e12 }),
    ("t4", Speed { flops: 8.1e12, bytes: 0.32e12 }),
];

impl FromStr for Speed {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some((_, speed)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*speed);
        }
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
        let pair = text.split_once(',').and_then(|(flops, bytes)| Some((number(flops)?, number(bytes)?)));
        let (flops, bytes) = pair.ok_or_else(|| {
            Error::new(ErrorKind::Usage, "speed", text).expected("h100, a100, t4, or FLOPS,BYTES such as 67e12,3.35e12")
        })?;
        Ok(Speed { flops, bytes })
    }
}

/// The steps of one op in one direction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RooflineRow {
    /// The op.
    pub op: String,
    /// Whether they belong to the backward pass.
    pub backward: bool,
    /// How many they are.
    pub steps: usize,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of all operands, each counted once.
    pub bytes: u64,
    /// The least seconds: for each step the longer of its operations and its bytes.
    pub seconds: f64,
}

/// What a plan takes at least; `Display` draws a table, the longest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Roofline {
    /// Images of a run.
    pub images: usize,
    /// By op and direction.
    pub rows: Vec<RooflineRow>,
}

impl Roofline {
    /// The least seconds of a run.
    pub fn seconds(&self) -> f64 {
        self.rows.iter().map(|row| row.seconds).sum()
    }
}

impl Plan {
    /// What a run of [`Plan::max_batch`] images takes at least on a machine.
    ///
    /// ```
    /// use handgrad::{backend::Cpu, models, plan::{Mode, Plan}};
    /// let graph = models::build("resnet2", &Default::default())?;
    /// let roofline = Plan::compile::<Cpu>(&graph, 256, Mode::Train)?.roofline("h100".parse()?);
    /// println!("{roofline}");
    /// assert_eq!(roofline.rows[0].op, "conv2d");
    /// # Ok::<(), handgrad::Error>(())
    /// ```
    pub fn roofline(&self, speed: Speed) -> Roofline {
        let mut rows: Vec<RooflineRow> = Vec::new();
        for step in &self.steps {
            let op = self.graph.nodes()[step.node].op().map_or("", |op| op.kind());
            let backward = !matches!(step.pass, Pass::Forward { .. });
            let flops = self.flops(step).saturating_mul(self.max_batch as u64);
            let bytes = self.operand_bytes(step);
            let seconds = (flops as f64 / speed.flops).max(bytes as f64 / speed.bytes);
            match rows.iter_mut().find(|row| row.op == op && row.backward == backward) {
                Some(row) => {
                    row.steps += 1;
                    row.flops += flops;
                    row.bytes += bytes;
                    row.seconds += seconds;
                }
                None => rows.push(RooflineRow { op: op.into(), backward, steps: 1, flops, bytes, seconds }),
            }
        }
        rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Roofline { images: self.max_batch, rows }
    }

    /// Bytes of a step's operands: each read or written once, what is added to both.
    fn operand_bytes(&self, step: &Step) -> u64 {
        let node = &self.graph.nodes()[step.node];
        let n = self.max_batch;
        let buffer = |b: usize| self.buffers[b].range(n).len();
        let place = |place: &Place, len: usize| match place {
            Place::Buffer(b) => buffer(*b),
            Place::Images | Place::Targets => len * n,
        };
        let inputs = |x: &[Place]| -> usize {
            x.iter().zip(&node.inputs).map(|(x, id)| place(x, self.graph.shape(*id).len())).sum()
        };
        let weights: usize = node.params.iter().map(|&p| self.graph.params()[p].spec.layout.len()).sum();
        let saved: usize = step.saved.iter().map(|&b| buffer(b)).sum();
        let moved = match &step.pass {
            Pass::Forward { x, y, .. } | Pass::Again { x, y } => inputs(x) + buffer(*y),
            Pass::Backward { x, y, dy, dx, dparams } => {
                let gradients: usize = dx
                    .iter()
                    .map(|dx| match dx {
                        DxPlace::Skip => 0,
                        DxPlace::Write(b) | DxPlace::InPlace(b) => buffer(*b),
                        DxPlace::Add(b) => 2 * buffer(*b),
                    })
                    .sum();
                let of_weights = if dparams.iter().any(|dparam| dparam.needed) { weights } else { 0 };
                inputs(x) + y.map_or(0, |y| place(&y, node.shape.len())) + buffer(*dy) + gradients + of_weights
            }
        };
        ((moved + weights + saved) as u64).saturating_mul(self.element_bytes as u64)
    }
}

impl fmt::Display for Roofline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.seconds().max(1e-12);
        writeln!(f, "  {:<22} {:>5} {:>10} {:>9} {:>9} {:>7}", "op", "steps", "GFLOP", "MiB", "ms", "share")?;
        let mut row = |arrow: &str, op: &str, steps: usize, flops: u64, bytes: u64, seconds: f64| {
            let (gflop, mib) = (flops as f64 / 1e9, bytes as f64 / f64::from(1 << 20));
            let (ms, share) = (1e3 * seconds, 100.0 * seconds / all);
            writeln!(f, "{arrow} {op:<22} {steps:>5} {gflop:>10.2} {mib:>9.1} {ms:>9.3} {share:>5.1} %")
        };
        for r in &self.rows {
            row(if r.backward { "←" } else { "→" }, &r.op, r.steps, r.flops, r.bytes, r.seconds)?;
        }
        let sum = |of: fn(&RooflineRow) -> u64| self.rows.iter().map(of).sum::<u64>();
        row(" ", "all", self.rows.iter().map(|r| r.steps).sum(), sum(|r| r.flops), sum(|r| r.bytes), all)?;
        write!(f, "at least {:.3} ms for {} images: {:.0} images/s", 1e3 * all, self.images, self.images as f64 / all)
    }
}
