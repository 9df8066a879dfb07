//! What an operator decides about a user's devices.

/// What happens when a user logs in with one device too many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DevicePolicy {
    /// The oldest session is closed with `DeviceLimit`.
    ReplaceOldest,
    /// The new login is closed with `DeviceLimit`.
    RefuseNew,
}
