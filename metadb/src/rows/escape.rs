//! Byte strings inside a row key, so that the order of row keys is the order of the strings: 0x00 becomes 0x00 0xff, the end is 0x00 0x01.

/// Bytes of the end mark.
pub const END_BYTES: usize = 2;
const END: [u8; END_BYTES] = [0x00, 0x01];
const ESCAPED_ZERO: [u8; 2] = [0x00, 0xff];

/// Appends a string and its end mark.
pub fn push(out: &mut Vec<u8>, key: &[u8]) {
    let mut parts = key.split(|byte| *byte == 0);
    if let Some(first) = parts.next() {
        out.extend_from_slice(first);
    }
    for part in parts {
        out.extend_from_slice(&ESCAPED_ZERO);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&END);
}

/// The string that `bytes` is the escaped form of, end mark and all; `None` if it is not one.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let zero = rest.iter().position(|byte| *byte == 0)?;
        out.extend_from_slice(&rest[..zero]);
        let mark = rest.get(zero..zero + 2)?;
        rest = &rest[zero + 2..];
        if mark == END {
            return rest.is_empty().then_some(out);
        }
        if mark != ESCAPED_ZERO {
            return None;
        }
        out.push(0);
    }
}
