//! Writing and reading back.

use super::*;
use crate::ErrorKind;

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("class {i} é")).collect()
}

#[test]
fn statistics_are_those_of_the_training_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hgd");
    let mut writer = DatasetWriter::create(&path, &names(2)).unwrap();
    let images: Vec<Vec<u8>> =
        (0..3).map(|i| (0..70 * 80 * 3).map(|p| (p * 31 + i * 77) as u8 / (1 + (p % 3) as u8)).collect()).collect();
    for image in &images {
        writer.push(Split::Train, 0, 70, 80, image).unwrap();
    }
    writer.push(Split::Valid, 1, 70, 80, &[255; 70 * 80 * 3]).unwrap();
    writer.finish().unwrap();
    let dataset = Dataset::open(&path).unwrap();
    for c in 0..3 {
        let channel: Vec<f64> = images.iter().flatten().skip(c).step_by(3).map(|&p| f64::from(p) / 255.0).collect();
        let mean = channel.iter().sum::<f64>() / channel.len() as f64;
        let variance = channel.iter().map(|p| (p - mean) * (p - mean)).sum::<f64>() / channel.len() as f64;
        assert!((f64::from(dataset.mean()[c]) - mean).abs() < 1e-6);
        assert!((f64::from(dataset.std()[c]) - variance.sqrt()).abs() < 1e-6);
    }
}

#[test]
fn many_tiny_samples_take_memory_of_a_page_and_open_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.hgd");
    let n = 200_000u32;
    let mut writer = DatasetWriter::create(&path, &names(7)).unwrap();
    for i in 0..n {
        let split = if i % 10 == 0 { Split::Valid } else { Split::Train };
        writer.push(split, i % 7, 1, 1, &i.to_le_bytes()[..3]).unwrap();
    }
    assert_eq!(writer.len(), n as usize);
    writer.finish().unwrap();
    let dataset = Dataset::open(&path).unwrap();
    assert_eq!((dataset.len(), dataset.split(Split::Valid).len()), (n as usize, n as usize / 10));
    assert_eq!(dataset.fixed_size(), Some((1, 1)));
    for i in (0..n).step_by(997) {
        assert_eq!(dataset.sample(i as usize).unwrap().pixels, &i.to_le_bytes()[..3]);
    }
    assert_eq!(dataset.sample(n as usize).unwrap_err().kind(), ErrorKind::Usage);
    dataset.verify().unwrap();
}

#[test]
fn ten_million_entries_fit_the_index_arithmetic() {
    use super::format::{Entry, Header, Layout};
    // 10 M images of 500×375 pixels: 5.6 TB, far beyond 32 bits.
    let len = 500 * 375 * 3u64;
    let per_page = DEFAULT_PAGE / len;
    let last_offset = (10_000_000 / per_page) * DEFAULT_PAGE;
    let header = Header {
        samples: 10_000_000,
        train_samples: 10_000_000,
        data_len: last_offset + len,
        page_size: DEFAULT_PAGE,
        fixed_size: Some((500, 375)),
        mean: [0.0; 3],
        std: [1.0; 3],
        index_checksum: 0,
        table_checksum: 0,
        classes: names(1),
    };
    let file_len = 4096 + header.data_len + header.samples * 24 + header.pages() * 8;
    Layout::new(&header, 4096, file_len as usize, "large").unwrap();
    let entry = Entry { offset: last_offset, height: 500, width: 375, label: 0, split: Split::Train };
    assert!(entry.fits(&header));
    assert_eq!(Entry::decode(&entry.encode()), Some(entry));
    assert!(!Entry { offset: last_offset + 1, ..entry }.fits(&header));
}

#[test]
fn the_digest_ignores_order_and_label_numbers_but_no_pixel() {
    let folder = tempfile::tempdir().unwrap();
    let image = |i: u8| vec![i; 27];
    let write = |name: &str, classes: [&str; 2], samples: &[(u32, u8)]| {
        let path = folder.path().join(name);
        let mut writer = DatasetWriter::create(&path, &classes.map(String::from)).unwrap();
        for &(label, i) in samples {
            writer.push(Split::Train, label, 3, 3, &image(i)).unwrap();
        }
        writer.finish().unwrap();
        Dataset::open(path).unwrap()
    };
    let a = write("a", ["x", "y"], &[(0, 1), (1, 2), (1, 3)]);
    let b = write("b", ["y", "x"], &[(0, 3), (1, 1), (0, 2)]);
    let c = write("c", ["x", "y"], &[(0, 1), (1, 2), (0, 3)]);
    let d = write("d", ["x", "y"], &[(0, 1), (1, 2), (1, 4)]);
    let digest = |d: &Dataset| d.content_digest(Split::Train).unwrap();
    assert_eq!(digest(&a), digest(&b));
    assert_ne!(digest(&a), digest(&c));
    assert_ne!(digest(&a), digest(&d));
    assert_ne!(a.checksum(), b.checksum());
    assert_eq!(a.content_digest(Split::Valid).unwrap(), 0);
}

#[test]
fn wrong_pushes_are_named_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hgd");
    let mut writer = DatasetWriter::create(&path, &names(2)).unwrap();
    assert_eq!(writer.push(Split::Train, 2, 1, 1, &[0; 3]).unwrap_err().kind(), ErrorKind::Format);
    assert_eq!(writer.push(Split::Train, 0, 1, 1, &[0; 4]).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(writer.push(Split::Train, 0, 0, 1, &[]).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(writer.push(Split::Train, 0, usize::MAX, 2, &[]).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(writer.finish().unwrap_err().kind(), ErrorKind::Format);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    for classes in [vec![], vec!["a".to_string(), "a".into()], vec![String::new()], vec!["x".repeat(70_000)]] {
        assert_eq!(DatasetWriter::create(&path, &classes).unwrap_err().kind(), ErrorKind::Format);
    }
    assert!(DatasetWriter::with_page_size(&path, &names(1), 5000).is_err());
}

#[test]
fn class_names_beyond_a_header_page_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hgd");
    let mut writer = DatasetWriter::create(&path, &names(1000)).unwrap();
    writer.push(Split::Valid, 999, 2, 2, &[7; 12]).unwrap();
    writer.finish().unwrap();
    let dataset = Dataset::open(&path).unwrap();
    assert_eq!(dataset.classes(), names(1000));
    assert_eq!(dataset.mean(), [7.0 / 255.0; 3]);
    assert_eq!(dataset.sample(0).unwrap().label, 999);
}
