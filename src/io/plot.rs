//! Pictures of a run: curves over epochs, the confusion matrix. SVG, so that they stay sharp at any size.
//!
//! The background is white whatever surrounds the picture, and the colours are those of Okabe and Ito (2008), which
//! people with any kind of colour blindness can tell apart.

mod confusion;
mod curves;

pub use confusion::confusion;
pub use curves::{Colour, Panel, Series, curves, panels};

use std::io::Write;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::atomic::write_atomically;
use crate::{Error, ErrorKind, Result};

/// Text and axes.
const INK: RGBColor = RGBColor(0x24, 0x29, 0x2F);
/// Labels beside the axes.
const GREY: RGBColor = RGBColor(0x57, 0x60, 0x6A);
/// Grid lines.
const PALE: RGBColor = RGBColor(0xE4, 0xE7, 0xEB);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What a drawing call may answer; an SVG in memory gives it no reason to.
type Drawn<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The drawing library rounds to whole units, which turns curves into stairs. So pictures are drawn this much larger
/// than they say they are; every length in this module is in units, [`px`] of what is seen.
const UNITS: i32 = 4;

const fn px(pixels: i32) -> i32 {
    pixels * UNITS
}

/// Draws on a white area of `(width, height)` pixels and writes the picture whole or not at all.
fn write_svg(path: &Path, (width, height): (i32, i32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<()> {
    let mut svg = String::new();
    let units = (px(width) as u32, px(height) as u32);
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, units).into_drawing_area();
        let drawn = area.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&area));
        drawn.and_then(|()| Ok(area.present()?))
    };
    drawn.map_err(|e| Error::new(ErrorKind::Unsupported, path.display(), e))?;
    let in_units = format!("width=\"{}\" height=\"{}\"", units.0, units.1);
    let svg = svg.replacen(&in_units, &format!("width=\"{width}\" height=\"{height}\""), 1);
    write_atomically(path, |file| file.write_all(svg.as_bytes()).map_err(|e| Error::io(path, &e)))
}

/// A font of `size` pixels.
fn font(size: i32, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", px(size)).into_font().color(&colour)
}

/// The width of a text in units, rather too wide than too narrow: SVG viewers differ in their fonts.
fn width_of(text: &str, size: i32) -> i32 {
    let ems = |c: char| match c {
        'f' | 'i' | 'j' | 'l' | 'r' | 't' | ' ' | '.' | ',' | '-' | '\'' => 0.36,
        'm' | 'w' | 'M' | 'W' | '%' => 0.95,
        c if c.is_uppercase() || !c.is_ascii() => 0.75,
        _ => 0.62,
    };
    (text.chars().map(ems).sum::<f64>() * f64::from(px(size))) as i32
}

/// A name on one line of at most `longest` characters, without what XML cannot say.
fn tidy_name(name: &str, longest: usize) -> String {
    let clean = |c: char| if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') { ' ' } else { c };
    match name.chars().count() > longest {
        true => name.chars().take(longest.saturating_sub(1)).map(clean).chain(['…']).collect(),
        false => name.chars().map(clean).collect(),
    }
}
