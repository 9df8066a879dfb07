//! `ringway store check` on the command line.

use std::error::Error;
use std::process::ExitCode;

use super::StoreError;
use super::check::{CheckError, Findings, check};
use super::mysql::{MySqlStore, Sharing, Use};
use super::sqlite::SqliteStore;
use crate::config::{Config, StoreUrl};
use crate::journal::disk::Directory;

/// Exit code: journal and store differ.
const DIFFER: u8 = 1;
/// Exit code: they could not be compared.
pub const NOT_COMPARED: u8 = 2;

/// Compares and prints; the exit code is 0 if nothing differs, 1 if something does, 2 if it could not be told.
pub fn run(config: &Config) -> ExitCode {
    match compare(config) {
        Ok(findings) => {
            print!("{}", text(&findings));
            ExitCode::from(if findings.are_none() { 0 } else { DIFFER })
        }
        Err(error) => {
            eprintln!("ringway: the store could not be compared with the journal");
            let mut source: Option<&dyn Error> = Some(error.as_ref());
            while let Some(error) = source {
                eprintln!("  because: {error}");
                source = error.source();
            }
            ExitCode::from(NOT_COMPARED)
        }
    }
}

fn compare(config: &Config) -> Result<Findings, Box<dyn Error>> {
    if config.cluster.redis_url.is_some() {
        return Err("in a cluster the store follows the stream in Redis, and no node's journal has all of it".into());
    }
    let directory = config.data_dir.join("journal");
    let disk = Directory::existing(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let compared: Result<Findings, CheckError> = runtime.block_on(async {
        match &config.store.url {
            StoreUrl::Sqlite(path) => {
                let file = path.clone().unwrap_or_else(|| config.data_dir.join("store.sqlite"));
                check(&mut SqliteStore::open_for_reading(&file)?, &disk).await
            }
            StoreUrl::MySql(url) => {
                let (batch_rows, pool_size) = (config.store.batch_rows, config.store.pool_size);
                let how = Use { batch_rows, pool_size, sharing: Sharing::Watching };
                let opened: Result<MySqlStore, StoreError> = MySqlStore::open(url, how).await;
                check(&mut opened?, &disk).await
            }
        }
    });
    Ok(compared?)
}

fn text(findings: &Findings) -> String {
    let mut text = match findings.are_none() {
        true => "the store has what the journal says\n".to_owned(),
        false => format!("differences between journal and store: {}\n", findings.differences_count),
    };
    for difference in &findings.differences {
        text.push_str(&format!("  {difference}\n"));
    }
    let unnamed = findings.differences_count - findings.differences.len() as u64;
    if unnamed > 0 {
        text.push_str(&format!("  and {unnamed} more\n"));
    }
    let (first, end) = findings.journal;
    text.push_str(&format!(
        "  journal    positions {} to {}\n  store      has what lies below {}\n",
        first.0, end.0, findings.applied.0
    ));
    text.push_str(&format!("  the same   {} messages, {} inbox rows\n", findings.messages, findings.rows));
    text.push_str(&format!(
        "  waiting    {} messages, {} inbox rows: the gateway stores them when it runs\n",
        findings.waiting_messages, findings.waiting_rows
    ));
    if findings.names_taken > 0 {
        text.push_str(&format!(
            "  names      {} messages whose names other messages have: both are stored, see the table names_taken\n",
            findings.names_taken
        ));
    }
    if findings.expired > 0 {
        text.push_str(&format!("  expired    {} messages, deleted by store.retention_days\n", findings.expired));
    }
    text
}
