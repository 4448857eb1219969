//! `handgrad predict`: what a model says about images.

use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3, Array4, Axis, s};
use rayon::prelude::*;
use serde_json::json;

use super::backend::{device, in_pool, threads};
use super::out::Out;
use crate::infer::{Device, Model, Prediction, Session, Views, pixels};
use crate::io::picture;
use crate::{Error, ErrorKind, Result};

/// Images that are read and classified together, where they are small.
const BATCH: usize = 64;
/// Pixels of a batch of large ones.
const BATCH_PIXELS: usize = 1 << 22;
/// The longest line of a list of paths.
const MAX_LINE: u64 = 1 << 16;

/// Classify images: the most probable classes of each, one line per image.
///
/// An image that cannot be read is reported on stderr, the others go on, and the exit code is 1 at the end.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model file (.safetensors)
    model: PathBuf,
    /// Image files; folders (all images in them and their subfolders); `-`: a list of paths on standard input
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// Classes to show for each image
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Average the scores of each image's views: `flip`, `flip_translate`
    #[arg(long, value_name = "VIEWS", default_value = "one", value_parser = views)]
    tta: Views,
    /// cpu or cuda[:N]
    #[arg(long, value_name = "B", default_value = "cpu", value_parser = device)]
    backend: Device,
    /// Threads; all cores by default
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Print one JSON array with an object per image
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What the model gets wrong, and kind [`ErrorKind::Format`] at the end where an image could not be read.
pub fn run(args: Args) -> Result<()> {
    let model = Model::load(&args.model)?;
    let mut printer = Printer::new(args.top as usize, args.json);
    let paths = Paths { arguments: args.images.into(), reads_stdin: false, in_folders: Vec::new() };
    in_pool(args.threads, || classify(&model, (args.backend, args.tta), paths, &mut printer))?;
    printer.finish()
}

/// The name of views.
fn views(name: &str) -> std::result::Result<Views, String> {
    name.parse().map_err(|_| "expected one, flip or flip_translate".into())
}

fn classify(model: &Model, (on, views): (Device, Views), mut paths: Paths, printer: &mut Printer) -> Result<()> {
    let (height, width) = model.size();
    let batch_size = (BATCH_PIXELS / height.saturating_mul(width).max(1)).clamp(1, BATCH);
    let mut session = model.session_on(on, batch_size)?.with_views(views)?;
    let mut probabilities = Array2::zeros((batch_size, model.classes().len()));
    while !printer.out.is_closed() {
        let batch: Vec<Found> = paths.by_ref().take(batch_size).collect();
        if batch.is_empty() {
            break;
        }
        let images: Vec<_> = batch
            .into_par_iter()
            .map(|Found { path, error }| {
                let image = error.map_or_else(|| load(model, &path), Err);
                (path, image)
            })
            .collect();
        let good = images.iter().filter(|(_, image)| image.is_ok()).count();
        predict(&mut session, images.iter().filter_map(|(_, image)| image.as_ref().ok()), good, &mut probabilities)?;
        let mut rows = probabilities.outer_iter();
        for (path, image) in images {
            match image {
                Ok(_) => {
                    let row = rows.next().map(|row| row.to_vec()).unwrap_or_default();
                    printer.prediction(&path, &Prediction::new(model.classes(), &row))?;
                }
                Err(why) => printer.failure(&path, &why)?,
            }
        }
        printer.out.flush()?;
    }
    Ok(())
}

/// Decodes an image and brings it to the model's size.
fn load(model: &Model, path: &Path) -> std::result::Result<Array3<u8>, String> {
    let image = picture::read(path).and_then(|bytes| picture::decode(&bytes))?;
    let image = pixels(&image).and_then(|image| model.fitted(image).map(ndarray::CowArray::into_owned));
    image.map_err(|e| e.to_string())
}

/// Classifies `count` images of the model's size.
fn predict<'a>(
    session: &mut Session,
    images: impl Iterator<Item = &'a Array3<u8>>,
    count: usize,
    probabilities: &mut Array2<f32>,
) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let (height, width) = session.model().size();
    let mut batch = Array4::zeros((count, height, width, 3));
    batch.axis_iter_mut(Axis(0)).zip(images).for_each(|(mut to, image)| to.assign(image));
    session.predict_into(batch.view(), probabilities.slice_mut(s![..count, ..]))
}

/// Prints predictions as they come.
struct Printer {
    out: Out,
    top: usize,
    json: bool,
    images: usize,
    failures: usize,
}

impl Printer {
    fn new(top: usize, json: bool) -> Self {
        Printer { out: Out::stdout(), top, json, images: 0, failures: 0 }
    }

    fn prediction(&mut self, path: &Path, prediction: &Prediction) -> Result<()> {
        let top = prediction.top(self.top);
        if self.json {
            return self.object(json!({ "path": path.to_string_lossy(), "predictions": top }));
        }
        self.images += 1;
        let classes: Vec<_> = top.iter().map(|c| format!("{} {:.1} %", c.name, 100.0 * c.probability)).collect();
        self.out.line(format_args!("{}: {}", path.display(), classes.join(", ")))
    }

    fn failure(&mut self, path: &Path, why: &str) -> Result<()> {
        self.failures += 1;
        super::out::note(format_args!("{}: {why}", path.display()));
        if self.json {
            return self.object(json!({ "path": path.to_string_lossy(), "error": why }));
        }
        self.images += 1;
        Ok(())
    }

    /// An element of the array.
    fn object(&mut self, value: serde_json::Value) -> Result<()> {
        self.out.write(format_args!("{}{value}", if self.images == 0 { "[\n" } else { ",\n" }))?;
        self.images += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        if self.json {
            self.out.line(if self.images == 0 { "[]" } else { "\n]" })?;
        }
        self.out.flush()?;
        match (self.images, self.failures) {
            (_, 0) => Ok(()),
            (images, failures) => {
                let found = format!("{failures} of {images} could not be read");
                Err(Error::new(ErrorKind::Format, "images", found).hint("the lines above say which and why"))
            }
        }
    }
}

/// A path to classify, or why it is none.
struct Found {
    path: PathBuf,
    error: Option<String>,
}

/// The images that paths, folders and lists name, found while they are asked for.
struct Paths {
    /// The command line's, not yet looked at.
    arguments: VecDeque<PathBuf>,
    /// Standard input is a list, and has not ended.
    reads_stdin: bool,
    /// What folders hold, the next one last.
    in_folders: Vec<PathBuf>,
}

impl Paths {
    /// The next path, which may be a folder: what a folder holds comes before the next line of a list, and that before
    /// the next argument.
    fn next_path(&mut self) -> Option<Found> {
        if let Some(path) = self.in_folders.pop() {
            return Some(Found { path, error: None });
        }
        loop {
            if self.reads_stdin {
                match next_line() {
                    Ok(Some(path)) => return Some(Found { path, error: None }),
                    Ok(None) => self.reads_stdin = false,
                    Err(why) => {
                        self.reads_stdin = false;
                        return Some(Found { path: "standard input".into(), error: Some(why) });
                    }
                }
            }
            let path = self.arguments.pop_front()?;
            if path.as_os_str() != "-" {
                return Some(Found { path, error: None });
            }
            self.reads_stdin = true;
        }
    }
}

impl Iterator for Paths {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let found = self.next_path()?;
            if found.error.is_some() || !found.path.is_dir() {
                return Some(found);
            }
            match images_in(&found.path) {
                Ok(images) => self.in_folders.extend(images.into_iter().rev()),
                Err(e) => return Some(Found { error: Some(e.to_string()), ..found }),
            }
        }
    }
}

/// Subfolders, and files whose names say that they are images, in alphabetical order. Links to folders are left out:
/// they may lead in circles.
fn images_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let is_folder = entry.file_type()?.is_dir();
        if is_folder || (!path.is_dir() && picture::is_named_so(&path)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The next path of a list; empty lines are skipped.
fn next_line() -> std::result::Result<Option<PathBuf>, String> {
    let mut stdin = std::io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = stdin.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
        if read as u64 == MAX_LINE && !line.ends_with(b"\n") {
            return Err(format!("a line longer than {MAX_LINE} bytes is no path"));
        }
        let text = line.trim_ascii_end();
        match (read, text) {
            (0, _) => return Ok(None),
            (_, []) => {}
            (_, text) => return Ok(Some(path_of(text))),
        }
    }
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(bytes).into()
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    String::from_utf8_lossy(bytes).into_owned().into()
}
