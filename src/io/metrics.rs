//! metrics.jsonl: one JSON object per line and epoch, durable as soon as the epoch is over.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use super::atomic::{folder_of, write_atomically};
use crate::{Error, ErrorKind, Result};

/// The longest file that is read: two million epochs.
const MAX_BYTES: u64 = 1 << 29;

/// What one epoch gave. JSON has no word for a number that is not finite: it is written as `null` and read as NaN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochMetrics {
    /// Counted from 1 over all phases.
    pub epoch: u64,
    /// Mean training loss of the epoch's images, each taken before the step that used it.
    #[serde(deserialize_with = "null_is_nan")]
    pub train_loss: f64,
    /// Mean loss on the validation images.
    #[serde(deserialize_with = "null_is_nan")]
    pub valid_loss: f64,
    /// Share of validation images whose class is the first guess, 0..1.
    #[serde(deserialize_with = "null_is_nan")]
    pub accuracy: f64,
    /// Share of validation images whose class is among the first five guesses, 0..1.
    #[serde(deserialize_with = "null_is_nan")]
    pub top5: f64,
    /// Learning rate of the epoch's last step.
    #[serde(deserialize_with = "null_is_nan")]
    pub lr: f64,
    /// Seconds that the epoch took, validation included.
    #[serde(deserialize_with = "null_is_nan")]
    pub seconds: f64,
    /// Training images per second, validation not included.
    #[serde(deserialize_with = "null_is_nan")]
    pub images_per_second: f64,
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Adds a line and waits until it is on disk. A torn last line, left by a crash, is cut off first.
///
/// # Errors
/// `Io` from the file system.
pub fn append(path: impl AsRef<Path>, metrics: &EpochMetrics) -> Result<()> {
    let path = path.as_ref();
    let io = |e: std::io::Error| Error::io(path, &e);
    let is_new = !path.try_exists().map_err(io)?;
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
    let whole = whole_lines(&read_capped(path, &mut file)?).len() as u64;
    file.set_len(whole).map_err(io)?;
    file.seek(SeekFrom::Start(whole)).map_err(io)?;
    file.write_all(line(metrics).as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)?;
    // A new file lasts through a power cut only once its folder is on disk. Windows has no such call.
    if is_new && cfg!(unix) {
        File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(io)?;
    }
    Ok(())
}

/// All epochs of a file, in order; a torn last line (one without its line end) is left out.
///
/// # Errors
/// `Io` if the file is unreadable; `Format` for any other line that is not what [`append`] writes.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<EpochMetrics>> {
    let path = path.as_ref();
    let mut file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let bytes = read_capped(path, &mut file)?;
    let parse = |(i, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|e| {
            Error::new(ErrorKind::Format, format!("{}:{}", path.display(), i + 1), e)
                .expected("one JSON object with the metrics of an epoch")
        })
    };
    whole_lines(&bytes).split_inclusive(|&b| b == b'\n').enumerate().map(parse).collect()
}

/// Cuts the file back to a checkpoint: epochs above `epoch` go, and so does a torn last line. The epochs that stay
/// are returned; no file is no epochs.
///
/// # Errors
/// As [`read`], and `Io` if the shorter file cannot be written.
pub fn truncate_to_epoch(path: impl AsRef<Path>, epoch: u64) -> Result<Vec<EpochMetrics>> {
    let path = path.as_ref();
    if !path.try_exists().map_err(|e| Error::io(path, &e))? {
        return Ok(Vec::new());
    }
    let kept: Vec<EpochMetrics> = read(path)?.into_iter().filter(|m| m.epoch <= epoch).collect();
    let text: String = kept.iter().map(line).collect();
    write_atomically(path, |file| file.write_all(text.as_bytes()).map_err(|e| Error::io(path, &e)))?;
    Ok(kept)
}

fn line(metrics: &EpochMetrics) -> String {
    // A struct of numbers has no way to fail; the null of a non-finite number is JSON's own.
    let json = serde_json::to_string(metrics).unwrap_or_default();
    json + "\n"
}

fn read_capped(path: &Path, file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, &e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::new(ErrorKind::Format, path.display(), "too long").expected("one line per epoch"));
    }
    Ok(bytes)
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |last| last + 1);
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: u64) -> EpochMetrics {
        let train_loss = 2.3 / epoch as f64;
        let (valid_loss, accuracy, top5) = (2.25, 0.1 + 0.2, 1.0);
        EpochMetrics { epoch, train_loss, valid_loss, accuracy, top5, lr: 1e-2, seconds: 12.5, images_per_second: 4e3 }
    }

    #[test]
    fn appended_epochs_come_back_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        for i in 1..=3 {
            append(&path, &epoch(i)).unwrap();
        }
        assert_eq!(read(&path).unwrap(), [1, 2, 3].map(epoch));
        let first = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().to_string();
        let wanted = r#"{"epoch":1,"train_loss":2.3,"valid_loss":2.25,"accuracy":0.30000000000000004,"top5":1.0,"#;
        assert_eq!(first, wanted.to_string() + r#""lr":0.01,"seconds":12.5,"images_per_second":4000.0}"#);
    }

    #[test]
    fn a_torn_last_line_is_dropped_wherever_it_tears() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let two = line(&epoch(1)) + &line(&epoch(2));
        let start_of_last = line(&epoch(1)).len();
        for cut in start_of_last..two.len() {
            let torn = [&two.as_bytes()[..cut], &[0; 3]].concat(); // a crash may leave zeros for data never written
            for content in [&torn[..], &two.as_bytes()[..cut]] {
                std::fs::write(&path, content).unwrap();
                assert_eq!(read(&path).unwrap(), [epoch(1)]);
                append(&path, &epoch(2)).unwrap();
                assert_eq!(std::fs::read_to_string(&path).unwrap(), two);
            }
        }
    }

    #[test]
    fn cut_back_to_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert!(truncate_to_epoch(&path, 0).unwrap().is_empty());
        for i in 1..=4 {
            append(&path, &epoch(i)).unwrap();
        }
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"epoch\":5,\"tr").unwrap();
        assert_eq!(truncate_to_epoch(&path, 9).unwrap().len(), 4);
        assert_eq!(truncate_to_epoch(&path, 2).unwrap(), [1, 2].map(epoch));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line(&epoch(1)) + &line(&epoch(2)));
        assert!(truncate_to_epoch(&path, 0).unwrap().is_empty());
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_loss_that_is_not_finite_survives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        append(&path, &EpochMetrics { valid_loss: f64::INFINITY, ..epoch(1) }).unwrap();
        assert!(read(&path).unwrap()[0].valid_loss.is_nan());
    }

    #[test]
    fn a_broken_line_before_the_last_is_an_error_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        for broken in ["{\"epoch\":2}\n", "\n", "[]\n", "\u{0}\n"] {
            std::fs::write(&path, line(&epoch(1)) + broken + &line(&epoch(3))).unwrap();
            let error = read(&path).unwrap_err();
            assert_eq!((error.kind(), error.subject().ends_with("metrics.jsonl:2")), (ErrorKind::Format, true));
            assert!(truncate_to_epoch(&path, 1).is_err());
        }
    }
}
