//! Addresses that are listened on, and who may call the HTTP API, as it was typed.
//!
//! Used on the main thread, at start. What always holds: an address of its own that others than this machine reach has keys.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::ConfigError;
use super::typed::Typed;

/// The HTTP API.
#[derive(Clone, Debug)]
pub(crate) struct ApiConfig {
    /// Where it listens; `None`: where the admin server does.
    pub(crate) listen: Option<SocketAddr>,
    /// Who may call it; `None`: on a loopback address the programs of this machine.
    pub(crate) keys_file: Option<PathBuf>,
    /// Who may read the metrics.
    pub(crate) metrics: MetricsReaders,
}

/// Who may read the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MetricsReaders {
    /// Whoever reaches the address.
    Anybody,
    /// Whoever has a key.
    KeyHolders,
}

impl Typed {
    /// One address.
    pub(super) fn address(&self, key: &'static str) -> Result<SocketAddr, ConfigError> {
        let text = self.text(key).replace("localhost:", "127.0.0.1:");
        text.parse().map_err(|_| self.refuse(key, "expected ADDRESS:PORT, as in 127.0.0.1:7400 or [::]:7400"))
    }

    /// What is under `[api]`.
    pub(super) fn api(&self) -> Result<ApiConfig, ConfigError> {
        let keys_file = Some(self.text("api.keys_file")).filter(|path| !path.is_empty()).map(PathBuf::from);
        let key = "api.listen";
        let listen = match self.text(key) {
            "" => None,
            _ => Some(self.address(key)?),
        };
        if keys_file.is_none() && listen.is_some_and(|address| !address.ip().is_loopback()) {
            return Err(self.refuse(key, "others than this machine could call there: set api.keys_file"));
        }
        let metrics = match self.text("api.metrics") {
            "open" => MetricsReaders::Anybody,
            "key" if keys_file.is_some() => MetricsReaders::KeyHolders,
            "key" => return Err(self.refuse("api.metrics", "there are no keys: set api.keys_file")),
            _ => return Err(self.refuse("api.metrics", "expected open or key")),
        };
        Ok(ApiConfig { listen, keys_file, metrics })
    }
}
