//! `inspect`: what a dataset holds, as a table, as JSON, and as a picture.

use std::io::Cursor;
use std::path::Path;

use handgrad::data::{Dataset, Sample, Split};
use handgrad::io::atomic::write_atomically;
use handgrad::rng::Key;
use handgrad::{Error, ErrorKind, Result};
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};

/// What the index of a dataset tells.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Images of each class: train, valid.
    pub per_class: Vec<[u64; 2]>,
    /// Smallest and largest height.
    pub heights: (usize, usize),
    /// Smallest and largest width.
    pub widths: (usize, usize),
}

impl Summary {
    /// Reads the index; no pixel is touched.
    ///
    /// # Errors
    /// None that an opened dataset would give.
    pub fn of(dataset: &Dataset) -> Result<Self> {
        let mut summary = Summary {
            per_class: vec![[0; 2]; dataset.classes().len()],
            heights: (usize::MAX, 0),
            widths: (usize::MAX, 0),
        };
        for split in Split::ALL {
            for &i in dataset.split(split) {
                let (h, w, label) = dataset.size_and_label(i as usize)?;
                summary.per_class[label as usize][split as usize] += 1;
                summary.heights = (summary.heights.0.min(h), summary.heights.1.max(h));
                summary.widths = (summary.widths.0.min(w), summary.widths.1.max(w));
            }
        }
        Ok(summary)
    }
}

/// The table for people.
///
/// # Errors
/// As [`Summary::of`].
pub fn text(dataset: &Dataset) -> Result<String> {
    let summary = Summary::of(dataset)?;
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("file      {} ({:.1} MB)", dataset.path().display(), dataset.file_len() as f64 / 1e6));
    line(format!("checksum  {:016x}", dataset.checksum()));
    for split in Split::ALL {
        line(format!("{:9} {} images", split.name(), dataset.split(split).len()));
    }
    line(match dataset.fixed_size() {
        Some((h, w)) => format!("size      {h}×{w} pixels"),
        None => {
            let ((h0, h1), (w0, w1)) = (summary.heights, summary.widths);
            format!("size      varies: height {h0} to {h1}, width {w0} to {w1} pixels")
        }
    });
    let three = |v: [f32; 3]| format!("{:.5} {:.5} {:.5}", v[0], v[1], v[2]);
    line(format!("mean      {} (R G B of the training images, 0 to 1)", three(dataset.mean())));
    line(format!("std       {}", three(dataset.std())));
    let width = dataset.classes().iter().map(|name| name.chars().count()).max().unwrap_or(0).max(5);
    line(format!("\nlabel  {:width$}  {:>8}  {:>8}", "class", "train", "valid"));
    for (label, (name, [train, valid])) in dataset.classes().iter().zip(&summary.per_class).enumerate() {
        line(format!("{label:5}  {name:width$}  {train:8}  {valid:8}"));
    }
    Ok(out)
}

/// The same for programs, with a digest of each split's content, for which the whole file is read.
///
/// # Errors
/// [`ErrorKind::Format`] if a page is damaged.
pub fn json(dataset: &Dataset) -> Result<Value> {
    let summary = Summary::of(dataset)?;
    let split = |split: Split| -> Result<Value> {
        let digest = format!("{:032x}", dataset.content_digest(split)?);
        Ok(json!({ "images": dataset.split(split).len(), "content_digest": digest }))
    };
    let classes = dataset.classes().iter().zip(&summary.per_class);
    let classes: Vec<Value> = classes.map(|(name, n)| json!({ "name": name, "train": n[0], "valid": n[1] })).collect();
    Ok(json!({
        "file": dataset.path().display().to_string(),
        "bytes": dataset.file_len(),
        "checksum": format!("{:016x}", dataset.checksum()),
        "page_size": dataset.page_size(),
        "images": dataset.len(),
        "train": split(Split::Train)?,
        "valid": split(Split::Valid)?,
        "fixed_size": dataset.fixed_size().map(|(h, w)| [h, w]),
        "height": [summary.heights.0, summary.heights.1],
        "width": [summary.widths.0, summary.widths.1],
        "mean": dataset.mean(),
        "std": dataset.std(),
        "classes": classes,
    }))
}

/// Rows (classes) and columns (samples) of the picture, at most.
const GRID: (usize, usize) = (24, 10);
/// Pixels between cells.
const GAP: u32 = 2;

/// A picture of random samples: a row for each class (the first 24), from the training split if there is one.
///
/// # Errors
/// [`ErrorKind::Format`] if a page is damaged.
pub fn grid(dataset: &Dataset) -> Result<RgbImage> {
    let split = if dataset.split(Split::Train).is_empty() { Split::Valid } else { Split::Train };
    let rows = dataset.classes().len().min(GRID.0);
    let mut of_class: Vec<Vec<u32>> = vec![Vec::new(); rows];
    let mut longest = 1;
    for &i in dataset.split(split) {
        let (h, w, label) = dataset.size_and_label(i as usize)?;
        longest = longest.max(h).max(w);
        if let Some(class) = of_class.get_mut(label as usize) {
            class.push(i);
        }
    }
    let cell = longest.clamp(64, 128) as u32;
    let side = |n: usize| n as u32 * (cell + GAP) + GAP;
    let mut picture = RgbImage::from_pixel(side(GRID.1), side(rows), Rgb([24; 3]));
    for (row, class) in of_class.iter_mut().enumerate() {
        Key::new(0).with(row as u64).stream().shuffle(class);
        for (column, &i) in class.iter().take(GRID.1).enumerate() {
            let image = thumbnail(&dataset.sample(i as usize)?, cell);
            let (x, y) = (side(column) + (cell - image.width()) / 2, side(row) + (cell - image.height()) / 2);
            imageops::replace(&mut picture, &image, i64::from(x), i64::from(y));
        }
    }
    Ok(picture)
}

/// The sample scaled to fit a square cell; small images by whole factors, so that their pixels can be seen.
fn thumbnail(sample: &Sample<'_>, cell: u32) -> RgbImage {
    let (h, w) = (sample.height as u32, sample.width as u32);
    let image = RgbImage::from_fn(w, h, |x, y| {
        let at = 3 * (y as usize * sample.width + x as usize);
        Rgb([sample.pixels[at], sample.pixels[at + 1], sample.pixels[at + 2]])
    });
    let longer = h.max(w);
    if longer <= cell {
        let factor = cell / longer;
        return imageops::resize(&image, w * factor, h * factor, FilterType::Nearest);
    }
    let scaled = |n: u32| (u64::from(n) * u64::from(cell) / u64::from(longer)).max(1) as u32;
    imageops::resize(&image, scaled(w), scaled(h), FilterType::Triangle)
}

/// Writes a picture as PNG.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn write_png(picture: &RgbImage, path: &Path) -> Result<()> {
    let mut bytes = Cursor::new(Vec::new());
    let encoded = picture.write_to(&mut bytes, ImageFormat::Png);
    encoded.map_err(|e| Error::new(ErrorKind::Io, path.display(), e))?;
    write_atomically(path, |file| std::io::Write::write_all(file, bytes.get_ref()).map_err(|e| Error::io(path, &e)))
}
