//! `fetch`: official archives over HTTPS, resumed where a download broke off, checked by their MD5.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use handgrad::io::atomic::rename_durably;
use handgrad::{Error, ErrorKind, Result};
use md5::{Digest, Md5};
use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode};

use crate::progress::{Progress, Unit};

/// An archive that can be fetched by name.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What the user types.
    pub name: &'static str,
    /// Where it lies.
    pub url: &'static str,
    /// Of the whole file, in hexadecimal.
    pub md5: &'static str,
}

/// All archives that can be fetched by name; [`handgrad::data::ARCHIVES`] has the same names, for messages.
pub const KNOWN: [Known; 7] = [
    Known {
        name: "cifar10",
        url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        md5: "c32a1d4ab5d03f1284b67883e8d87530",
    },
    Known {
        name: "cifar10-python",
        url: "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        md5: "c58f30108f718f92721af3b95e74349a",
    },
    Known {
        name: "cifar100",
        url: "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        md5: "eb9058c3a382ffc7106e4002c42a8d85",
    },
    Known {
        name: "imagewoof2-160",
        url: "https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-160.tgz",
        md5: "3d200a7be99704a0d7509be2a9fbfe15",
    },
    Known {
        name: "imagewoof2-320",
        url: "https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-320.tgz",
        md5: "0f46d997ec2264e97609196c95897a44",
    },
    Known {
        name: "imagenette2-160",
        url: "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
        md5: "e793b78cc4c9e9a4ccc0c1155377a412",
    },
    Known {
        name: "imagenette2-320",
        url: "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",
        md5: "3df6f0d01a2c9592104656642f5e78a3",
    },
];

/// The archive of that name.
pub fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// What to fetch.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it lies.
    pub url: String,
    /// Where it goes. Beside it, `NAME.part` holds what has come so far.
    pub file: PathBuf,
    /// Of the whole file, in hexadecimal.
    pub md5: String,
    /// Pause before another try, doubled each time.
    pub pause: Duration,
    /// Show no progress.
    pub quiet: bool,
}

/// What a fetch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Length of the file.
    pub bytes: u64,
    /// Bytes that this call downloaded: 0 if the file was there.
    pub downloaded: u64,
}

/// Tries without a byte of progress before giving up.
const TRIES: u32 = 5;
/// No archive here is larger; a server that sends without end is cut off.
const MAX_BYTES: u64 = 16 << 30;

/// Downloads a file, or what is missing of it, and checks it. A file that is there with the right MD5 is left as it
/// is.
///
/// # Errors
/// [`ErrorKind::Io`] if the server cannot be reached or refuses, or the disk does; what has come stays for the next
/// try. [`ErrorKind::Format`] if the whole file has another MD5 (it is then deleted).
pub fn fetch(request: &Request) -> Result<Fetched> {
    if request.file.exists() {
        let (bytes, md5) = md5_of(&request.file)?;
        if md5.eq_ignore_ascii_case(&request.md5) {
            return Ok(Fetched { bytes, downloaded: 0 });
        }
        return Err(Error::new(ErrorKind::Format, request.file.display(), format!("there already, with MD5 {md5}"))
            .expected(&request.md5)
            .hint("move it away and fetch again"));
    }
    let part = part_of(&request.file);
    let downloaded = download(request, &part)?;
    let (bytes, md5) = md5_of(&part)?;
    if !md5.eq_ignore_ascii_case(&request.md5) {
        std::fs::remove_file(&part).map_err(|e| Error::io(&part, &e))?;
        return Err(Error::new(ErrorKind::Format, &request.url, format!("MD5 {md5} of {bytes} bytes"))
            .expected(&request.md5)
            .hint("the download was damaged or the archive has changed; fetch again"));
    }
    rename_durably(&part, &request.file)?;
    Ok(Fetched { bytes, downloaded })
}

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Length and MD5 of a file.
fn md5_of(path: &Path) -> Result<(u64, String)> {
    let io = |e| Error::io(path, &e);
    let mut file = File::open(path).map_err(io)?;
    let (mut hash, mut bytes, mut buffer) = (Md5::new(), 0, vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => break,
            n => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
    Ok((bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// Why a try failed.
enum Failure {
    /// Another try may work: the connection broke, or the server is busy.
    Passing(Error),
    Final(Error),
}

/// Tries until the whole file is in `part`, and returns how many bytes came.
fn download(request: &Request, part: &Path) -> Result<u64> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .user_agent(concat!("handgrad-data-tools/", env!("CARGO_PKG_VERSION")));
    let agent = Agent::new_with_config(config.build());
    let mut file =
        OpenOptions::new().create(true).truncate(false).write(true).open(part).map_err(|e| Error::io(part, &e))?;
    let len_of = |file: &File| file.metadata().map(|metadata| metadata.len()).map_err(|e| Error::io(part, &e));
    let (mut downloaded, mut tries, mut pause, mut furthest) = (0, 0, request.pause, len_of(&file)?);
    loop {
        match one_try(&agent, request, &mut file, part, &mut downloaded) {
            Ok(()) => return Ok(downloaded),
            Err(Failure::Final(e)) => return Err(e),
            Err(Failure::Passing(e)) => {
                // What a server sends anew, because it knows no ranges, is no progress.
                let len = len_of(&file)?;
                (tries, pause) = if len > furthest { (0, request.pause) } else { (tries + 1, pause) };
                furthest = furthest.max(len);
                if tries >= TRIES {
                    return Err(e.hint("run the same command again: it goes on where it stopped"));
                }
                std::thread::sleep(pause);
                pause = pause.saturating_mul(2);
            }
        }
    }
}

fn one_try(
    agent: &Agent,
    request: &Request,
    file: &mut File,
    part: &Path,
    downloaded: &mut u64,
) -> Result<(), Failure> {
    let disk = |e| Failure::Final(Error::io(part, &e));
    let network = |e: &dyn std::fmt::Display| Failure::Passing(Error::new(ErrorKind::Io, &request.url, e));
    let there = file.seek(SeekFrom::End(0)).map_err(disk)?;
    let mut get = agent.get(&request.url);
    if there > 0 {
        get = get.header("Range", format!("bytes={there}-"));
    }
    let mut response = get.call().map_err(|e| network(&e))?;
    let status = response.status();
    let start = match status {
        StatusCode::PARTIAL_CONTENT if range_start(response.headers()) == Some(there) => there,
        StatusCode::OK => 0, // the server sends everything anew
        // Nothing behind what is there: it is complete, or no part of this file; the MD5 tells.
        StatusCode::RANGE_NOT_SATISFIABLE if there > 0 => return Ok(()),
        _ => {
            let error = Error::new(ErrorKind::Io, &request.url, format!("the server answers {status}"));
            return Err(if status.is_server_error() { Failure::Passing(error) } else { Failure::Final(error) });
        }
    };
    file.set_len(start).map_err(disk)?;
    file.seek(SeekFrom::Start(start)).map_err(disk)?;
    let length = response.body().content_length();
    let end = length.map(|n| start.saturating_add(n));
    let mut progress = if request.quiet { Progress::silent() } else { Progress::new(Unit::Bytes, end, start) };
    let mut body = response.body_mut().as_reader();
    let (mut at, mut buffer) = (start, vec![0; 1 << 16]);
    loop {
        let n = body.read(&mut buffer).map_err(|e| network(&e))?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n]).map_err(disk)?;
        at += n as u64;
        *downloaded += n as u64;
        progress.advance(n as u64);
        if at > MAX_BYTES {
            let found = format!("more than {MAX_BYTES} bytes");
            return Err(Failure::Final(Error::new(ErrorKind::Format, &request.url, found)));
        }
    }
    match end {
        Some(end) if at < end => Err(network(&format!("the connection ended at byte {at} of {end}"))),
        _ => Ok(()),
    }
}

/// The first byte of `Content-Range: bytes 100-199/200`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get("Content-Range")?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
