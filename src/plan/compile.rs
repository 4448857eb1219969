//! From graph to plan: order, liveness, in-place aliases, offsets, and a check that no step gets overlapping operands.

use super::arena::ALIGN;
use super::{Buffer, DparamPlace, DxPlace, Explained, Mode, Pass, Place, Plan, Step};
use crate::backend::Backend;
use crate::graph::{Graph, Node, NodeId, Shape, Source};
use crate::ops::{Keeps, Op};
use crate::{Error, ErrorKind, Result};

impl Plan {
    /// Compiles a graph (without loss) for up to `max_batch` images.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where the output is no vector of class scores (modes with a loss), kind
    /// [`ErrorKind::Usage`] for a batch of 0 or one whose buffers exceed 2^62 bytes, and for an explained node that is
    /// no layer on the way to the output.
    pub fn compile<B: Backend>(graph: &Graph, max_batch: usize, mode: Mode) -> Result<Plan> {
        if max_batch == 0 || max_batch > 1 << 20 {
            return Err(Error::new(ErrorKind::Usage, "batch", max_batch).expected("1 to 1,048,576 images"));
        }
        match mode {
            Mode::Infer if B::FUSES => Plan::of::<B>(&super::fuse::fuse(graph)?, max_batch, mode),
            Mode::Train if B::FUSES => Plan::of::<B>(&super::fuse::fuse_training(graph)?, max_batch, mode),
            _ => Plan::of::<B>(graph, max_batch, mode),
        }
    }

    /// Compiles the graph as it is.
    pub(super) fn of<B: Backend>(graph: &Graph, max_batch: usize, mode: Mode) -> Result<Plan> {
        check_passes(graph, mode)?;
        check_backend::<B>(graph)?;
        let logits = graph.output();
        if let Mode::Explain(layer) = mode {
            check_explained(graph, layer)?;
        }
        let graph = if mode.has_loss() { graph.with_loss()? } else { graph.clone() };
        let mut compiler = Compiler::new(&graph, logits, mode);
        compiler.forward::<B>(max_batch);
        if matches!(mode, Mode::Train | Mode::Explain(_)) {
            compiler.backward::<B>(max_batch);
        }
        let explained = compiler.explained();
        let Compiler { places, gradients, mut buffers, steps, prepared_len, .. } = compiler;
        let arena_len = lay_out(&mut buffers, max_batch)?;
        let output = graph.output().0;
        let loss = match places[output] {
            Some(Place::Buffer(b)) if mode.has_loss() => Some(b),
            _ => None,
        };
        let plan = Plan {
            logits: places[logits.0].expect("the output is alive"),
            loss,
            dlast: gradients[output],
            explained,
            mode,
            max_batch,
            element_bytes: size_of::<B::Elem>(),
            buffers,
            steps,
            arena_len,
            prepared_len,
            graph,
        };
        plan.check_disjoint();
        Ok(plan)
    }

    /// Every step's mutable operands overlap no other operand of that step: what `run` rests on.
    fn check_disjoint(&self) {
        for step in &self.steps {
            let mut shared = Vec::new();
            let mut exclusive: Vec<usize> = step.scratch.iter().copied().collect();
            match &step.pass {
                Pass::Forward { x, y, in_place } => {
                    shared.extend(x.iter().skip(usize::from(*in_place)));
                    exclusive.push(*y);
                    exclusive.extend(&step.saved);
                }
                Pass::Again { x, y } => {
                    shared.extend(x);
                    exclusive.push(*y);
                    exclusive.extend(&step.saved);
                }
                Pass::Backward { x, y, dy, dx, .. } => {
                    shared.extend(x.iter().chain(y));
                    exclusive.push(*dy);
                    for dx in dx {
                        match dx {
                            DxPlace::Skip => {}
                            DxPlace::InPlace(b) => assert_eq!(b, dy, "in place means over dy"),
                            DxPlace::Write(b) | DxPlace::Add(b) => exclusive.push(*b),
                        }
                    }
                }
            }
            let saved_is_read = matches!(step.pass, Pass::Backward { .. });
            let mut read: Vec<usize> = if saved_is_read { step.saved.clone() } else { Vec::new() };
            read.extend(shared.iter().filter_map(|place| if let Place::Buffer(b) = place { Some(*b) } else { None }));
            let overlap = |a: usize, b: usize| {
                let (a, b) = (self.buffers[a].range(self.max_batch), self.buffers[b].range(self.max_batch));
                a.start < b.end && b.start < a.end
            };
            for (i, &a) in exclusive.iter().enumerate() {
                let clash = exclusive[i + 1..].iter().chain(&read).find(|&&b| overlap(a, b));
                let layer = &self.graph.nodes()[step.node].name;
                assert!(clash.is_none(), "plan: operands of {layer} overlap: {:?}", self.buffers[a]);
            }
        }
    }
}

struct Compiler<'g> {
    graph: &'g Graph,
    mode: Mode,
    /// Forward step of each node, backward step of each node that has one, and how many there are.
    forward_at: Vec<Option<usize>>,
    backward_at: Vec<Option<usize>>,
    /// The steps between which an output is there once more that is made again in the backward pass.
    again: Vec<Option<(usize, usize)>>,
    end: usize,
    /// The nodes whose outputs' gradients are computed.
    needs_gradient: Vec<bool>,
    /// The last step that reads each node's output.
    last_read: Vec<usize>,
    places: Vec<Option<Place>>,
    saved: Vec<Vec<usize>>,
    gradients: Vec<Option<usize>>,
    buffers: Vec<Buffer>,
    steps: Vec<Step>,
    prepared_len: usize,
}

impl<'g> Compiler<'g> {
    fn new(graph: &'g Graph, logits: NodeId, mode: Mode) -> Self {
        let nodes = graph.nodes();
        let alive = graph.alive();
        let mut forward_at = vec![None; nodes.len()];
        let runs = (0..nodes.len()).filter(|&i| alive[i] && nodes[i].op().is_some());
        let mut end = 0;
        for i in runs {
            forward_at[i] = Some(end);
            end += 1;
        }
        // In training everything behind a parameter that learns, else everything behind the layer that is explained.
        let begins = |i: usize, node: &Node| match mode {
            Mode::Train => node.params.iter().any(|&p| !graph.params()[p].frozen),
            Mode::Explain(layer) => i == layer.0,
            Mode::Eval | Mode::Infer => false,
        };
        let mut needs_gradient = vec![false; nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            needs_gradient[i] = begins(i, node) || node.inputs.iter().any(|input| needs_gradient[input.0]);
        }
        let goes_back = |i: usize| alive[i] && needs_gradient[i] && mode != Mode::Explain(NodeId(i));
        // What is made again has its inputs kept anyhow, to go backward itself.
        let mut recomputed = vec![false; nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            let possible = node.op().is_some_and(|op| op.recomputes() && op.keeps() == Keeps::INPUTS);
            let inputs_stay = node.inputs.iter().all(|input| !recomputed[input.0]);
            recomputed[i] = mode == Mode::Train && goes_back(i) && possible && inputs_stay && NodeId(i) != logits;
        }
        let mut backward_at = vec![None; nodes.len()];
        let mut again: Vec<Option<(usize, usize)>> = vec![None; nodes.len()];
        for (i, node) in nodes.iter().enumerate().rev().filter(|&(i, _)| goes_back(i)) {
            if node.op().is_some_and(|op| op.keeps().inputs) {
                for input in node.inputs.iter().filter(|input| recomputed[input.0]) {
                    again[input.0].get_or_insert_with(|| {
                        end += 1;
                        (end - 1, end)
                    });
                }
                // Until this node has gone backward.
                for input in &node.inputs {
                    again[input.0] = again[input.0].map(|(first, _)| (first, end));
                }
            }
            backward_at[i] = Some(end);
            end += 1;
        }
        let mut last_read = vec![0; nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            let Some(op) = node.op().filter(|_| alive[i]) else { continue };
            let keeps = op.keeps();
            for input in &node.inputs {
                let kept = backward_at[i].filter(|_| keeps.inputs && !recomputed[input.0]);
                last_read[input.0] = last_read[input.0].max(forward_at[i].into_iter().chain(kept).max().unwrap_or(0));
            }
            if let Some(at) = backward_at[i].filter(|_| keeps.output) {
                last_read[i] = last_read[i].max(at);
            }
        }
        // Whoever runs the plan reads scores and loss behind its last step.
        last_read[logits.0] = end;
        last_read[nodes.len() - 1] = end;
        if let Mode::Explain(layer) = mode {
            last_read[layer.0] = end;
        }
        let empty = || vec![None; nodes.len()];
        Compiler {
            graph,
            mode,
            forward_at,
            backward_at,
            again,
            end,
            needs_gradient,
            last_read,
            places: empty(),
            saved: vec![Vec::new(); nodes.len()],
            gradients: vec![None; nodes.len()],
            buffers: Vec::new(),
            steps: Vec::new(),
            prepared_len: 0,
        }
    }

    fn buffer(&mut self, name: String, per_image: usize, fixed: usize, first: usize, last: usize) -> usize {
        self.buffers.push(Buffer { name, per_image, fixed, first, last, offset: 0 });
        self.buffers.len() - 1
    }

    fn forward<B: Backend>(&mut self, max_batch: usize) {
        for (i, node) in self.graph.nodes().iter().enumerate() {
            let Some(op) = node.op() else {
                self.places[i] = Some(if node.source == Source::Images { Place::Images } else { Place::Targets });
                continue;
            };
            let Some(at) = self.forward_at[i] else { continue };
            let x: Vec<Place> = node.inputs.iter().map(|id| self.places[id.0].expect("inputs run first")).collect();
            let over = self.in_place_target(op, node, &x, at);
            let y = over.unwrap_or_else(|| self.buffer(node.name.clone(), node.shape.len(), 0, at, at));
            self.buffers[y].last = self.buffers[y].last.max(self.last_read[i]);
            self.places[i] = Some(Place::Buffer(y));

            let shapes = self.shapes(node);
            if let Some(until) = self.backward_at[i] {
                for (k, saved) in op.saved(&shapes, node.shape).into_iter().enumerate() {
                    let name = format!("{} saved {k}", node.name);
                    let buffer = self.buffer(name, saved.per_image, saved.fixed, at, until);
                    self.saved[i].push(buffer);
                }
            } else if self.mode == Mode::Train {
                // Without a backward pass the op still saves while training: memory for just this step.
                for saved in op.saved(&shapes, node.shape) {
                    let name = format!("{} saved", node.name);
                    let buffer = self.buffer(name, saved.per_image, saved.fixed, at, at);
                    self.saved[i].push(buffer);
                }
            }
            let scratch = self.scratch::<B>(op, node, &shapes, at, max_batch);
            let prepared = self.prepared::<B>(op, node, &shapes);
            let saved = self.saved[i].clone();
            let pass = Pass::Forward { x, y, in_place: over.is_some() };
            self.steps.push(Step { node: i, saved, scratch, prepared, pass });
        }
    }

    /// The buffer of input 0, if the output may take its place: nobody reads the input later.
    fn in_place_target(&self, op: &dyn Op, node: &Node, x: &[Place], at: usize) -> Option<usize> {
        let (&Place::Buffer(buffer), &input) = (x.first()?, node.inputs.first()?) else { return None };
        let free = self.last_read[input.0] == at && !x[1..].contains(&x[0]);
        let fits = self.graph.shape(input).len() == node.shape.len();
        (op.in_place().forward && free && fits).then_some(buffer)
    }

    fn scratch<B: Backend>(
        &mut self,
        op: &dyn Op,
        node: &Node,
        shapes: &[Shape],
        at: usize,
        max_batch: usize,
    ) -> Option<usize> {
        let len = B::scratch(op, shapes, node.shape, max_batch).unwrap_or(0);
        (len > 0).then(|| self.buffer(format!("{} scratch", node.name), 0, len, at, at))
    }

    /// Room for what a kernel prepares.
    fn prepared<B: Backend>(&mut self, op: &dyn Op, node: &Node, shapes: &[Shape]) -> std::ops::Range<usize> {
        if self.mode != Mode::Infer {
            return 0..0;
        }
        let (start, len) = (self.prepared_len, B::prepared(op, shapes, node.shape));
        self.prepared_len = (start + len).next_multiple_of(ALIGN);
        start..start + len
    }

    fn shapes(&self, node: &Node) -> Vec<Shape> {
        node.inputs.iter().map(|&id| self.graph.shape(id)).collect()
    }

    fn backward<B: Backend>(&mut self, max_batch: usize) {
        let nodes = self.graph.nodes();
        let mut written = vec![false; self.graph.params().len()];
        let last = nodes.len() - 1;
        if self.needs_gradient[last] {
            let at = self.backward_at[last].unwrap_or(self.end);
            self.gradients[last] =
                Some(self.buffer(format!("d {}", nodes[last].name), nodes[last].shape.len(), 0, at, at));
        }
        for (i, node) in nodes.iter().enumerate().rev() {
            let (Some(at), Some(op), Some(dy)) = (self.backward_at[i], node.op(), self.gradients[i]) else { continue };
            if op.keeps().inputs {
                node.inputs.iter().for_each(|input| self.make_again::<B>(input.0, max_batch));
            }
            let mut dx = Vec::new();
            for (k, input) in node.inputs.iter().enumerate() {
                dx.push(self.gradient_place(op, node, k, *input, dy, at));
            }
            self.buffers[dy].last = self.buffers[dy].last.max(at);
            let keeps = op.keeps();
            let place = |id: &NodeId| self.places[id.0].expect("forward placed it");
            let x = if keeps.inputs { node.inputs.iter().map(place).collect() } else { Vec::new() };
            let y = keeps.output.then(|| self.places[i].expect("forward placed it"));
            let dparams = node.params.iter().map(|&p| DparamPlace {
                needed: self.mode == Mode::Train && !self.graph.params()[p].frozen,
                add: std::mem::replace(&mut written[p], true),
            });
            let dparams = dparams.collect();
            let shapes = self.shapes(node);
            let scratch = self.scratch::<B>(op, node, &shapes, at, max_batch);
            let saved = self.saved[i].clone();
            let pass = Pass::Backward { x, y, dy, dx, dparams };
            self.steps.push(Step { node: i, saved, scratch, prepared: 0..0, pass });
        }
    }

    /// A step that makes the output of node `i` again, where that is due and has not been done.
    fn make_again<B: Backend>(&mut self, i: usize, max_batch: usize) {
        let node = &self.graph.nodes()[i];
        let (Some((first, last)), Some(op)) = (self.again[i].take(), node.op()) else { return };
        let y = self.buffer(format!("{} again", node.name), node.shape.len(), 0, first, last);
        let x = node.inputs.iter().map(|id| self.places[id.0].expect("forward placed it")).collect();
        let scratch = self.scratch::<B>(op, node, &self.shapes(node), first, max_batch);
        let saved = self.saved[i].clone();
        self.places[i] = Some(Place::Buffer(y));
        self.steps.push(Step { node: i, saved, scratch, prepared: 0..0, pass: Pass::Again { x, y } });
    }

    /// The layer that is explained, whose gradient stays to the end.
    fn explained(&mut self) -> Option<Explained> {
        let Mode::Explain(layer) = self.mode else { return None };
        let Some(Place::Buffer(output)) = self.places[layer.0] else { return None };
        let gradient = self.gradients[layer.0];
        if let Some(gradient) = gradient {
            self.buffers[gradient].last = self.end;
        }
        Some(Explained { shape: self.graph.shape(layer), output, gradient })
    }

    /// Where the gradient of input `k` goes: the first contributor writes it (over its own dy, where the op can work
    /// in place, since nobody reads that dy again), every later one adds.
    fn gradient_place(&mut self, op: &dyn Op, node: &Node, k: usize, input: NodeId, dy: usize, at: usize) -> DxPlace {
        if !self.needs_gradient[input.0] {
            return DxPlace::Skip;
        }
        let len = self.graph.shape(input).len();
        let (buffer, place) = match self.gradients[input.0] {
            Some(buffer) => (buffer, DxPlace::Add(buffer)),
            None if k == 0 && op.in_place().backward && len == node.shape.len() => (dy, DxPlace::InPlace(dy)),
            None => {
                let name = format!("d {}", self.graph.nodes()[input.0].name);
                let buffer = self.buffer(name, len, 0, at, at);
                (buffer, DxPlace::Write(buffer))
            }
        };
        self.gradients[input.0] = Some(buffer);
        self.buffers[buffer].last = self.buffers[buffer].last.max(at);
        place
    }
}

/// Whether the backend has every layer.
fn check_backend<B: Backend>(graph: &Graph) -> Result<()> {
    for node in graph.nodes() {
        let shapes: Vec<Shape> = node.inputs.iter().map(|&id| graph.shape(id)).collect();
        if let Some(op) = node.op().filter(|op| B::scratch(*op, &shapes, node.shape, 1).is_none()) {
            let e = Error::new(ErrorKind::Unsupported, &node.name, format!("{} on the {} backend", op.kind(), B::NAME));
            return Err(e.expected("a layer that this backend has").hint("take --backend cpu"));
        }
    }
    Ok(())
}

/// Whether every layer has the passes that the mode asks for.
fn check_passes(graph: &Graph, mode: Mode) -> Result<()> {
    let only_infers = |node: &&Node| node.op().is_some_and(Op::only_infers);
    match graph.nodes().iter().find(only_infers).filter(|_| mode != Mode::Infer) {
        None => Ok(()),
        Some(node) => {
            let found = format!("a {}, which only infers", node.op().map_or("", Op::kind));
            let e = Error::new(ErrorKind::Unsupported, format!("layer {}", node.name), found);
            Err(e.expected("layers that can be trained").hint("start from the graph before it was fused"))
        }
    }
}

/// Whether `layer` has an output to explain.
fn check_explained(graph: &Graph, layer: NodeId) -> Result<()> {
    let wrong =
        |found: String| Err(Error::new(ErrorKind::Usage, "layer", found).expected("a layer that the model runs"));
    match graph.nodes().get(layer.0) {
        Some(node) if node.op().is_none() => wrong(format!("{} is an input", node.name)),
        Some(node) if !graph.alive()[layer.0] => wrong(format!("{} is never run", node.name)),
        Some(_) => Ok(()),
        None => wrong("one of another graph".into()),
    }
}

/// Gives every buffer an offset so that those alive at the same step do not overlap: largest first, each at the lowest
/// gap that fits. Returns the arena's length.
fn lay_out(buffers: &mut [Buffer], max_batch: usize) -> Result<usize> {
    let size = |b: &Buffer| {
        let len = b.per_image.checked_mul(max_batch)?.checked_add(b.fixed)?.checked_next_multiple_of(ALIGN)?;
        (len < 1 << 58).then_some(len)
    };
    let too_large = |b: &Buffer| {
        let found = format!("{} elements × {max_batch} images", b.per_image);
        Error::new(ErrorKind::Usage, &b.name, found).hint("take a smaller batch")
    };
    let mut sizes = Vec::new();
    for buffer in &*buffers {
        sizes.push(size(buffer).ok_or_else(|| too_large(buffer))?);
    }
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), i));
    let mut placed: Vec<usize> = Vec::new();
    let mut arena_len = 0;
    for i in order {
        let alive = |&&j: &&usize| buffers[j].first <= buffers[i].last && buffers[i].first <= buffers[j].last;
        let mut taken: Vec<(usize, usize)> =
            placed.iter().filter(alive).map(|&j| (buffers[j].offset, buffers[j].offset + sizes[j])).collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + sizes[i] <= start {
                break;
            }
            offset = offset.max(end);
        }
        buffers[i].offset = offset;
        arena_len = arena_len.max(offset + sizes[i]);
        placed.push(i);
    }
    Ok(arena_len)
}
