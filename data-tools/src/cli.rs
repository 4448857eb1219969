//! The command line: arguments in, text or JSON out, exit codes.
//!
//! 0: done. 2: wrong usage. 1: anything else. Errors and progress go to standard error; a closed pipe is no error.

use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use handgrad::data::synth::{self, SynthConfig};
use handgrad::data::{Dataset, MAX_SIDE};
use handgrad::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::convert::{Fit, Options, Report, Resize, convert};
use crate::fetch::{KNOWN, Request, fetch, known};
use crate::{inspect, is_same_file, verify};

const AFTER_HELP: &str = "\
Examples:
  data-tools fetch cifar10 && data-tools convert cifar-10-binary.tar.gz cifar10.hgd
  data-tools convert photos/ photos.hgd --max-side 320
  data-tools inspect photos.hgd --grid photos.png
  data-tools verify photos.hgd";

#[derive(Parser)]
#[command(name = "data-tools", version, about = "Converts, fetches, inspects and verifies handgrad datasets")]
#[command(after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Convert(ConvertArgs),
    Inspect(InspectArgs),
    Verify(VerifyArgs),
    Fetch(FetchArgs),
    Synth(SynthArgs),
}

/// Draw the built-in dataset: ten kinds of things
#[derive(Args)]
#[command(after_help = "\
Examples:
  data-tools synth synth.hgd
  data-tools synth small.hgd --train 1000 --valid 200 --seed 7")]
struct SynthArgs {
    /// Dataset to write
    #[arg(value_name = "OUT.hgd")]
    out: PathBuf,
    /// Training images
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    train: u64,
    /// Validation images
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    valid: u64,
    /// Height and width in pixels
    #[arg(long, value_name = "PX", default_value_t = 32, value_parser = clap::value_parser!(u64).range(8..=1024))]
    size: u64,
    /// Another seed, other images
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Make a dataset of images: class folders, the flat layout, CIFAR-10, CIFAR-100
#[derive(Args)]
#[command(after_help = "\
SRC is a folder or a .tar.gz with one of
  train/CLASS/IMAGE and val/CLASS/IMAGE (or valid, or test)
  train/123_CLASS.png and test/456_CLASS.png (classes from labels.txt if there is one)
  cifar-10-batches-bin, cifar-10-batches-py, cifar-100-binary, cifar-100-python (fine labels)

Examples:
  data-tools convert cifar-10-python.tar.gz cifar10.hgd
  data-tools convert photos/ photos.hgd --max-side 320
  data-tools convert photos/ small.hgd --size 128x128 --fit crop --strict")]
struct ConvertArgs {
    /// Folder or .tar.gz to read
    src: PathBuf,
    /// Dataset to write
    #[arg(value_name = "OUT.hgd")]
    out: PathBuf,
    /// Fail at the first file that is no readable image instead of skipping it
    #[arg(long)]
    strict: bool,
    /// Shrink images whose longer side exceeds this many pixels
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(1..=MAX_SIDE as i64))]
    max_side: Option<u32>,
    /// Give every image this size
    #[arg(long, value_name = "HxW", value_parser = parse_size, conflicts_with = "max_side")]
    size: Option<(u32, u32)>,
    /// How an image of another shape gets that size: squash it, or cut its centre
    #[arg(long, value_enum, default_value = "squash", requires = "size")]
    fit: Fit,
    /// The folder of the validation split, where there are several candidates
    #[arg(long, value_name = "FOLDER")]
    valid: Option<String>,
    /// Threads that decode images [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: Option<u64>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Show a dataset's splits, classes, sizes and statistics
#[derive(Args)]
#[command(after_help = "\
Examples:
  data-tools inspect cifar10.hgd
  data-tools inspect cifar10.hgd --grid samples.png
  data-tools inspect cifar10.hgd --json

With --json the whole file is read: content_digest is equal for two datasets whose split has the
same images under the same class names, in whatever order.")]
struct InspectArgs {
    /// Dataset to read
    file: PathBuf,
    /// Print JSON, with a digest of each split's content
    #[arg(long)]
    json: bool,
    /// Write a picture of random samples, a row for each class
    #[arg(long, value_name = "PNG")]
    grid: Option<PathBuf>,
}

/// Check every checksum of a dataset
#[derive(Args)]
#[command(after_help = "Example:\n  data-tools verify cifar10.hgd && echo fine")]
struct VerifyArgs {
    /// Dataset to read
    file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Download an official archive, or the rest of one
#[derive(Args)]
#[command(after_help = "\
Examples:
  data-tools fetch cifar10
  data-tools fetch imagewoof2-320 --out downloads/

The archive is checked by its MD5. A download that broke off is resumed by the same command.")]
struct FetchArgs {
    /// cifar10, cifar10-python, cifar100, imagewoof2-160, imagewoof2-320, imagenette2-160 or imagenette2-320
    #[arg(value_parser = KNOWN.map(|known| known.name))]
    name: String,
    /// Folder to put it in
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Another place that has the archive
    #[arg(long, hide = true)]
    url: Option<String>,
    /// The MD5 of what lies there
    #[arg(long, hide = true, requires = "url")]
    md5: Option<String>,
}

/// `128x96` or `128`.
fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let side = |text: &str| match text.parse::<u32>() {
        Ok(n) if (1..=MAX_SIDE as u32).contains(&n) => Ok(n),
        _ => Err(format!("{text:?} is no number from 1 to {MAX_SIDE}; write HEIGHTxWIDTH, such as 128x128")),
    };
    match text.split_once('x') {
        Some((height, width)) => Ok((side(height)?, side(width)?)),
        None => side(text).map(|side| (side, side)),
    }
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are no errors; nor is a reader who has left.
            drop(e.print());
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match cli.command {
        Command::Convert(args) => run_convert(args),
        Command::Inspect(args) => run_inspect(args),
        Command::Verify(args) => run_verify(args),
        Command::Fetch(args) => run_fetch(args),
        Command::Synth(args) => run_synth(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            drop(writeln!(std::io::stderr(), "error: {e}"));
            ExitCode::from(if e.kind() == ErrorKind::Usage { 2 } else { 1 })
        }
    }
}

fn run_synth(args: &SynthArgs) -> Result<()> {
    let config = SynthConfig {
        train: args.train as usize,
        valid: args.valid as usize,
        size: args.size as usize,
        seed: args.seed,
    };
    synth::write(&config, &args.out)?;
    print(&format!("{}: {} training and {} validation images\n", args.out.display(), args.train, args.valid))
}

/// Prints to standard output. Whoever closed the pipe has read enough.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != IoErrorKind::BrokenPipe => Err(Error::io("standard output", &e)),
        _ => Ok(()),
    }
}

fn print_json(value: &Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

fn run_convert(args: ConvertArgs) -> Result<()> {
    let resize = match (args.max_side, args.size) {
        (Some(side), _) => Resize::MaxSide(side),
        (None, Some((height, width))) => Resize::Exact { height, width, fit: args.fit },
        (None, None) => Resize::Keep,
    };
    let threads = args.threads.map(|n| n as usize);
    let options = Options { strict: args.strict, resize, threads, valid: args.valid, quiet: false };
    let report = convert(&args.src, &args.out, &options)?;
    let dataset = Dataset::open(&args.out)?;
    if args.json { print_json(&report_json(&dataset, &report)) } else { print(&report_text(&dataset, &report)) }
}

fn report_text(dataset: &Dataset, report: &Report) -> String {
    let [train, valid] = report.written;
    let skipped = match report.skipped {
        0 => String::new(),
        n => format!("\n{n} files skipped: no readable images (named above)"),
    };
    format!(
        "{}: {train} train and {valid} valid images of {} classes, {:.1} MB, {:.1} s{skipped}\n",
        dataset.path().display(),
        dataset.classes().len(),
        dataset.file_len() as f64 / 1e6,
        report.seconds,
    )
}

fn report_json(dataset: &Dataset, report: &Report) -> Value {
    let names = report.skipped_names.iter().map(|(name, why)| json!({ "file": name, "reason": why }));
    json!({
        "file": dataset.path().display().to_string(),
        "bytes": dataset.file_len(),
        "checksum": format!("{:016x}", dataset.checksum()),
        "classes": dataset.classes(),
        "train": report.written[0],
        "valid": report.written[1],
        "skipped": report.skipped,
        "first_skipped": names.collect::<Vec<_>>(),
        "seconds": report.seconds,
    })
}

fn run_inspect(args: InspectArgs) -> Result<()> {
    let dataset = Dataset::open(&args.file)?;
    if let Some(path) = &args.grid {
        if is_same_file(&args.file, path) {
            return Err(Error::new(ErrorKind::Usage, "--grid", "the dataset itself").expected("another file"));
        }
        inspect::write_png(&inspect::grid(&dataset)?, path)?;
    }
    if args.json { print_json(&inspect::json(&dataset)?) } else { print(&inspect::text(&dataset)?) }
}

fn run_verify(args: VerifyArgs) -> Result<()> {
    let verified = verify::verify(&args.file);
    let file = args.file.display();
    match &verified {
        Ok(v) if args.json => print_json(&json!({
            "ok": true,
            "file": file.to_string(),
            "images": v.samples,
            "bytes": v.bytes,
            "checksum": format!("{:016x}", v.checksum),
        }))?,
        Ok(v) => print(&format!("{file}: {} images, {} bytes, every checksum is right\n", v.samples, v.bytes))?,
        Err(e) if args.json => {
            print_json(&json!({ "ok": false, "file": file.to_string(), "error": e.to_string() }))?;
        }
        Err(_) => {}
    }
    verified.map(|_| ())
}

fn run_fetch(args: FetchArgs) -> Result<()> {
    let known = known(&args.name).ok_or_else(|| Error::new(ErrorKind::Usage, "NAME", &args.name))?;
    let file = args.out.join(known.url.rsplit('/').next().unwrap_or(known.name));
    std::fs::create_dir_all(&args.out).map_err(|e| Error::io(&args.out, &e))?;
    let request = Request {
        url: args.url.unwrap_or_else(|| known.url.to_owned()),
        file,
        md5: args.md5.unwrap_or_else(|| known.md5.to_owned()),
        pause: Duration::from_secs(1),
        quiet: false,
    };
    let fetched = fetch(&request)?;
    let file = request.file.display();
    if args.json {
        let (bytes, downloaded) = (fetched.bytes, fetched.downloaded);
        return print_json(&json!({ "file": file.to_string(), "bytes": bytes, "downloaded": downloaded }));
    }
    let how = if fetched.downloaded == 0 { "was there" } else { "fetched" };
    print(&format!(
        "{file}: {how}, {:.1} MB, MD5 is right\nnext: data-tools convert {file} {}.hgd\n",
        fetched.bytes as f64 / 1e6,
        known.name
    ))
}
