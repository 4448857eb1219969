//! The confusion matrix as a picture.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Area, Drawn, GREY, INK, PALE, UNITS, font, px, tidy_name, width_of, write_svg};
use crate::{Error, ErrorKind, Result};

/// Above this many classes a square is smaller than a pixel on most screens, and the file is megabytes.
const MOST: usize = 256;
/// Up to this many classes squares have their numbers and rows their names.
const NAMED: usize = 32;
/// The longest class name shown.
const NAME: usize = 18;
/// Room outside the matrix and its names, in pixels: the axis titles.
const EDGE: i32 = 34;
/// The axis titles need a side of this many pixels.
const LEAST: i32 = 130;

/// Draws how often each class (row) was taken for each class (column); `counts` is row-major.
///
/// A square's colour is its share of the row, so rare classes are as readable as frequent ones.
///
/// # Errors
/// `Shape` unless there is a class and `counts` has its square; `Unsupported` above 256 classes; `Io` if the file
/// cannot be written.
pub fn confusion(path: impl AsRef<Path>, classes: &[&str], counts: &[u64]) -> Result<()> {
    let path = path.as_ref();
    let n = classes.len();
    if n == 0 || n.checked_mul(n) != Some(counts.len()) {
        let found = format!("{} counts for {n} classes", counts.len());
        return Err(Error::new(ErrorKind::Shape, path.display(), found).expected("one count per pair of classes"));
    }
    if n > MOST {
        return Err(Error::new(ErrorKind::Unsupported, path.display(), format!("{n} classes"))
            .expected(format!("at most {MOST} for a picture"))
            .hint("the numbers are in the output of `handgrad eval --json`"));
    }
    let layout = Layout::of(classes, counts);
    let pixels = |start: i32| start / UNITS + (layout.side() / UNITS).max(LEAST) + 20;
    let size = (pixels(layout.left), pixels(layout.top));
    write_svg(path, size, |area| {
        draw_squares(area, &layout, counts)?;
        draw_names(area, &layout)
    })
}

/// Places in units.
struct Layout {
    classes: usize,
    /// The classes' names, none if there are too many.
    names: Vec<String>,
    cell: i32,
    left: i32,
    top: i32,
}

impl Layout {
    fn of(classes: &[&str], counts: &[u64]) -> Layout {
        let n = classes.len();
        let names: Vec<String> = match n {
            0..=NAMED => classes.iter().map(|c| tidy_name(c, NAME)).collect(),
            _ => Vec::new(),
        };
        let longest = names.iter().map(|name| width_of(name, 14)).max().unwrap_or(0);
        let digits = counts.iter().max().map_or(1, |m| m.to_string().len());
        let cell = if names.is_empty() {
            px(900) / n as i32
        } else {
            (width_of(&"0".repeat(digits), 13) + px(12)).max(px(34))
        };
        let start = px(EDGE + 14) + longest;
        Layout { classes: n, names, cell, left: start, top: start }
    }

    fn side(&self) -> i32 {
        self.classes as i32 * self.cell
    }

    /// The upper left corner of a square.
    fn corner(&self, row: usize, column: usize) -> (i32, i32) {
        (self.left + column as i32 * self.cell, self.top + row as i32 * self.cell)
    }
}

fn draw_squares(area: &Area<'_>, layout: &Layout, counts: &[u64]) -> Drawn {
    let centred = Pos::new(HPos::Center, VPos::Center);
    for (row, line) in counts.chunks_exact(layout.classes).enumerate() {
        // As floats: the sum of a row's counts need not fit their type.
        let total: f64 = line.iter().map(|&c| c as f64).sum();
        for (column, &count) in line.iter().enumerate().filter(|(_, count)| **count > 0) {
            let share = count as f64 / total;
            let (x, y) = layout.corner(row, column);
            area.draw(&Rectangle::new([(x, y), (x + layout.cell, y + layout.cell)], blue(share).filled()))?;
            if !layout.names.is_empty() {
                let ink = if share.sqrt() > 0.6 { WHITE } else { INK };
                let middle = (x + layout.cell / 2, y + layout.cell / 2);
                area.draw_text(&count.to_string(), &font(13, ink).pos(centred), middle)?;
            }
        }
    }
    draw_grid(area, layout)
}

/// White for none to full blue for all; the root brings out the few that went astray.
fn blue(share: f64) -> RGBColor {
    let mix = |full: f64| (255.0 + (full - 255.0) * share.sqrt()) as u8;
    RGBColor(mix(0.0), mix(114.0), mix(178.0))
}

fn draw_grid(area: &Area<'_>, layout: &Layout) -> Drawn {
    let (left, top, side) = (layout.left, layout.top, layout.side());
    let line = |colour: RGBColor| colour.stroke_width(px(1) as u32);
    let inner = if layout.names.is_empty() { 1..1 } else { 1..layout.classes as i32 };
    for at in inner.map(|i| i * layout.cell) {
        area.draw(&PathElement::new([(left, top + at), (left + side, top + at)], line(PALE)))?;
        area.draw(&PathElement::new([(left + at, top), (left + at, top + side)], line(PALE)))?;
    }
    area.draw(&Rectangle::new([(left, top), (left + side, top + side)], line(GREY)))?;
    Ok(())
}

fn draw_names(area: &Area<'_>, layout: &Layout) -> Drawn {
    let upwards =
        |size, colour| ("sans-serif", px(size)).into_font().transform(FontTransform::Rotate270).color(&colour);
    for (i, name) in layout.names.iter().enumerate() {
        let (x, y) = layout.corner(i, i);
        let beside = Pos::new(HPos::Right, VPos::Center);
        area.draw_text(name, &font(14, INK).pos(beside), (layout.left - px(8), y + layout.cell / 2))?;
        let above = Pos::new(HPos::Left, VPos::Center);
        area.draw_text(name, &upwards(14, INK).pos(above), (x + layout.cell / 2, layout.top - px(8)))?;
    }
    let centred = Pos::new(HPos::Center, VPos::Center);
    let (half, middle) = (layout.side() / 2, px(EDGE) / 2);
    area.draw_text("predicted class", &font(15, GREY).pos(centred), (layout.left + half, middle))?;
    area.draw_text("true class", &upwards(15, GREY).pos(centred), (middle, layout.top + half))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(classes: &[&str], counts: &[u64]) -> Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("confusion.svg");
        confusion(&path, classes, counts)?;
        Ok(std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn a_picture_has_every_class_and_count() {
        let svg = drawn(&["cat", "dog & <wolf>", "a\u{1}b"], &[11, 12, 13, 0, 22, 0, 31, 0, 33]).unwrap();
        for text in ["cat", "dog &amp; &lt;wolf&gt;", "a b", "11", "12", "13", "22", "31", "33", "true class"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains('\u{1}') && !svg.contains("<wolf>"));
    }

    #[test]
    fn colours_follow_the_share_of_the_row() {
        assert_eq!((blue(0.0), blue(1.0)), (WHITE, RGBColor(0, 114, 178)));
        let svg = drawn(&["a", "b"], &[10, 0, 0, 1_000_000]).unwrap();
        assert_eq!(svg.matches("fill=\"#0072B2\"").count(), 2);
    }

    #[test]
    fn many_classes_and_extreme_counts() {
        let many: Vec<String> = (0..MOST).map(|i| i.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        drawn(&many, &vec![1; MOST * MOST]).unwrap();
        drawn(&["x"], &[u64::MAX]).unwrap();
        drawn(&["x"; 2], &[u64::MAX; 4]).unwrap();
        drawn(&["x"], &[0]).unwrap();
        assert_eq!(
            drawn(&["x"; MOST + 1], &vec![0; (MOST + 1) * (MOST + 1)]).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        for (classes, counts) in [(0, 0), (2, 3), (1, 0)] {
            assert_eq!(drawn(&vec!["x"; classes], &vec![0; counts]).unwrap_err().kind(), ErrorKind::Shape);
        }
    }
}
