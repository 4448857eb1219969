//! A table of layers: shapes, parameters, FLOPs.

use std::fmt;

use serde::Serialize;

use super::{Graph, Shape, count};

/// One row of a [`Summary`].
#[derive(Clone, Debug, Serialize)]
pub struct LayerSummary {
    /// The layer's path.
    pub name: String,
    /// The op.
    pub op: String,
    /// Output height, width, channels.
    pub output: [usize; 3],
    /// Parameters this layer uses, shared ones included.
    pub params: usize,
    /// Floating-point operations of one image's forward pass.
    pub flops: u64,
}

/// A model's layers with their sizes; `Display` draws the table.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// All parameters, each counted once.
    pub total_params: usize,
    /// Those that an op on the way to the output uses, each counted once: these get gradients.
    pub used_params: usize,
    /// The sum over layers, shared weights counted at each use (as a per-layer listing does).
    pub params_by_layer: usize,
    /// Floating-point operations of one image's forward pass, 2 per multiply-add.
    pub flops: u64,
    /// One row per layer.
    pub layers: Vec<LayerSummary>,
}

impl Graph {
    /// The model's layers with output shapes, parameters and FLOPs.
    pub fn summary(&self) -> Summary {
        let rows = self.nodes().iter().zip(self.alive()).filter_map(|(node, alive)| {
            let op = node.op()?;
            let inputs: Vec<Shape> = node.inputs.iter().map(|&id| self.shape(id)).collect();
            Some(LayerSummary {
                name: node.name.clone(),
                op: if alive { op.kind().to_owned() } else { format!("{} (not run)", op.kind()) },
                output: [node.shape.h, node.shape.w, node.shape.c],
                params: count(self.params(), &node.params),
                flops: if alive { op.flops(&inputs, node.shape) } else { 0 },
            })
        });
        let layers: Vec<LayerSummary> = rows.collect();
        let in_use = self.used_params();
        let used: Vec<usize> = (0..in_use.len()).filter(|&i| in_use[i]).collect();
        Summary {
            total_params: count(self.params(), &(0..self.params().len()).collect::<Vec<_>>()),
            used_params: count(self.params(), &used),
            params_by_layer: layers.iter().map(|l| l.params).sum(),
            flops: layers.iter().fold(0, |sum, l| sum.saturating_add(l.flops)),
            layers,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name_width = self.layers.iter().map(|l| l.name.len()).max().unwrap_or(0).max(5);
        writeln!(f, "{:name_width$}  {:<22} {:>16} {:>12} {:>10}", "layer", "op", "output", "params", "MFLOPs")?;
        for l in &self.layers {
            let [h, w, c] = l.output;
            let output = Shape::new(h, w, c).to_string();
            let mflops = l.flops as f64 / 1e6;
            writeln!(f, "{:name_width$}  {:<22} {output:>16} {:>12} {mflops:>10.3}", l.name, l.op, grouped(l.params))?;
        }
        writeln!(f, "parameters: {} ({} by layer)", grouped(self.total_params), grouped(self.params_by_layer))?;
        if self.used_params != self.total_params {
            writeln!(f, "in use:     {} (the others are never touched)", grouped(self.used_params))?;
        }
        write!(f, "FLOPs:      {:.3} M per image, forward", self.flops as f64 / 1e6)
    }
}

/// A number with commas: 123,330.
pub(crate) fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
