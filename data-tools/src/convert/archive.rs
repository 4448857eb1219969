//! A `.tar.gz` read as a stream: nothing is unpacked to disk, so no entry can write anywhere.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use handgrad::data::Split;
use handgrad::io::picture::MAX_FILE;
use handgrad::{Error, ErrorKind, Result};
use tar::EntryType;

use super::cifar::{Cifar, Files, Version};
use super::layout::{Layout, Place, Survey};
use super::{Image, Item, Sink, Source, unknown_layout};

/// Bytes of the header that holds a long name at most.
const MAX_NAME: u64 = 64 << 10;

/// Bytes and folders of a path at most: more than any system makes.
const MAX_PATH: usize = 4096;
const MAX_DEPTH: usize = 64;

/// Bytes of all paths of an archive at most (1 GB): those of ten million files.
const MAX_PATHS: usize = 1 << 30;

/// What `archive` holds: CIFAR's files, or folders of images.
pub(crate) fn open(archive: &Path, valid: Option<&str>) -> Result<Box<dyn Source>> {
    let subject = archive.display().to_string();
    let paths = list(archive)?;
    if let Some((root, version)) = find_cifar(&paths) {
        let files = read_files(archive, &root, &version.files())?;
        return Ok(Box::new(Cifar::open(version, Files::Memory(subject, files))?));
    }
    // The shortest way to a folder `train` is the root.
    let roots = paths.iter().filter_map(|path| path.iter().position(|part| part == "train").map(|at| &path[..at]));
    let root = roots.min_by_key(|root| root.len()).ok_or_else(|| unknown_layout(&subject, "no folder `train`"))?;
    let mut survey = Survey::default();
    for path in &paths {
        if let Some(parts) = path.strip_prefix(root) {
            survey.file(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
    let labels = read_files(archive, root, &["labels.txt".to_owned()])?.remove("labels.txt");
    let labels = labels.and_then(|bytes| String::from_utf8(bytes).ok());
    let layout = survey.layout(&subject, labels.as_deref(), valid)?;
    let root = root.to_vec();
    let total = paths.iter().filter(|path| is_in_split(&layout, path, &root)).count() as u64;
    Ok(Box::new(Folders { archive: archive.to_path_buf(), root, layout, total }))
}

fn is_in_split(layout: &Layout, path: &[String], root: &[String]) -> bool {
    let parts = path.strip_prefix(root);
    parts.is_some_and(|parts| layout.place(&parts.iter().map(String::as_str).collect::<Vec<_>>()) != Place::Outside)
}

/// The folder of an archive that has CIFAR's files.
fn find_cifar(paths: &[Vec<String>]) -> Option<(Vec<String>, Version)> {
    let mut roots: Vec<&[String]> = paths.iter().filter_map(|path| path.split_last().map(|(_, root)| root)).collect();
    roots.sort_unstable();
    roots.dedup();
    // CIFAR's archives have one folder; a tree of class folders is not searched.
    let candidates = roots.into_iter().filter(|root| root.len() <= 1);
    candidates.into_iter().find_map(|root| {
        let has =
            |name: &str| paths.iter().any(|path| path.split_last().is_some_and(|(last, r)| last == name && r == root));
        Version::of(has).map(|version| (root.to_vec(), version))
    })
}

/// The paths of all files in an archive, in its order.
fn list(archive: &Path) -> Result<Vec<Vec<String>>> {
    let (mut paths, mut bytes) = (Vec::new(), 0);
    for_each_file(archive, |path, _, _| {
        bytes += path.iter().map(|part| size_of::<String>() + part.len()).sum::<usize>();
        if bytes > MAX_PATHS {
            let e = Error::new(ErrorKind::Format, archive.display(), "more files than a dataset can have");
            return Err(e.expected(format!("paths of {MAX_PATHS} bytes at most")));
        }
        paths.push(path);
        Ok(())
    })?;
    Ok(paths)
}

/// The content of the named files in the folder `root` of an archive, as far as they are there.
fn read_files(archive: &Path, root: &[String], names: &[String]) -> Result<HashMap<String, Vec<u8>>> {
    let mut files = HashMap::new();
    for_each_file(archive, |path, size, content| {
        if let Some((name, folder)) = path.split_last()
            && folder == root
            && names.contains(name)
        {
            let bytes = read_bounded(size, content)
                .map_err(|why| Error::new(ErrorKind::Format, format!("{}: {name}", archive.display()), why))?;
            files.insert(name.clone(), bytes);
        }
        Ok(())
    })?;
    Ok(files)
}

fn read_bounded(size: u64, content: &mut dyn Read) -> Result<Vec<u8>, String> {
    if size > MAX_FILE {
        return Err(format!("larger than {} MB", MAX_FILE >> 20));
    }
    let mut bytes = Vec::new();
    content.take(size).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if (bytes.len() as u64) < size { Err("the archive ends within it".into()) } else { Ok(bytes) }
}

/// What is done with a file of an archive: the parts of its path, its size, its content.
type Visit<'a> = dyn FnMut(Vec<String>, u64, &mut dyn Read) -> Result<()> + 'a;

/// Calls `visit` for every regular file.
///
/// Long names (GNU and pax) are read here and not by the library, which would take whatever length they claim.
fn for_each_file(archive: &Path, mut visit: impl FnMut(Vec<String>, u64, &mut dyn Read) -> Result<()>) -> Result<()> {
    let visit: &mut Visit = &mut visit;
    let broken = |e: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Format, archive.display(), e)
            .expected("a complete .tar.gz")
            .hint("the archive is damaged; fetch it again")
    };
    let file = File::open(archive).map_err(|e| Error::io(archive, &e))?;
    let zipped = !archive.to_string_lossy().to_lowercase().ends_with(".tar");
    let content: Box<dyn Read> = if zipped {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file)))
    } else {
        Box::new(BufReader::with_capacity(1 << 16, file))
    };
    let mut tar = tar::Archive::new(content);
    let mut long_name: Option<Vec<u8>> = None;
    for entry in tar.entries().map_err(|e| broken(&e))?.raw(true) {
        let mut entry = entry.map_err(|e| broken(&e))?;
        let (kind, size) = (entry.header().entry_type(), entry.size());
        match kind {
            EntryType::GNULongName | EntryType::XHeader => {
                if size > MAX_NAME {
                    return Err(broken(&format!("a name of {size} bytes")));
                }
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(|e| broken(&e))?;
                long_name = if kind == EntryType::XHeader { pax_path(&bytes).or(long_name) } else { Some(bytes) };
            }
            EntryType::Regular | EntryType::Continuous => {
                let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                let depth = name.iter().filter(|&&b| b == b'/').count();
                if name.len() > MAX_PATH || depth > MAX_DEPTH {
                    return Err(broken(&format!("a path of {} bytes, {depth} folders deep", name.len())));
                }
                visit(parts_of(&name), size, &mut entry)?;
            }
            EntryType::GNULongLink | EntryType::XGlobalHeader => {}
            _ => long_name = None, // folders and links: not files of ours, and their name is used up
        }
    }
    Ok(())
}

/// The path of a pax header: records `LENGTH path=VALUE\n`.
fn pax_path(mut bytes: &[u8]) -> Option<Vec<u8>> {
    loop {
        let space = bytes.iter().position(|&b| b == b' ')?;
        let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..len)?;
        if let Some(path) = record.strip_prefix(b"path=") {
            return Some(path.strip_suffix(b"\n").unwrap_or(path).to_vec());
        }
        bytes = &bytes[len..];
    }
}

/// `./a/b` → `a`, `b`. Nothing is written by these names, so none is dangerous.
fn parts_of(name: &[u8]) -> Vec<String> {
    let name = String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned();
    name.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

/// Folders of images in an archive, read in its order.
struct Folders {
    archive: PathBuf,
    root: Vec<String>,
    layout: Layout,
    total: u64,
}

impl Source for Folders {
    fn classes(&self) -> &[String] {
        &self.layout.classes
    }

    fn total(&self) -> Option<u64> {
        Some(self.total)
    }

    fn notes(&self) -> Vec<String> {
        self.layout.notes()
    }

    fn run(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        for_each_file(&self.archive, |path, size, content| {
            let Some(parts) = path.strip_prefix(&self.root[..]) else { return Ok(()) };
            let place = self.layout.place(&parts.iter().map(String::as_str).collect::<Vec<_>>());
            let name = format!("{}: {}", self.archive.display(), path.join("/"));
            let unusable = |split: Split, name, why| Item { split, label: 0, name, image: Image::Unusable(why) };
            let item = match place {
                Place::Outside => return Ok(()),
                Place::Unusable(split, why) => unusable(split, name, why),
                Place::Sample(split, label) => match read_bounded(size, content) {
                    Ok(bytes) => Item { split, label, name, image: Image::Bytes(bytes) },
                    Err(why) => unusable(split, name, why),
                },
            };
            sink.push(item)
        })
    }
}
