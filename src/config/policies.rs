//! What clients may do, as it was typed.
//!
//! Used on the main thread, at start and whenever the settings are read again.

use super::ConfigError;
use super::typed::Typed;
use crate::contract::policies::{Permission, Policies};

impl Typed {
    /// Who may do what.
    pub(super) fn policies(&self) -> Result<Policies, ConfigError> {
        Ok(Policies {
            direct_messages: self.permission_about_another("policy.direct_messages")?,
            group_creation: self.permission("policy.group_creation")?,
            adding_members: self.permission_about_another("policy.adding_members")?,
            presence: self.permission_about_another("policy.presence")?,
        })
    }

    fn permission(&self, key: &'static str) -> Result<Permission, ConfigError> {
        match self.text(key) {
            "anyone" => Ok(Permission::Anyone),
            "nobody" => Ok(Permission::Nobody),
            _ => Err(self.refuse(key, "expected anyone or nobody")),
        }
    }

    /// Of what concerns another user.
    fn permission_about_another(&self, key: &'static str) -> Result<Permission, ConfigError> {
        match self.text(key) {
            "anyone" => Ok(Permission::Anyone),
            "shared-group" => Ok(Permission::SharedGroup),
            "nobody" => Ok(Permission::Nobody),
            _ => Err(self.refuse(key, "expected anyone, shared-group or nobody")),
        }
    }
}
