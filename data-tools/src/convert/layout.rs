//! Which class and split a file belongs to, told by its path.

use std::collections::{BTreeSet, HashMap};

use handgrad::data::Split;
use handgrad::{Error, ErrorKind, Result};

use super::unknown_layout;

/// Folders that hold the validation split.
pub(crate) const VALID: [&str; 3] = ["val", "valid", "test"];

/// A folder of images by class, or the flat layout with the class in the file's name.
#[derive(Debug)]
pub(crate) struct Layout {
    pub classes: Vec<String>,
    labels: HashMap<String, u32>,
    /// The validation split's folder.
    pub valid: Option<String>,
    flat: bool,
}

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Sample(Split, u32),
    /// In a split's folder, but no sample: why.
    Unusable(Split, String),
    /// Not in the folder of a split that is converted.
    Outside,
}

/// Collects the paths of a source, to tell its layout.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// First parts of the paths: the splits' folders.
    tops: BTreeSet<String>,
    /// Folders in `train`.
    folders: BTreeSet<String>,
    /// Classes named by files in `train` itself.
    flat: BTreeSet<String>,
    /// Per split folder, the classes that occur, to compare.
    others: BTreeSet<(String, String)>,
}

impl Survey {
    /// A file, by the parts of its path from the source's root.
    pub fn file(&mut self, parts: &[&str]) {
        match parts {
            [top, name] => {
                self.top(top);
                if *top == "train"
                    && let Some(class) = class_of(name)
                    && !self.flat.contains(class)
                {
                    self.flat.insert(class.to_owned());
                }
            }
            [top, folder, _, ..] => self.folder(top, folder),
            _ => {}
        }
    }

    /// A folder in a split's folder.
    pub fn folder(&mut self, top: &str, folder: &str) {
        self.top(top);
        if folder.starts_with('.') {
            return; // what tools leave behind is no class; its files are reported
        }
        if top == "train" {
            self.folders.insert(folder.to_owned());
        } else if VALID.contains(&top) {
            self.others.insert((top.to_owned(), folder.to_owned()));
        }
    }

    /// A folder at the root.
    pub fn top(&mut self, top: &str) {
        if !self.tops.contains(top) {
            self.tops.insert(top.to_owned());
        }
    }

    /// The layout. `labels` is the content of `labels.txt` at the root; `valid` the folder that the user chose.
    pub fn layout(self, subject: &str, labels: Option<&str>, valid: Option<&str>) -> Result<Layout> {
        if !self.tops.contains("train") {
            return Err(unknown_layout(subject, "no folder `train`"));
        }
        let valid = self.choose_valid(subject, valid)?;
        let flat = self.folders.is_empty();
        let classes: Vec<String> = match labels {
            Some(text) if flat => text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect(),
            _ if flat => self.flat.into_iter().collect(),
            _ => self.folders.into_iter().collect(),
        };
        if classes.is_empty() {
            return Err(unknown_layout(subject, "no class in the folder `train`"));
        }
        let unknown = self.others.iter().find(|(top, class)| Some(top) == valid.as_ref() && !classes.contains(class));
        if let Some((top, class)) = unknown.filter(|_| !flat) {
            return Err(Error::new(
                ErrorKind::Format,
                subject,
                format!("the class {class:?} is in {top}, not in train"),
            )
            .hint("a class that is never trained cannot be recognised: check the folder's name"));
        }
        let numbered = classes.iter().enumerate();
        let labels = numbered.map(|(i, name)| (name.clone(), i as u32)).collect();
        Ok(Layout { classes, labels, valid, flat })
    }

    fn choose_valid(&self, subject: &str, chosen: Option<&str>) -> Result<Option<String>> {
        if let Some(name) = chosen {
            let known = self.tops.contains(name) && name != "train";
            return known.then(|| Some(name.to_owned())).ok_or_else(|| {
                Error::new(ErrorKind::Usage, "--valid", format!("no folder {name:?} in {subject}"))
                    .expected("the name of the validation split's folder")
            });
        }
        let found: Vec<&str> = VALID.into_iter().filter(|name| self.tops.contains(*name)).collect();
        if found.len() > 1 {
            return Err(Error::new(ErrorKind::Usage, subject, format!("several folders to validate on: {found:?}"))
                .hint(format!("choose one: --valid {}", found[0])));
        }
        Ok(found.first().map(|&name| name.to_owned()))
    }
}

impl Layout {
    /// What the user should know of this layout.
    pub fn notes(&self) -> Vec<String> {
        if self.valid.is_some() {
            return Vec::new();
        }
        vec![format!("note: no folder {} beside train: the dataset has no validation split", VALID.join(", "))]
    }

    /// What the file at these parts of a path is.
    pub fn place(&self, parts: &[&str]) -> Place {
        let split = match parts.first() {
            Some(&"train") => Split::Train,
            Some(top) if Some(*top) == self.valid.as_deref() => Split::Valid,
            _ => return Place::Outside,
        };
        let class = match parts {
            [_, name] if self.flat => class_of(name),
            [_, class, _, ..] if !self.flat => Some(*class),
            [_, _] => return Place::Unusable(split, "not in the folder of a class".into()),
            _ => return Place::Unusable(split, "in a folder within a flat layout".into()),
        };
        match class.and_then(|class| self.labels.get(class)) {
            Some(&label) => Place::Sample(split, label),
            None if self.flat => Place::Unusable(split, "its name ends in no known class (NUMBER_CLASS.png)".into()),
            None => Place::Unusable(split, "in a folder that is no class".into()),
        }
    }
}

/// `123_frog.png` → `frog`.
fn class_of(file_name: &str) -> Option<&str> {
    let stem = file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem);
    stem.split_once('_').map(|(_, class)| class).filter(|class| !class.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(paths: &[&str]) -> Survey {
        let mut survey = Survey::default();
        for path in paths {
            survey.file(&path.split('/').collect::<Vec<_>>());
        }
        survey
    }

    #[test]
    fn classes_are_folders_or_the_ends_of_names() {
        let layout =
            survey(&["train/b/1.png", "train/a/2.png", "val/a/3.png", "train/.x/4.png"]).layout("s", None, None);
        let layout = layout.unwrap();
        assert_eq!((layout.classes.join(" "), layout.valid.as_deref()), ("a b".into(), Some("val")));
        assert_eq!(layout.place(&["train", "b", "deep", "x.png"]), Place::Sample(Split::Train, 1));
        assert_eq!(layout.place(&["val", "a", "x.png"]), Place::Sample(Split::Valid, 0));
        assert_eq!(layout.place(&["other", "a", "x.png"]), Place::Outside);
        assert!(matches!(layout.place(&["train", "x.png"]), Place::Unusable(..)));
        assert!(matches!(layout.place(&["train", ".x", "4.png"]), Place::Unusable(..)));
        let flat =
            survey(&["train/1_frog.png", "train/2_aquarium_fish.png", "test/1_frog.png"]).layout("s", None, None);
        let flat = flat.unwrap();
        assert_eq!(flat.classes, ["aquarium_fish", "frog"]);
        assert_eq!(flat.place(&["test", "7_frog.jpeg"]), Place::Sample(Split::Valid, 1));
        assert!(matches!(flat.place(&["test", "7_toad.png"]), Place::Unusable(..)));
    }

    #[test]
    fn labels_txt_sets_the_order() {
        let layout = survey(&["train/1_frog.png"]).layout("s", Some("frog\nant\n\n"), None).unwrap();
        assert_eq!(layout.classes, ["frog", "ant"]);
    }

    #[test]
    fn what_is_unclear_is_asked() {
        let usage = |paths: &[&str], valid| survey(paths).layout("s", None, valid).unwrap_err();
        assert_eq!(usage(&["a/1.png"], None).kind(), ErrorKind::Usage);
        assert_eq!(usage(&["train/a/1.png", "val/a/1.png", "test/a/1.png"], None).kind(), ErrorKind::Usage);
        assert_eq!(usage(&["train/a/1.png"], Some("dev")).kind(), ErrorKind::Usage);
        assert_eq!(usage(&["train/a/1.png", "val/b/1.png"], None).kind(), ErrorKind::Format);
        assert_eq!(usage(&["train/1.png"], None).kind(), ErrorKind::Usage);
        let paths = ["train/a/1.png", "val/a/1.png", "test/a/1.png"];
        assert_eq!(survey(&paths).layout("s", None, Some("test")).unwrap().valid.as_deref(), Some("test"));
    }
}
