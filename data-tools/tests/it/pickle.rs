//! The pickle reader reads what CIFAR's files say and refuses everything else.

use data_tools::convert::pickle::Pickle;
use handgrad::rng::Key;

use crate::support::*;

#[test]
fn a_batch_reads_back() {
    let batch = tiny(1, 1200, 10).batches.remove(0);
    let bytes = batch_pickle("labels", &batch);
    let pickle = Pickle::read(&bytes, "test").unwrap();
    let labels: Vec<u32> = batch.iter().map(|(label, _)| u32::from(*label)).collect();
    assert_eq!(pickle.labels("labels").unwrap(), labels);
    let (rows, columns, data) = pickle.bytes("data").unwrap();
    assert_eq!((rows, columns), (1200, 3072));
    assert_eq!(data[3072..2 * 3072], planes(&batch[1].1));
    assert_eq!(pickle.strings("filenames").unwrap().len(), 1200);
    // Wrong questions are errors.
    assert!(pickle.labels("data").is_err() && pickle.bytes("labels").is_err() && pickle.strings("labels").is_err());
    assert!(pickle.labels("none").unwrap_err().to_string().contains("none"));
}

#[test]
fn references_share_their_value() {
    let mut p = Pickler::new();
    p.memoized(b"}"); // memo 1
    p.op(b"U\x01aq\x02]q\x03s"); // {'a': list}, the list memo 3
    p.op(b"h\x03K\x07a0"); // appended to through the memo; the stray opcode 0 is refused
    assert!(Pickle::read(&[&p.out[..], b"."].concat(), "test").is_err());
    p.out.truncate(p.out.len() - 1);
    p.op(b"t"); // a tuple without a mark
    assert!(Pickle::read(&[&p.out[..], b"."].concat(), "test").is_err());
    let good = b"\x80\x02}q\x01(U\x01aq\x02]q\x03K\x07aU\x01bh\x03u.";
    let pickle = Pickle::read(good, "test").unwrap();
    assert_eq!(pickle.labels("a").unwrap(), [7]);
    assert_eq!(pickle.labels("b").unwrap(), [7]);
}

#[test]
fn programs_are_refused() {
    let refused: [&[u8]; 14] = [
        b"\x80\x02cos\nsystem\nU\x02ls\x85R.",
        b"\x80\x02cposix\nsystem\nU\x02ls\x85R.",
        b"\x80\x02c__builtin__\neval\nU\x01x\x85R.",
        b"\x80\x02cnumpy\nload\nU\x01x\x85R.",
        b"\x80\x02(U\x02lsios\nsystem\n.",                 // INST
        b"\x80\x02\x82\x01.",                              // EXT1
        b"\x80\x02U\x01xQ.",                               // BINPERSID
        b"\x80\x02cnumpy\nndarray\n)\x81.",                // NEWOBJ
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00N.", // protocol 4
        b"(dp0\n.",                                        // protocol 0
        b"\x80\x02cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R.", // an array of objects
        b"\x80\x02cnumpy\nndarray\ncnumpy\nndarray\n\x85R.",
        b"\x80\x02NN.", // two values
        b"\x80\x02N.N", // bytes behind the end
    ];
    for bytes in refused {
        let error = Pickle::read(bytes, "evil").expect_err(&String::from_utf8_lossy(bytes));
        assert!(error.to_string().starts_with("evil: "), "{error}");
    }
    // A value that is no dictionary can be read, but has no entries.
    assert!(Pickle::read(b"\x80\x02N.", "none").unwrap().labels("a").is_err());
}

#[test]
fn claims_about_length_are_not_believed() {
    for bytes in [&b"\x80\x02T\xff\xff\xff\xff."[..], b"\x80\x02T\xff\xff\xff\x7fabc.", b"\x80\x02U\xffabc."] {
        assert!(Pickle::read(bytes, "short").is_err());
    }
    // More bytes in the shape than there are, and a shape that overflows.
    for (rows, columns) in [(3, 3072), (1 << 20, 1 << 20), (i32::MAX as usize, i32::MAX as usize)] {
        let mut p = Pickler::new();
        p.memoized(b"}");
        p.string(b"data");
        p.array(rows, columns, &[0; 3072]);
        p.op(b"s.");
        assert!(Pickle::read(&p.out, "shape").is_err());
    }
    // A small file of many values.
    let many = [&b"\x80\x02"[..], &vec![b'N'; 5 << 20], b"."].concat();
    assert!(Pickle::read(&many, "many").unwrap_err().to_string().contains("values"));
    let marks = [&b"\x80\x02"[..], &vec![b'('; 5 << 20], b"."].concat();
    assert!(Pickle::read(&marks, "marks").unwrap_err().to_string().contains("marks"));
}

#[test]
fn damaged_pickles_never_panic() {
    let good = batch_pickle("labels", &tiny(1, 3, 10).batches[0]);
    let structure: Vec<usize> = (0..good.len()).filter(|i| *i < 300 || *i > good.len() - 200).collect();
    let mut random = Key::new(8).stream();
    let mut refused = 0;
    for i in 0..20_000 {
        let mut bytes = good.clone();
        if i % 5 == 0 {
            bytes.truncate(random.below(good.len() as u64) as usize);
        }
        for _ in 0..=random.below(3) {
            let at = structure[random.below(structure.len() as u64) as usize].min(bytes.len().saturating_sub(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.u64() as u8;
            }
        }
        match Pickle::read(&bytes, "damaged") {
            Ok(pickle) => {
                let _ = (pickle.labels("labels"), pickle.bytes("data"), pickle.strings("filenames"));
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 10_000, "{refused}");
}
