//! `convert`: images in any of the known layouts become one dataset file.

mod archive;
mod cifar;
mod decode;
mod folders;
mod layout;
pub mod pickle;
mod pipeline;

use std::path::{Path, PathBuf};

use handgrad::data::{Dataset, Split};
use handgrad::{Error, ErrorKind, Result};

use crate::is_same_file;
use crate::progress::{Progress, Unit};
pub use decode::{Fit, Resize, decode};
pub use pipeline::Report;
use pipeline::Sink;

/// Bytes of an image at most; no larger one is decoded either.
const MAX_IMAGE: u64 = 512 << 20;

/// How to convert.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A file that is no readable image ends the conversion.
    pub strict: bool,
    /// What happens to the images' size.
    pub resize: Resize,
    /// Threads that decode; `None`: one per core.
    pub threads: Option<usize>,
    /// The folder of the validation split where there are several candidates.
    pub valid: Option<String>,
    /// Show no progress.
    pub quiet: bool,
}

/// One image on its way into the dataset.
#[derive(Debug)]
pub(crate) struct Item {
    pub split: Split,
    pub label: u32,
    /// What to call it in a message.
    pub name: String,
    pub image: Image,
}

/// What an item's pixels come from.
#[derive(Debug)]
pub(crate) enum Image {
    /// Already decoded: RGB interleaved.
    Pixels { height: u32, width: u32, pixels: Vec<u8> },
    /// An image file.
    File(PathBuf),
    /// An image file's content.
    Bytes(Vec<u8>),
    /// Not an image of the dataset: why.
    Unusable(String),
}

/// A place that images come from.
pub(crate) trait Source {
    /// The names of the classes in the order of the labels.
    fn classes(&self) -> &[String];

    /// Number of items, if known before they are read.
    fn total(&self) -> Option<u64>;

    /// What the user should know before the conversion starts.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Hands every item to the sink, in an order that depends on the content of the source only.
    fn run(&mut self, sink: &mut Sink<'_>) -> Result<()>;
}

/// Converts `source` (a folder or a `.tar.gz`) into the dataset `out`.
///
/// # Errors
/// [`ErrorKind::Usage`] if `source` has no known layout, [`ErrorKind::Format`] for broken files (with `strict` the
/// first one; always for a broken batch of CIFAR) or if no image is left, [`ErrorKind::Io`].
pub fn convert(source: &Path, out: &Path, options: &Options) -> Result<Report> {
    if let Resize::Exact { height, width, .. } = options.resize
        && u64::from(height) * u64::from(width) * 3 > MAX_IMAGE
    {
        let found = format!("{height}x{width} pixels");
        return Err(Error::new(ErrorKind::Usage, "--size", found).expected("at most 512 MB for each image"));
    }
    if is_same_file(source, out) {
        let e = Error::new(ErrorKind::Usage, out.display(), "the source itself");
        return Err(e.expected("another file").hint("the dataset would take the place of what it is made of"));
    }
    let mut source = open(source, options)?;
    let mut progress = if options.quiet { Progress::silent() } else { Progress::new(Unit::Images, source.total(), 0) };
    for note in source.notes() {
        progress.warn(&note);
    }
    let classes = source.classes().to_vec();
    let mut sink = Sink::create(out, &classes, options, &mut progress)?;
    source.run(&mut sink)?;
    let report = sink.finish()?;
    Dataset::open(out)?; // what is announced as done can be opened
    Ok(report)
}

fn open(source: &Path, options: &Options) -> Result<Box<dyn Source>> {
    let metadata = source.metadata().map_err(|e| Error::io(source, &e))?;
    if metadata.is_dir() {
        if let Some(cifar) = cifar::in_folder(source)? {
            return Ok(Box::new(cifar));
        }
        return Ok(Box::new(folders::Folders::open(source, options.valid.as_deref())?));
    }
    let name = source.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if metadata.is_file() && (name.ends_with(".tar.gz") || name.ends_with(".tgz") || name.ends_with(".tar")) {
        return archive::open(source, options.valid.as_deref());
    }
    Err(unknown_layout(&source.display().to_string(), "not a folder and not a .tar.gz"))
}

/// An error that lists what `convert` reads.
fn unknown_layout(subject: &str, found: &str) -> Error {
    Error::new(ErrorKind::Usage, subject, found).expected("a known layout").hint(
        "one of: train/CLASS/IMAGE with val, valid or test beside train; train/123_CLASS.png (flat); \
         cifar-10-batches-bin; cifar-10-batches-py; cifar-100-binary; cifar-100-python; each as a folder or a .tar.gz",
    )
}
