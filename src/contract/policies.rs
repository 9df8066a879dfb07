//! What an operator lets clients do.

/// Who may do something over a client's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Permission {
    /// Whoever has logged in.
    #[default]
    Anyone,
    /// Nobody.
    Nobody,
}

/// Who may do what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policies {
    /// Write to another user. To oneself one always may.
    pub direct_messages: Permission,
    /// Make a group.
    pub group_creation: Permission,
    /// Make others members of a group, of a new one too.
    pub adding_members: Permission,
    /// Ask who is online.
    pub presence: Permission,
}
