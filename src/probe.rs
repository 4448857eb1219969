//! Looking into a model: what a layer puts out, and how a class score depends on that.

use ndarray::{ArrayView1, ArrayView2, ArrayView4};

use crate::backend::Host;
use crate::graph::{Graph, Shape};
use crate::params::Params;
use crate::plan::{Arena, Input, Mode, Plan, require_memory};
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// A model that is run as in evaluation, and of which one layer's output stays, with its gradient.
///
/// ```
/// use handgrad::{backend::Cpu, models, Params, probe::Probe, rng::Key};
/// use ndarray::Array4;
/// let graph = models::build("convnet2", &Default::default())?;
/// let params = Params::<f32>::new(&graph, Key::new(1))?;
/// let mut probe = Probe::<Cpu>::new(&graph, "layers.0.relu", 1)?;
/// let images = Array4::zeros((1, 32, 32, 3));
/// let seen = probe.explain(&params, images.view(), |_, _| 3)?; // the score of class 3
/// assert_eq!(seen.output.dim(), seen.gradient.dim());
/// # Ok::<(), handgrad::Error>(())
/// ```
pub struct Probe<B: Host> {
    plan: Plan,
    arena: Arena<B::Elem>,
    /// A copy of the model's: kernels get it to change, although only training does.
    states: Arena<B::Elem>,
    /// What the layers behind the one that is looked at compute for their parameters. Nobody reads it.
    grads: Arena<B::Elem>,
}

/// What [`Probe::explain`] saw.
#[derive(Clone, Debug)]
pub struct Seen<'a, E> {
    /// The class scores `[n, classes]`.
    pub scores: ArrayView2<'a, E>,
    /// The layer's output `[n, h, w, c]`.
    pub output: ArrayView4<'a, E>,
    /// The gradient of each image's score of its class with respect to that output.
    pub gradient: ArrayView4<'a, E>,
}

impl<B: Host> Probe<B> {
    /// Compiles `graph` for batches of up to `max_batch` images, to look at the layer called `layer`.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] where there is no such layer or the model never runs it, and for a batch out of range;
    /// [`ErrorKind::Unsupported`] where memory is too small.
    pub fn new(graph: &Graph, layer: &str, max_batch: usize) -> Result<Self> {
        B::check()?;
        let plan = Plan::compile::<B>(graph, max_batch, Mode::Explain(graph.find(layer)?))?;
        let (values, states) = Params::<B::Elem>::lens(graph);
        let elements = values.saturating_add(states).saturating_add(plan.arena_len());
        require_memory(elements.saturating_mul(size_of::<B::Elem>()))?;
        let arena = Arena::new(plan.arena_len())?;
        Ok(Probe { arena, states: Arena::new(states)?, grads: Arena::new(values)?, plan })
    }

    /// The layer's output `[n, h, w, c]` for up to `max_batch` normalised images `[n, h, w, c]`.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where images or parameters do not fit the graph.
    pub fn output(
        &mut self,
        params: &Params<B::Elem>,
        images: ArrayView4<'_, B::Elem>,
    ) -> Result<ArrayView4<'_, B::Elem>> {
        let input = self.check(params, images)?;
        self.forward(params, input);
        let seen = self.plan.explained(images.dim().0, &self.arena);
        Ok(seen.expect("the plan explains a layer").0)
    }

    /// The layer's output and the gradient of one class score per image; `choose` gets an image's place and its scores
    /// and says which class.
    ///
    /// # Errors
    /// As [`Probe::output`], and kind [`ErrorKind::Usage`] where a class is none of the model's.
    pub fn explain(
        &mut self,
        params: &Params<B::Elem>,
        images: ArrayView4<'_, B::Elem>,
        mut choose: impl FnMut(usize, ArrayView1<'_, B::Elem>) -> usize,
    ) -> Result<Seen<'_, B::Elem>> {
        let input = self.check(params, images)?;
        self.forward(params, input);
        let (n, classes) = (images.dim().0, self.plan.classes());
        let scores = self.plan.logits(n, &self.arena);
        let chosen: Vec<usize> = scores.outer_iter().enumerate().map(|(i, scores)| choose(i, scores)).collect();
        if let Some(class) = chosen.iter().find(|&&class| class >= classes) {
            let e = Error::new(ErrorKind::Usage, "class", class);
            return Err(e.expected(format!("0 to {}", classes.saturating_sub(1))));
        }
        self.plan.explain::<B>(input, params, &mut self.grads, &mut self.arena, chosen);
        let Some((output, Some(gradient))) = self.plan.explained(n, &self.arena) else {
            return Err(Error::new(ErrorKind::Usage, "layer", "no class score depends on it"));
        };
        Ok(Seen { scores: self.plan.logits(n, &self.arena), output, gradient })
    }

    /// The shape of one image.
    fn image(&self) -> Shape {
        self.plan.graph().shape(self.plan.graph().images())
    }

    fn check<'a>(&self, params: &Params<B::Elem>, images: ArrayView4<'a, B::Elem>) -> Result<Input<'a, B::Elem>> {
        let (shape, max_batch, (n, h, w, c)) = (self.image(), self.plan.max_batch(), images.dim());
        let fits = (h, w, c) == (shape.h, shape.w, shape.c) && (1..=max_batch).contains(&n);
        if !fits || !images.is_standard_layout() {
            let expected = format!("1 to {max_batch} contiguous images of {shape}");
            return Err(Error::new(ErrorKind::Shape, "images", format!("[{n}, {h}, {w}, {c}]")).expected(expected));
        }
        if !params.are_of(self.plan.graph()) {
            let e = Error::new(ErrorKind::Shape, "model", "parameters of another graph");
            return Err(e.expected("the parameters that the graph names"));
        }
        Ok(Input { images, pixels: None, targets: None, key: Key::new(0) })
    }

    fn forward(&mut self, params: &Params<B::Elem>, input: Input<'_, B::Elem>) {
        self.states.all_mut().copy_from_slice(params.states());
        self.plan.infer::<B>(input, (params, &[]), &mut self.states, &mut self.arena);
    }
}
