//! The tensors of an open safetensors file, read when asked for.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::header::{Dtype, Header, Tensor};
use crate::backend::Real;
use crate::{Error, ErrorKind, Result};

/// Bytes that are read at a time.
pub(super) const BLOCK: usize = 1 << 16;

/// What a file's bytes come from.
pub(super) trait Source: Read + Seek + Send {}
impl<T: Read + Seek + Send> Source for T {}

/// A file whose header has been read and checked.
pub(super) struct Tensors {
    /// What errors call the file.
    pub subject: String,
    pub header: Header,
    data_start: u64,
    source: Mutex<Box<dyn Source>>,
}

/// Opens a file to read.
pub(super) fn open(path: &Path) -> Result<File> {
    let io = |e| Error::io(path, &e);
    // Asked before opening: opening a named pipe would wait for a writer.
    if !path.metadata().map_err(io)?.is_file() {
        let e = Error::new(ErrorKind::Io, path.display(), "not a regular file");
        return Err(e.expected("a model file (.safetensors)"));
    }
    File::open(path).map_err(io)
}

impl Tensors {
    pub fn read(mut source: impl Source + 'static, subject: &str) -> Result<Self> {
        let io = |e| Error::io(subject, &e);
        let len = source.seek(SeekFrom::End(0)).map_err(io)?;
        source.seek(SeekFrom::Start(0)).map_err(io)?;
        let (header, data_start) = Header::read(&mut source, len, subject)?;
        Ok(Tensors { subject: subject.into(), header, data_start, source: Mutex::new(Box::new(source)) })
    }

    /// The source at the place `start` of the data.
    pub fn at(&self, start: u64) -> Result<MutexGuard<'_, Box<dyn Source>>> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.seek(SeekFrom::Start(self.data_start + start)).map_err(|e| Error::io(&self.subject, &e))?;
        Ok(source)
    }

    /// A tensor's numbers, widened or rounded to `E`'s precision.
    pub fn values<E: Real>(&self, tensor: &Tensor) -> Result<Vec<E>> {
        match tensor.dtype {
            Dtype::F16 => self.elements(tensor, |bytes| E::of(half(u16::from_le_bytes(bytes)).into())),
            Dtype::BF16 => {
                self.elements(tensor, |bytes| E::of(f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16).into()))
            }
            Dtype::F32 => self.elements(tensor, |bytes| E::of(f32::from_le_bytes(bytes).into())),
            Dtype::F64 => self.elements(tensor, |bytes| E::of(f64::from_le_bytes(bytes))),
            Dtype::U64 => self.elements(tensor, |bytes| E::of(u64::from_le_bytes(bytes) as f64)),
            Dtype::I64 => self.elements(tensor, |bytes| E::of(i64::from_le_bytes(bytes) as f64)),
        }
    }

    /// Reads a tensor block by block: the header's claims were checked against the file's length, but memory is
    /// reserved only as the bytes come in.
    pub fn elements<const N: usize, T>(&self, tensor: &Tensor, of: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        let (start, end) = tensor.data_offsets;
        let mut source = self.at(start)?;
        let (mut block, mut left) = ([0; BLOCK], end - start);
        let mut elements = Vec::new();
        while left > 0 {
            let block = &mut block[..BLOCK.min(usize::try_from(left).unwrap_or(BLOCK))];
            source.read_exact(block).map_err(|e| Error::io(&self.subject, &e))?;
            let chunks = block.as_chunks().0;
            elements.try_reserve(chunks.len()).map_err(|e| Error::new(ErrorKind::Unsupported, "memory", e))?;
            elements.extend(chunks.iter().map(|&bytes| of(bytes)));
            left -= block.len() as u64;
        }
        Ok(elements)
    }
}

/// The number that IEEE's half precision means by these bits: 1 sign, 5 exponent, 10 fraction.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction as f32 * 2f32.powi(-24),
        31 => f32::from_bits(0xFF << 23 | fraction << 13),
        _ => f32::from_bits((exponent + 127 - 15) << 23 | fraction << 13),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::half;

    #[test]
    fn half_precision_is_ieees() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x0001, 2f32.powi(-24)),
            (0x03FF, 1023.0 * 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x3555, 0.333_251_95),
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x7BFF, 65504.0),
            (0x7C00, f32::INFINITY),
            (0xFC00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), value, "{bits:#06x}");
        }
        assert!(half(0x7E00).is_nan() && half(0x8000).is_sign_negative());
    }
}
