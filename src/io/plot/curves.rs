//! Lines over epochs or steps, in panels one above the other.

use std::ops::Range;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Area, Drawn, GREY, INK, PALE, font, px, tidy_name, width_of, write_svg};
use crate::io::metrics::EpochMetrics;
use crate::{Error, ErrorKind, Result};

/// In pixels.
const WIDTH: i32 = 760;
/// In pixels.
const PANEL_HEIGHT: i32 = 220;
/// Room for the label below the lowest panel, in pixels.
const FOOT: i32 = 26;
/// Up to this many points a line shows each of them.
const MARKED: usize = 64;
/// Above this a value is drawn nowhere: axes of such numbers have no readable labels.
const HUGE: f64 = 1e15;

/// A line's colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "colours")]
pub enum Colour {
    Blue,
    Vermilion,
    Green,
    Purple,
}

impl Colour {
    fn rgb(self) -> RGBColor {
        match self {
            Colour::Blue => RGBColor(0x00, 0x72, 0xB2),
            Colour::Vermilion => RGBColor(0xD5, 0x5E, 0x00),
            Colour::Green => RGBColor(0x00, 0x9E, 0x73),
            Colour::Purple => RGBColor(0xB0, 0x5C, 0x8F),
        }
    }
}

/// One line of a panel.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// x and y, in the order of x; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// The line's colour.
    pub colour: Colour,
}

/// One pair of axes with its lines.
#[derive(Clone, Debug)]
pub struct Panel<'a> {
    /// What the y axis shows, with its unit.
    pub title: &'a str,
    /// The lines; a panel with one line has no legend.
    pub series: Vec<Series<'a>>,
}

/// Draws training and validation loss, accuracy, and learning rate over the epochs.
///
/// `lr` has the rate at every step, x counted in epochs (see [`Recipe::lr_curve`](crate::recipe::Recipe::lr_curve)),
/// drawn as far as the epochs go; without it the panel shows one rate per epoch.
///
/// # Errors
/// `Usage` without any epoch; `Io` if the file cannot be written.
pub fn curves(path: impl AsRef<Path>, epochs: &[EpochMetrics], lr: &[(f64, f64)]) -> Result<()> {
    let series = |name, colour, value: fn(&EpochMetrics) -> f64| {
        let points = epochs.iter().map(|m| (m.epoch as f64, value(m))).collect();
        Series { name, points, colour }
    };
    let loss = vec![
        series("training", Colour::Blue, |m| m.train_loss),
        series("validation", Colour::Vermilion, |m| m.valid_loss),
    ];
    let accuracy = vec![
        series("first guess", Colour::Vermilion, |m| 100.0 * m.accuracy),
        series("first five guesses", Colour::Green, |m| 100.0 * m.top5),
    ];
    let mut rate = series("learning rate", Colour::Purple, |m| m.lr);
    if let (Some(end), false) = (epochs.iter().map(|m| m.epoch).max(), lr.is_empty()) {
        rate.points = lr.iter().copied().filter(|&(x, _)| x <= end as f64).collect();
    }
    let panel = |title, series| Panel { title, series };
    let all = [panel("Loss", loss), panel("Validation accuracy, %", accuracy), panel("Learning rate", vec![rate])];
    panels(path, "epoch", &all)
}

/// Draws panels one above the other over the same x axis: a schedule, or any numbers of a run.
///
/// # Errors
/// `Usage` if no panel has a finite point; `Io` if the file cannot be written.
pub fn panels(path: impl AsRef<Path>, x_label: &str, panels: &[Panel<'_>]) -> Result<()> {
    let path = path.as_ref();
    let Some(x) = range_of(panels.iter().flat_map(|p| &p.series).flat_map(points_of).map(|(x, _)| x)) else {
        return Err(Error::new(ErrorKind::Usage, path.display(), "nothing to draw").expected("at least one epoch"));
    };
    let x = x.start.floor()..x.end.ceil();
    // 64 panels are more than anyone reads, and far from overflowing the picture's height.
    let shown = &panels[..panels.len().min(64)];
    let height = PANEL_HEIGHT * shown.len() as i32;
    write_svg(path, (WIDTH, height + FOOT), |root| {
        let (body, foot) = root.split_vertically(px(height));
        for (area, panel) in body.split_evenly((shown.len(), 1)).iter().zip(shown) {
            draw_panel(area, panel, &x)?;
        }
        let centred = font(14, GREY).pos(Pos::new(HPos::Center, VPos::Top));
        foot.draw_text(&tidy_name(x_label, 60), &centred, (px(WIDTH / 2 + 20), 0))?;
        Ok(())
    })
}

fn draw_panel(area: &Area<'_>, panel: &Panel<'_>, x: &Range<f64>) -> Drawn {
    area.draw_text(&tidy_name(panel.title, 80), &font(15, INK), (px(64), px(10)))?;
    draw_legend(area, panel)?;
    let y = range_of(panel.series.iter().flat_map(points_of).map(|(_, y)| y)).unwrap_or(0.0..1.0);
    let room = 0.06 * (y.end - y.start);
    let mut chart = ChartBuilder::on(area)
        .margin_top(px(36))
        .margin_right(px(24))
        .x_label_area_size(px(28))
        .y_label_area_size(px(64))
        .build_cartesian_2d(x.clone(), y.start - room..y.end + room)?;
    let ticks = if x.end - x.start < 12.0 { (x.end - x.start) as usize + 1 } else { 12 };
    let axis = GREY.stroke_width(px(1) as u32);
    chart
        .configure_mesh()
        .x_labels(ticks.max(3))
        .y_labels(5)
        .x_label_formatter(&|v| if v.fract() == 0.0 { tick(*v) } else { String::new() })
        .y_label_formatter(&|v| tick(*v))
        .label_style(font(13, GREY))
        .axis_style(axis)
        .bold_line_style(PALE.stroke_width(px(1) as u32))
        .light_line_style(TRANSPARENT)
        .set_all_tick_mark_size(px(5))
        .draw()?;
    for series in &panel.series {
        let colour = series.colour.rgb();
        let points: Vec<(f64, f64)> = points_of(series).collect();
        if points.len() <= MARKED {
            chart.draw_series(points.iter().map(|&p| Circle::new(p, px(3), colour.filled())))?;
        }
        chart.draw_series(LineSeries::new(points, colour.stroke_width(px(2) as u32)))?;
    }
    Ok(())
}

/// Names and colours of the lines, right-aligned beside the title.
fn draw_legend(area: &Area<'_>, panel: &Panel<'_>) -> Drawn {
    if panel.series.len() < 2 {
        return Ok(());
    }
    let mut right = px(WIDTH - 24);
    for series in panel.series.iter().rev() {
        let name = tidy_name(series.name, 30);
        let left = right - width_of(&name, 13);
        area.draw_text(&name, &font(13, INK), (left, px(11)))?;
        let stroke = series.colour.rgb().stroke_width(px(3) as u32);
        area.draw(&PathElement::new([(left - px(26), px(18)), (left - px(6), px(18))], stroke))?;
        right = left - px(44);
    }
    Ok(())
}

fn points_of<'a>(series: &'a Series<'_>) -> impl Iterator<Item = (f64, f64)> + 'a {
    let fine = |v: f64| v.abs() < HUGE; // false for NaN
    series.points.iter().copied().filter(move |&(x, y)| fine(x) && fine(y))
}

/// From the least to the greatest value, widened if they are (nearly) the same; `None` without values.
fn range_of(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let (low, high) = values.fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((v.min(low), v.max(high))),
    })?;
    // Below this the ticks could not be told apart.
    let least = 1e-6 * low.abs().max(high.abs());
    if high - low > least {
        return Some(low..high);
    }
    let half = if low == 0.0 { 0.5 } else { 0.5 * low.abs() };
    Some(low - half..high + half)
}

/// A number as short as an axis needs it: `0.25`, `12`, `1e-4`.
fn tick(v: f64) -> String {
    let size = v.abs();
    if size < 1e-12 {
        return "0".into();
    }
    if !(1e-3..1e5).contains(&size) {
        let text = format!("{v:.2e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'));
    }
    let text = format!("{v:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: u64) -> EpochMetrics {
        let t = epoch as f64;
        let (train_loss, valid_loss) = (1.9 / t.sqrt(), 1.8 / t.powf(0.4));
        let (accuracy, top5) = (1.0 - 0.6 / t.sqrt(), 1.0 - 0.1 / t);
        let lr = 0.01 * (1.0 + (t * 0.4).cos());
        EpochMetrics { epoch, train_loss, valid_loss, accuracy, top5, lr, seconds: 1.0, images_per_second: 1.0 }
    }

    fn drawn(epochs: &[EpochMetrics]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curves.svg");
        curves(&path, epochs, &[]).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_picture_has_every_line_and_label() {
        let epochs: Vec<_> = (1..=7).map(epoch).collect();
        let svg = drawn(&epochs);
        for text in ["Loss", "training", "validation", "Validation accuracy, %", "first five", "Learning rate", "epoch"]
        {
            assert!(svg.contains(text), "{text}");
        }
        for colour in ["#0072B2", "#D55E00", "#009E73", "#B05C8F"] {
            assert!(svg.contains(colour), "{colour}");
        }
        assert_eq!(svg.matches("<circle").count(), 5 * 7);
    }

    #[test]
    fn one_epoch_and_broken_numbers_still_give_a_picture() {
        drawn(&[epoch(1)]);
        let with = |v: f64| EpochMetrics { train_loss: v, valid_loss: v, accuracy: v, lr: v, ..epoch(2) };
        for v in [f64::NAN, f64::INFINITY, f64::MAX, 1e14, -1e14, 1e-300, 0.0, 5e-324] {
            drawn(&[epoch(1), with(v)]);
            drawn(&[with(v), with(v)]);
        }
        drawn(&[epoch(1), epoch(u64::MAX), epoch(2)]);
    }

    #[test]
    fn the_rate_is_drawn_as_far_as_the_epochs_go() {
        let folder = tempfile::tempdir().unwrap();
        let draw = |lr: &[(f64, f64)]| {
            let path = folder.path().join("curves.svg");
            curves(&path, &[epoch(1), epoch(2)], lr).unwrap();
            std::fs::read_to_string(path).unwrap()
        };
        let curve = [(0.0, 0.1), (0.5, 0.2), (1.5, 0.1)];
        let longer = [&curve[..], &[(2.5, 9.0), (3.0, 0.0)]].concat();
        assert_eq!(draw(&curve), draw(&longer));
        assert_ne!(draw(&curve), draw(&[]));
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curves.svg");
        assert_eq!(curves(&path, &[], &[(0.0, 1.0)]).unwrap_err().kind(), ErrorKind::Usage);
        assert!(!path.exists());
    }

    #[test]
    fn ticks_are_short() {
        for (v, text) in [(0.25, "0.25"), (12.0, "12"), (1e-4, "1e-4"), (0.0, "0"), (-2.5e-7, "-2.5e-7"), (2e5, "2e5")]
        {
            assert_eq!(tick(v), text);
        }
    }
}
