//! Small datasets in every layout, made by the tests.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use data_tools::convert::Options;
use handgrad::data::{Dataset, Split};
use handgrad::rng::Key;
use image::{ImageFormat, RgbImage};

pub const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// A stand-in for CIFAR: per batch file (the last one is the test set) labels and images.
pub struct Tiny {
    pub batches: Vec<Vec<(u8, RgbImage)>>,
}

/// `batches` batches of `n` random 32×32 images of `classes` classes.
pub fn tiny(batches: usize, n: usize, classes: u64) -> Tiny {
    let mut random = Key::new(3).stream();
    let mut image = || {
        let label = random.below(classes) as u8;
        let pixels = (0..3072).map(|_| random.u64() as u8).collect();
        (label, RgbImage::from_raw(32, 32, pixels).unwrap())
    };
    Tiny { batches: (0..batches).map(|_| (0..n).map(|_| image()).collect()).collect() }
}

/// The three colour planes of an image, one after the other.
pub fn planes(image: &RgbImage) -> Vec<u8> {
    (0..3).flat_map(|c| image.pixels().map(move |p| p.0[c])).collect()
}

pub fn quiet() -> Options {
    Options { quiet: true, threads: Some(2), ..Options::default() }
}

pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.write_to(&mut out, format).unwrap();
    out.into_inner()
}

impl Tiny {
    /// Samples with their split's folder and a running number.
    fn samples(&self) -> impl Iterator<Item = (&'static str, usize, &(u8, RgbImage))> {
        let last = self.batches.len() - 1;
        let split = move |b| if b == last { "test" } else { "train" };
        self.batches
            .iter()
            .enumerate()
            .flat_map(move |(b, batch)| batch.iter().map(move |s| (split(b), s)))
            .enumerate()
            .map(|(i, (split, sample))| (split, i, sample))
    }

    pub fn write_binary(&self, folder: &Path) {
        for (name, batch) in BATCHES.iter().zip(&self.batches) {
            let records: Vec<u8> =
                batch.iter().flat_map(|(label, image)| [vec![*label], planes(image)].concat()).collect();
            write(&folder.join(format!("{name}.bin")), &records);
        }
        write(&folder.join("batches.meta.txt"), format!("{}\n\n", CLASSES.join("\n")).as_bytes());
    }

    pub fn write_python(&self, folder: &Path) {
        for (name, batch) in BATCHES.iter().zip(&self.batches) {
            write(&folder.join(name), &batch_pickle("labels", batch));
        }
        write(&folder.join("batches.meta"), &names_pickle("label_names", &CLASSES));
    }

    pub fn write_class_folders(&self, root: &Path) {
        for (split, i, (label, image)) in self.samples() {
            let name = CLASSES[usize::from(*label)];
            write(&root.join(split).join(name).join(format!("{i:05}.png")), &encoded(image, ImageFormat::Png));
        }
        for name in CLASSES {
            fs::create_dir_all(root.join("train").join(name)).unwrap();
        }
    }

    pub fn write_flat(&self, root: &Path) {
        for (split, i, (label, image)) in self.samples() {
            let name = format!("{i}_{}.png", CLASSES[usize::from(*label)]);
            write(&root.join(split).join(name), &encoded(image, ImageFormat::Png));
        }
        write(&root.join("labels.txt"), CLASSES.join("\n").as_bytes());
    }
}

const BATCHES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];

/// Packs a folder as NAME.tar.gz, its paths beginning with `prefix`.
pub fn tar_gz(folder: &Path, prefix: &str, out: &Path) {
    let gz = flate2::write::GzEncoder::new(fs::File::create(out).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    tar.append_dir_all(prefix, folder).unwrap();
    tar.into_inner().unwrap().finish().unwrap().flush().unwrap();
}

pub fn digests(file: &Path) -> [u128; 2] {
    let dataset = Dataset::open(file).unwrap();
    dataset.verify().unwrap();
    Split::ALL.map(|split| dataset.content_digest(split).unwrap())
}

/// Writes a pickle of protocol 2, opcode by opcode, as Python 2's cPickle does: every container and string is
/// memoized.
#[derive(Default)]
pub struct Pickler {
    pub out: Vec<u8>,
    memo: u32,
}

impl Pickler {
    pub fn new() -> Self {
        Pickler { out: vec![0x80, 2], memo: 0 }
    }

    fn memoize(&mut self) {
        self.memo += 1;
        match u8::try_from(self.memo) {
            Ok(place) => self.out.extend([b'q', place]),
            Err(_) => {
                self.out.push(b'r');
                self.out.extend(self.memo.to_le_bytes());
            }
        }
    }

    pub fn op(&mut self, bytes: &[u8]) {
        self.out.extend(bytes);
    }

    pub fn memoized(&mut self, bytes: &[u8]) {
        self.op(bytes);
        self.memoize();
    }

    pub fn string(&mut self, bytes: &[u8]) {
        match u8::try_from(bytes.len()) {
            Ok(len) => self.op(&[b'U', len]),
            Err(_) => {
                self.op(b"T");
                self.op(&(bytes.len() as u32).to_le_bytes());
            }
        }
        self.memoized(bytes);
    }

    pub fn int(&mut self, n: i32) {
        match n {
            0..=0xFF => self.op(&[b'K', n as u8]),
            0x100..=0xFFFF => {
                self.op(b"M");
                self.op(&(n as u16).to_le_bytes());
            }
            _ => {
                self.op(b"J");
                self.op(&n.to_le_bytes());
            }
        }
    }

    /// A list in groups of up to 1000 items; a single item has its own opcode.
    pub fn list(&mut self, len: usize, mut item: impl FnMut(&mut Self, usize)) {
        self.memoized(b"]");
        for start in (0..len).step_by(1000) {
            let end = len.min(start + 1000);
            if end - start > 1 {
                self.op(b"(");
            }
            (start..end).for_each(|i| item(self, i));
            self.op(if end - start > 1 { b"e" } else { b"a" });
        }
    }

    /// numpy's array of bytes with two axes.
    pub fn array(&mut self, rows: usize, columns: usize, bytes: &[u8]) {
        self.memoized(b"cnumpy.core.multiarray\n_reconstruct\n");
        self.memoized(b"cnumpy\nndarray\n");
        self.int(0);
        self.memoized(&[0x85]);
        self.string(b"b");
        self.memoized(&[0x87]);
        self.memoized(b"R");
        self.op(b"(");
        self.int(1);
        self.int(rows as i32);
        self.int(columns as i32);
        self.memoized(&[0x86]);
        self.memoized(b"cnumpy\ndtype\n");
        self.string(b"u1");
        self.int(0);
        self.int(1);
        self.memoized(&[0x87]);
        self.memoized(b"R");
        self.op(b"(");
        self.int(3);
        self.string(b"|");
        self.op(b"NNN");
        self.int(-1);
        self.int(-1);
        self.int(0);
        self.memoized(b"t");
        self.op(b"b");
        self.op(&[0x89]);
        self.string(bytes);
        self.memoized(b"t");
        self.op(b"b");
    }
}

/// A batch of images as the Python versions have it.
pub fn batch_pickle(labels: &str, batch: &[(u8, RgbImage)]) -> Vec<u8> {
    let mut p = Pickler::new();
    p.memoized(b"}");
    p.op(b"(");
    p.string(b"batch_label");
    p.string(b"training batch 1 of 5");
    p.string(labels.as_bytes());
    p.list(batch.len(), |p, i| p.int(i32::from(batch[i].0)));
    p.string(b"data");
    let rows: Vec<u8> = batch.iter().flat_map(|(_, image)| planes(image)).collect();
    p.array(batch.len(), 3072, &rows);
    p.string(b"filenames");
    p.list(batch.len(), |p, i| p.string(format!("leptodactylus_pentadactylus_s_{i:06}.png").as_bytes()));
    p.op(b"u.");
    p.out
}

pub fn names_pickle(key: &str, names: &[&str]) -> Vec<u8> {
    let mut p = Pickler::new();
    p.memoized(b"}");
    p.op(b"(");
    p.string(b"num_cases_per_batch");
    p.int(10_000);
    p.string(key.as_bytes());
    p.list(names.len(), |p, i| p.string(names[i].as_bytes()));
    p.string(b"num_vis");
    p.int(3072);
    p.op(b"u.");
    p.out
}

/// A folder of two classes with two images each, and one for validation.
pub fn photos(root: &Path) -> PathBuf {
    let image =
        |seed: u32| RgbImage::from_fn(40 + seed, 30, |x, y| image::Rgb([(x * seed) as u8, y as u8, seed as u8]));
    for (i, path) in
        ["train/ant/1.png", "train/ant/2.png", "train/bee/3.png", "train/bee/4.png", "val/ant/5.png"].iter().enumerate()
    {
        write(&root.join(path), &encoded(&image(i as u32 + 1), ImageFormat::Png));
    }
    root.to_path_buf()
}
