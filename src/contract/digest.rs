//! What tells a repeat from another message under the same name.

use ringway_wire::ids::Conversation;

/// What a message said and to whom, in 64 bits: tells a repeat from another message under the same name. Not
/// cryptographic: a sender can only fool itself. Stable across versions (the journal and the store outlive them).
pub(crate) fn digest(to: Conversation, body: &[u8]) -> u64 {
    let (kind, id) = match to {
        Conversation::User(user) => (0u8, user.0),
        Conversation::Group(group) => (1u8, group.0),
    };
    let head = crc32c::crc32c_append(crc32c::crc32c(&[kind]), &id.to_le_bytes());
    let whole = crc32c::crc32c_append(head, body);
    (u64::from(whole) << 32) | u64::from(head ^ body.len() as u32)
}

#[cfg(test)]
mod tests;
