//! What is said in the log, and for whom, as it was typed.
//!
//! Used on the main thread. What always holds: a level that a filter would misunderstand is refused.

use super::ConfigError;
use super::typed::Typed;

/// What `log.level` may be, the quietest first.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// About logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// A level or a tracing filter.
    pub(crate) level: String,
    /// For whom.
    pub(crate) format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

impl Typed {
    /// What is under `[log]`.
    pub(super) fn log(&self) -> Result<Log, ConfigError> {
        let level = self.filled("log.level")?.to_owned();
        // A filter takes any bare word for the name of a part, and would then show nothing of all the others.
        let words = level.split(',').map(str::trim).filter(|word| !word.contains('='));
        let is_level = |word: &str| LOG_LEVELS.iter().any(|known| known.eq_ignore_ascii_case(word));
        if !words.into_iter().all(is_level) || level.parse::<tracing_subscriber::filter::Targets>().is_err() {
            let known = LOG_LEVELS.join(", ");
            let expected = format!("expected one of {known}; or parts with a level each, as in warn,ringway=debug");
            return Err(self.refuse("log.level", expected));
        }
        let format = match self.text("log.format") {
            "auto" => LogFormat::Auto,
            "human" => LogFormat::Human,
            "json" => LogFormat::Json,
            _ => return Err(self.refuse("log.format", "expected human, json or auto")),
        };
        Ok(Log { level, format })
    }
}
