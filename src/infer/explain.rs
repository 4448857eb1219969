//! What a layer of a model makes of an image, and where a model looks: Grad-CAM (Selvaraju et al. 2017).
//!
//! With A the output `[h, w, c]` of a layer and s the score of a class, the map is ReLU(Σ over c of αc·Ac), where αc is
//! the mean of ds/dA over the pixels of channel c. Behind a global mean and one linear layer αc is the class's weight,
//! divided by h·w, and the map the positive part of that of CAM (Zhou et al. 2016).

use ndarray::{Array2, Array3, Array4, ArrayView3, ArrayView4, Axis};

use super::session::{log_sum_exp, non_finite};
use super::{Model, Prediction};
use crate::backend::Cpu;
use crate::probe::Probe;
use crate::{Error, ErrorKind, Result};

/// What speaks for a class, and where: the answer of [`Model::grad_cam`].
#[derive(Clone, Debug, PartialEq)]
pub struct Cam {
    /// The layer that was looked at.
    pub layer: String,
    /// The class that was asked about, or the most probable one.
    pub class: usize,
    /// `[h, w]` of the layer, 0 and above.
    pub map: Array2<f32>,
    /// What the model says about the image.
    pub prediction: Prediction,
}

impl Cam {
    /// The map at another size (height, width), by bilinear interpolation, its greatest value 1; zeros where nothing
    /// speaks for the class.
    pub fn heat(&self, size: (usize, usize)) -> Array2<f32> {
        let most = self.map.iter().fold(0.0, |most: f32, &value| most.max(value));
        let scale = if most > 0.0 { 1.0 / most } else { 0.0 };
        let (h, w) = self.map.dim();
        Array2::from_shape_fn(size, |(i, j)| {
            let ((top, bottom, down), (left, right, across)) = (between(i, size.0, h), between(j, size.1, w));
            let row = |i: usize| self.map[[i, left]] * (1.0 - across) + self.map[[i, right]] * across;
            scale * (row(top) * (1.0 - down) + row(bottom) * down)
        })
    }
}

/// Place `i` of `size` among `from`: the two nearest places, and how far it lies from the first to the second.
fn between(i: usize, size: usize, from: usize) -> (usize, usize, f32) {
    let last = from.saturating_sub(1);
    let at = ((i as f64 + 0.5) / size as f64 * from as f64 - 0.5).clamp(0.0, last as f64);
    (at as usize, (at as usize + 1).min(last), at.fract() as f32)
}

impl Model {
    /// The output `[h, w, c]` of the layer called `layer` for one RGB image `[height, width, 3]` of any size.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] where the model runs no such layer, and as [`Model::predict`].
    pub fn features(&self, image: &ArrayView3<'_, u8>, layer: &str) -> Result<Array3<f32>> {
        let input = self.normalised(image)?;
        let mut probe = Probe::<Cpu>::new(self.graph(), layer, 1)?;
        let output = probe.output(&self.inner().params, input.view())?;
        Ok(output.index_axis(Axis(0), 0).to_owned())
    }

    /// Where in an image of any size something speaks for `class` (else for the most probable one), as the layer called
    /// `layer` has it (else the last that has more than one pixel).
    ///
    /// ```
    /// # use handgrad::io::model_file::{ModelInfo, Preprocessing};
    /// # use handgrad::{Params, infer::Model, models, rng::Key};
    /// # let graph = models::build("convnet2", &Default::default())?;
    /// # let preprocessing = Preprocessing::new((32, 32), [0.5; 3], [0.25; 3]);
    /// # let info = ModelInfo::new((0..10).map(|i| i.to_string()), preprocessing);
    /// # let model = Model::from_parts(&graph, &Params::<f32>::new(&graph, Key::new(1))?, info)?;
    /// let image = ndarray::Array3::<u8>::zeros((480, 640, 3)); // RGB
    /// let cam = model.grad_cam(&image.view(), Some(3), None)?;
    /// assert_eq!(cam.heat((480, 640)).dim(), (480, 640));
    /// # Ok::<(), handgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] where the model has no such class or layer, or no layer with more than one pixel;
    /// [`ErrorKind::NonFinite`] where a score is not finite; and as [`Model::predict`].
    pub fn grad_cam(&self, image: &ArrayView3<'_, u8>, class: Option<usize>, layer: Option<&str>) -> Result<Cam> {
        let layer = match layer.or_else(|| self.graph().last_map().map(|node| node.name.as_str())) {
            Some(layer) => layer.to_owned(),
            None => {
                let e = Error::new(ErrorKind::Usage, "layer", "no layer of the model has more than one pixel");
                return Err(e.expected("a network with convolutions"));
            }
        };
        let classes = self.classes().len();
        if let Some(class) = class.filter(|&class| class >= classes) {
            return Err(Error::new(ErrorKind::Usage, "class", class).expected(format!("0 to {}", classes - 1)));
        }
        let input = self.normalised(image)?;
        let mut probe = Probe::<Cpu>::new(self.graph(), &layer, 1)?;
        let mut asked = 0;
        let seen = probe.explain(&self.inner().params, input.view(), |_, scores| {
            let best = (0..classes).fold(0, |best, c| if scores[c] > scores[best] { c } else { best });
            asked = class.unwrap_or(best);
            asked
        })?;
        let scores = seen.scores.row(0);
        let (largest, log_sum) = log_sum_exp(scores.iter().copied());
        if !largest.is_finite() || !log_sum.is_finite() {
            return Err(non_finite(0));
        }
        let probability = |&score: &f32| (f64::from(score) - largest - log_sum).exp() as f32;
        let probabilities: Vec<f32> = scores.iter().map(probability).collect();
        let prediction = Prediction::new(self.classes(), &probabilities);
        Ok(Cam { layer, class: asked, map: weighted(seen.output, seen.gradient), prediction })
    }

    /// An image as the network sees it: `[1, h, w, 3]`.
    fn normalised(&self, image: &ArrayView3<'_, u8>) -> Result<Array4<f32>> {
        let image = self.fitted(image.view())?;
        let (h, w, c) = image.dim();
        Ok(Array4::from_shape_fn((1, h, w, c), |(_, i, j, c)| self.inner().pixels[c][usize::from(image[[i, j, c]])]))
    }
}

/// ReLU(Σ αc·Ac) of one image.
fn weighted(output: ArrayView4<'_, f32>, gradient: ArrayView4<'_, f32>) -> Array2<f32> {
    let (_, h, w, c) = output.dim();
    let mean = |c: usize| gradient.index_axis(Axis(3), c).iter().map(|&g| f64::from(g)).sum::<f64>() / (h * w) as f64;
    let weights: Vec<f64> = (0..c).map(mean).collect();
    Array2::from_shape_fn((h, w), |(i, j)| {
        let sum: f64 = weights.iter().enumerate().map(|(c, weight)| weight * f64::from(output[[0, i, j, c]])).sum();
        sum.max(0.0) as f32
    })
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    fn cam(map: Array2<f32>) -> Cam {
        Cam { layer: "conv".into(), class: 0, map, prediction: Prediction::new(&[], &[]) }
    }

    #[test]
    fn heat_is_the_map_between_its_pixels() {
        let cam = cam(arr2(&[[0.0, 2.0], [4.0, 2.0]]));
        assert_eq!(cam.heat((2, 2)), arr2(&[[0.0, 0.5], [1.0, 0.5]]));
        let wide = cam.heat((2, 4));
        assert_eq!(wide.row(0).to_vec(), [0.0, 0.125, 0.375, 0.5]);
        assert_eq!(cam.heat((1, 1)), arr2(&[[0.5]]));
        assert_eq!(cam.heat((0, 3)).dim(), (0, 3));
    }

    #[test]
    fn heat_of_nothing_is_nothing() {
        assert_eq!(cam(Array2::zeros((3, 3))).heat((2, 2)), Array2::<f32>::zeros((2, 2)));
    }

    #[test]
    fn channels_are_weighed_by_their_mean_gradient() {
        let output = Array4::from_shape_vec((1, 1, 2, 2), vec![1.0, 2.0, 3.0, -4.0]).unwrap();
        let gradient = Array4::from_shape_vec((1, 1, 2, 2), vec![1.0, 0.0, 3.0, 1.0]).unwrap();
        // α = (2, 1/2)
        assert_eq!(weighted(output.view(), gradient.view()), arr2(&[[3.0, 4.0]]));
        assert_eq!(weighted(output.view(), gradient.mapv(|g| -g).view()), arr2(&[[0.0, 0.0]]));
    }
}
