//! Downloads from a local server that misbehaves on purpose.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_tools::fetch::{Fetched, KNOWN, Request, fetch};
use handgrad::ErrorKind;
use md5::{Digest, Md5};

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers as asked.
    Polite,
    /// Closes the connection after this many bytes of the body.
    Breaks(usize),
    /// Ignores the range and sends everything.
    WithoutRange,
    /// Ignores the range and closes the connection after this many bytes.
    BreaksAnew(usize),
    /// An answer without a body.
    Status(u16),
}

pub struct Server {
    pub url: String,
    requests: Arc<AtomicUsize>,
    ranges: Arc<Mutex<Vec<Option<usize>>>>,
}

/// Serves `content`; request `i` is treated in the manner `manners[i]`, later ones as the last.
pub fn serve(content: Vec<u8>, manners: Vec<Manner>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/archive.tar.gz", listener.local_addr().unwrap());
    let (requests, ranges) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let server = Server { url, requests: Arc::clone(&requests), ranges: Arc::clone(&ranges) };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let i = requests.fetch_add(1, Ordering::SeqCst);
            let manner = manners[i.min(manners.len() - 1)];
            ranges.lock().unwrap().push(answer(stream, &content, manner));
        }
    });
    server
}

/// Answers one request; the start of the range it asked for.
fn answer(mut stream: TcpStream, content: &[u8], manner: Manner) -> Option<usize> {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut range = None;
    while let Some(Ok(line)) = lines.next() {
        if let Some(value) = line.to_lowercase().strip_prefix("range: bytes=") {
            range = value.trim_end_matches('-').parse().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    let anew = matches!(manner, Manner::WithoutRange | Manner::BreaksAnew(_));
    let start = if anew { 0 } else { range.unwrap_or(0) };
    let head = match manner {
        Manner::Status(status) => format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n"),
        _ if start >= content.len() => "HTTP/1.1 416 No\r\nContent-Length: 0\r\n".to_owned(),
        _ if start > 0 => {
            let (last, len) = (content.len() - 1, content.len());
            format!(
                "HTTP/1.1 206 Part\r\nContent-Range: bytes {start}-{last}/{len}\r\nContent-Length: {}\r\n",
                len - start
            )
        }
        _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", content.len()),
    };
    let body: &[u8] = match manner {
        Manner::Status(_) => &[],
        Manner::BreaksAnew(n) => &content[..n],
        Manner::Breaks(n) => &content[start.min(content.len())..content.len().min(start + n)],
        _ => &content[start.min(content.len())..],
    };
    let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
    let _ = stream.write_all(body);
    range
}

fn content() -> Vec<u8> {
    let mut random = handgrad::rng::Key::new(6).stream();
    (0..300_000).map(|_| random.u64() as u8).collect()
}

pub fn md5_hex(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn request(server: &Server, folder: &Path) -> Request {
    Request {
        url: server.url.clone(),
        file: folder.join("archive.tar.gz"),
        md5: md5_hex(&content()),
        pause: Duration::from_millis(1),
        quiet: true,
    }
}

#[test]
fn a_file_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(content(), vec![Manner::Polite]);
    let mut request = request(&server, folder.path());
    assert_eq!(fetch(&request).unwrap(), Fetched { bytes: 300_000, downloaded: 300_000 });
    assert_eq!(fs::read(&request.file).unwrap(), content());
    request.md5 = request.md5.to_uppercase();
    assert_eq!(fetch(&request).unwrap(), Fetched { bytes: 300_000, downloaded: 0 });
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        serve(content(), vec![Manner::Breaks(100_000), Manner::Status(503), Manner::Breaks(50_000), Manner::Polite]);
    let request = request(&server, folder.path());
    assert_eq!(fetch(&request).unwrap(), Fetched { bytes: 300_000, downloaded: 300_000 });
    assert_eq!(*server.ranges.lock().unwrap(), [None, Some(100_000), Some(100_000), Some(150_000)]);
}

#[test]
fn a_second_call_goes_on_with_what_the_first_left() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(content(), vec![Manner::Breaks(120_000), Manner::Status(404)]);
    let error = fetch(&request(&server, folder.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("404"), "{error}");
    let server = serve(content(), vec![Manner::Polite]);
    let request = request(&server, folder.path());
    assert_eq!(fetch(&request).unwrap(), Fetched { bytes: 300_000, downloaded: 180_000 });
    assert_eq!(fs::read(&request.file).unwrap(), content());
    // All there but the rename: the server has nothing to add, the MD5 decides.
    let part = folder.path().join("archive.tar.gz.part");
    fs::rename(&request.file, &part).unwrap();
    assert_eq!(fetch(&request).unwrap(), Fetched { bytes: 300_000, downloaded: 0 });
}

#[test]
fn a_server_without_ranges_sends_everything_anew() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(content(), vec![Manner::Breaks(120_000), Manner::WithoutRange]);
    let request = request(&server, folder.path());
    assert_eq!(fetch(&request).unwrap(), Fetched { bytes: 300_000, downloaded: 420_000 });
    assert_eq!(fs::read(&request.file).unwrap(), content());
}

#[test]
fn what_comes_again_is_no_progress() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(content(), vec![Manner::BreaksAnew(120_000)]);
    let error = fetch(&request(&server, folder.path())).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.to_string().contains("again"), "{error}");
    // One try that came further than before, five that did not.
    assert_eq!(server.requests.load(Ordering::SeqCst), 6);
}

#[test]
fn wrong_content_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = content();
    other[7] ^= 1;
    let server = serve(other.clone(), vec![Manner::Polite]);
    let request = request(&server, folder.path());
    let error = fetch(&request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format);
    assert!(error.to_string().contains(&md5_hex(&other)), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // A file that is there and is another one is not touched.
    fs::write(&request.file, b"mine").unwrap();
    assert_eq!(fetch(&request).unwrap_err().kind(), ErrorKind::Format);
    assert_eq!(fs::read(&request.file).unwrap(), b"mine");
}

#[test]
fn it_gives_up_in_the_end_and_keeps_what_came() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(content(), vec![Manner::Breaks(1000), Manner::Status(500)]);
    let error = fetch(&request(&server, folder.path())).unwrap_err();
    assert!(error.to_string().contains("500") && error.to_string().contains("again"), "{error}");
    assert_eq!(fs::metadata(folder.path().join("archive.tar.gz.part")).unwrap().len(), 1000);
    assert_eq!(server.requests.load(Ordering::SeqCst), 6);
}

/// The messages of `handgrad` name the file that a fetch leaves.
#[test]
fn the_library_names_the_same_archives() {
    let ours = KNOWN.map(|known| (known.name, known.url.rsplit('/').next().unwrap()));
    assert_eq!(ours, handgrad::data::ARCHIVES);
}

#[test]
fn known_archives_are_https_with_whole_checksums() {
    for known in KNOWN {
        assert!(known.url.starts_with("https://"), "{known:?}");
        assert!(known.md5.len() == 32 && known.md5.bytes().all(|b| b.is_ascii_hexdigit()), "{known:?}");
    }
}
