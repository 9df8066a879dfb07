//! LEB128: seven bits a byte, the low ones first, the high bit set on all bytes but the last.
//!
//! Pure functions. What always holds: no input makes one of them panic or loop; at most ten bytes make a number.

/// Most bytes of one number.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// The bytes are no whole number: they end within it, or it does not fit 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cut;

/// Appends a number.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front.
pub(crate) fn take(input: &mut &[u8]) -> Result<u64, Cut> {
    if let [first, rest @ ..] = *input
        && *first < 0x80
    {
        *input = rest;
        return Ok(u64::from(*first));
    }
    let mut value = 0u64;
    for (at, byte) in input.iter().take(VARINT_BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if at == VARINT_BYTES_MAX - 1 && bits > 1 {
            return Err(Cut);
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            *input = &input[at + 1..];
            return Ok(value);
        }
    }
    Err(Cut)
}

/// How many numbers the bytes hold, if they end with a whole one and none is too long. Where all are of one
/// byte this is as fast as reading memory.
pub(crate) fn count(bytes: &[u8]) -> Result<usize, Cut> {
    let ends = bytes.iter().filter(|byte| **byte < 0x80).count();
    if ends == bytes.len() {
        return Ok(ends);
    }
    let mut rest = bytes;
    let mut numbers = 0;
    while !rest.is_empty() {
        take(&mut rest)?;
        numbers += 1;
    }
    Ok(numbers)
}

/// The number at `index`, skipping those before it.
pub(crate) fn nth(bytes: &[u8], index: usize) -> Option<u64> {
    let mut rest = bytes;
    if index > 0 {
        let mut ends = 0;
        let at = bytes.iter().position(|byte| {
            ends += usize::from(*byte < 0x80);
            ends == index
        })?;
        rest = &bytes[at + 1..];
    }
    take(&mut rest).ok()
}
