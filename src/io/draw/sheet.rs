//! A sheet of small pictures in rows, with a title and captions.

use image::{Rgb, RgbImage, imageops};

use crate::io::lettering;

const WHITE: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([0x24, 0x29, 0x2F]);
const GREY: Rgb<u8> = Rgb([0x57, 0x60, 0x6A]);
/// Between cells, and around the sheet.
const GAP: u32 = 14;
/// Of all text.
const SCALE: u32 = 2;
/// From one line of text to the next.
const LINE: u32 = (lettering::HEIGHT + 3) * SCALE;

/// One picture with the lines under it.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The picture.
    pub picture: RgbImage,
    /// Lines, cut to the width of a cell.
    pub caption: Vec<String>,
}

impl Cell {
    /// A picture with one line or several.
    pub fn new(picture: RgbImage, caption: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Cell { picture, caption: caption.into_iter().map(Into::into).collect() }
    }
}

/// Pictures in rows. A line of the title that is longer than the sheet goes on in the next one.
#[derive(Clone, Debug, Default)]
pub struct Sheet {
    /// The first line in black, the others in grey.
    pub title: Vec<String>,
    /// Cells per row; 0 where the sheet may choose.
    pub columns: usize,
    /// Row by row.
    pub cells: Vec<Cell>,
}

impl Sheet {
    /// The sheet as one picture.
    pub fn draw(&self) -> RgbImage {
        let most = |of: &dyn Fn(&Cell) -> u32| self.cells.iter().map(of).max().unwrap_or(0);
        let (cell_width, picture_height) = (most(&|cell| cell.picture.width()), most(&|cell| cell.picture.height()));
        let cell_height = picture_height + GAP / 2 + LINE * most(&|cell| cell.caption.len() as u32);
        let columns = self.columns();
        let rows = self.cells.len().div_ceil(columns);
        let width = GAP + columns as u32 * (cell_width + GAP);
        let title = self.wrapped_title(width - 2 * GAP);
        let top = GAP + title.len() as u32 * LINE + if title.is_empty() { 0 } else { GAP / 2 };
        let mut sheet = RgbImage::from_pixel(width, top + rows as u32 * (cell_height + GAP / 2) + GAP / 2, WHITE);
        for (i, (text, ink)) in title.iter().enumerate() {
            lettering::draw(&mut sheet, (GAP, GAP + i as u32 * LINE), text, SCALE, *ink);
        }
        for (i, cell) in self.cells.iter().enumerate() {
            let x = GAP + (i % columns) as u32 * (cell_width + GAP);
            let y = top + (i / columns) as u32 * (cell_height + GAP / 2);
            let inset = (cell_width - cell.picture.width()) / 2;
            imageops::replace(&mut sheet, &cell.picture, i64::from(x + inset), i64::from(y));
            for (n, text) in cell.caption.iter().enumerate() {
                let text = lettering::fitted(text, SCALE, cell_width);
                let at = (x, y + picture_height + GAP / 2 + n as u32 * LINE);
                lettering::draw(&mut sheet, at, &text, SCALE, if n == 0 { INK } else { GREY });
            }
        }
        sheet
    }

    /// As many cells as make a sheet about one and a half times as wide as high, or some more where they fill their rows
    /// better.
    fn columns(&self) -> usize {
        let cells = self.cells.len().max(1);
        if self.columns > 0 {
            return self.columns.min(cells);
        }
        let least = ((1.5 * cells as f64).sqrt().ceil() as usize).min(cells);
        let empty = |columns: &usize| cells.next_multiple_of(*columns) - cells;
        (least..=cells.min(least + 3)).min_by_key(empty).unwrap_or(least)
    }

    /// The title in lines that fit a width, broken between words where that can be.
    fn wrapped_title(&self, width: u32) -> Vec<(String, Rgb<u8>)> {
        let mut lines = Vec::new();
        for (i, text) in self.title.iter().enumerate() {
            let mut line = String::new();
            for word in text.split(' ') {
                if !line.is_empty() && lettering::width_of(&format!("{line} {word}"), SCALE) > width {
                    lines.push((std::mem::take(&mut line), i));
                }
                line += if line.is_empty() { "" } else { " " };
                line += word;
            }
            lines.push((line, i));
        }
        lines
            .into_iter()
            .map(|(line, i)| (lettering::fitted(&line, SCALE, width), if i == 0 { INK } else { GREY }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn red(width: u32, height: u32) -> Cell {
        Cell::new(RgbImage::from_pixel(width, height, Rgb([200, 0, 0])), ["a"])
    }

    #[test]
    fn cells_lie_apart_and_inside() {
        let sheet =
            Sheet { title: vec!["three".into()], columns: 2, cells: vec![red(40, 30), red(20, 30), red(40, 10)] };
        let picture = sheet.draw();
        assert_eq!(picture.width(), 3 * GAP + 80);
        let reds = picture.pixels().filter(|pixel| pixel.0 == [200, 0, 0]).count();
        assert_eq!(reds, 40 * 30 + 20 * 30 + 40 * 10);
    }

    #[test]
    fn rows_are_as_full_as_may_be() {
        let columns = |cells: usize| Sheet { cells: vec![red(4, 4); cells], ..Sheet::default() }.columns();
        assert_eq!([0, 1, 2, 12, 16, 32].map(columns), [1, 1, 2, 6, 8, 8]);
    }

    #[test]
    fn titles_are_broken_between_words_and_nothing_is_too_small() {
        let sheet = Sheet { title: vec!["one two three".into()], columns: 0, cells: vec![red(90, 5)] };
        let lines: Vec<String> =
            sheet.wrapped_title(8 * lettering::width_of("n", SCALE)).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, ["one two", "three"]);
        assert_eq!(Sheet::default().draw().width(), GAP + GAP);
        Sheet { title: vec!["text".into()], columns: 0, cells: vec![red(0, 0)] }.draw();
    }
}
