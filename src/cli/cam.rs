//! `handgrad cam`: where a model looks.

use std::path::PathBuf;

use image::RgbImage;
use serde_json::json;

use super::backend::{in_pool, threads};
use super::features::find_layer;
use super::out::Out;
use crate::infer::{Cam, Model, open_image, pixels};
use crate::io::draw::{self, Cell, Sheet};
use crate::recipe::nearest;
use crate::{Error, ErrorKind, Result};

/// The longer side of a picture on the sheet.
const SIDE: u32 = 320;

/// Draw where in an image something speaks for a class: Grad-CAM, as heat over the image.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  handgrad cam runs/quickstart/model.safetensors ball.png
  handgrad cam runs/quickstart/model.safetensors ball.png --class moon --layer layers.2 --out moon.png")]
pub struct Args {
    /// The model file (.safetensors)
    model: PathBuf,
    /// The image file
    image: PathBuf,
    /// The class, by name or number [default: the most probable one]
    #[arg(long, value_name = "NAME|N")]
    class: Option<String>,
    /// The layer [default: the last with more than one pixel]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// The picture
    #[arg(long, value_name = "PNG", default_value = "cam.png")]
    out: PathBuf,
    /// Classes to show
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Threads; all cores by default
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Print one JSON object: predictions, class, layer, map
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What the model, the image, the class or the layer gets wrong.
pub fn run(args: Args) -> Result<()> {
    let model = Model::load(&args.model)?;
    let class = args.class.as_deref().map(|class| find_class(model.classes(), class)).transpose()?;
    if let Some(layer) = &args.layer {
        find_layer(model.graph(), Some(layer))?;
    }
    let image = open_image(&args.image)?;
    let image = pixels(&image)?;
    let cam = in_pool(args.threads, || model.grad_cam(&image, class, args.layer.as_deref()))?;
    let seen = draw::photo(model.fitted(image)?.view());
    draw::write_png(&args.out, &sheet(&cam, &model, &seen).draw())?;
    let mut out = Out::stdout();
    if args.json {
        let map: Vec<Vec<f32>> = cam.map.outer_iter().map(|row| row.to_vec()).collect();
        out.line(json!({
            "predictions": cam.prediction.top(args.top as usize), "class": model.classes()[cam.class],
            "layer": cam.layer, "map": map, "picture": args.out.to_string_lossy(),
        }))?;
    } else {
        for class in cam.prediction.top(args.top as usize) {
            out.line(format_args!("{:5.1} %  {}", 100.0 * class.probability, class.name))?;
        }
        let (h, w) = cam.map.dim();
        out.line(format_args!(
            "class {}, layer {} [{h}, {w}]: {}",
            model.classes()[cam.class],
            cam.layer,
            args.out.display()
        ))?;
        if is_nothing(&cam) {
            out.line("nothing in the image speaks for the class there: the map is 0 everywhere")?;
        }
    }
    out.flush()
}

/// A class by its name, else by its number.
fn find_class(classes: &[String], class: &str) -> Result<usize> {
    let by_name = classes.iter().position(|name| name == class);
    if let Some(at) = by_name.or_else(|| class.parse().ok().filter(|&n: &usize| n < classes.len())) {
        return Ok(at);
    }
    let e = Error::new(ErrorKind::Usage, "--class", format!("the model has no class {class:?}"));
    let e = e.expected(format!("a name, or a number from 0 to {}", classes.len().saturating_sub(1)));
    Err(match nearest(class, classes.iter().map(String::as_str)) {
        Some(near) => e.hint(format!("did you mean `{near}`?")),
        None => e,
    })
}

fn is_nothing(cam: &Cam) -> bool {
    cam.map.iter().all(|&value| value == 0.0)
}

fn sheet(cam: &Cam, model: &Model, seen: &RgbImage) -> Sheet {
    let size = draw::fitted_size(seen, SIDE);
    let photo = draw::fit(seen, size);
    let heat = cam.heat((size.1 as usize, size.0 as usize));
    let mut over = draw::dimmed(&photo, 0.0);
    for (x, y, pixel) in over.enumerate_pixels_mut() {
        let heat = heat[[y as usize, x as usize]];
        *pixel = draw::mix(*pixel, draw::heat(heat), 0.25 + 0.45 * heat);
    }
    let (h, w) = cam.map.dim();
    let alone = draw::fit(&draw::map(cam.heat((h, w)).view(), draw::heat), size);
    let name = &model.classes()[cam.class];
    let probability =
        cam.prediction.classes().iter().find(|class| class.class == cam.class).map_or(0.0, |c| c.probability);
    let said = cam.prediction.top(2).iter().map(|c| format!("{} {:.1} %", c.name, 100.0 * c.probability));
    let title = vec![
        format!("What speaks for {name} ({:.1} %)", 100.0 * probability),
        format!("Grad-CAM at layer {}; the model says {}", cam.layer, said.collect::<Vec<_>>().join(", ")),
    ];
    let heat = if is_nothing(cam) { "nothing speaks for it" } else { "pale most, dark nothing" };
    let cells = vec![
        Cell::new(photo, ["what the model sees"]),
        Cell::new(over, ["heat over it"]),
        Cell::new(alone, [format!("the map, {h} x {w}"), heat.into()]),
    ];
    Sheet { title, columns: 3, cells }
}
