//! `handgrad features`: what a layer makes of an image.

use std::path::{Path, PathBuf};

use ndarray::{Array3, Array4, ArrayView3, Axis};
use serde_json::json;

use super::backend::{in_pool, threads};
use super::masks;
use super::out::Out;
use super::summary::classes_of;
use crate::backend::Cpu;
use crate::graph::{Graph, Node, Shape};
use crate::infer::{framed, open_image, pixels};
use crate::io::draw::{self, Cell, Sheet};
use crate::io::model_file::{self, Preprocessing};
use crate::ops::{Conv2d, ConvTwist, OpSpec, Twist};
use crate::probe::Probe;
use crate::recipe::{self, NormaliseBy, Recipe, nearest};
use crate::resample::Framing;
use crate::rng::Key;
use crate::{Error, ErrorKind, Params, Result, data};

/// The longer side of a picture on a sheet.
const SIDE: u32 = 144;

type OpOf = fn(usize) -> OpSpec;

/// The single operations, on RGB images, that take the place of a model.
const OPS: [(&str, OpOf); 6] = [
    ("conv3x3", |channels| Conv2d::square(channels, 3, 1, 1).no_bias().into()),
    ("conv5x5", |channels| Conv2d::square(channels, 5, 1, 2).no_bias().into()),
    ("conv7x7", |channels| Conv2d::square(channels, 7, 1, 3).no_bias().into()),
    ("twist", |channels| Twist::published(channels, 1).into()),
    ("conv_twist", |channels| ConvTwist::sobel(channels, 1, 1).into()),
    ("conv_twist_free", |channels| ConvTwist::free(channels, 1).into()),
];

/// Draw what a layer makes of an image: the channels of its output, side by side.
///
/// Each channel is divided by its greatest magnitude: white is 0, red above, blue below. The first cell is the image as
/// the network sees it. Without --layer the layers are listed, and the first one with more than one pixel is drawn.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  handgrad features runs/quickstart/model.safetensors ball.png             list the layers, draw the first
  handgrad features runs/quickstart/model.safetensors ball.png --layer layers.1
  handgrad features woof-xse_resnext18-twist-3x3 dog.jpg --layer 4.0.convpath.0.0 --masks masks.png
  handgrad features conv_twist dog.jpg --seed 3 --channels 15              one untrained convolution")]
pub struct Args {
    /// A model file (.safetensors); a recipe, with untrained weights; or one untrained operation: conv3x3, conv5x5,
    /// conv7x7, twist, conv_twist (the second version), conv_twist_free (the first)
    #[arg(value_name = "MODEL|RECIPE|OP")]
    what: String,
    /// The image file
    image: PathBuf,
    /// The layer
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// The picture
    #[arg(long, value_name = "PNG", default_value = "features.png")]
    out: PathBuf,
    /// Draw the masks, radii and centres of a twist layer over the image into this file
    #[arg(long, value_name = "PNG")]
    masks: Option<PathBuf>,
    /// Channels to draw at most; an operation has as many
    #[arg(long, value_name = "N", default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..=1024))]
    channels: u32,
    /// Height and width that a recipe's net or an operation sees [default: the recipe's, 128]
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(1..=2048))]
    size: Option<u32>,
    /// What untrained weights follow from [default: the recipe's, 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Change one key of the recipe, such as model.act=mish; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Threads; all cores by default
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Print one JSON object: the layer, its channels with least and greatest value, all layers
    #[arg(long)]
    json: bool,
}

/// A network and what it sees.
struct Net {
    graph: Graph,
    params: Params<f32>,
    preprocessing: Preprocessing,
    /// How it came to its weights, in a word or two.
    weights: String,
}

/// Runs the command.
///
/// # Errors
/// What the image, the model, the recipe or the layer gets wrong.
pub fn run(args: Args) -> Result<()> {
    let net = Net::load(&args)?;
    let image = open_image(&args.image)?;
    let preprocessing = &net.preprocessing;
    let image = framed(pixels(&image)?, preprocessing.framing_of_any(), preprocessing.size)?;
    let layer = find_layer(&net.graph, args.layer.as_deref())?;
    if layer.shape.is_flat() {
        let e = Error::new(ErrorKind::Usage, format!("layer {}", layer.name), format!("puts out {}", layer.shape));
        return Err(e.expected("a layer whose output has more than one pixel"));
    }
    let masks = args.masks.as_ref().map(|path| {
        let sheet = masks::sheet(&draw::photo(image.view()), layer, &net.graph, &net.params, args.channels as usize);
        sheet.map(|sheet| (path, sheet))
    });
    let masks = masks.transpose()?;
    let output = in_pool(args.threads, || output(&net, layer, image.view()))?;

    let sheet = sheet(&args.what, &net.weights, layer, image.view(), output.view(), args.channels as usize);
    draw::write_png(&args.out, &sheet.draw())?;
    if let Some((path, sheet)) = &masks {
        draw::write_png(path, &sheet.draw())?;
    }
    let mut out = Out::stdout();
    if args.json {
        out.line(in_json(&args, &net, layer, output.view()))?;
    } else {
        if args.layer.is_none() {
            out.line(list(&net.graph))?;
        }
        out.line(format_args!("{} {}: {}", layer.name, layer.shape, args.out.display()))?;
        if let Some((path, _)) = &masks {
            out.line(format_args!("its masks: {}", path.display()))?;
        }
    }
    out.flush()
}

impl Net {
    fn load(args: &Args) -> Result<Net> {
        let refuse = |flag: &str, given: bool, what: &str| match given {
            true => Err(Error::new(ErrorKind::Usage, flag, format!("{what} has none to choose"))),
            false => Ok(()),
        };
        if let Some((name, op)) = OPS.iter().find(|(name, _)| *name == args.what) {
            refuse("--set", !args.set.is_empty(), "a single operation")?;
            return Net::of_op(
                name,
                op(args.channels as usize),
                args.size.unwrap_or(128) as usize,
                args.seed.unwrap_or(0),
            );
        }
        if Path::new(&args.what).extension().is_some_and(|extension| extension == "safetensors") {
            let given =
                [("--size", args.size.is_some()), ("--seed", args.seed.is_some()), ("--set", !args.set.is_empty())];
            given.into_iter().try_for_each(|(flag, given)| refuse(flag, given, "a model file"))?;
            let file = model_file::load(&args.what)?;
            let preprocessing = file.info().preprocessing.clone();
            return Ok(Net {
                graph: file.graph().clone(),
                params: file.params()?,
                preprocessing,
                weights: "trained".into(),
            });
        }
        let mut recipe = Recipe::load(&args.what)?;
        args.set.iter().try_for_each(|assignment| recipe.set(assignment))?;
        Net::of_recipe(&recipe, args.size, args.seed)
    }

    fn of_op(name: &str, op: OpSpec, size: usize, seed: u64) -> Result<Net> {
        let mut graph = Graph::new(Shape::new(size, size, 3));
        graph.node(name, op, &[graph.images()])?;
        Net::untrained(graph, (size, size), seed, data::Normalise::IMAGENET, Framing::Fill)
    }

    /// With the weights that training would begin with, before LSUV.
    fn of_recipe(recipe: &Recipe, size: Option<u32>, seed: Option<u64>) -> Result<Net> {
        let size = size.unwrap_or(recipe.data.size) as usize;
        let graph = recipe.model.build(classes_of(&recipe.data.dataset)?, size)?;
        let given = |values: [f64; 3]| values.map(|v| v as f32);
        let normalise = match recipe.data.normalise {
            recipe::Normalise::Given { mean, std } => data::Normalise { mean: given(mean), std: given(std) },
            recipe::Normalise::Named(NormaliseBy::None) => data::Normalise::NONE,
            // No dataset is at hand, and untrained weights know none.
            recipe::Normalise::Named(NormaliseBy::Imagenet | NormaliseBy::Dataset) => data::Normalise::IMAGENET,
        };
        let framing = if size == recipe.data.size as usize { recipe.data.framing } else { Framing::Fill };
        Net::untrained(graph, (size, size), seed.unwrap_or(recipe.train.seed), normalise, framing)
    }

    fn untrained(
        graph: Graph,
        size: (usize, usize),
        seed: u64,
        normalise: data::Normalise,
        framing: Framing,
    ) -> Result<Net> {
        let wide = |values: [f32; 3]| values.map(f64::from);
        let preprocessing = Preprocessing::new(size, wide(normalise.mean), wide(normalise.std));
        // As the engine draws them.
        let params = Params::new(&graph, Key::new(seed).with_name("init"))?;
        let weights = format!("untrained, seed {seed}");
        Ok(Net { graph, params, preprocessing: Preprocessing { framing, ..preprocessing }, weights })
    }
}

/// The layer of this name, else the first that runs and has more than one pixel.
pub(super) fn find_layer<'a>(graph: &'a Graph, name: Option<&str>) -> Result<&'a Node> {
    let mut layers = graph.nodes().iter().zip(graph.alive()).filter(|(node, alive)| *alive && node.op().is_some());
    let names: Vec<&str> = layers.clone().map(|(node, _)| node.name.as_str()).collect();
    let found = match name {
        Some(name) => layers.find(|(node, _)| node.name == name),
        None => layers.find(|(node, _)| !node.shape.is_flat()),
    };
    if let Some((node, _)) = found {
        return Ok(node);
    }
    let Some(name) = name else {
        return Err(Error::new(ErrorKind::Usage, "layer", "no layer of the model has more than one pixel"));
    };
    let e = Error::new(ErrorKind::Usage, "--layer", format!("the model runs no layer {name:?}"));
    let near = nearest(name, names.iter().copied());
    Err(e.hint(match near {
        Some(near) => format!("did you mean `{near}`? `handgrad features` without --layer lists them all"),
        None => "`handgrad features` without --layer lists them all".into(),
    }))
}

/// The layer's output `[h, w, c]`.
fn output(net: &Net, layer: &Node, image: ArrayView3<'_, u8>) -> Result<Array3<f32>> {
    let (h, w, c) = image.dim();
    let Preprocessing { mean, std, .. } = net.preprocessing;
    let value = |c: usize, byte: u8| ((f64::from(byte) / 255.0 - mean[c]) / std[c]) as f32;
    let input = Array4::from_shape_fn((1, h, w, c), |(_, i, j, c)| value(c, image[[i, j, c]]));
    let mut probe = Probe::<Cpu>::new(&net.graph, &layer.name, 1)?;
    let output = probe.output(&net.params, input.view())?;
    if output.iter().any(|value| !value.is_finite()) {
        let e =
            Error::new(ErrorKind::NonFinite, format!("layer {}", layer.name), "puts out numbers that are not finite");
        return Err(e.hint("the model's training went wrong"));
    }
    Ok(output.index_axis(Axis(0), 0).to_owned())
}

fn sheet(
    what: &str,
    weights: &str,
    layer: &Node,
    image: ArrayView3<'_, u8>,
    output: ArrayView3<'_, f32>,
    channels: usize,
) -> Sheet {
    let photo = draw::photo(image);
    let size = draw::fitted_size(&photo, SIDE);
    let mut cells = vec![Cell::new(draw::fit(&photo, size), ["input"])];
    for (c, map) in output.axis_iter(Axis(2)).take(channels).enumerate() {
        let most = map.iter().fold(0.0, |most: f32, &value| most.max(value.abs()));
        let scale = if most > 0.0 { 1.0 / most } else { 0.0 };
        let picture = draw::map(map.mapv(|value| scale * value).view(), draw::signed);
        cells.push(Cell::new(draw::fit(&picture, size), [format!("{c}: {}", rounded(most))]));
    }
    let kind = layer.op().map_or("", |op| op.kind());
    let name = Path::new(what).file_name().map_or(what.into(), |name| name.to_string_lossy());
    let title = vec![
        format!("{} of {name} ({weights})", layer.name),
        format!("{kind}, output {}", layer.shape),
        "white 0, red above, blue below; its greatest magnitude under each channel".into(),
    ];
    Sheet { title, columns: 0, cells }
}

/// Three digits, however large the number.
fn rounded(value: f32) -> String {
    if value == 0.0 || (1e-2..1e4).contains(&value) {
        let decimals = if value >= 100.0 || value == 0.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            2
        };
        format!("{value:.decimals$}")
    } else {
        format!("{value:.1e}")
    }
}

/// The layers that run, with their outputs.
fn list(graph: &Graph) -> String {
    let layers = graph.nodes().iter().zip(graph.alive()).filter(|(_, alive)| *alive);
    let rows: Vec<(&Node, &str)> = layers.filter_map(|(node, _)| Some((node, node.op()?.kind()))).collect();
    let width = rows.iter().map(|(node, _)| node.name.len()).max().unwrap_or(0).max(5);
    let mut text = format!("{:width$}  {:<20} {:>16}\n", "layer", "op", "output");
    for (node, kind) in rows {
        text += &format!("{:width$}  {kind:<20} {:>16}\n", node.name, node.shape.to_string());
    }
    text
}

fn in_json(args: &Args, net: &Net, layer: &Node, output: ArrayView3<'_, f32>) -> serde_json::Value {
    let dims = |shape: Shape| [shape.h, shape.w, shape.c];
    let kind = |node: &Node| node.op().map(|op| op.kind());
    let layers = net.graph.nodes().iter().zip(net.graph.alive()).filter(|(node, alive)| *alive && node.op().is_some());
    let layers: Vec<_> =
        layers.map(|(node, _)| json!({ "name": node.name, "op": kind(node), "output": dims(node.shape) })).collect();
    let channels: Vec<_> = output
        .axis_iter(Axis(2))
        .map(|map| {
            let (least, most) = map.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
            json!({ "least": least, "greatest": most, "mean": map.mean() })
        })
        .collect();
    json!({
        "layer": layer.name, "op": kind(layer), "output": dims(layer.shape), "weights": net.weights,
        "picture": args.out.to_string_lossy(), "masks": args.masks.as_ref().map(|path| path.to_string_lossy()),
        "channels": channels, "layers": layers,
    })
}
