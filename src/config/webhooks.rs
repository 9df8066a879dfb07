//! Who is told over HTTP what happens, as it was typed.
//!
//! Used on the main thread, at start. What always holds: without a file of endpoints nobody is told, and nothing is kept for it.

use std::path::PathBuf;

use super::ConfigError;
use super::typed::Typed;
use crate::limits;

/// The webhooks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WebhooksConfig {
    /// Who is told what; `None`: nobody.
    pub(crate) endpoints_file: Option<PathBuf>,
    /// So much of the journal is kept for them, stored or not.
    pub(crate) journal_bytes: u64,
}

impl Typed {
    /// What is under `[webhooks]`.
    pub(super) fn webhooks(&self) -> Result<WebhooksConfig, ConfigError> {
        let file = self.text("webhooks.endpoints_file");
        Ok(WebhooksConfig {
            endpoints_file: Some(file).filter(|path| !path.is_empty()).map(PathBuf::from),
            journal_bytes: self.number("webhooks.journal_bytes", limits::SEGMENT_BYTES * 2, 1 << 44)?,
        })
    }
}
