//! `handgrad eval`: how good a model is on a dataset.

use std::path::PathBuf;
use std::sync::Arc;

use ndarray::ArrayView3;
use serde_json::json;

use super::backend::{device, in_pool, threads};
use super::out::Out;
use crate::data::{Dataset, Split};
use crate::infer::{Device, EvalConfig, Evaluation, Model, TopLoss, Views, evaluate};
use crate::io::draw::{self, Cell, Sheet};
use crate::io::plot;
use crate::recipe::Tta;
use crate::{Error, ErrorKind, Result};

/// Up to this many classes the confusion matrix is printed.
const MATRIX: usize = 20;
/// Up to this many classes there is a picture.
const PICTURE: usize = 256;
/// The longer side of an image on the sheet of the highest losses.
const SIDE: u32 = 180;
/// Up to this many classes `--json` has the confusion matrix.
const JSON_MATRIX: usize = 1000;

/// Evaluate a model on a dataset's validation images: accuracy, top-5 accuracy, loss.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model file (.safetensors)
    model: PathBuf,
    /// The dataset
    #[arg(long, value_name = "FILE.hgd")]
    data: PathBuf,
    /// Images per batch
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// cpu or cuda[:N]
    #[arg(long, value_name = "B", default_value = "cpu", value_parser = device)]
    backend: Device,
    /// Threads; all cores by default
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Test-time augmentation: average the probabilities of the plain pass and of N passes over augmented images (pad 4,
    /// crop, flip), or the scores of each image's views: `flip`, `flip_translate`
    #[arg(long, value_name = "N|VIEWS", default_value = "0", value_parser = tta)]
    tta: Tta,
    /// The seed of the augmentation
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Draw the confusion matrix into this file
    #[arg(long, value_name = "PATH.svg")]
    confusion: Option<PathBuf>,
    /// Name the N images with the highest losses
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    top_losses: u32,
    /// Draw the images with the highest losses into this file
    #[arg(long, value_name = "PNG", requires = "top_losses")]
    out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What the files or the numbers get wrong.
pub fn run(args: Args) -> Result<()> {
    let model = Model::load(&args.model)?;
    let dataset = Arc::new(Dataset::open(&args.data)?);
    if dataset.split(Split::Valid).is_empty() {
        let e = Error::new(ErrorKind::Usage, args.data.display(), "no validation images");
        return Err(e.expected("a dataset with some").hint("`data-tools inspect` shows what it holds"));
    }
    let classes = model.classes();
    if args.confusion.is_some() && classes.len() > PICTURE {
        let e = Error::new(ErrorKind::Usage, "--confusion", format!("a picture of {} classes", classes.len()));
        return Err(e.expected(format!("at most {PICTURE}")).hint("--json has the numbers of up to 1000 classes"));
    }
    let (passes, views) = match args.tta {
        Tta::Passes(passes) => (passes, Views::One),
        Tta::Views(views) => (0, views),
    };
    let config = EvalConfig {
        batch: args.batch as usize,
        tta: passes,
        views,
        seed: args.seed,
        top_losses: args.top_losses as usize,
        device: args.backend,
        ..Default::default()
    };
    let evaluation = in_pool(args.threads, || evaluate(&model, &dataset, &config))?;
    if let Some(path) = &args.confusion {
        let names: Vec<&str> = classes.iter().map(String::as_str).collect();
        plot::confusion(path, &names, &evaluation.confusion(classes.len()))?;
    }
    if let Some(path) = &args.out {
        draw::write_png(path, &hardest(&evaluation, &model, &dataset)?.draw())?;
    }
    let mut out = Out::stdout();
    if args.json {
        out.line(in_json(&evaluation, classes, args.tta))?;
    } else {
        out.line(in_text(&evaluation, classes, args.tta))?;
        if let Some(path) = &args.confusion {
            out.line(format_args!("confusion matrix: {}", path.display()))?;
        }
        if let Some(path) = &args.out {
            out.line(format_args!("highest losses: {}", path.display()))?;
        }
    }
    out.flush()
}

/// A number of passes or the name of views.
fn tta(text: &str) -> std::result::Result<Tta, String> {
    match text.parse() {
        Ok(passes) if passes <= 1000 => Ok(Tta::Passes(passes)),
        Ok(passes) => Err(format!("{passes} passes (expected at most 1000)")),
        Err(_) => text.parse().map(Tta::Views).map_err(|_| "expected 0 to 1000 passes, flip or flip_translate".into()),
    }
}

fn in_json(evaluation: &Evaluation, classes: &[String], tta: Tta) -> serde_json::Value {
    let per_class: Vec<_> = classes
        .iter()
        .enumerate()
        .map(|(class, name)| {
            let (images, correct) = evaluation.of_class(class);
            json!({ "class": name, "images": images, "correct": correct, "accuracy": share(correct, images) })
        })
        .collect();
    let n = classes.len();
    let confusion = (n <= JSON_MATRIX).then(|| {
        let matrix = evaluation.confusion(n);
        matrix.chunks(n).map(<[u64]>::to_vec).collect::<Vec<_>>()
    });
    let top_losses: Vec<_> = evaluation
        .top_losses
        .iter()
        .map(|TopLoss { index, label, predicted, loss, probability }| {
            json!({
                "index": index, "class": name(classes, *label), "predicted": name(classes, *predicted), "loss": loss,
                "probability": probability,
            })
        })
        .collect();
    let Evaluation { images, accuracy, top5, loss, .. } = evaluation;
    json!({
        "images": images, "accuracy": accuracy, "top5": top5, "loss": loss, "tta": tta,
        "per_class": per_class, "confusion": confusion, "top_losses": top_losses,
    })
}

/// A class's name; a model may have outputs that are no class.
fn name(classes: &[String], class: usize) -> &str {
    classes.get(class).map_or("no class", String::as_str)
}

/// `None` where there is no image.
fn share(correct: u64, images: u64) -> Option<f64> {
    (images > 0).then(|| correct as f64 / images as f64)
}

fn in_text(evaluation: &Evaluation, classes: &[String], tta: Tta) -> String {
    let Evaluation { images, accuracy, top5, loss, .. } = evaluation;
    let passes = match tta {
        Tta::Passes(0) | Tta::Views(Views::One) => String::new(),
        Tta::Passes(passes) => format!(" (mean of 1 plain and {passes} augmented passes)"),
        Tta::Views(views) => format!(" (mean scores of {} views)", views.count()),
    };
    let mut text =
        format!("images    {images}\naccuracy  {accuracy:.4}{passes}\ntop5      {top5:.4}\nloss      {loss:.4}\n");
    let width = classes.iter().map(|name| name.chars().count()).max().unwrap_or(0).clamp(5, 40);
    text += &format!("\n{:width$} {:>8} {:>8} {:>9}\n", "class", "images", "correct", "accuracy");
    for (class, name) in classes.iter().enumerate() {
        let (images, correct) = evaluation.of_class(class);
        let accuracy = share(correct, images).map_or("–".to_owned(), |share| format!("{share:.4}"));
        text += &format!("{name:width$} {images:>8} {correct:>8} {accuracy:>9}\n");
    }
    if classes.len() <= MATRIX {
        text += "\nconfusions (rows: the class, columns: what the model says)\n";
        text += &matrix(evaluation, classes, width);
    }
    if !evaluation.top_losses.is_empty() {
        text += &format!("\nhighest losses\n{:>7} {:>8} {:width$}  model says\n", "image", "loss", "class");
        for TopLoss { index, label, predicted, loss, probability } in &evaluation.top_losses {
            let (class, predicted) = (name(classes, *label), name(classes, *predicted));
            text += &format!("{index:>7} {loss:>8.4} {class:width$}  {predicted} {:.1} %\n", 100.0 * probability);
        }
    }
    text.trim_end().to_owned()
}

/// A sheet of the images with the highest losses, as the model sees them.
fn hardest(evaluation: &Evaluation, model: &Model, dataset: &Dataset) -> Result<Sheet> {
    let classes = model.classes();
    let cell = |TopLoss { index, label, predicted, loss, probability }: &TopLoss| {
        let sample = dataset.sample(dataset.split(Split::Valid)[*index] as usize)?;
        let pixels = ArrayView3::from_shape((sample.height, sample.width, 3), sample.pixels);
        let pixels = pixels.map_err(|e| Error::new(ErrorKind::Shape, format!("image {index}"), e))?;
        let photo = draw::photo(model.fitted(pixels)?.view());
        let lines = [
            format!("is {}", name(classes, *label)),
            format!("said {}", name(classes, *predicted)),
            format!("p {:.1} %", 100.0 * probability),
            format!("loss {loss:.2}"),
            format!("image {index}"),
        ];
        Ok(Cell::new(draw::fit(&photo, draw::fitted_size(&photo, SIDE)), lines))
    };
    let cells: Vec<Cell> = evaluation.top_losses.iter().map(cell).collect::<Result<_>>()?;
    let title = format!("The {} highest losses of {} images", cells.len(), evaluation.images);
    Ok(Sheet { title: vec![title], columns: 0, cells })
}

/// The confusion matrix with numbered columns.
fn matrix(evaluation: &Evaluation, classes: &[String], width: usize) -> String {
    let n = classes.len();
    let counts = evaluation.confusion(n);
    let cell = counts.iter().map(|count| count.to_string().len()).max().unwrap_or(1).max(2) + 1;
    let columns: String = (0..n).map(|class| format!("{class:>cell$}")).collect();
    let mut text = format!("{:width$}    {columns}\n", "");
    for (class, (name, row)) in classes.iter().zip(counts.chunks(n)).enumerate() {
        let row: String = row.iter().map(|count| format!("{count:>cell$}")).collect();
        text += &format!("{name:width$} {class:>2} {row}\n");
    }
    text
}
