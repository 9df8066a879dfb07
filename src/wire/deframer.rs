//! Cuts a byte stream into size-prefixed frames.
//!
//! One per connection, inside its shard; holds memory only while a frame is incomplete, and then in proportion to
//! what has arrived of it, not to what its prefix announces. What always holds: a frame announced longer than the
//! limit is refused from its prefix alone, before anything behind it is kept.

use thiserror::Error;

use crate::limits::PREFIX_BYTES;

/// What cannot be a frame.
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
pub enum DeframeError {
    /// The prefix announces more than the limit.
    #[error("a frame of {announced} bytes was announced, at most {limit} are allowed")]
    TooLarge {
        /// What the prefix says.
        announced: u32,
        /// What is allowed.
        limit: u32,
    },
}

/// The part of a frame that has arrived so far; `None` costs eight bytes.
#[derive(Debug, Default)]
pub struct Deframer {
    partial: Option<Box<Partial>>,
}

/// The start of a frame, or, until the next call, a whole one that was handed out.
#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    handed_out: bool,
}

impl Deframer {
    /// Takes bytes off the front of `input` and returns the next whole frame, prefix included, borrowed from
    /// `input` when it lies there whole, else from the deframer. `Ok(None)`: `input` is used up. Call until then.
    /// `limit` is of the bytes behind the prefix. After an error the stream cannot be read any more.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        limit: usize,
    ) -> Result<Option<&'a [u8]>, DeframeError> {
        if self.partial.as_ref().is_some_and(|partial| partial.handed_out) {
            self.partial = None;
        }
        if input.is_empty() {
            return Ok(None);
        }
        if self.partial.is_none()
            && let Some(len) = frame_len(input, limit)?
            && let Some((frame, rest)) = input.split_at_checked(len)
        {
            *input = rest;
            return Ok(Some(frame));
        }
        let partial = self.partial.get_or_insert_default();
        partial.fill(input, PREFIX_BYTES);
        let Some(len) = frame_len(&partial.bytes, limit)? else { return Ok(None) };
        partial.fill(input, len);
        partial.handed_out = partial.bytes.len() == len;
        Ok(partial.handed_out.then_some(partial.bytes.as_slice()))
    }

    /// Bytes of memory held for an incomplete frame.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.bytes.capacity())
    }
}

impl Partial {
    /// Moves bytes from the front of `input` until `len` are here or none are left. The memory at most doubles with
    /// each piece, so a frame that comes byte by byte is not copied each time, and is never more than the frame's.
    fn fill(&mut self, input: &mut &[u8], len: usize) {
        let (piece, rest) = input.split_at(input.len().min(len.saturating_sub(self.bytes.len())));
        let wanted = self.bytes.len() + piece.len();
        if wanted > self.bytes.capacity() {
            self.bytes.reserve_exact(wanted.max(self.bytes.len() * 2).min(len) - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        *input = rest;
    }
}

/// The whole length, prefix included, of the frame that starts here; `None` while its prefix is incomplete.
fn frame_len(start: &[u8], limit: usize) -> Result<Option<usize>, DeframeError> {
    let Some(prefix) = start.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let announced = u32::from_le_bytes(*prefix);
    if announced as usize > limit {
        return Err(DeframeError::TooLarge { announced, limit: limit.try_into().unwrap_or(u32::MAX) });
    }
    Ok(Some(PREFIX_BYTES + announced as usize))
}

#[cfg(test)]
mod tests;
