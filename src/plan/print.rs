//! A plan as text.

use std::fmt;

use super::{Buffer, DxPlace, Pass, Place, Plan};

impl Plan {
    fn place(&self, place: Place) -> String {
        match place {
            Place::Images => "images".into(),
            Place::Targets => "targets".into(),
            Place::Buffer(b) => self.slot(b),
        }
    }

    /// A buffer as `@offset`, in KiB.
    fn slot(&self, buffer: usize) -> String {
        format!("@{}", self.buffers[buffer].offset * self.element_bytes / 1024)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.graph.nodes();
        let width = nodes.iter().map(|n| n.name.len()).max().unwrap_or(0).max(5);
        let mib = |elements: usize| (elements * self.element_bytes) as f64 / f64::from(1 << 20);
        let (n, mode) = (self.max_batch, self.mode);
        writeln!(f, "plan: {mode:?}, up to {n} images; buffers as @offset in KiB")?;
        for (i, step) in self.steps.iter().enumerate() {
            let node = &nodes[step.node];
            let op = node.op().expect("steps run ops");
            let mflops = self.flops(step) as f64 / 1e6;
            let scratch = step.scratch.map(|b| format!(", scratch {}", self.slot(b))).unwrap_or_default();
            let (arrow, flow) = match &step.pass {
                Pass::Forward { x, y, in_place } => {
                    let inputs: Vec<String> = x.iter().map(|&x| self.place(x)).collect();
                    let how = if *in_place { " in place" } else { "" };
                    ("→", format!("{} → {}{how}", inputs.join(" + "), self.slot(*y)))
                }
                Pass::Again { x, y } => {
                    let inputs: Vec<String> = x.iter().map(|&x| self.place(x)).collect();
                    ("↻", format!("{} → {} again", inputs.join(" + "), self.slot(*y)))
                }
                Pass::Backward { dy, dx, .. } => {
                    let outputs = dx.iter().map(|dx| match dx {
                        DxPlace::Skip => "·".into(),
                        DxPlace::Write(b) => self.slot(*b),
                        DxPlace::Add(b) => format!("+{}", self.slot(*b)),
                        DxPlace::InPlace(_) => "in place".into(),
                    });
                    let outputs: Vec<String> = outputs.collect();
                    ("←", format!("{} → {}", self.slot(*dy), outputs.join(" ")))
                }
            };
            writeln!(
                f,
                "{i:4} {arrow} {:width$}  {:<20} {mflops:>10.3} MFLOPs/image  {flow}{scratch}",
                node.name,
                op.kind()
            )?;
        }
        let bytes = |b: &Buffer| (b.range(n).len() * self.element_bytes) as f64 / f64::from(1 << 20);
        let unshared: f64 = self.buffers.iter().map(bytes).sum();
        write!(f, "arena: {:.1} MiB ({unshared:.1} MiB without sharing)", mib(self.arena_len))
    }
}
