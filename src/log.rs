//! Logging: for people on a terminal, JSON everywhere else, always on stderr.
//!
//! Set up once on the main thread, which may change the level later. What always holds: no line per message, and closed connections only at
//! `debug`; what happens per message is counted and served as a metric.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, reload};

use crate::config::{Log, LogFormat};

/// Changes what is said in the log.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Starts logging for the process. A second call changes nothing.
pub fn start(log: &Log) {
    let (filter, handle) = reload::Layer::new(filter(log));
    FILTER.set(handle).ok();
    let human = match log.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let started = if human {
        let ansi = std::io::stderr().is_terminal();
        registry
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi).with_target(false))
            .try_init()
    } else {
        registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init()
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// From now on the log says what this level lets it say.
pub(crate) fn set_level(log: &Log) {
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(filter(log))
    {
        tracing::error!(%error, "the log's level stays as it was");
    }
}

fn filter(log: &Log) -> Targets {
    // The configuration was validated; what does not parse here is a bug that must not hide the logs.
    let filter: Targets = log.level.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    // glommio tells at info what it does to the machine at each start.
    if log.level.contains('=') { filter } else { filter.with_target("glommio", tracing::Level::WARN) }
}
