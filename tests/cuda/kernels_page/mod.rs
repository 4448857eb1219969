//! docs/cuda-kernels.md: what the kernels are and how they are launched, from their declarations, their sources, and launches
//! that were really made. `HANDGRAD_WRITE_DOCS=1` writes the page, otherwise it is compared.

mod launches;
mod render;
mod source;

use std::path::{Path, PathBuf};

use super::double::on_double_with;

const TEST: &str = "kernels_page::is_what_the_kernels_are";
const REPORT: &str = "DRIVER_DOUBLE_REPORT";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cuda-kernels.md")
}

#[test]
fn is_what_the_kernels_are() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.jsonl");
    on_double_with(TEST, &[(REPORT, report.as_os_str())], || {
        let report = std::env::var_os(REPORT).expect("the outer process says where");
        let page = render::page(&launches::all(Path::new(&report)));
        if std::env::var_os("HANDGRAD_WRITE_DOCS").is_some() {
            return std::fs::write(path(), page).unwrap();
        }
        let written = std::fs::read_to_string(path()).unwrap_or_default();
        let line = page.lines().zip(written.lines()).position(|(page, written)| page != written);
        let line = line.unwrap_or(page.lines().count().min(written.lines().count()));
        assert!(
            page == written,
            "docs/cuda-kernels.md, line {}: {:?} should be {:?}; HANDGRAD_WRITE_DOCS=1 cargo test --test cuda kernels_page writes it",
            line + 1,
            written.lines().nth(line),
            page.lines().nth(line),
        );
    });
}
