//! Predictions for decoded images and image files.

use std::path::Path;

use image::{DynamicImage, RgbImage};
use ndarray::ArrayView3;

use super::{Model, Prediction};
use crate::io::picture;
use crate::{Error, ErrorKind, Result};

impl Model {
    /// Classifies a decoded image of any size; transparency is ignored.
    ///
    /// # Errors
    /// As [`Model::predict`].
    pub fn predict_image(&self, image: &DynamicImage) -> Result<Prediction> {
        match image.as_rgb8() {
            Some(image) => self.predict(&pixels(image)?),
            None => self.predict(&pixels(&image.to_rgb8())?),
        }
    }

    /// Classifies an image file; see [`picture::decode`] for formats.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Format`] for a file that is no image or broken, and as [`Model::predict`].
    pub fn predict_path(&self, path: impl AsRef<Path>) -> Result<Prediction> {
        self.predict(&pixels(&open_image(path.as_ref())?)?)
    }
}

/// Reads and decodes an image file.
pub(crate) fn open_image(path: &Path) -> Result<RgbImage> {
    let image = picture::read(path).and_then(|bytes| picture::decode(&bytes));
    image.map_err(|why| Error::new(ErrorKind::Format, path.display(), why))
}

/// The image as `[height, width, 3]`.
pub(crate) fn pixels(image: &RgbImage) -> Result<ArrayView3<'_, u8>> {
    let dim = (image.height() as usize, image.width() as usize, 3);
    // The image's buffer may be longer than its pixels, never shorter.
    let bytes = image.as_raw().get(..dim.0 * dim.1 * dim.2).unwrap_or_default();
    ArrayView3::from_shape(dim, bytes).map_err(|e| Error::new(ErrorKind::Shape, "image", e))
}
