//! Images side by side in rows and columns, with their names, as one PNG.

use std::io::{Cursor, Write};
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

use super::atomic::write_atomically;
use super::lettering;
use crate::{Error, ErrorKind, Result};

/// Pixels between cells, and around all.
const GAP: u32 = 6;
/// Pixels between the first column and the others.
const WIDE_GAP: u32 = 18;
/// Small images are enlarged by whole numbers to about this many pixels, so that their own can be seen.
const GOOD_SIDE: u32 = 160;
/// The longest side of a picture, and the most pixels (300 MB).
const MAX_SIDE: u64 = 30_000;
const MAX_PIXELS: u64 = 100_000_000;
/// The widest name of a row, in pixels.
const LONGEST_NAME: u32 = 240;
/// Pixels of letters' pixels: in the names of rows and columns, and below images.
const LARGE: u32 = 2;
const SMALL: u32 = 1;

/// What the names of columns take, with the space around them.
const ABOVE: u32 = GAP + lettering::HEIGHT * LARGE + 4;
/// What the words below an image take.
const BELOW: u32 = 3 + lettering::HEIGHT * SMALL + GAP;

const GROUND: Rgb<u8> = Rgb([0xFF; 3]);
const INK: Rgb<u8> = Rgb([0x24, 0x29, 0x2F]);

/// A picture of equal cells, named by rows and columns; the first column stands apart.
///
/// ```
/// use handgrad::io::mosaic::Mosaic;
/// let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
/// let mut mosaic = Mosaic::new(&names(&["cat", "dog"]), &names(&["valid", "epoch 1"]), (32, 32))?;
/// mosaic.put((0, 1), &[0.5; 32 * 32 * 3], "a grey one")?;
/// let (height, width) = mosaic.size();
/// assert!(height > 2 * 160 && width > 2 * 160);
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct Mosaic {
    picture: RgbImage,
    cells: (usize, usize),
    /// Height and width of an image.
    image: (u32, u32),
    /// Pixels of the picture for one of an image, along a side.
    factor: u32,
    /// Where the first cell begins, from the left.
    left: u32,
}

impl Mosaic {
    /// Cells for images of `size`, height and width.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] for no cells or pixels, or too many for a picture.
    pub fn new(rows: &[String], columns: &[String], size: (usize, usize)) -> Result<Self> {
        let cells = (rows.len(), columns.len());
        let longest = size.0.max(size.1) as u64;
        let factor = (u64::from(GOOD_SIDE) / longest.max(1)).max(1);
        let name = |name: &String| lettering::fitted(name, LARGE, LONGEST_NAME);
        let widest = rows.iter().map(|row| lettering::width_of(&name(row), LARGE)).max().unwrap_or(0);
        let left = GAP + widest + GAP;
        let along = |cells: usize, side: usize, between: u32, before: u32| {
            let cell = (side as u64).saturating_mul(factor).saturating_add(u64::from(between));
            cell.saturating_mul(cells as u64).saturating_add(u64::from(before))
        };
        let height = along(cells.0, size.0, BELOW, ABOVE);
        let width = along(cells.1, size.1, GAP, left + WIDE_GAP - GAP);
        if [cells.0, cells.1, size.0, size.1].contains(&0)
            || height.max(width) > MAX_SIDE
            || height * width > MAX_PIXELS
        {
            let found = format!("{} rows and {} columns of {}×{} pixels", cells.0, cells.1, size.0, size.1);
            let e = Error::new(ErrorKind::Usage, "picture", found);
            return Err(e.expected(format!("sides of 1 to {MAX_SIDE} pixels, at most {MAX_PIXELS} pixels in all")));
        }
        let picture = RgbImage::from_pixel(width as u32, height as u32, GROUND);
        let image = (size.0 as u32, size.1 as u32);
        let mut mosaic = Mosaic { picture, cells, image, factor: factor as u32, left };
        for (row, label) in rows.iter().map(name).enumerate() {
            let (_, top) = mosaic.corner(row, 0);
            let y = top + (image.0 * mosaic.factor).saturating_sub(lettering::HEIGHT * LARGE) / 2;
            let x = left - GAP - lettering::width_of(&label, LARGE);
            lettering::draw(&mut mosaic.picture, (x, y), &label, LARGE, INK);
        }
        for (column, label) in columns.iter().enumerate() {
            let (left, _) = mosaic.corner(0, column);
            mosaic.centred((left, GAP), label, LARGE);
        }
        Ok(mosaic)
    }

    /// Rows of cells.
    pub fn rows(&self) -> usize {
        self.cells.0
    }

    /// Height and width of the picture, in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.picture.height(), self.picture.width())
    }

    /// Draws an image `[height][width][3]` of pixels from 0 to 1, what is beyond them cut off, into a row and column; with
    /// a few words below.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] for an image of another size or a cell that is not there.
    pub fn put(&mut self, (row, column): (usize, usize), image: &[f32], caption: &str) -> Result<()> {
        let (height, width) = self.image;
        let fits = image.len() as u64 == 3 * u64::from(height) * u64::from(width);
        if row >= self.cells.0 || column >= self.cells.1 || !fits {
            let e = Error::new(ErrorKind::Shape, "picture", format!("{} numbers at {row}, {column}", image.len()));
            return Err(e.expected(format!("{height}×{width}×3 in {} by {} cells", self.cells.0, self.cells.1)));
        }
        let (left, top) = self.corner(row, column);
        let (factor, pixels) = (self.factor, image.as_chunks::<3>().0);
        for (y, x) in (0..height * factor).flat_map(|y| (0..width * factor).map(move |x| (y, x))) {
            let pixel = pixels[(y / factor * width + x / factor) as usize];
            self.picture.put_pixel(left + x, top + y, Rgb(pixel.map(|v| (v * 255.0).round() as u8)));
        }
        self.centred((left, top + height * factor + 3), caption, SMALL);
        Ok(())
    }

    /// Writes the picture as PNG, whole or not at all.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut bytes = Cursor::new(Vec::new());
        let encoded = self.picture.write_to(&mut bytes, ImageFormat::Png);
        encoded.map_err(|e| Error::new(ErrorKind::Io, path.display(), e))?;
        write_atomically(path, |file| file.write_all(bytes.get_ref()).map_err(|e| Error::io(path, &e)))
    }

    /// The upper left corner of a cell's image: x, y.
    fn corner(&self, row: usize, column: usize) -> (u32, u32) {
        let apart = if column > 0 { WIDE_GAP - GAP } else { 0 };
        let x = self.left + column as u32 * (self.image.1 * self.factor + GAP) + apart;
        (x, ABOVE + row as u32 * (self.image.0 * self.factor + BELOW))
    }

    /// A text in the middle of a cell's width.
    fn centred(&mut self, (left, y): (u32, u32), text: &str, scale: u32) {
        let room = self.image.1 * self.factor;
        let text = lettering::fitted(text, scale, room);
        let x = left + (room - lettering::width_of(&text, scale)) / 2;
        lettering::draw(&mut self.picture, (x, y), &text, scale, INK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        vec!["I".into(); n]
    }

    #[test]
    fn each_image_lies_in_its_cell_and_nothing_overlaps() {
        let mut mosaic = Mosaic::new(&names(2), &names(3), (80, 40)).unwrap();
        let before = mosaic.picture.clone();
        for (row, column) in (0..2).flat_map(|row| (0..3).map(move |column| (row, column))) {
            let value = (100 + row * 3 + column) as f32 / 255.0;
            mosaic.put((row, column), &vec![value; 80 * 40 * 3], "").unwrap();
        }
        // Enlarged to 160×80; what was drawn before, the names, is still there.
        let count = |value: u8| mosaic.picture.pixels().filter(|p| p.0 == [value; 3]).count();
        assert!((100..106).all(|value| count(value) == 160 * 80));
        assert!(before.pixels().zip(mosaic.picture.pixels()).all(|(old, new)| *old == GROUND || old == new));
        let (height, width) = mosaic.size();
        assert_eq!(mosaic.picture.get_pixel(width - GAP - 1, height - BELOW - 1).0, [105; 3]);
        let with_words = before.pixels().filter(|p| **p == INK).count();
        assert_eq!(with_words, 5 * 11 * 4); // five names of one letter of 11 pixels
        mosaic.put((1, 2), &vec![0.4; 80 * 40 * 3], "a long text that has no room here").unwrap();
        assert!(mosaic.picture.pixels().filter(|p| **p == INK).count() > with_words);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for (rows, columns, size) in [(0, 1, (8, 8)), (1, 1, (8, 0)), (400, 1, (96, 96)), (1, 1, (usize::MAX, 2))] {
            let error = Mosaic::new(&names(rows), &names(columns), size).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
        let mut mosaic = Mosaic::new(&names(1), &names(1), (2, 2)).unwrap();
        assert!(mosaic.put((0, 0), &[f32::NAN; 12], "?").is_ok());
        for (row, column, len) in [(1, 0, 12), (0, 1, 12), (0, 0, 11)] {
            assert_eq!(mosaic.put((row, column), &vec![0.0; len], "").unwrap_err().kind(), ErrorKind::Shape);
        }
    }
}
