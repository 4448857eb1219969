//! The wire format of protocol buffers, as far as events need it: fields under numbers, in any order.

/// `SessionLog.START`.
pub const START: u64 = 1;
/// `Summary.Image.colorspace` of RGB.
pub const RGB: u64 = 3;

/// Fields of `Event`.
pub mod event {
    pub const WALL_TIME: u32 = 1;
    pub const STEP: u32 = 2;
    pub const FILE_VERSION: u32 = 3;
    pub const SUMMARY: u32 = 5;
    pub const SESSION_LOG: u32 = 7;
}

/// Fields of `SessionLog`.
pub mod session {
    pub const STATUS: u32 = 1;
}

/// Fields of `Summary`.
pub mod summary {
    pub const VALUE: u32 = 1;
}

/// Fields of `Summary.Value`.
pub mod value {
    pub const TAG: u32 = 1;
    pub const SIMPLE: u32 = 2;
    pub const IMAGE: u32 = 4;
    pub const HISTOGRAM: u32 = 5;
}

/// Fields of `Summary.Image`.
pub mod image {
    pub const HEIGHT: u32 = 1;
    pub const WIDTH: u32 = 2;
    pub const COLORSPACE: u32 = 3;
    pub const ENCODED: u32 = 4;
}

/// Fields of `HistogramProto`.
pub mod histogram {
    pub const MIN: u32 = 1;
    pub const MAX: u32 = 2;
    pub const NUM: u32 = 3;
    pub const SUM: u32 = 4;
    pub const SUM_SQUARES: u32 = 5;
    pub const BUCKET_LIMIT: u32 = 6;
    pub const BUCKET: u32 = 7;
}

/// How a field's content is written: the low bits of its key.
#[derive(Clone, Copy)]
enum Kind {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
    Fixed32 = 5,
}

/// Seven bits a byte, the lowest first; the highest bit of a byte says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn key(out: &mut Vec<u8>, field: u32, kind: Kind) {
    varint(out, u64::from(field << 3) | kind as u64);
}

/// A whole number or a boolean or a name of an enumeration.
pub fn integer(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, Kind::Varint);
    varint(out, value);
}

/// An f64.
pub fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    key(out, field, Kind::Fixed64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// An f32.
pub fn float(out: &mut Vec<u8>, field: u32, value: f32) {
    key(out, field, Kind::Fixed32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A text or bytes.
pub fn text(out: &mut Vec<u8>, field: u32, content: &[u8]) {
    key(out, field, Kind::Length);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Many f64 in one field.
pub fn doubles(out: &mut Vec<u8>, field: u32, values: impl Iterator<Item = f64>) {
    message(out, field, |out| values.for_each(|value| out.extend_from_slice(&value.to_le_bytes())));
}

/// A message inside a message. Its length stands before it, and takes as many bytes as it needs: it is written behind
/// the content, and turned to the front.
pub fn message(out: &mut Vec<u8>, field: u32, content: impl FnOnce(&mut Vec<u8>)) {
    key(out, field, Kind::Length);
    let start = out.len();
    content(out);
    let end = out.len();
    varint(out, (end - start) as u64);
    let width = out.len() - end;
    out[start..].rotate_right(width);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    /// The examples of the encoding's documentation: 150 in field 1, "testing" in field 2, the first one in field 3.
    #[test]
    fn fields_have_the_documented_bytes() {
        assert_eq!(written(|out| integer(out, 1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(written(|out| text(out, 2, b"testing")), *b"\x12\x07testing");
        assert_eq!(written(|out| message(out, 3, |out| integer(out, 1, 150))), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(written(|out| double(out, 1, 1.0)), [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(written(|out| float(out, 2, -2.0)), [0x15, 0, 0, 0, 0xc0]);
        assert_eq!(written(|out| integer(out, 16, u64::MAX))[..2], [0x80, 0x01]);
        assert_eq!(written(|out| integer(out, 1, u64::MAX)).len(), 11);
    }

    #[test]
    fn long_messages_have_long_lengths() {
        let long = written(|out| message(out, 1, |out| text(out, 1, &[b'x'; 300])));
        // 300 bytes, their key and two bytes of length: 303 = 2·128 + 47.
        assert_eq!(long[..6], [0x0a, 0xaf, 0x02, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 306);
        assert_eq!(written(|out| doubles(out, 6, [1.0, 0.0].into_iter()))[..2], [0x32, 16]);
        assert_eq!(written(|out| message(out, 1, |_| {})), [0x0a, 0]);
    }
}
