//! The published datasets that `data-tools fetch` knows, by name.

/// The name of each dataset that can be fetched, and of the archive that fetching it leaves.
pub const ARCHIVES: [(&str, &str); 7] = [
    ("cifar10", "cifar-10-binary.tar.gz"),
    ("cifar10-python", "cifar-10-python.tar.gz"),
    ("cifar100", "cifar-100-python.tar.gz"),
    ("imagewoof2-160", "imagewoof2-160.tgz"),
    ("imagewoof2-320", "imagewoof2-320.tgz"),
    ("imagenette2-160", "imagenette2-160.tgz"),
    ("imagenette2-320", "imagenette2-320.tgz"),
];

/// The archive of a dataset that can be fetched.
pub fn archive_of(name: &str) -> Option<&'static str> {
    ARCHIVES.iter().find(|(known, _)| *known == name).map(|(_, archive)| *archive)
}
