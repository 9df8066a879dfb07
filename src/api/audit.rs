//! What was changed over the API, by whom and when: a line of the log, and a record in a file of the data directory.
//!
//! Written by a task on control's thread. What always holds: the file is a line of JSON for each record, and is bounded: at
//! `AUDIT_FILE_BYTES_MAX` it takes the place of the one before and begins anew; nobody who calls waits for it. Messages are not
//! in it: each is in its inbox with its sender and its time.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::contract::chain::Chain;
use crate::limits::{AUDIT_FILE_BYTES_MAX, AUDIT_RECORDS_WAITING_MAX};

/// The file's name in the data directory.
const FILE: &str = "api-audit.jsonl";
/// The one before.
const FILE_BEFORE: &str = "api-audit.1.jsonl";

/// Where records are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    records: mpsc::Sender<String>,
    clock: Clock,
}

impl Audit {
    /// Starts the task.
    pub(crate) fn start(data_dir: &Path, clock: Clock) -> Audit {
        let (records, receive_records) = mpsc::channel(AUDIT_RECORDS_WAITING_MAX);
        tokio::spawn(write(data_dir.to_owned(), receive_records));
        Audit { records, clock }
    }

    /// Something was changed with this key. `facts`: an object.
    pub(crate) fn record(&self, key: &str, what: &'static str, facts: Value) {
        tracing::info!(key, %facts, "api: {what}");
        let mut record = serde_json::json!({"at_ms": self.clock.now().unix_ms, "key": key, "what": what});
        if let (Some(record), Value::Object(facts)) = (record.as_object_mut(), facts) {
            record.extend(facts);
        }
        if self.records.try_send(record.to_string()).is_err() {
            tracing::warn!(key, what, "the audit file does not have this record: too many wait for it");
        }
    }
}

async fn write(data_dir: PathBuf, mut records: mpsc::Receiver<String>) {
    while let Some(record) = records.recv().await {
        if let Err(error) = append(&data_dir, &record) {
            tracing::warn!(error = %Chain(&error), record, "the audit file does not have this record");
        }
    }
}

fn append(data_dir: &Path, record: &str) -> io::Result<()> {
    let path = data_dir.join(FILE);
    if fs::metadata(&path).is_ok_and(|file| file.len() + record.len() as u64 >= AUDIT_FILE_BYTES_MAX) {
        fs::rename(&path, data_dir.join(FILE_BEFORE))?;
    }
    // In one piece, so that a record is whole or not there.
    OpenOptions::new().create(true).append(true).open(&path)?.write_all(format!("{record}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_file_begins_anew_when_it_is_full_and_the_one_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let record = "x".repeat(100_000);
        let count = 2 * AUDIT_FILE_BYTES_MAX / 100_000 + 5;
        (0..count).for_each(|_| append(dir.path(), &record).unwrap());
        let length = |name| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(length(FILE) < AUDIT_FILE_BYTES_MAX && length(FILE_BEFORE) < AUDIT_FILE_BYTES_MAX);
        assert!(length(FILE_BEFORE) > AUDIT_FILE_BYTES_MAX - 200_000);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
