//! Where the channels of a twist layer twist: centres, radii and masks over an image.

use image::{Rgb, RgbImage};

use crate::graph::{Graph, Node, Source};
use crate::io::draw::{self, Cell, Sheet};
use crate::ops::{Disc, OpSpec, Twist};
use crate::{Error, ErrorKind, Params, Result};

/// Pixels of a cell.
const SIDE: u32 = 168;
/// How far from the image the picture may reach, in its widths.
const REACH: f64 = 0.5;
const MASK: Rgb<u8> = Rgb([230, 120, 20]);
const INNER: Rgb<u8> = Rgb([0, 84, 160]);
const OUTER: Rgb<u8> = Rgb([90, 180, 230]);
const CENTRE: Rgb<u8> = Rgb([170, 0, 70]);
const OUTSIDE: Rgb<u8> = Rgb([232; 3]);

/// A cell for each of the first `channels` channels, and one for all of them together.
///
/// # Errors
/// Kind [`ErrorKind::Usage`] where the layer is no twist.
pub fn sheet(image: &RgbImage, layer: &Node, graph: &Graph, params: &Params<f32>, channels: usize) -> Result<Sheet> {
    let Source::Op(OpSpec::Twist(twist)) = &layer.source else {
        let kind = layer.op().map_or("an input", |op| op.kind());
        let e = Error::new(ErrorKind::Usage, "--masks", format!("layer {} is {kind}", layer.name));
        return Err(e.expected("a twist layer").hint("`handgrad features` without --layer lists the layers"));
    };
    let values = |which: usize| params.to_torch(&graph.params()[layer.params[which]].name).unwrap_or_default();
    let (radii, xs, ys) = (values(Twist::RADII), values(Twist::CENTER_X), values(Twist::CENTER_Y));
    let discs = radii.iter().zip(xs.iter().zip(&ys));
    let discs: Vec<Disc> = discs.map(|(&r, (&x, &y))| twist.disc(r.into(), (x.into(), y.into()))).collect();
    let inside = |disc: &&Disc| (0.0..1.0).contains(&disc.centre.0) && (0.0..1.0).contains(&disc.centre.1);
    let away = discs.len() - discs.iter().filter(inside).count();

    let shown = &discs[..channels.min(discs.len())];
    let canvas = Canvas::new(image, layer, shown);
    let mut cells = vec![Cell::new(canvas.draw(shown), [format!("first {}", shown.len())])];
    cells.extend(shown.iter().enumerate().map(|(c, disc)| {
        let radius = format!("{c}: R {:.2}", 2.0 * disc.radius);
        Cell::new(canvas.draw(std::slice::from_ref(disc)), [radius])
    }));
    let title = vec![
        format!("Masks of {}, {} channels", layer.name, discs.len()),
        format!(
            "orange where a channel twists: fully inside the dark circle, not beyond the light one; \
                 {away} of {} centres lie outside of the image",
            discs.len()
        ),
    ];
    Ok(Sheet { title, columns: 0, cells })
}

/// The image, pale, with room around it.
struct Canvas {
    image: RgbImage,
    /// Half a pixel of the layer's map, in its width and height: coordinates are those of pixels' corners.
    half: (f64, f64),
    /// The part of the plane that is drawn, in widths and heights of the image.
    from: (f64, f64),
    to: (f64, f64),
}

impl Canvas {
    /// With room for the centres.
    fn new(image: &RgbImage, layer: &Node, discs: &[Disc]) -> Self {
        let reach = |of: &dyn Fn(&Disc) -> f64| {
            let (least, most) =
                discs.iter().map(of).fold((0.0, 1.0), |(a, b): (f64, f64), v| (a.min(v - 0.05), b.max(v + 0.05)));
            (least.max(-REACH), most.min(1.0 + REACH))
        };
        let (across, down) = (reach(&|disc| disc.centre.0), reach(&|disc| disc.centre.1));
        Canvas {
            image: draw::dimmed(image, 0.35),
            half: (0.5 / layer.shape.w as f64, 0.5 / layer.shape.h as f64),
            from: (across.0, down.0),
            to: (across.1, down.1),
        }
    }

    /// Circles and centres of some channels over the mean of their masks.
    fn draw(&self, discs: &[Disc]) -> RgbImage {
        let (wide, high) = (self.to.0 - self.from.0, self.to.1 - self.from.1);
        let (wide, high) = (wide * f64::from(self.image.width()), high * f64::from(self.image.height()));
        let scale = f64::from(SIDE) / wide.max(high);
        let (width, height) = ((wide * scale).ceil() as u32, (high * scale).ceil() as u32);
        RgbImage::from_fn(width.clamp(1, SIDE), height.clamp(1, SIDE), |x, y| {
            self.pixel(discs, (x, y), (width, height))
        })
    }

    fn pixel(&self, discs: &[Disc], (x, y): (u32, u32), (width, height): (u32, u32)) -> Rgb<u8> {
        let step = ((self.to.0 - self.from.0) / f64::from(width), (self.to.1 - self.from.1) / f64::from(height));
        let at = (self.from.0 + (f64::from(x) + 0.5) * step.0, self.from.1 + (f64::from(y) + 0.5) * step.1);
        // Pixel j of the map has the coordinate of its left edge, and what it shows lies in its middle.
        let place = (at.0 - self.half.0, at.1 - self.half.1);
        let mean = discs.iter().map(|disc| disc.mask(place)).sum::<f64>() / discs.len().max(1) as f64;
        let inside = (0.0..1.0).contains(&at.0) && (0.0..1.0).contains(&at.1);
        let mut colour = if inside { self.ground(at) } else { OUTSIDE };
        colour = draw::mix(colour, MASK, if inside { 0.6 } else { 0.2 } * mean as f32);
        let alone = discs.len() == 1;
        for disc in discs {
            let away = (place.0 - disc.centre.0, place.1 - disc.centre.1);
            for (r, ring) in Twist::RIM.into_iter().zip([INNER, OUTER]).filter(|_| alone) {
                // Pixels to the circle, along the line from the centre.
                let distance = away.0.hypot(away.1);
                let far = (distance - disc.radius.abs() * r.sqrt()).abs() / step.0.max(step.1);
                colour = draw::mix(colour, ring, (1.5 - far).clamp(0.0, 1.0) as f32);
            }
            let (across, down) = ((away.0 / step.0).abs(), (away.1 / step.1).abs());
            if across.max(down) < 4.5 && across.min(down) < 1.0 {
                colour = CENTRE;
            }
        }
        colour
    }

    fn ground(&self, at: (f64, f64)) -> Rgb<u8> {
        let pixel = |at: f64, size: u32| ((at * f64::from(size)) as u32).min(size - 1);
        *self.image.get_pixel(pixel(at.0, self.image.width()), pixel(at.1, self.image.height()))
    }
}
