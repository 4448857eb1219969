//! The safetensors container: the length of a JSON header (u64, little-endian), the header, the tensors' bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use xxhash_rust::xxh3::Xxh3;

use super::key;
use crate::{Error, ErrorKind, Result};

/// A header that is longer than this (a graph and class names are some kilobytes) is not read.
const MAX_LEN: u64 = 16 << 20;
/// The name that safetensors gives the metadata among the tensors.
const METADATA: &str = "__metadata__";

/// The type of a tensor's elements, little-endian in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dtype {
    /// 16-bit floating point of IEEE 754: 5 bits of exponent.
    F16,
    /// 16-bit floating point with the exponent of F32.
    BF16,
    /// 32-bit floating point.
    F32,
    /// 64-bit floating point.
    F64,
    /// 64-bit unsigned integers.
    U64,
    /// 64-bit signed integers.
    I64,
}

impl Dtype {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::F32 => 4,
            Dtype::F64 | Dtype::U64 | Dtype::I64 => 8,
        }
    }

    /// Whether it is a type of integers.
    pub const fn is_integer(self) -> bool {
        matches!(self, Dtype::U64 | Dtype::I64)
    }
}

/// One tensor's place, as the header says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// Its first byte and the one behind its last, counted from the end of the header.
    pub data_offsets: (u64, u64),
}

impl Tensor {
    /// The number of elements, or `None` for a product beyond 64 bits.
    pub fn checked_len(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d))
    }

    /// Whether its elements take exactly the bytes between its offsets.
    fn is_whole(&self) -> bool {
        let bytes = self.checked_len().and_then(|n| n.checked_mul(self.dtype.bytes() as u64));
        bytes.is_some() && bytes == self.data_offsets.1.checked_sub(self.data_offsets.0)
    }
}

/// A file's header: metadata and places of tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Header {
    pub metadata: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, Tensor>,
}

impl Header {
    /// Reads and checks the header of a file of `file_len` bytes; also says where its data begins.
    pub fn read(reader: &mut impl Read, file_len: u64, subject: &str) -> Result<(Header, u64)> {
        let broken = |found: String| Error::new(ErrorKind::Format, subject, found).expected("a model in safetensors");
        let io = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => broken("the file ends within its header".into()),
            _ => Error::io(subject, &e),
        };
        let mut len = [0; 8];
        reader.read_exact(&mut len).map_err(io)?;
        let len = u64::from_le_bytes(len);
        if len > MAX_LEN || len > file_len.saturating_sub(8) {
            return Err(broken(format!("a header of {len} bytes in a file of {file_len}")));
        }
        let mut text = vec![0; len as usize];
        reader.read_exact(&mut text).map_err(io)?;
        let header: Header =
            serde_json::from_slice(&text).map_err(|e| broken(format!("the header does not parse: {e}")))?;
        let data_len = file_len - 8 - len;
        header.check_places(data_len).map_err(broken)?;
        Ok((header, 8 + len))
    }

    /// Tensors follow each other without gaps or overlaps from the first byte of the data to the last.
    fn check_places(&self, data_len: u64) -> std::result::Result<(), String> {
        let mut in_order: Vec<(&String, &Tensor)> = self.tensors.iter().collect();
        in_order.sort_by_key(|(_, tensor)| tensor.data_offsets);
        let mut end = 0;
        for (name, tensor) in in_order {
            if !tensor.is_whole() || tensor.data_offsets.0 != end {
                let Tensor { dtype, shape, data_offsets } = tensor;
                return Err(format!(
                    "tensor {name} of {dtype:?} {shape:?} lies at {data_offsets:?}, and {end} is free"
                ));
            }
            end = tensor.data_offsets.1;
        }
        if end == data_len { Ok(()) } else { Err(format!("{data_len} bytes of tensors instead of {end}")) }
    }

    /// The bytes of the file before its data: length and JSON, filled with spaces to a multiple of 8.
    #[cfg(feature = "train")]
    pub fn to_bytes(&self, subject: &str) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self).map_err(|e| Error::new(ErrorKind::Format, subject, e))?;
        text.resize(text.len().next_multiple_of(8), b' ');
        if text.len() as u64 > MAX_LEN {
            let e = Error::new(ErrorKind::Unsupported, subject, format!("a header of {} bytes", text.len()));
            return Err(e.expected(format!("at most {MAX_LEN}")).hint("shorten notes, class names or extra texts"));
        }
        Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
    }

    /// The checksum's start: everything the header says but the checksum itself. The data's bytes come after it.
    pub fn checksum(&self) -> Xxh3 {
        let mut hash = Xxh3::new();
        let mut add = |text: &str| {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        for (name, value) in self.metadata.iter().filter(|(name, _)| *name != key::CHECKSUM) {
            add(name);
            add(value);
        }
        for (name, Tensor { dtype, shape, data_offsets }) in &self.tensors {
            add(name);
            add(&format!("{dtype:?} {shape:?} {data_offsets:?}"));
        }
        hash
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.tensors.len()))?;
        map.serialize_entry(METADATA, &self.metadata)?;
        self.tensors.iter().try_for_each(|(name, tensor)| map.serialize_entry(name, tensor))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let mut header = Header::default();
                let mut has_metadata = false;
                while let Some(name) = map.next_key::<String>()? {
                    let twice = if name == METADATA {
                        header.metadata = map.next_value()?;
                        std::mem::replace(&mut has_metadata, true)
                    } else {
                        let tensor = map.next_value()?;
                        header.tensors.insert(name.clone(), tensor).is_some()
                    };
                    if twice {
                        return Err(de::Error::custom(format!("{name} occurs twice")));
                    }
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
