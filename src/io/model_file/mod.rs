//! Model files: safetensors with PyTorch's parameter names and order, and all else that prediction needs.
//!
//! docs/models.md describes the format. A file holds the weights and state of a model (f32 or f64), its graph, class
//! names, preprocessing and notes in its metadata, and, in a checkpoint, [`Extra`] tensors and texts.
//!
//! Reading trusts nothing: lengths, offsets, shapes, names and a checksum over all content are checked before any
//! tensor is read, and no memory is reserved for what the file does not really hold.

mod header;
mod read;
mod state_dict;
mod tensors;
#[cfg(feature = "train")]
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::graph::Graph;
use crate::resample::Framing;
use crate::{Error, ErrorKind, Result};

pub use header::Dtype;
pub use read::{ModelFile, load};
pub use state_dict::{Weights, load_weights};
#[cfg(feature = "train")]
pub use write::{Extra, save};

/// The version of the format that this program writes and reads.
pub const VERSION: u32 = 1;
/// The most classes of a model.
pub const MAX_CLASSES: usize = 65_536;

/// Names in the file's metadata.
mod key {
    pub const VERSION: &str = "handgrad.version";
    pub const PROGRAM: &str = "handgrad.program";
    pub const GRAPH: &str = "handgrad.graph";
    pub const CLASSES: &str = "handgrad.classes";
    pub const PREPROCESSING: &str = "handgrad.preprocessing";
    pub const NOTES: &str = "handgrad.notes";
    pub const CHECKSUM: &str = "handgrad.checksum";
    /// Before all of these.
    pub const OWN: &str = "handgrad.";
    pub const ALL: [&str; 7] = [VERSION, PROGRAM, GRAPH, CLASSES, PREPROCESSING, NOTES, CHECKSUM];
    /// Before the name of an extra text, and of an extra tensor.
    pub const EXTRA: &str = "extra/";
    /// The checksum of a file that another program has changed on purpose.
    pub const UNCHECKED: &str = "none";
}

/// From an image's bytes to what the model sees: brought to one size, then `(byte/255 − mean)/std` per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Height and width in pixels.
    pub size: (usize, usize),
    /// Red, green, blue; in units of the full range, 0 to 1.
    pub mean: [f64; 3],
    /// Red, green, blue; above 0.
    pub std: [f64; 3],
    /// How the images that the model was validated on came to that size. [`Framing::Exact`] (also in files that do not
    /// say it): they had it; an image of another size is then predicted by [`Framing::Fill`].
    #[serde(default)]
    pub framing: Framing,
}

impl Preprocessing {
    /// For images that have the size.
    pub const fn new(size: (usize, usize), mean: [f64; 3], std: [f64; 3]) -> Self {
        Preprocessing { size, mean, std, framing: Framing::Exact }
    }

    /// The framing of an image to predict: any size will do.
    pub const fn framing_of_any(&self) -> Framing {
        match self.framing {
            Framing::Exact => Framing::Fill,
            framing => framing,
        }
    }
}

/// What a model file says about a model besides its graph and weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// The names of the classes, in the order of the model's outputs: of all, or of the first. Outputs without a name
    /// take their part in the softmax and are never predicted.
    pub classes: Vec<String>,
    /// What happens to an image before the model sees it.
    pub preprocessing: Preprocessing,
    /// Anything that a reader may want to know: the recipe, the accuracy…
    pub notes: BTreeMap<String, String>,
}

impl ModelInfo {
    /// Class names and preprocessing, without notes.
    pub fn new(classes: impl IntoIterator<Item = impl Into<String>>, preprocessing: Preprocessing) -> Self {
        let classes = classes.into_iter().map(Into::into).collect();
        ModelInfo { classes, preprocessing, notes: BTreeMap::new() }
    }

    /// Whether this describes a model of this graph.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] where the graph is no classifier of RGB images, or its sizes are others.
    pub(crate) fn check(&self, graph: &Graph, subject: &str) -> Result<()> {
        let wrong =
            |found: String, expected: String| Err(Error::new(ErrorKind::Shape, subject, found).expected(expected));
        let images = graph.shape(graph.images());
        let output = graph.shape(graph.output());
        let Preprocessing { size, mean, std, framing } = &self.preprocessing;
        if graph.nodes().len() < 2 || images.c != 3 || !output.is_flat() {
            let found = format!("a graph from images {images} to {output}");
            return wrong(found, "a graph from images [height, width, 3] to a vector of class scores".into());
        }
        if self.classes.is_empty() || self.classes.len() > output.c || output.c > MAX_CLASSES {
            let found = format!("{} class names for {} scores", self.classes.len(), output.c);
            return wrong(found, format!("a name for the first score or more of them, at most {MAX_CLASSES} scores"));
        }
        if *size != (images.h, images.w) {
            return wrong(
                format!("preprocessing to {}×{} pixels", size.0, size.1),
                format!("{}×{}", images.h, images.w),
            );
        }
        if let Err(e) = framing.check(*size) {
            return wrong(format!("a framing that does not fit: {e}"), "one for the model's size".into());
        }
        if mean.iter().any(|v| !v.is_finite()) || std.iter().any(|v| !v.is_finite() || *v <= 0.0) {
            return wrong(format!("mean {mean:?}, std {std:?}"), "finite means, deviations above 0".into());
        }
        Ok(())
    }
}
