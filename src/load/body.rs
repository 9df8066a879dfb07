//! What the benches write into a message's body: which message it is, when it was sent, and a pattern that
//! shows whether the rest arrived whole.
//!
//! Layout: 8 bytes send time (ns of the load generator's clock), 8 bytes run and index, then a pattern made
//! from the index; little-endian. What always holds: [`read()`] accepts exactly what [`write()`] made.

/// The shortest body that carries this.
pub(crate) const BODY_BYTES_MIN: usize = 16;

/// What a body says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    /// Which run of which bench, so that leftovers of another are not taken for ours.
    pub run: u32,
    /// Which message of its stream, from 0.
    pub index: u32,
    /// When it was sent, in nanoseconds of the sender's clock.
    pub sent_ns: u64,
}

/// Fills `body` (at least [`BODY_BYTES_MIN`] long).
pub(crate) fn write(mark: Mark, body: &mut [u8]) {
    let (head, pattern) = body.split_at_mut(BODY_BYTES_MIN);
    head[..8].copy_from_slice(&mark.sent_ns.to_le_bytes());
    head[8..12].copy_from_slice(&mark.run.to_le_bytes());
    head[12..16].copy_from_slice(&mark.index.to_le_bytes());
    for (at, byte) in pattern.iter_mut().enumerate() {
        *byte = pattern_byte(mark, at);
    }
}

/// Reads a body back; `None` if it is not one of these, unharmed.
pub(crate) fn read(body: &[u8]) -> Option<Mark> {
    let (sent_ns, rest) = body.split_first_chunk::<8>()?;
    let (run, rest) = rest.split_first_chunk::<4>()?;
    let (index, pattern) = rest.split_first_chunk::<4>()?;
    let mark = Mark {
        run: u32::from_le_bytes(*run),
        index: u32::from_le_bytes(*index),
        sent_ns: u64::from_le_bytes(*sent_ns),
    };
    pattern.iter().enumerate().all(|(at, byte)| *byte == pattern_byte(mark, at)).then_some(mark)
}

fn pattern_byte(mark: Mark, at: usize) -> u8 {
    (mark.index as usize).wrapping_mul(31).wrapping_add(at).wrapping_add(mark.run as usize) as u8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn a_body_reads_back_and_no_changed_one_does_as_the_same() {
        for len in [BODY_BYTES_MIN, 17, 100, 16_384] {
            let mark = Mark { run: 7, index: 12_345, sent_ns: u64::MAX - 5 };
            let mut body = vec![0; len];
            write(mark, &mut body);
            assert_eq!(read(&body), Some(mark));
            for at in [0, 8, 12, len - 1] {
                let mut harmed = body.clone();
                harmed[at] ^= 1;
                assert_ne!(read(&harmed), Some(mark), "byte {at} of {len}");
            }
        }
        assert_eq!(read(&[0; BODY_BYTES_MIN - 1]), None);
    }
}
