//! What is kept of an endpoint on disk: `webhooks/NAME.json` in the data directory.
//!
//! What always holds: the file is whole; what it says is told was told; the events that are being told are in it before the
//! first try, so that after a crash the same request goes out under the same id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::endpoints::EventKind;
use super::events::{EventBatch, ToldUpTo};
use crate::contract::position::JournalPosition;
use crate::datadir::replace_file;

/// The directory in the data directory.
const DIRECTORY: &str = "webhooks";

/// As the file has it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct KeptState {
    /// A journal's position, and recipients of the record there.
    at: u64,
    recipients: usize,
    /// In a cluster: the entry of the stream before it.
    pub(super) entry: u64,
    /// The endpoint has answered 410, and is told nothing.
    pub(super) is_off: bool,
    /// What is being told.
    pub(super) batch: Option<KeptBatch>,
}

/// A request that was begun.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct KeptBatch {
    /// What its events are.
    pub(super) kind: EventKind,
    /// Which.
    pub(super) ids: Vec<String>,
    /// When they were put together, Unix milliseconds.
    pub(super) cut_ms: u64,
    at: u64,
    recipients: usize,
}

impl KeptState {
    /// How far the endpoint is.
    pub(super) fn told(&self) -> ToldUpTo {
        ToldUpTo { at: JournalPosition(self.at), recipients: self.recipients }
    }

    /// It is so far.
    pub(super) fn set_told(&mut self, told: ToldUpTo) {
        (self.at, self.recipients) = (told.at.0, told.recipients);
    }
}

impl KeptBatch {
    pub(super) fn of(batch: &EventBatch) -> KeptBatch {
        let (kind, ids, cut_ms) = (batch.kind, batch.ids.clone(), batch.cut_ms);
        KeptBatch { kind, ids, cut_ms, at: batch.to.at.0, recipients: batch.to.recipients }
    }

    /// How far the endpoint is when it was told.
    pub(super) fn to(&self) -> ToldUpTo {
        ToldUpTo { at: JournalPosition(self.at), recipients: self.recipients }
    }
}

/// Where an endpoint's state is kept.
#[derive(Clone, Debug)]
pub(super) struct StateFile {
    directory: PathBuf,
    name: String,
}

impl StateFile {
    /// That of the endpoint of this name.
    pub(super) fn new(data_dir: &Path, endpoint: &str) -> StateFile {
        StateFile { directory: data_dir.join(DIRECTORY), name: format!("{endpoint}.json") }
    }

    /// What it says; `None`: there is none, the endpoint is new.
    pub(super) fn read(&self) -> io::Result<Option<KeptState>> {
        match fs::read_to_string(self.directory.join(&self.name)) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps it.
    pub(super) fn write(&self, state: &KeptState) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        replace_file(&self.directory, &self.name, &serde_json::to_string(state)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_no_state_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), "push");
        assert_eq!(file.read().unwrap(), None);
        let mut batch = EventBatch::new(EventKind::GroupChanged, 7);
        batch.push("5".to_owned(), serde_json::json!({}), 1);
        batch.to = ToldUpTo { at: JournalPosition(9), recipients: 3 };
        let mut state = KeptState { batch: Some(KeptBatch::of(&batch)), ..KeptState::default() };
        state.set_told(ToldUpTo { at: JournalPosition(4), recipients: 1 });
        file.write(&state).unwrap();
        assert_eq!(file.read().unwrap(), Some(state));
        fs::write(dir.path().join("webhooks/push.json"), "{").unwrap();
        file.read().unwrap_err();
    }
}
