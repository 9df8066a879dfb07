//! The wire protocol: frames in and out of bytes.
//!
//! Pure functions and state machines that every thread may use; no socket and no clock is known here. What always holds:
//! nothing of an inbound frame is looked at before the FlatBuffers verifier has accepted it with the limits
//! in `limits.rs`. `README.md` beside this file is the protocol's specification, `ringway.fbs` its schema.

pub mod deframer;
mod encode;
pub mod frame;
#[rustfmt::skip]
#[allow(clippy::all, clippy::too_many_lines, clippy::unwrap_used, missing_docs, unused_imports, unsafe_op_in_unsafe_fn, dead_code, mismatched_lifetime_syntaxes, clippy::undocumented_unsafe_blocks, unreachable_pub)]
mod generated;
pub mod ids;
pub mod limits;
pub mod push;
pub mod request;
pub mod websocket;

/// The schema's enumerations: what others than this crate use of the generated code.
pub mod schema {
    pub use crate::generated::ringway::wire::{CloseReason, ConversationKind, ErrorCode, GroupChangeKind, Role};
}

#[cfg(test)]
mod tests;
