//! A first convolution that whitens: its outputs are the patches under its window in directions of their own, each scaled
//! to the same size (Page 2018; hlb-CIFAR10; Jordan 2024).

use std::sync::Arc;

use ndarray::ArrayView4;
use rayon::prelude::*;
use serde::Serialize;

use crate::backend::{Backend, Real};
use crate::data::{Augment, Dataset, Loader, LoaderConfig};
use crate::engine::Engine;
use crate::graph::{Graph, NodeId, Source};
use crate::ops::{Layout, OpSpec};
use crate::{Error, ErrorKind, Result};

/// What the whitening is made from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Whiten {
    /// Training images that are looked at, in the order of the first epoch.
    pub images: u32,
    /// ε beside a direction's mean square.
    pub eps: f64,
}

impl Default for Whiten {
    /// The published numbers: 5000 images, ε 5e-4.
    fn default() -> Self {
        Whiten { images: 5000, eps: 5e-4 }
    }
}

/// Images that are read and looked at together.
const BATCH: usize = 250;

/// Sweeps of rotations after which a matrix is diagonal: some ten do for any.
const SWEEPS: usize = 60;

/// Sets the weight of the convolution that reads the images from training images, framed and normalised as `config` has it,
/// not augmented; its bias stays. With M the mean of p·pᵀ over all patches p under its window, M = Σ λᵢ·vᵢ·vᵢᵀ, output i is
///
/// ```text
/// vᵢ·p/√(λᵢ + ε)      the largest λ first, for the first half of the outputs
/// −vᵢ·p/√(λᵢ + ε)     for as many outputs behind them
/// ```
///
/// An activation after it then sees both sides of each direction. Outputs beyond twice the values of a patch stay as they
/// are.
///
/// # Errors
/// Kind [`ErrorKind::Usage`] where no ungrouped, undilated convolution reads the images, or where it has a single output; what
/// reading the dataset meets.
pub fn first_layer<B: Backend>(
    engine: &mut Engine<B>,
    dataset: &Arc<Dataset>,
    config: &LoaderConfig,
    settings: Whiten,
) -> Result<()> {
    let (weight, window) = first_convolution(engine.plan().graph())?;
    let batch = BATCH.min(dataset.split(config.split).len()).max(1);
    // Few images are on their way at a time: what a run takes is announced without them.
    let config =
        LoaderConfig { augment: Augment::NONE, batch, drop_last: false, threads: 1, prefetch: 1, ..config.clone() };
    let mut moments = Moments::new(window);
    let mut left = settings.images as usize;
    for batch in Loader::new(Arc::clone(dataset), config)?.epoch(0, 0)? {
        let batch = batch?;
        let images = batch.images();
        let taken = left.min(batch.len());
        moments.add(images.slice(ndarray::s![..taken, .., .., ..]));
        left -= taken;
        if left == 0 {
            break;
        }
    }
    let filters = moments.whitening(settings.eps);
    let range = engine.params().range(weight);
    write(&filters, window.outputs, &mut engine.params_mut().values_mut()[range]);
    Ok(())
}

/// What of a convolution counts here.
#[derive(Clone, Copy, Debug)]
struct FirstLayer {
    kernel: (usize, usize),
    channels: usize,
    outputs: usize,
}

/// The convolution that reads the images: its weight's place in the table, its shape.
fn first_convolution(graph: &Graph) -> Result<(usize, FirstLayer)> {
    let alive = graph.alive();
    let reads = |(i, node): &(usize, &crate::graph::Node)| alive[*i] && node.inputs.contains(&NodeId(0));
    let conv = graph.nodes().iter().enumerate().filter(reads).find_map(|(_, node)| match &node.source {
        Source::Op(OpSpec::Conv2d(conv)) if conv.groups == 1 && conv.window.dilation == (1, 1) && conv.channels > 1 => {
            Some(node.params[0])
        }
        _ => None,
    });
    let layout = conv.map(|weight| (weight, &graph.params()[weight].spec.layout));
    match layout {
        Some((weight, &Layout::Conv { kernel, cin, cout })) => {
            Ok((weight, FirstLayer { kernel, channels: cin, outputs: cout }))
        }
        _ => {
            let e = Error::new(ErrorKind::Usage, "train.whiten", "no convolution for it reads the images");
            Err(e.expected("a model that begins with an ungrouped convolution of two outputs or more"))
        }
    }
}

/// The sum of p·pᵀ over patches, and their number.
struct Moments {
    layer: FirstLayer,
    len: usize,
    sums: Vec<f64>,
    count: f64,
}

impl Moments {
    fn new(layer: FirstLayer) -> Self {
        let len = layer.kernel.0 * layer.kernel.1 * layer.channels;
        Moments { layer, len, sums: vec![0.0; len * len], count: 0.0 }
    }

    /// Adds the patches at every place of these images. A sum per image, added in their order: the same bits for any number of
    /// threads.
    fn add(&mut self, images: ArrayView4<'_, f32>) {
        let ((kh, kw), c, len) = (self.layer.kernel, self.layer.channels, self.len);
        let (_, h, w, _) = images.dim();
        if h < kh || w < kw {
            return;
        }
        let images: Vec<_> = images.outer_iter().collect();
        let sums: Vec<Vec<f64>> = images
            .par_iter()
            .map(|image| {
                let (mut sums, mut patch) = (vec![0.0; len * len], vec![0.0; len]);
                for (y, x) in (0..=h - kh).flat_map(|y| (0..=w - kw).map(move |x| (y, x))) {
                    for (i, value) in patch.iter_mut().enumerate() {
                        *value = f64::from(image[[y + i / (kw * c), x + i / c % kw, i % c]]);
                    }
                    for (row, &a) in sums.chunks_mut(len).zip(&patch) {
                        row.iter_mut().zip(&patch).for_each(|(sum, &b)| *sum += a * b);
                    }
                }
                sums
            })
            .collect();
        for of_image in &sums {
            self.sums.iter_mut().zip(of_image).for_each(|(sum, v)| *sum += v);
            self.count += ((h - kh + 1) * (w - kw + 1)) as f64;
        }
    }

    /// The filters in the order of falling mean squares, each over a patch in the engine's order.
    fn whitening(&self, eps: f64) -> Vec<Vec<f64>> {
        let mean: Vec<f64> = self.sums.iter().map(|sum| sum / self.count.max(1.0)).collect();
        let (values, vectors) = eigen(mean, self.len);
        let mut order: Vec<usize> = (0..self.len).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
        let filter = |&k: &usize| {
            // Rounding may leave a direction that no patch has a little below 0.
            let scale = 1.0 / (values[k].max(0.0) + eps).sqrt();
            (0..self.len).map(|i| vectors[i * self.len + k] * scale).collect()
        };
        order.iter().map(filter).collect()
    }
}

/// Writes filters and their negatives into a weight `[kh][kw][cin][outputs]`.
fn write<E: Real>(filters: &[Vec<f64>], outputs: usize, weight: &mut [E]) {
    let pairs = filters.len().min(outputs / 2);
    for (k, filter) in filters.iter().take(pairs).enumerate() {
        for (row, &value) in weight.chunks_mut(outputs).zip(filter) {
            row[k] = E::of(value);
            row[pairs + k] = E::of(-value);
        }
    }
}

/// The eigenvalues of a symmetric matrix `[n][n]`, and its eigenvectors as columns of `[n][n]`, by Jacobi's rotations: each
/// makes one element outside the diagonal 0, and the sum of their squares falls to nothing.
fn eigen(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    for _ in 0..SWEEPS {
        let outside: f64 = (0..n * n).filter(|i| i / n != i % n).map(|i| a[i] * a[i]).sum();
        let all: f64 = a.iter().map(|v| v * v).sum();
        if outside <= 1e-30 * all {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p * n + q] == 0.0 {
                    continue;
                }
                // The smaller root of t² + 2·θ·t − 1 turns the least.
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * a[p * n + q]);
                let t = 1.0f64.copysign(theta) / (theta.abs() + (theta * theta + 1.0).sqrt());
                let (cos, sin) = (1.0 / (t * t + 1.0).sqrt(), t / (t * t + 1.0).sqrt());
                let turn = |x: f64, y: f64| (cos * x - sin * y, sin * x + cos * y);
                for k in 0..n {
                    (a[k * n + p], a[k * n + q]) = turn(a[k * n + p], a[k * n + q]);
                }
                for k in 0..n {
                    (a[p * n + k], a[q * n + k]) = turn(a[p * n + k], a[q * n + k]);
                    (vectors[k * n + p], vectors[k * n + q]) = turn(vectors[k * n + p], vectors[k * n + q]);
                }
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Cpu;
    use crate::data::{DatasetWriter, Split};
    use crate::models;
    use crate::rng::Key;

    #[test]
    fn eigenvectors_rebuild_the_matrix() {
        let n = 7;
        let mut noise = Key::new(1).stream();
        let half: Vec<f64> = (0..n * n).map(|_| noise.normal()).collect();
        let matrix: Vec<f64> = (0..n * n).map(|i| half[i] + half[i % n * n + i / n]).collect();
        let (values, vectors) = eigen(matrix.clone(), n);
        for (i, expected) in matrix.iter().enumerate() {
            let rebuilt: f64 = (0..n).map(|k| vectors[i / n * n + k] * values[k] * vectors[i % n * n + k]).sum();
            let product: f64 = (0..n).map(|k| vectors[i / n * n + k] * vectors[i % n * n + k]).sum();
            assert!((rebuilt - expected).abs() < 1e-12, "{i}: {rebuilt} {expected}");
            assert!((product - if i / n == i % n { 1.0 } else { 0.0 }).abs() < 1e-12);
        }
    }

    /// Images of smooth noise, so that neighbours resemble each other.
    fn dataset(folder: &std::path::Path) -> Arc<Dataset> {
        let path = folder.join("a.hgd");
        let mut writer = DatasetWriter::create(&path, &["a".into(), "b".into()]).unwrap();
        for i in 0..60u64 {
            let mut noise = Key::new(7).with(i).stream();
            let mut at = [128.0f64; 3];
            let mut pixel = || {
                at.iter_mut().for_each(|v| *v = (0.8 * *v + 25.0 + 20.0 * noise.normal()).clamp(0.0, 255.0));
                at.map(|v| v as u8)
            };
            let pixels: Vec<u8> = (0..32 * 32).flat_map(|_| pixel()).collect();
            let split = if i < 50 { Split::Train } else { Split::Valid };
            writer.push(split, (i % 2) as u32, 32, 32, &pixels).unwrap();
        }
        writer.finish().unwrap();
        Arc::new(Dataset::open(&path).unwrap())
    }

    /// The outputs of the first layer over all training images have the second moments of white noise.
    #[test]
    fn what_comes_out_is_white() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path());
        let graph = models::build("airbench94", &models::ModelOptions { classes: 2, ..Default::default() }).unwrap();
        let mut engine = Engine::<Cpu>::new(&graph, 50, 1).unwrap();
        let config = LoaderConfig::train(&dataset, 50);
        let settings = Whiten { eps: 1e-9, ..Whiten::default() };
        first_layer(&mut engine, &dataset, &config, settings).unwrap();
        let batch = Loader::new(dataset, config).unwrap().epoch(0, 0).unwrap().next().unwrap().unwrap();
        let mut outputs = Vec::new();
        engine.look(batch.images(), graph.find("0").unwrap(), |values| outputs = values.to_vec()).unwrap();
        let pixels = outputs.len() / 24;
        for i in 0..12 {
            for j in 0..12 {
                let mean = |a: usize, b: usize| {
                    let products = outputs.chunks(24).map(|pixel| f64::from(pixel[a]) * f64::from(pixel[b]));
                    products.sum::<f64>() / pixels as f64
                };
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((mean(i, j) - expected).abs() < 1e-3, "{i} {j}: {}", mean(i, j));
                assert!((mean(i, 12 + j) + expected).abs() < 1e-3, "{i} −{j}: {}", mean(i, 12 + j));
            }
        }
    }

    #[test]
    fn a_model_that_begins_otherwise_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path());
        let graph = models::build("simplenet", &models::ModelOptions { classes: 2, ..Default::default() }).unwrap();
        let mut engine = Engine::<Cpu>::new(&graph, 4, 1).unwrap();
        let config = LoaderConfig::train(&dataset, 4);
        let e = first_layer(&mut engine, &dataset, &config, Whiten::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Usage);
    }
}
