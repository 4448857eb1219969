//! CIFAR-10 and CIFAR-100 as their authors publish them: the binary and the Python version.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use handgrad::data::Split;
use handgrad::io::picture::MAX_FILE;
use handgrad::{Error, ErrorKind, Result};

use super::pickle::Pickle;
use super::{Image, Item, Sink, Source};

const SIDE: usize = 32;
/// Bytes of one colour plane.
const PLANE: usize = SIDE * SIDE;
/// Bytes of one image.
const IMAGE: usize = 3 * PLANE;

/// The published versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Binary10,
    Python10,
    Binary100,
    Python100,
}

const VERSIONS: [Version; 4] = [Version::Binary10, Version::Python10, Version::Binary100, Version::Python100];

impl Version {
    /// The name of its folder in the archive.
    fn folder(self) -> &'static str {
        match self {
            Version::Binary10 => "cifar-10-batches-bin",
            Version::Python10 => "cifar-10-batches-py",
            Version::Binary100 => "cifar-100-binary",
            Version::Python100 => "cifar-100-python",
        }
    }

    /// Its files of images.
    fn batches(self) -> Vec<(Split, String)> {
        let ending = if self == Version::Binary10 { ".bin" } else { "" };
        match self {
            Version::Binary10 | Version::Python10 => (1..=5)
                .map(|i| (Split::Train, format!("data_batch_{i}{ending}")))
                .chain([(Split::Valid, format!("test_batch{ending}"))])
                .collect(),
            Version::Binary100 => vec![(Split::Train, "train.bin".into()), (Split::Valid, "test.bin".into())],
            Version::Python100 => vec![(Split::Train, "train".into()), (Split::Valid, "test".into())],
        }
    }

    /// Its file of class names.
    fn names(self) -> &'static str {
        match self {
            Version::Binary10 => "batches.meta.txt",
            Version::Python10 => "batches.meta",
            Version::Binary100 => "fine_label_names.txt",
            Version::Python100 => "meta",
        }
    }

    /// All its files.
    pub fn files(self) -> Vec<String> {
        let batches = self.batches().into_iter().map(|(_, name)| name);
        batches.chain([self.names().to_owned()]).collect()
    }

    /// The version whose file of class names and first batch are among `names`.
    pub fn of(has: impl Fn(&str) -> bool) -> Option<Version> {
        VERSIONS.into_iter().find(|version| has(&version.batches()[0].1) && has(version.names()))
    }
}

/// A CIFAR archive, unpacked or in memory.
pub(crate) struct Cifar {
    version: Version,
    files: Files,
    classes: Vec<String>,
}

/// Where its files are.
pub(crate) enum Files {
    Folder(PathBuf),
    /// From an archive: the name of the archive, and content by name.
    Memory(String, HashMap<String, Vec<u8>>),
}

impl Files {
    fn subject(&self, name: &str) -> String {
        match self {
            Files::Folder(folder) => folder.join(name).display().to_string(),
            Files::Memory(archive, _) => format!("{archive}: {name}"),
        }
    }

    /// The content of a file; one that is in memory is given away.
    fn take(&mut self, name: &str) -> Result<Vec<u8>> {
        let subject = self.subject(name);
        match self {
            Files::Folder(folder) => {
                let path = folder.join(name);
                let io = |e| Error::io(&path, &e);
                if !path.metadata().map_err(io)?.is_file() {
                    return Err(Error::new(ErrorKind::Io, &subject, "not a regular file"));
                }
                let mut bytes = Vec::new();
                File::open(&path).map_err(io)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
                if bytes.len() as u64 > MAX_FILE {
                    return Err(Error::new(ErrorKind::Format, &subject, "too large for a file of CIFAR"));
                }
                Ok(bytes)
            }
            Files::Memory(_, files) => files.remove(name).ok_or_else(|| {
                Error::new(ErrorKind::Format, &subject, "missing").hint("the archive is not complete; fetch it again")
            }),
        }
    }
}

/// CIFAR in a folder or in the folder within that the archives have.
pub(crate) fn in_folder(folder: &Path) -> Result<Option<Cifar>> {
    let inner = VERSIONS.map(|version| folder.join(version.folder()));
    for candidate in std::iter::once(folder.to_path_buf()).chain(inner) {
        if let Some(version) = Version::of(|name| candidate.join(name).is_file()) {
            return Cifar::open(version, Files::Folder(candidate)).map(Some);
        }
    }
    Ok(None)
}

impl Cifar {
    pub fn open(version: Version, mut files: Files) -> Result<Self> {
        let subject = files.subject(version.names());
        let bytes = files.take(version.names())?;
        let classes = match version {
            Version::Python10 => Pickle::read(&bytes, &subject)?.strings("label_names")?,
            Version::Python100 => Pickle::read(&bytes, &subject)?.strings("fine_label_names")?,
            Version::Binary10 | Version::Binary100 => {
                let text = String::from_utf8(bytes)
                    .map_err(|_| Error::new(ErrorKind::Format, &subject, "not text").expected("a class per line"))?;
                text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
            }
        };
        Ok(Cifar { version, files, classes })
    }

    fn send(
        &self,
        split: Split,
        name: &str,
        labels: &[u32],
        images: &[[u8; IMAGE]],
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        for (i, (image, &label)) in images.iter().zip(labels).enumerate() {
            let name = format!("{} image {i}", self.files.subject(name));
            if label as usize >= self.classes.len() {
                return Err(Error::new(ErrorKind::Format, name, format!("label {label}"))
                    .expected(format!("0 to {}", self.classes.len().saturating_sub(1))));
            }
            let image = Image::Pixels { height: SIDE as u32, width: SIDE as u32, pixels: interleaved(image) };
            sink.push(Item { split, label, name, image })?;
        }
        Ok(())
    }

    /// Records of `skip + 1` label bytes, the last one ours, and the image.
    fn binary(&self, split: Split, name: &str, bytes: &[u8], skip: usize, sink: &mut Sink<'_>) -> Result<()> {
        let record = skip + 1 + IMAGE;
        if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
            return Err(Error::new(ErrorKind::Format, self.files.subject(name), format!("{} bytes", bytes.len()))
                .expected(format!("records of {record} bytes"))
                .hint("the file is damaged; fetch it again"));
        }
        for (i, record) in bytes.chunks_exact(record).enumerate() {
            let images = record[skip + 1..].as_chunks::<IMAGE>().0;
            self.send(split, &format!("{name} record {i}"), &[u32::from(record[skip])], images, sink)?;
        }
        Ok(())
    }

    fn python(&self, split: Split, name: &str, bytes: &[u8], labels: &str, sink: &mut Sink<'_>) -> Result<()> {
        let subject = self.files.subject(name);
        let pickle = Pickle::read(bytes, &subject)?;
        let labels = pickle.labels(labels)?;
        let (rows, columns, data) = pickle.bytes("data")?;
        if columns != IMAGE || rows != labels.len() {
            let found = format!("{} labels for {rows} rows of {columns} bytes", labels.len());
            return Err(Error::new(ErrorKind::Format, subject, found).expected(format!("a label per row of {IMAGE}")));
        }
        self.send(split, name, &labels, data.as_chunks::<IMAGE>().0, sink)
    }
}

impl Source for Cifar {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn total(&self) -> Option<u64> {
        Some(60_000)
    }

    fn run(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        for (split, name) in self.version.batches() {
            let bytes = self.files.take(&name)?;
            match self.version {
                Version::Binary10 => self.binary(split, &name, &bytes, 0, sink)?,
                Version::Binary100 => self.binary(split, &name, &bytes, 1, sink)?, // the coarse label comes first
                Version::Python10 => self.python(split, &name, &bytes, "labels", sink)?,
                Version::Python100 => self.python(split, &name, &bytes, "fine_labels", sink)?,
            }
        }
        Ok(())
    }
}

/// Three planes to RGB, RGB, …
fn interleaved(planes: &[u8; IMAGE]) -> Vec<u8> {
    let mut out = vec![0; IMAGE];
    for (c, plane) in planes.chunks_exact(PLANE).enumerate() {
        for (pixel, &value) in out.chunks_exact_mut(3).zip(plane) {
            pixel[c] = value;
        }
    }
    out
}
