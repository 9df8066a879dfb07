//! Cuts a byte stream into size-prefixed frames.
//!
//! One per connection, inside its shard; holds memory only while a frame is incomplete. What always holds: a
//! frame announced longer than the limit is refused from its prefix alone, before anything is kept of it.

use thiserror::Error;

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
    partial: Option<Box<Vec<u8>>>,
}

impl Deframer {
    /// Takes bytes off the front of `input` and returns the next whole frame, prefix included, borrowed from
    /// `input` when it lies there whole, else from the deframer. `Ok(None)`: `input` is used up. Call until then.
    pub fn next<'a>(&'a mut self, input: &mut &'a [u8], limit: usize) -> Result<Option<&'a [u8]>, DeframeError> {
        let _ = (&self.partial, input, limit);
        todo!()
    }
}
