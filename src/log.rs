//! Logging: for people on a terminal, JSON everywhere else, always on stderr.
//!
//! Set up once on the main thread. What always holds: no line per message, and closed connections only at
//! `debug`; what happens per message is counted and served as a metric.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::config::{Log, LogFormat};

/// An error and all that it comes from, in one line: the JSON of a log line would have the first alone. What the line
/// has already is not said again.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            source = error.source();
        }
        f.write_str(&line)
    }
}

/// Starts logging for the process. A second call changes nothing.
pub fn start(log: &Log) {
    // The configuration was validated; what does not parse here is a bug that must not hide the logs.
    let filter: Targets = log.level.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    // glommio tells at info what it does to the machine at each start.
    let filter = if log.level.contains('=') { filter } else { filter.with_target("glommio", tracing::Level::WARN) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Told(&'static str, #[source] Option<Box<Told>>);

    fn check(texts: &[&'static str], expected: &str) {
        let told = texts.iter().rev().fold(None, |source, text| Some(Box::new(Told(text, source))));
        assert_eq!(told.map(|told| Chain(&*told).to_string()).as_deref(), Some(expected));
    }

    #[test]
    fn an_error_is_said_with_all_that_it_comes_from_and_nothing_twice() {
        check(&["alone"], "alone");
        check(&["not written", "no answer", "cable cut"], "not written: no answer: cable cut");
        check(&["not written", "server said `full`", "full"], "not written: server said `full`");
    }
}
