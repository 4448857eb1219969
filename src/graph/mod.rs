//! What is computed: nodes, shapes, names.

mod shape;
mod summary;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::ops::{Init, Layout, MAX_INPUTS, MAX_PARAMS, Mismatch, Op, OpSpec, ParamSpec};
use crate::{Error, ErrorKind, Result};

pub use shape::Shape;
#[cfg(feature = "cli")]
pub(crate) use summary::grouped;
pub use summary::{LayerSummary, Summary};

/// A node's place in its [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub(crate) usize);

/// What a node is.
// Nodes are some hundreds and nearly all ops: a box for each would save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The images.
    Images,
    /// The dense targets `[n, classes]`.
    Targets,
    /// An op applied to other nodes.
    Op(OpSpec),
}

/// One node: an op, where its inputs come from, which parameters it uses.
#[derive(Clone, Debug)]
pub struct Node {
    /// The layer's path, such as `layers.0.conv`.
    pub name: String,
    /// What it is.
    pub source: Source,
    /// The nodes it reads.
    pub inputs: Vec<NodeId>,
    /// Its parameters, as indices into [`Graph::params`].
    pub params: Vec<usize>,
    /// Its states, as indices into [`Graph::states`].
    pub states: Vec<usize>,
    /// Its output's shape.
    pub shape: Shape,
}

impl Node {
    /// The node's op, if it is not an input.
    pub fn op(&self) -> Option<&dyn Op> {
        match &self.source {
            Source::Op(spec) => Some(spec.op()),
            _ => None,
        }
    }
}

/// A named parameter or state.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its full name, such as `layers.0.conv.weight`.
    pub name: String,
    /// Order and first values.
    pub spec: ParamSpec,
    /// Never trained: see [`Graph::freeze`].
    pub frozen: bool,
}

/// A directed acyclic graph of layers, in an order in which it can run.
///
/// ```
/// use handgrad::graph::{Graph, Shape};
/// use handgrad::ops::{Activation, Flatten, Linear};
/// let mut g = Graph::new(Shape::new(32, 32, 3));
/// let x = g.node("flatten", Flatten, &[g.images()])?;
/// let x = g.node("hidden", Linear::new(40), &[x])?;
/// let x = g.node("act", Activation::Relu, &[x])?;
/// g.node("out", Linear::new(10), &[x])?;
/// assert_eq!(g.summary().total_params, 123_330);
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Graph {
    nodes: Vec<Node>,
    params: Vec<Param>,
    states: Vec<Param>,
}

impl Graph {
    /// A graph that holds just its input, images of this shape.
    pub fn new(images: Shape) -> Self {
        let node = Node {
            name: "images".into(),
            source: Source::Images,
            inputs: Vec::new(),
            params: Vec::new(),
            states: Vec::new(),
            shape: images,
        };
        Graph { nodes: vec![node], params: Vec::new(), states: Vec::new() }
    }

    /// The node of the images.
    pub fn images(&self) -> NodeId {
        NodeId(0)
    }

    /// Adds a layer with parameters of its own, called `name.weight` and so on.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`], naming the layer, where the inputs do not fit the op, and where the name is taken.
    pub fn node(&mut self, name: &str, op: impl Into<OpSpec>, inputs: &[NodeId]) -> Result<NodeId> {
        let spec = op.into();
        let shapes = self.input_shapes(name, inputs)?;
        spec.op().output(&shapes).map_err(|mismatch| shape_error(name, mismatch))?;
        let (params, states) = (spec.op().params(&shapes), spec.op().states(&shapes));
        let params = Self::declare(&mut self.params, name, params)?;
        let states = Self::declare(&mut self.states, name, states)?;
        self.push(name, spec, inputs, params, states)
    }

    /// Adds a layer that uses the parameters and state of `like`, which must have the same ones.
    ///
    /// # Errors
    /// As [`Graph::node`], and where this op would need other parameters than `like` has.
    pub fn shared(&mut self, name: &str, like: NodeId, inputs: &[NodeId]) -> Result<NodeId> {
        let Some(Node { source: Source::Op(spec), params, states, .. }) = self.nodes.get(like.0).cloned() else {
            return Err(shape_error(name, Mismatch::new("weights of an input", "weights of a layer")));
        };
        self.push(name, spec, inputs, params, states)
    }

    /// Chooses first values anew: `choose` gets each parameter's name and spec, and `None` leaves it as it is.
    ///
    /// ```
    /// use handgrad::graph::{Graph, Shape};
    /// use handgrad::ops::{Conv2d, Init};
    /// let mut g = Graph::new(Shape::new(32, 32, 3));
    /// g.node("conv", Conv2d::square(20, 3, 2, 1), &[g.images()])?;
    /// g.set_inits(|name, _| name.ends_with(".bias").then_some(Init::Constant(0.0)));
    /// assert_eq!(g.params()[1].spec.init, Init::Constant(0.0));
    /// # Ok::<(), handgrad::Error>(())
    /// ```
    pub fn set_inits(&mut self, choose: impl Fn(&str, &ParamSpec) -> Option<Init>) {
        for Param { name, spec, .. } in &mut self.params {
            spec.init = choose(name, spec).unwrap_or(spec.init);
        }
    }

    /// Keeps the parameters that `which` names from being trained, and these alone. Training then does without the
    /// gradients of convolutions, linear and twist layers among them, and without the backward pass of every layer that has no trained parameter at or before it. State still
    /// moves: a frozen batch-norm trains with its batch's statistics and averages them, as PyTorch's `requires_grad =
    /// False` leaves it. The text of a graph says nothing of this.
    ///
    /// ```
    /// use handgrad::{backend::Cpu, models, plan::{Mode, Plan}};
    /// let mut graph = models::build("convnet2", &Default::default())?;
    /// let all = Plan::compile::<Cpu>(&graph, 64, Mode::Train)?;
    /// graph.freeze(|name| !name.starts_with("out."));
    /// let head = Plan::compile::<Cpu>(&graph, 64, Mode::Train)?;
    /// assert!(head.arena_len() < all.arena_len());
    /// # Ok::<(), handgrad::Error>(())
    /// ```
    pub fn freeze(&mut self, which: impl Fn(&str) -> bool) {
        self.params.iter_mut().for_each(|param| param.frozen = which(&param.name));
    }

    fn declare(table: &mut Vec<Param>, layer: &str, specs: Vec<ParamSpec>) -> Result<Vec<usize>> {
        let mut ids = Vec::new();
        for spec in specs {
            if spec.layout.checked_len().is_none() {
                let found = format!("{} of shape {:?}", spec.name, spec.layout.torch_shape());
                return Err(shape_error(layer, Mismatch::new(found, "fewer than 2^31 values")));
            }
            let name = format!("{layer}.{}", spec.name);
            ids.push(table.len());
            table.push(Param { name, spec, frozen: false });
        }
        Ok(ids)
    }

    fn input_shapes(&self, name: &str, inputs: &[NodeId]) -> Result<Vec<Shape>> {
        if inputs.len() > MAX_INPUTS {
            let found = format!("{} inputs", inputs.len());
            return Err(shape_error(name, Mismatch::new(found, format!("at most {MAX_INPUTS}"))));
        }
        let shape = |id: &NodeId| self.nodes.get(id.0).map(|node| node.shape);
        inputs
            .iter()
            .map(shape)
            .collect::<Option<_>>()
            .ok_or_else(|| shape_error(name, Mismatch::new("an input that is no earlier node", "nodes of this graph")))
    }

    /// Just the input, and all parameters and states: for a plan that builds the graph anew of other ops.
    pub(crate) fn without_layers(&self) -> Graph {
        Graph { nodes: self.nodes[..1].to_vec(), params: self.params.clone(), states: self.states.clone() }
    }

    /// Checks everything about a node and appends it.
    pub(crate) fn push(
        &mut self,
        name: &str,
        spec: OpSpec,
        inputs: &[NodeId],
        params: Vec<usize>,
        states: Vec<usize>,
    ) -> Result<NodeId> {
        if name.is_empty() || self.nodes.iter().any(|node| node.name == name) {
            return Err(shape_error(name, Mismatch::new("a name that is empty or taken", "a name of its own")));
        }
        let node = self.checked(name, spec, inputs, params, states)?;
        self.nodes.push(node);
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// Puts another layer in the place of a node, whose readers then read it and whose name it may keep. Its inputs are
    /// earlier nodes.
    pub(crate) fn replace(
        &mut self,
        at: NodeId,
        name: &str,
        spec: OpSpec,
        inputs: &[NodeId],
        params: Vec<usize>,
        states: Vec<usize>,
    ) -> Result<()> {
        self.nodes[at.0] = self.checked(name, spec, inputs, params, states)?;
        Ok(())
    }

    /// Checks all of a node but its name.
    fn checked(
        &self,
        name: &str,
        spec: OpSpec,
        inputs: &[NodeId],
        params: Vec<usize>,
        states: Vec<usize>,
    ) -> Result<Node> {
        if inputs.iter().enumerate().any(|(i, input)| inputs[..i].contains(input)) {
            return Err(shape_error(name, Mismatch::new("one node as two inputs", "different nodes (or a Scale)")));
        }
        let shapes = self.input_shapes(name, inputs)?;
        let op = spec.op();
        let shape = op.output(&shapes).map_err(|mismatch| shape_error(name, mismatch))?;
        let fits = shape.checked_len().is_some_and(|n| n > 0);
        let saved_fits = fits && op.saved(&shapes, shape).iter().all(|s| s.per_image < i32::MAX as usize);
        if !saved_fits {
            return Err(shape_error(name, Mismatch::new(format!("an output {shape}"), "1 to 2^31 − 1 elements")));
        }
        let same = |table: &[Param], ids: &[usize], specs: Vec<ParamSpec>| {
            specs.len() <= MAX_PARAMS
                && ids.len() == specs.len()
                && ids.iter().zip(&specs).all(|(&id, spec)| {
                    table.get(id).is_some_and(|p| p.spec.layout == spec.layout && p.spec.name == spec.name)
                })
        };
        if !same(&self.params, &params, op.params(&shapes)) || !same(&self.states, &states, op.states(&shapes)) {
            let expected = format!("the parameters of a {} on {}", op.kind(), list(&shapes));
            return Err(shape_error(name, Mismatch::new("other parameters", expected)));
        }
        let name = name.to_owned();
        Ok(Node { name, source: Source::Op(spec), inputs: inputs.to_vec(), params, states, shape })
    }

    /// The same graph with a node for dense targets and a loss behind its output.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where the output is not a vector of class scores.
    pub fn with_loss(&self) -> Result<Graph> {
        let mut graph = self.clone();
        let logits = graph.output();
        let shape = graph.shape(logits);
        let targets = NodeId(graph.nodes.len());
        graph.nodes.push(Node {
            name: "targets".into(),
            source: Source::Targets,
            inputs: Vec::new(),
            params: Vec::new(),
            states: Vec::new(),
            shape,
        });
        graph.node("loss", crate::ops::SoftmaxCrossEntropy, &[logits, targets])?;
        Ok(graph)
    }

    /// The last node: the model's output.
    pub fn output(&self) -> NodeId {
        NodeId(self.nodes.len() - 1)
    }

    /// All nodes, in an order in which they can run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All parameters, in the order of their first use.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// All states, in the order of their first use.
    pub fn states(&self) -> &[Param] {
        &self.states
    }

    /// The node of this name.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] where there is none.
    pub fn find(&self, name: &str) -> Result<NodeId> {
        let at = self.nodes.iter().position(|node| node.name == name);
        at.map(NodeId).ok_or_else(|| Error::new(ErrorKind::Usage, "layer", format!("there is no layer {name:?}")))
    }

    /// A node's output shape.
    pub fn shape(&self, id: NodeId) -> Shape {
        self.nodes[id.0].shape
    }

    /// The last layer on the way to the output that has more than one pixel, if any has.
    pub fn last_map(&self) -> Option<&Node> {
        let alive = self.alive();
        let is_map = |(_, node): &(usize, &Node)| node.op().is_some() && !node.shape.is_flat();
        self.nodes.iter().enumerate().rev().filter(is_map).find(|&(i, _)| alive[i]).map(|(_, node)| node)
    }

    /// Nodes on the way to the output: the others never run.
    pub fn alive(&self) -> Vec<bool> {
        let mut alive = vec![false; self.nodes.len()];
        alive[self.output().0] = true;
        for (i, node) in self.nodes.iter().enumerate().rev() {
            if alive[i] {
                node.inputs.iter().for_each(|input| alive[input.0] = true);
            }
        }
        alive
    }

    /// Parameters that an op on the way to the output uses: the others are never touched.
    pub fn used_params(&self) -> Vec<bool> {
        let mut used = vec![false; self.params.len()];
        for (node, _) in self.nodes.iter().zip(self.alive()).filter(|(_, alive)| *alive) {
            node.params.iter().for_each(|&p| used[p] = true);
        }
        used
    }

    /// The parameters of the last linear layer on the way to the output: of what maps features to classes.
    pub fn head_params(&self) -> impl Iterator<Item = &str> {
        let linear = |node: &&Node| matches!(node.source, Source::Op(OpSpec::Linear(_)));
        let mut alive = self.nodes.iter().zip(self.alive()).filter(|(_, alive)| *alive).map(|(node, _)| node);
        let head = alive.rfind(linear);
        head.into_iter().flat_map(|node| &node.params).map(|&p| self.params[p].name.as_str())
    }

    /// Parameters of normalisations, and all that are called `bias`: what many recipes spare from weight decay.
    pub fn norm_and_bias_params(&self) -> Vec<bool> {
        let mut found: Vec<bool> = self.params.iter().map(|param| param.spec.name == "bias").collect();
        for node in self
            .nodes
            .iter()
            .filter(|node| matches!(node.source, Source::Op(OpSpec::BatchNorm(_) | OpSpec::NormAct(_))))
        {
            node.params.iter().for_each(|&p| found[p] = true);
        }
        found
    }

    /// The graph as text, for a model file.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.to_text()).expect("plain data has a JSON form")
    }

    fn to_text(&self) -> GraphText {
        let names = |table: &[Param], ids: &[usize]| ids.iter().map(|&i| table[i].name.clone()).collect();
        let layers = self.nodes.iter().filter_map(|node| match &node.source {
            Source::Op(spec) => Some(LayerText {
                name: node.name.clone(),
                op: spec.clone(),
                inputs: node.inputs.iter().map(|id| self.nodes[id.0].name.clone()).collect(),
                params: names(&self.params, &node.params),
                states: names(&self.states, &node.states),
            }),
            _ => None,
        });
        let images = self.nodes[0].shape;
        GraphText { images: (images.h, images.w, images.c), layers: layers.collect() }
    }

    /// Rebuilds a graph from [`Graph::to_json`], checking every shape again.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Format`] for text of another form, [`ErrorKind::Shape`] for layers that do not fit.
    pub fn from_json(text: &str) -> Result<Graph> {
        let text: GraphText = serde_json::from_str(text)
            .map_err(|e| Error::new(ErrorKind::Format, "model graph", e).expected("a graph written by handgrad"))?;
        Graph::from_text(text)
    }

    /// The same layers on images of another shape.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`], naming the first layer that does not fit.
    pub fn with_images(&self, images: Shape) -> Result<Graph> {
        Graph::from_text(GraphText { images: (images.h, images.w, images.c), ..self.to_text() })
    }

    fn from_text(text: GraphText) -> Result<Graph> {
        let (h, w, c) = text.images;
        let images = Shape::new(h, w, c);
        if images.checked_len().is_none_or(|n| n == 0) {
            return Err(shape_error("images", Mismatch::new(format!("[{h}, {w}, {c}]"), "1 to 2^31 − 1 elements")));
        }
        let mut graph = Graph::new(images);
        let mut by_name = HashMap::from([("images".to_owned(), NodeId(0))]);
        let mut params = HashMap::new();
        let mut states = HashMap::new();
        for layer in text.layers {
            let find = |name: &String| by_name.get(name).copied().unwrap_or(NodeId(usize::MAX));
            let inputs: Vec<NodeId> = layer.inputs.iter().map(find).collect();
            let shapes = graph.input_shapes(&layer.name, &inputs)?;
            let op = layer.op.op();
            op.output(&shapes).map_err(|mismatch| shape_error(&layer.name, mismatch))?;
            let param_ids = resolve(&mut graph.params, &mut params, &layer.name, &layer.params, op.params(&shapes))?;
            let state_ids = resolve(&mut graph.states, &mut states, &layer.name, &layer.states, op.states(&shapes))?;
            let id = graph.push(&layer.name, layer.op.clone(), &inputs, param_ids, state_ids)?;
            by_name.insert(layer.name, id);
        }
        if graph.nodes.len() == 1 {
            return Err(Error::new(ErrorKind::Format, "model graph", "no layers").expected("at least one layer"));
        }
        Ok(graph)
    }
}

/// Finds a layer's parameters by name, adding those that no earlier layer has.
fn resolve(
    table: &mut Vec<Param>,
    by_name: &mut HashMap<String, usize>,
    layer: &str,
    names: &[String],
    specs: Vec<ParamSpec>,
) -> Result<Vec<usize>> {
    if names.len() != specs.len() {
        let found = format!("{} parameters", names.len());
        return Err(shape_error(layer, Mismatch::new(found, format!("{} parameters", specs.len()))));
    }
    let mut ids = Vec::new();
    for (name, spec) in names.iter().zip(specs) {
        if spec.layout.checked_len().is_none() {
            return Err(shape_error(layer, Mismatch::new(format!("{name} is too large"), "fewer than 2^31 values")));
        }
        let id = *by_name.entry(name.clone()).or_insert_with(|| {
            table.push(Param { name: name.clone(), spec, frozen: false });
            table.len() - 1
        });
        ids.push(id);
    }
    Ok(ids)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphText {
    images: (usize, usize, usize),
    layers: Vec<LayerText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerText {
    name: String,
    op: OpSpec,
    inputs: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    params: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    states: Vec<String>,
}

fn shape_error(layer: &str, mismatch: Mismatch) -> Error {
    Error::new(ErrorKind::Shape, format!("layer {layer}"), mismatch.found).expected(mismatch.expected)
}

/// Shapes as text: `[8, 8, 3] and [10]`.
pub(crate) fn list(shapes: &[Shape]) -> String {
    shapes.iter().map(Shape::to_string).collect::<Vec<_>>().join(" and ")
}

/// The values of a layout that a summary counts.
fn count(params: &[Param], ids: &[usize]) -> usize {
    ids.iter().map(|&i| Layout::len(&params[i].spec.layout)).sum()
}
