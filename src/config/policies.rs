//! What clients are let do, as it is typed.
//!
//! Used once at start, on the main thread.

use super::ConfigError;
use super::typed::Typed;
use crate::contract::policies::{Permission, Policies};

impl Typed {
    /// Who may do what.
    pub(super) fn policies(&self) -> Result<Policies, ConfigError> {
        Ok(Policies {
            direct_messages: self.permission("policy.direct_messages")?,
            group_creation: self.permission("policy.group_creation")?,
            adding_members: self.permission("policy.adding_members")?,
            presence: self.permission("policy.presence")?,
        })
    }

    fn permission(&self, key: &'static str) -> Result<Permission, ConfigError> {
        match self.text(key) {
            "anyone" => Ok(Permission::Anyone),
            "nobody" => Ok(Permission::Nobody),
            _ => Err(self.refuse(key, "expected anyone or nobody")),
        }
    }
}
