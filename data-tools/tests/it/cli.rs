//! The program as others call it: exit codes, streams, JSON.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::fetch::{Manner, md5_hex, serve};
use crate::support::*;

fn run(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-tools"));
    command.stdin(Stdio::null());
    for argument in arguments {
        command.arg(argument);
    }
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn dataset(folder: &Path) -> std::path::PathBuf {
    let out = folder.join("photos.hgd");
    assert!(run(&[&"convert", &photos(&folder.join("photos")), &out]).status.success());
    out
}

#[test]
fn convert_inspect_and_verify_say_what_they_did() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (photos(&folder.path().join("photos")), folder.path().join("photos.hgd"));
    write(&source.join("train/ant/notes.txt"), b"no image");
    let done = run(&[&"convert", &source, &out, &"--json", &"--threads", &"1"]);
    assert_eq!(done.status.code(), Some(0));
    let report = json(&done);
    assert_eq!((&report["train"], &report["valid"], &report["skipped"]), (&4.into(), &1.into(), &1.into()));
    assert!(String::from_utf8_lossy(&done.stderr).contains("notes.txt: not an image"));

    let picture = folder.path().join("grid.png");
    let shown = run(&[&"inspect", &out, &"--grid", &picture]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("height 30 to 30, width 41 to 45") && text.contains("bee"), "{text}");
    let picture = image::open(picture).unwrap();
    assert_eq!((picture.width(), picture.height()), (10 * 66 + 2, 2 * 66 + 2));

    let shown = json(&run(&[&"inspect", &out, &"--json"]));
    assert_eq!(shown["classes"][1], serde_json::json!({ "name": "bee", "train": 2, "valid": 0 }));
    assert_eq!(shown["train"]["content_digest"].as_str().unwrap().len(), 32);
    assert_eq!(shown["width"], serde_json::json!([41, 45]));

    assert_eq!(run(&[&"verify", &out]).status.code(), Some(0));
    let mut bytes = fs::read(&out).unwrap();
    bytes[5000] ^= 1;
    fs::write(&out, bytes).unwrap();
    let refused = run(&[&"verify", &out, &"--json"]);
    assert_eq!((refused.status.code(), &json(&refused)["ok"]), (Some(1), &false.into()));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("page 0"));
}

#[test]
fn exit_codes_tell_usage_from_failure() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (photos(&folder.path().join("photos")), folder.path().join("photos.hgd"));
    let code = |arguments: &[&dyn AsRef<std::ffi::OsStr>]| run(arguments).status.code();
    let usage: [&[&dyn AsRef<std::ffi::OsStr>]; 9] = [
        &[],
        &[&"transmogrify"],
        &[&"convert", &source],
        &[&"convert", &folder.path(), &out],
        &[&"convert", &source, &out, &"--max-side", &"0"],
        &[&"convert", &source, &out, &"--size", &"12by12"],
        &[&"convert", &source, &out, &"--size", &"12", &"--max-side", &"3"],
        &[&"convert", &source, &out, &"--threads", &"0"],
        &[&"fetch", &"mnist"],
    ];
    for arguments in usage {
        let output = run(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(code(&[&"inspect", &out]), Some(1));
    assert_eq!(code(&[&"verify", &source]), Some(1));
    write(&source.join("train/ant/notes.txt"), b"no image");
    assert_eq!(code(&[&"convert", &source, &out, &"--strict"]), Some(1));
    assert!(!out.exists());
    assert_eq!(code(&[&"convert", &source, &out, &"--size", &"12x20", &"--fit", &"crop"]), Some(0));
    for help in [&[&"--help" as &dyn AsRef<std::ffi::OsStr>][..], &[&"convert", &"--help"], &[&"--version"]] {
        assert_eq!(code(help), Some(0));
    }
    for command in ["convert", "inspect", "verify", "fetch"] {
        assert!(String::from_utf8_lossy(&run(&[&command, &"--help"]).stdout).contains("Example"), "{command}");
    }
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let out = dataset(folder.path());
    for arguments in [&["inspect"][..], &["inspect", "--json"], &["verify"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_data-tools"));
        let output = command.args(arguments).arg(&out).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{arguments:?}");
    }
}

#[test]
fn fetch_puts_the_archive_where_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(b"an archive".to_vec(), vec![Manner::Polite]);
    let (to, md5) = (folder.path().join("new/folder"), md5_hex(b"an archive"));
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 9] =
        [&"fetch", &"cifar10", &"--out", &to, &"--json", &"--url", &server.url, &"--md5", &md5];
    let fetched = run(&arguments);
    assert_eq!(fetched.status.code(), Some(0), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert_eq!(json(&fetched)["downloaded"], 10);
    assert_eq!(fs::read(to.join("cifar-10-binary.tar.gz")).unwrap(), b"an archive");
}
