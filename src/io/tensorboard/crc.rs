//! Records: a length, its checksum, the content, its checksum.

/// The polynomial of CRC-32C (Castagnoli), bits reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// The remainder of each byte.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut remainder, mut bit) = (byte as u32, 0);
        while bit < 8 {
            remainder = if remainder & 1 == 1 { (remainder >> 1) ^ POLYNOMIAL } else { remainder >> 1 };
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

/// CRC-32C.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// The checksum as records have it: turned by 15 bits and moved by a constant, so that the checksum of data that holds
/// its own checksum is nothing special.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// Appends a record with this content.
pub fn frame(content: &[u8], out: &mut Vec<u8>) {
    let length = (content.len() as u64).to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked(&length).to_le_bytes());
    out.extend_from_slice(content);
    out.extend_from_slice(&masked(content).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the CRC catalogue, and those of RFC 3720 (iSCSI), B.4.
    #[test]
    fn checksums_have_their_known_values() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        for (bytes, crc) in [
            (&b""[..], 0),
            (b"123456789", 0xE306_9283),
            (&[0; 32], 0x8A91_36AA),
            (&[0xFF; 32], 0x62A8_AB43),
            (&rising, 0x46DD_794E),
            (&falling, 0x113F_DB5C),
        ] {
            assert_eq!(crc32c(bytes), crc, "{bytes:?}");
        }
    }

    /// What TensorBoard's own writer makes of a file's first event, at a wall time of 1,440,183,447.0.
    #[test]
    fn a_record_is_framed_by_both_checksums() {
        let content = b"\x09\0\0\xc0\x25\xdd\x75\xd5\x41\x1a\x0dbrain.Event:2";
        let mut out = vec![7];
        frame(content, &mut out);
        assert_eq!(out[..13], *b"\x07\x18\0\0\0\0\0\0\0\xa3\x7fK\"");
        assert_eq!(out[13..37], *content);
        assert_eq!(out[37..], *b"\x8d\x1a\xdb\xaf");
    }
}
