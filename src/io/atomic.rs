//! Files that appear whole or not at all.
//!
//! The bytes go to a temporary file in the target's folder, which is synced, renamed over the target, and made
//! durable by syncing the folder. A crash at any instant leaves the old file, the new file, or the old file with
//! a forgotten temporary (`.NAME.XXXXXX.tmp`) beside it.

use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{Error, ErrorKind, Result};

/// Writes `path` whole or not at all: `fill` gets the empty temporary file.
///
/// # Errors
/// Those of `fill`, and [`ErrorKind::Io`] from creating, syncing or renaming; the target is then untouched.
///
/// ```
/// # fn main() -> handgrad::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// use std::io::Write;
/// let path = folder.path().join("notes.txt");
/// handgrad::io::atomic::write_atomically(&path, |file| {
///     file.write_all(b"all or nothing").map_err(|e| handgrad::Error::io(&path, &e))
/// })?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"all or nothing");
/// # Ok(())
/// # }
/// ```
pub fn write_atomically(path: impl AsRef<Path>, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    fill(file.file())?;
    file.commit()
}

/// A file under construction: dropped without [`commit`](AtomicFile::commit), it leaves nothing behind.
///
/// The file is open for reading, writing and seeking, so a header can be written last.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl AtomicFile {
    /// Starts a file that will replace `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if `path` names no file, [`ErrorKind::Io`] if its folder cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let name = match path.file_name() {
            Some(name) if !path.is_dir() => name.to_string_lossy().into_owned(),
            _ => return Err(Error::new(ErrorKind::Usage, path.display(), "a folder").expected("the name of a file")),
        };
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{name}.");
        builder.prefix(&prefix).suffix(".tmp");
        // A temporary file is private by default; this one becomes an ordinary file, cut by the umask as any other.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(folder_of(&path)).map_err(|e| Error::io(&path, &e))?;
        Ok(AtomicFile { path, temporary })
    }

    /// The file to fill.
    pub fn file(&mut self) -> &mut File {
        self.temporary.as_file_mut()
    }

    /// Where the file will appear.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file durable under its final name.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] from syncing or renaming.
    pub fn commit(self) -> Result<()> {
        let AtomicFile { path, temporary } = self;
        temporary.as_file().sync_all().map_err(|e| Error::io(&path, &e))?;
        temporary.persist(&path).map_err(|e| Error::io(&path, &e.error))?;
        sync_folder(folder_of(&path)).map_err(|e| Error::io(&path, &e))
    }
}

/// Gives a finished file its final name (in the same folder) and makes both durable: for files that grow over
/// several runs, such as downloads.
///
/// # Errors
/// [`ErrorKind::Io`] from syncing or renaming.
pub fn rename_durably(from: &Path, to: &Path) -> Result<()> {
    let io = |e| Error::io(to, &e);
    File::open(from).and_then(|file| file.sync_all()).map_err(|e| Error::io(from, &e))?;
    std::fs::rename(from, to).map_err(io)?;
    sync_folder(folder_of(to)).map_err(io)
}

/// The folder that holds `path`: `.` for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A rename lasts through a power cut only once its folder is on disk. Windows has no such call.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        std::fs::write(&path, b"old").unwrap();
        let failed = write_atomically(&path, |file| {
            file.write_all(b"half").unwrap();
            Err(Error::new(ErrorKind::Format, "test", "stopped"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        write_atomically(&path, |file| file.write_all(b"new").map_err(|e| Error::io("a", &e))).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn folders_are_no_files() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(AtomicFile::create(folder.path()).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(AtomicFile::create("/").unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(AtomicFile::create(folder.path().join("no/such/a")).unwrap_err().kind(), ErrorKind::Io);
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_readable_as_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_atomically(&ours, |_| Ok(())).unwrap();
        std::fs::write(&plain, b"").unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
