use super::*;

/// The contents of a file's records.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let (mut at, mut records) = (0, Vec::new());
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let content = bytes[at + 12..at + 12 + length].to_vec();
        let mut framed = Vec::new();
        crc::frame(&content, &mut framed);
        assert_eq!(framed, bytes[at..at + 16 + length]);
        at += framed.len();
        records.push(content);
    }
    records
}

#[test]
fn events_have_the_bytes_that_the_format_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = EventFile::create(folder.path().join("a/b"), 300).unwrap();
    events.write(300, |summary| summary.scalar("a/b", 1.5)).unwrap();
    events.write(301, |summary| summary.png("c", (2, 200), b"PNG")).unwrap();
    // What waits is written when the file is closed.
    let path = events.path().to_owned();
    drop(events);
    let records = records(&path);
    // Key 0x09: the wall time; key 0x10: the step.
    assert!(records.iter().all(|record| record[0] == 0x09));
    let after_time: Vec<&[u8]> = records.iter().map(|record| &record[9..]).collect();
    assert_eq!(after_time[0], b"\x10\0\x1a\x0dbrain.Event:2");
    assert_eq!(after_time[1], b"\x10\xac\x02\x3a\x02\x08\x01");
    assert_eq!(after_time[2], b"\x10\xac\x02\x2a\x0c\x0a\x0a\x0a\x03a/b\x15\0\0\xc0\x3f");
    assert_eq!(after_time[3], b"\x10\xad\x02\x2a\x13\x0a\x11\x0a\x01c\x22\x0c\x08\x02\x10\xc8\x01\x18\x03\x22\x03PNG");
}

#[test]
fn later_sessions_have_later_names_whatever_the_clock_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut names: Vec<PathBuf> = Vec::new();
    for step in 0..3 {
        names.push(EventFile::create(folder.path(), step).unwrap().path().to_owned());
    }
    fs::write(folder.path().join("events.out.tfevents.9999999999.some-host.0"), b"").unwrap();
    fs::write(folder.path().join("something.else"), b"").unwrap();
    let last = EventFile::create(folder.path(), 3).unwrap().path().to_owned();
    assert!(last.ends_with("events.out.tfevents.9999999999.handgrad.0001"), "{}", last.display());
    names.push(last);
    assert!(names.is_sorted() && names.iter().all(|path| path.is_file()));
}

/// An event is in the file after a moment, not only when much has come together.
#[test]
fn events_do_not_wait_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = EventFile::create(folder.path(), 0).unwrap();
    events.written = Instant::now().checked_sub(PATIENCE).unwrap();
    events.write(1, |summary| summary.scalar("a", 1.0)).unwrap();
    assert_eq!(records(&events.path).len(), 3);
    events.write(2, |summary| summary.scalar("a", 1.0)).unwrap();
    assert_eq!(records(&events.path).len(), 3);
    events.write(3, |summary| summary.png("large", (1, 1), &[0; 2 * BUFFER])).unwrap();
    assert_eq!(records(&events.path).len(), 5);
    events.sync().unwrap();
    assert_eq!(records(&events.path).len(), 5);
}
