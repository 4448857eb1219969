//! `handgrad augment`

use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::out;
use crate::data::{Augment, Batch, Dataset, Loader, LoaderConfig, Normalise};
use crate::io::mosaic::Mosaic;
use crate::recipe::Recipe;
use crate::train::{open_dataset, train_config};
use crate::{Error, ErrorKind, Result};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  handgrad augment                                           the quick-start recipe on the built-in images
  handgrad augment woof-xse_resnext18 --data imagewoof2-320.hgd --images 8
  handgrad augment my.toml --epoch 3 --set data.augment.mixup=0.4 --out mixed.png")]
pub struct Args {
    /// A built-in recipe (see `handgrad recipes`) or the path of a .toml file.
    #[arg(default_value = "quickstart")]
    recipe: String,
    /// The dataset, an .hgd file; by default what the recipe names.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The picture.
    #[arg(long, value_name = "FILE.png", default_value = "augment.png")]
    out: PathBuf,
    /// What every random number follows from.
    #[arg(long, value_name = "N", value_parser = NonEmptyStringValueParser::new())]
    seed: Option<String>,
    /// The epoch whose first batch is drawn, counted from 1.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    epoch: u32,
    /// Images of the batch, a row each.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=200))]
    images: u16,
    /// Epochs, a column each: the images as later epochs would change them.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=50))]
    views: u16,
    /// Change one key of the recipe, such as data.augment.mixup=0.4; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object: the picture and the samples of its rows.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Drawn {
    picture: PathBuf,
    epoch: u32,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    /// The image's index in the dataset.
    sample: u32,
    class: String,
    /// For each epoch drawn, what it would be trained as: classes and their parts.
    targets: Vec<Vec<(String, f32)>>,
}

impl Row {
    /// What else than its class an image is trained as in a view.
    fn others(&self, view: usize) -> String {
        let others = self.targets[view].iter().filter(|(class, _)| *class != self.class);
        others.map(|(class, part)| format!("{:.0}% {class}", 100.0 * part)).collect::<Vec<_>>().join(" ")
    }
}

pub fn run(args: Args) -> Result<()> {
    let mut recipe = Recipe::load(&args.recipe)?;
    args.set.iter().try_for_each(|assignment| recipe.set(assignment))?;
    if let Some(seed) = &args.seed {
        recipe.set_by("--seed", "train.seed", seed)?;
    }
    let (_, dataset) = open_dataset(&recipe.data.dataset, args.data.as_deref(), |text| out::note(text))?;
    let drawn = draw(&args, &recipe, &dataset)?;
    if args.json {
        return out::json(&drawn);
    }
    let last = args.epoch.saturating_add(u32::from(args.views) - 1);
    out::line(format!(
        "{}: as validation would see them, then as trained on in epochs {} to {last}",
        args.out.display(),
        args.epoch
    ))?;
    let width = drawn.rows.iter().map(|row| row.class.chars().count()).max().unwrap_or(0);
    drawn
        .rows
        .iter()
        .enumerate()
        .try_for_each(|(i, row)| out::line(format!("row {:3}  {:width$}  sample {}", i + 1, row.class, row.sample)))
}

/// The picture, and what is in it.
fn draw(args: &Args, recipe: &Recipe, dataset: &Arc<Dataset>) -> Result<Drawn> {
    // One batch at a time: more threads would only prepare what nobody looks at.
    let config = LoaderConfig { threads: 1, prefetch: 1, ..train_config(recipe, dataset) };
    let plain = LoaderConfig { augment: Augment::NONE, ..config.clone() };
    let (size, normalise, smoothing) = (config.size, config.normalise, config.label_smoothing);
    let (loader, plain) = (Loader::new(dataset.clone(), config)?, Loader::new(dataset.clone(), plain)?);
    let first = u64::from(args.epoch) - 1;
    let Some(batch) = loader.epoch(first, 0)?.next().transpose()? else {
        let found = "fewer training images than one batch, and drop_last leaves them out";
        return Err(Error::new(ErrorKind::Usage, "data.batch", found).expected("a smaller batch"));
    };
    let samples = batch.samples().to_vec();
    let name = |label: u32| dataset.classes().get(label as usize).cloned().unwrap_or_default();
    let rows = samples.iter().zip(batch.labels()).take(usize::from(args.images));
    let mut drawn: Vec<Row> =
        rows.map(|(&sample, &label)| Row { sample, class: name(label), targets: Vec::new() }).collect();
    let names: Vec<String> = drawn.iter().map(|row| row.class.clone()).collect();
    let epochs = (0..u32::from(args.views)).map(|view| format!("epoch {}", args.epoch.saturating_add(view)));
    let columns: Vec<String> = std::iter::once("validation".to_string()).chain(epochs).collect();
    let mut mosaic = Mosaic::new(&names, &columns, size)?;
    put(&mut mosaic, 0, &plain.prepare(first, 0, &samples[..names.len()])?, &normalise, |_| String::new())?;
    for view in 0..usize::from(args.views) {
        let batch = loader.prepare(first + view as u64, 0, &samples)?;
        for (row, target) in drawn.iter_mut().zip(batch.targets().outer_iter()) {
            let least = smoothing / target.len() as f32 + 1e-6;
            let parts = target.iter().enumerate().filter(|(_, part)| **part > least);
            row.targets.push(parts.map(|(label, part)| (name(label as u32), *part)).collect());
        }
        put(&mut mosaic, view + 1, &batch, &normalise, |row| drawn[row].others(view))?;
    }
    mosaic.write(&args.out)?;
    Ok(Drawn { picture: args.out.clone(), epoch: args.epoch, rows: drawn })
}

/// Draws a column: the batch's first images as pixels of 0 to 1, with what `caption` says of each row.
fn put(
    mosaic: &mut Mosaic,
    column: usize,
    batch: &Batch,
    normalise: &Normalise,
    caption: impl Fn(usize) -> String,
) -> Result<()> {
    let len = batch.images_slice().len() / batch.len();
    let Normalise { mean, std } = normalise;
    for (row, image) in batch.images_slice().chunks_exact(len).take(mosaic.rows()).enumerate() {
        let pixels: Vec<f32> = image.iter().enumerate().map(|(i, v)| v * std[i % 3] + mean[i % 3]).collect();
        mosaic.put((row, column), &pixels, &caption(row))?;
    }
    Ok(())
}
