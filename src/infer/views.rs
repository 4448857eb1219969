//! Several views of an image, whose scores are averaged.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::backend::parallel;
use crate::graph::Shape;
use crate::{Error, ErrorKind, Result};

/// Which views of an image a model looks at; its scores before softmax are averaged over them.
///
/// ```
/// # use handgrad::io::model_file::{ModelInfo, Preprocessing};
/// # use handgrad::{Params, infer::Model, models, rng::Key};
/// # let graph = models::build("convnet2", &Default::default())?;
/// # let preprocessing = Preprocessing::new((32, 32), [0.5; 3], [0.25; 3]);
/// # let info = ModelInfo::new((0..10).map(|i| i.to_string()), preprocessing);
/// # let model = Model::from_parts(&graph, &Params::<f32>::new(&graph, Key::new(1))?, info)?;
/// use handgrad::infer::Views;
/// use ndarray::{Array4, Axis};
/// let mut session = model.session(8)?.with_views(Views::Flip)?;
/// let mut images = Array4::from_shape_fn((1, 32, 32, 3), |(_, y, x, c)| (3 * y + x + c) as f32 / 100.0);
/// let scores = session.scores(images.view())?.to_owned();
/// images.invert_axis(Axis(2));
/// assert_eq!(session.scores(images.view())?, scores); // a mirrored image is the same to it
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Views {
    /// The image alone.
    #[default]
    One,
    /// The image and its mirror image.
    Flip,
    /// Both, and both moved by a pixel down and right, and up and left (beyond the edges the mirror image, the edge not
    /// repeated); the two that stay weigh as much as the four that are moved (Jordan 2024).
    FlipTranslate,
}

/// A view: the source row and column of its first pixel, whether its rows run backwards, its part of the mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    top: isize,
    left: isize,
    flip: bool,
    pub weight: f32,
}

const fn view(by: isize, flip: bool, weight: f32) -> View {
    View { top: by, left: by, flip, weight }
}

impl Views {
    /// Each by its name.
    pub const NAMES: [(&'static str, Views); 3] =
        [("one", Views::One), ("flip", Views::Flip), ("flip_translate", Views::FlipTranslate)];

    /// The views, the image itself first.
    pub(super) fn all(self) -> &'static [View] {
        const ONE: [View; 1] = [view(0, false, 1.0)];
        const FLIP: [View; 2] = [view(0, false, 0.5), view(0, true, 0.5)];
        const FLIP_TRANSLATE: [View; 6] = [
            view(0, false, 0.25),
            view(0, true, 0.25),
            view(-1, false, 0.125),
            view(-1, true, 0.125),
            view(1, false, 0.125),
            view(1, true, 0.125),
        ];
        match self {
            Views::One => &ONE,
            Views::Flip => &FLIP,
            Views::FlipTranslate => &FLIP_TRANSLATE,
        }
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.all().len()
    }
}

impl View {
    /// Writes this view of images `[n][h][w][c]` of the shape `image`.
    pub fn write(&self, images: &[f32], image: Shape, out: &mut [f32]) {
        let Shape { h, w, c, .. } = image;
        parallel::rows_mut(out, w * c, w * c, |start, to| {
            let (i, y) = (start / (h * w * c), start / (w * c) % h);
            let y = mirrored(y as isize + self.top, h);
            let row = &images[(i * h + y) * w * c..][..w * c];
            for (x, pixel) in to.chunks_mut(c).enumerate() {
                let x = if self.flip { w - 1 - x } else { x };
                pixel.copy_from_slice(&row[mirrored(x as isize + self.left, w) * c..][..c]);
            }
        });
    }
}

/// Position `p` of an axis of `n`, at most one beyond its ends, reflected with the edge not repeated. An axis of 1 has its
/// edge alone.
fn mirrored(p: isize, n: usize) -> usize {
    let n = n as isize;
    let p = p.abs();
    (if p >= n { (2 * n - 2 - p).max(0) } else { p }) as usize
}

impl fmt::Display for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Views::NAMES.iter().find(|(_, views)| views == self).map_or("", |(name, _)| name))
    }
}

impl FromStr for Views {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Views::NAMES.iter().find(|(n, _)| *n == name).map(|(_, views)| *views).ok_or_else(|| {
            let names = Views::NAMES.map(|(n, _)| n).join(", ");
            Error::new(ErrorKind::Usage, "views", format!("\"{name}\"")).expected(format!("one of {names}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_whole_and_names_come_back() {
        for (name, views) in Views::NAMES {
            assert_eq!(views.all().iter().map(|view| view.weight).sum::<f32>(), 1.0);
            assert_eq!((name.parse::<Views>().unwrap(), views.to_string()), (views, name.to_owned()));
        }
        assert!("flop".parse::<Views>().is_err());
    }

    #[test]
    fn views_are_moved_then_mirrored() {
        let (h, w) = (3, 4);
        let images: Vec<f32> = (0..2 * h * w).map(|i| i as f32).collect();
        let mut out = vec![f32::NAN; images.len()];
        view(1, true, 1.0).write(&images, Shape::new(h, w, 1), &mut out);
        assert_eq!(out[..12], [6.0, 7.0, 6.0, 5.0, 10.0, 11.0, 10.0, 9.0, 6.0, 7.0, 6.0, 5.0]);
        view(-1, false, 1.0).write(&images, Shape::new(h, w, 1), &mut out);
        assert_eq!(out[12..], [17.0, 16.0, 17.0, 18.0, 13.0, 12.0, 13.0, 14.0, 17.0, 16.0, 17.0, 18.0]);
        view(1, false, 1.0).write(&images[..4], Shape::new(1, 4, 1), &mut out[..4]);
        assert_eq!(out[..4], [1.0, 2.0, 3.0, 2.0]);
    }
}
