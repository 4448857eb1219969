//! A folder of image files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use handgrad::data::Split;
use handgrad::{Error, ErrorKind, Result};
use walkdir::WalkDir;

use super::layout::{Layout, Place, Survey, VALID};
use super::{Image, Item, Sink, Source};

/// Bytes of `labels.txt` that are read at most.
const MAX_LABELS: u64 = 16 << 20;

/// `train/CLASS/IMAGE` or `train/123_CLASS.png`, with the validation split beside `train`.
#[derive(Debug)]
pub(crate) struct Folders {
    root: PathBuf,
    layout: Layout,
    total: u64,
}

impl Folders {
    pub fn open(root: &Path, valid: Option<&str>) -> Result<Self> {
        let mut survey = Survey::default();
        for top in subfolders(root)? {
            survey.top(&top);
            if top == "train" || VALID.contains(&top.as_str()) {
                for folder in subfolders(&root.join(&top))? {
                    survey.folder(&top, &folder);
                }
            }
        }
        // The flat layout's classes are in the names of its files.
        for name in file_names(&root.join("train")) {
            survey.file(&["train", &name]);
        }
        let labels = read_labels(&root.join("labels.txt"))?;
        let layout = survey.layout(&root.display().to_string(), labels.as_deref(), valid)?;
        let mut folders = Folders { root: root.to_path_buf(), layout, total: 0 };
        folders.total = folders.splits().iter().map(|top| files(&root.join(top)).count() as u64).sum();
        Ok(folders)
    }

    fn splits(&self) -> Vec<&str> {
        std::iter::once("train").chain(self.layout.valid.as_deref()).collect()
    }

    fn item(&self, entry: Result<PathBuf, (String, String)>) -> Option<Item> {
        let unusable = |split, name, why| Item { split, label: 0, name, image: Image::Unusable(why) };
        let path = match entry {
            Ok(path) => path,
            Err((name, why)) => return Some(unusable(Split::Train, name, why)),
        };
        let name = path.display().to_string();
        let relative = path.strip_prefix(&self.root).unwrap_or(&path);
        let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
        let Some(parts) = parts else {
            return Some(unusable(Split::Train, name, "its name is not UTF-8".into()));
        };
        match self.layout.place(&parts) {
            Place::Sample(split, label) => Some(Item { split, label, name, image: Image::File(path) }),
            Place::Unusable(split, why) => Some(unusable(split, name, why)),
            Place::Outside => None,
        }
    }
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
        for top in self.splits() {
            for entry in files(&self.root.join(top)) {
                if let Some(item) = self.item(entry) {
                    sink.push(item)?;
                }
            }
        }
        Ok(())
    }
}

/// All files below a folder in the order of their names, links followed; or the name and problem of what cannot be
/// read.
fn files(folder: &Path) -> impl Iterator<Item = Result<PathBuf, (String, String)>> {
    let walk = WalkDir::new(folder).follow_links(true).min_depth(1).sort_by_file_name();
    walk.into_iter().filter_map(|entry| match entry {
        Ok(entry) => (!entry.file_type().is_dir()).then(|| Ok(entry.into_path())),
        Err(e) => Some(Err((e.path().unwrap_or(Path::new("?")).display().to_string(), e.to_string()))),
    })
}

/// Names of the folders in a folder, sorted; a name that is not UTF-8 cannot be a class's.
fn subfolders(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, &e))? {
        let entry = entry.map_err(|e| Error::io(folder, &e))?;
        if entry.path().is_dir() {
            let name = entry.file_name().into_string();
            names.push(name.map_err(|name| {
                Error::new(ErrorKind::Format, folder.display(), format!("the folder {name:?} has a name not in UTF-8"))
            })?);
        }
    }
    names.sort();
    Ok(names)
}

fn file_names(folder: &Path) -> impl Iterator<Item = String> {
    let walk = WalkDir::new(folder).follow_links(true).min_depth(1).max_depth(1);
    let files = walk.into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    files.filter_map(|entry| entry.file_name().to_str().map(str::to_owned))
}

fn read_labels(path: &Path) -> Result<Option<String>> {
    if !path.is_file() {
        return Ok(None);
    }
    let io = |e| Error::io(path, &e);
    let mut text = String::new();
    File::open(path).map_err(io)?.take(MAX_LABELS).read_to_string(&mut text).map_err(io)?;
    Ok(Some(text))
}
