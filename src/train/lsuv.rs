//! LSUV: layers scaled one after the other until their outputs have mean 0 and deviation 1 (Mishkin and Matas 2016).

use std::collections::HashSet;

use ndarray::{Array4, ArrayView4, Axis, Slice, s};

use crate::backend::{Backend, Real};
use crate::data::Loader;
use crate::engine::Engine;
use crate::graph::{NodeId, Source};
use crate::ops::OpSpec;
use crate::{Error, ErrorKind, Result};

/// How many of the first validation images a phase with `lsuv` looks at: E4's validation batch.
pub const IMAGES: usize = 128;
/// How far mean and deviation may stay from 0 and 1.
const TOLERANCE: f64 = 1e-3;
/// The most steps of one kind for one layer. One or two do where its bias does not spread its output.
const ROUNDS: usize = 100;

/// What a layer's output was before it was scaled, all images, places and channels together.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled {
    /// The layer.
    pub layer: String,
    /// The mean of its output.
    pub mean: f64,
    /// The standard deviation of its output, that of a sample.
    pub std: f64,
}

/// Scales every convolution and every linear layer, in the order in which they run, by what it makes of `images`
/// `[n, h, w, c]` with evaluation statistics, as E4's published code does:
///
/// ```text
/// while |mean| > 1e-3: bias ← bias − mean        where the layer has a bias
/// while |std − 1| > 1e-3: weight ← weight / std
/// ```
///
/// A layer whose weight an earlier one shares is left as that one's output made it, a frozen one as it is; so are twist
/// layers and convolutions with permuted groups. Images beyond the engine's largest
/// batch go through it in parts: the statistics are of all. Returns what each layer's output was when its turn came.
///
/// ```
/// use handgrad::{backend::Cpu, engine::Engine, models, rng::Key, train::lsuv::lsuv};
/// use ndarray::Array4;
/// let graph = models::build("bag-of-tricks", &Default::default())?;
/// let mut engine = Engine::<Cpu>::new(&graph, 4, 42)?;
/// let mut noise = Key::new(1).stream();
/// let images = Array4::from_shape_simple_fn((6, 32, 32, 3), || noise.normal() as f32);
/// lsuv(&mut engine, images.view())?;
/// let again = lsuv(&mut engine, images.view())?;
/// assert!(again.iter().all(|layer| (layer.std - 1.0).abs() <= 1e-3));
/// # Ok::<(), handgrad::Error>(())
/// ```
///
/// # Errors
/// Kind [`ErrorKind::Shape`] where the images do not fit, kind [`ErrorKind::NonFinite`], naming the layer, where a
/// layer's output does not vary or does not come to mean 0 and deviation 1.
pub fn lsuv<B: Backend>(engine: &mut Engine<B>, images: ArrayView4<'_, B::Elem>) -> Result<Vec<Scaled>> {
    let mut scaled = Vec::new();
    for layer in layers(engine) {
        let before = moments(engine, images, &layer)?;
        let mut now = before;
        if let Some(bias) = layer.bias {
            now = repeat(
                engine,
                images,
                &layer,
                now,
                |m| m.mean.abs() > TOLERANCE,
                |e, m| {
                    change(e, bias, |value| value - m.mean);
                },
            )?;
        }
        repeat(
            engine,
            images,
            &layer,
            now,
            |m| (m.std() - 1.0).abs() > TOLERANCE,
            |e, m| {
                change(e, layer.weight, |value| value / m.std());
            },
        )?;
        scaled.push(Scaled { layer: layer.name, mean: before.mean, std: before.std() });
    }
    Ok(scaled)
}

/// The first images of a loader, at most `count`, as one array.
///
/// # Errors
/// What reading the dataset meets.
pub(super) fn first_images<B: Backend>(loader: &Loader, count: usize) -> Result<Array4<B::Elem>> {
    let (height, width) = loader.config().size;
    let mut images = Array4::zeros((count.min(loader.images_per_epoch()), height, width, 3));
    let mut filled = 0;
    for batch in loader.epoch(0, 0)? {
        let batch = batch?;
        let taken = batch.len().min(images.dim().0 - filled);
        let mut part = images.slice_mut(s![filled..filled + taken, .., .., ..]);
        part.zip_mut_with(&batch.images().slice(s![..taken, .., .., ..]), |to, &v| *to = B::Elem::of(f64::from(v)));
        filled += taken;
        if filled == images.dim().0 {
            break;
        }
    }
    Ok(images)
}

/// A layer to scale; its parameters as places in the table.
struct Layer {
    node: NodeId,
    name: String,
    weight: usize,
    bias: Option<usize>,
}

/// The convolutions and linear layers on the way to the output, those aside that use an earlier one's weight or whose
/// weight is frozen.
fn layers<B: Backend>(engine: &Engine<B>) -> Vec<Layer> {
    let graph = engine.plan().graph();
    let (alive, mut seen) = (graph.alive(), HashSet::new());
    let scales = |source: &Source| matches!(source, Source::Op(OpSpec::Conv2d(_) | OpSpec::Linear(_)));
    let frozen = |param: usize| engine.params().table()[param].frozen;
    let found = graph.nodes().iter().enumerate().filter(|(i, node)| alive[*i] && scales(&node.source));
    found
        .filter(|(_, node)| seen.insert(node.params[0]) && !frozen(node.params[0]))
        .map(|(i, node)| Layer {
            node: NodeId(i),
            name: node.name.clone(),
            weight: node.params[0],
            bias: node.params.get(1).copied().filter(|&bias| !frozen(bias)),
        })
        .collect()
}

/// Mean and sum of squares around it.
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of<E: Real>(values: &[E]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().map(|v| v.wide()).sum::<f64>() / count;
        Moments { count, mean, squares: values.iter().map(|v| (v.wide() - mean).powi(2)).sum() }
    }

    /// Those of both sets together (Chan et al. 1979).
    fn and(self, other: Moments) -> Self {
        let count = self.count + other.count;
        let (apart, share) = (other.mean - self.mean, other.count / count);
        Moments {
            count,
            mean: self.mean + apart * share,
            squares: self.squares + other.squares + apart * apart * self.count * share,
        }
    }

    fn std(&self) -> f64 {
        (self.squares / (self.count - 1.0)).sqrt()
    }
}

/// The moments of a layer's output on all images; an error where they cannot be scaled to mean 0 and deviation 1.
fn moments<B: Backend>(engine: &mut Engine<B>, images: ArrayView4<'_, B::Elem>, layer: &Layer) -> Result<Moments> {
    let (n, most) = (images.dim().0, engine.plan().max_batch());
    let mut all = Moments::default();
    for start in (0..n).step_by(most) {
        let part = images.slice_axis(Axis(0), Slice::from(start..n.min(start + most)));
        engine.look(part, layer.node, |output| all = all.and(Moments::of(output)))?;
    }
    let broken = |found: String| Error::new(ErrorKind::NonFinite, format!("LSUV: layer {}", layer.name), found);
    if !(all.mean.is_finite() && all.std().is_finite()) {
        return Err(broken("an output that is not finite".into()).hint("begin with other weights"));
    }
    if all.std() == 0.0 {
        let e = broken("an output with a standard deviation of 0".into()).expected("one that varies");
        return Err(e.hint("its weights, or all that it reads, are 0"));
    }
    Ok(all)
}

/// Steps until the layer's output is no longer `off`.
fn repeat<B: Backend>(
    engine: &mut Engine<B>,
    images: ArrayView4<'_, B::Elem>,
    layer: &Layer,
    mut now: Moments,
    off: impl Fn(&Moments) -> bool,
    step: impl Fn(&mut Engine<B>, &Moments),
) -> Result<Moments> {
    for _ in 0..ROUNDS {
        if !off(&now) {
            return Ok(now);
        }
        step(engine, &now);
        now = moments(engine, images, layer)?;
    }
    let found = format!("mean {:.3e} and standard deviation {:.3e} after {ROUNDS} steps", now.mean, now.std());
    let e = Error::new(ErrorKind::NonFinite, format!("LSUV: layer {}", layer.name), found);
    Err(e.expected(format!("0 and 1, within {TOLERANCE}")).hint("a bias that spreads the output by itself does this"))
}

fn change<B: Backend>(engine: &mut Engine<B>, param: usize, to: impl Fn(f64) -> f64) {
    let range = engine.params().range(param);
    engine.params_mut().values_mut()[range].iter_mut().for_each(|value| *value = B::Elem::of(to(value.wide())));
}
