//! `ringway store check`, `ringway store repair` and `ringway journal verify` on the command line.
//!
//! On the main thread of a process of its own. What always holds: only `repair` changes anything. On one machine the
//! store is compared with the journal; a cluster's, whose stream no node has as a whole, with itself.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, StoreUrl};
use crate::contract::position::JournalPosition;
use crate::contract::store::StorePosition;
use crate::journal::cli;
use crate::journal::disk::Directory;
use crate::journal::segment::SEGMENT_HEADER_BYTES;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::check::{CheckError, Findings, check};
use crate::store::mysql::integrity::{Integrity, Repair};
use crate::store::mysql::{MySqlStore, Sharing, Use};
use crate::store::sqlite::SqliteStore;

/// Exit code: journal and store differ.
const DIFFER: u8 = 1;
/// Exit code: they could not be compared.
pub const NOT_COMPARED: u8 = 2;

/// Compares and prints; the exit code is 0 if nothing differs, 1 if something does, 2 if it could not be told.
pub fn run(config: &Config) -> ExitCode {
    if config.cluster.redis_url.is_some() {
        return report_integrity(config, Repair::Nothing);
    }
    match compare(config) {
        Ok(findings) => {
            print!("{}", text(&findings));
            ExitCode::from(if findings.are_none() { 0 } else { DIFFER })
        }
        Err(error) => not_compared("the store could not be compared with the journal", error.as_ref()),
    }
}

/// Deletes inbox rows of a database whose messages are not there, and prints what else contradicts itself; exit codes
/// as those of [`run`].
pub fn repair(config: &Config) -> ExitCode {
    report_integrity(config, Repair::DeleteRows)
}

/// Prints what a journal, or the one in a data directory, holds. The error: it is damaged, or ends before what the store in
/// the same directory has of it.
pub fn verify_journal(dir: &Path) -> Result<(), Box<dyn Error>> {
    let file = dir.join("store.sqlite");
    // First: a gateway that runs goes on meanwhile, and its store is never ahead of its journal.
    let applied = if file.is_file() { Some(applied(&file)?) } else { None };
    let end = cli::verify(dir)?;
    let Some(applied) = applied else {
        println!(
            "  store      not compared: there is no store.sqlite beside it; `ringway store check` compares with others"
        );
        return Ok(());
    };
    if applied.0 > end.0 + SEGMENT_HEADER_BYTES {
        let missing =
            format!("the store has the journal up to position {}, and the journal ends at {}", applied.0, end.0);
        return Err(
            format!("{missing}: its last batches are missing, and whatever came after what the store has").into()
        );
    }
    println!("  store      has it up to position {}", applied.0);
    Ok(())
}

/// How far the store in this file has the journal.
fn applied(file: &Path) -> Result<JournalPosition, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let position: Result<StorePosition, StoreError> =
        runtime.block_on(async { SqliteStore::open_for_reading(file)?.position().await });
    Ok(position?.applied.in_journal())
}

fn report_integrity(config: &Config, repair: Repair) -> ExitCode {
    match integrity(config, repair) {
        Ok(found) => {
            print!("{}", integrity_text(&found));
            ExitCode::from(if found.contradictions_count == found.repaired { 0 } else { DIFFER })
        }
        Err(error) => not_compared("the database could not be looked at", error.as_ref()),
    }
}

fn not_compared(what: &str, error: &dyn Error) -> ExitCode {
    eprintln!("ringway: {what}");
    let mut source = Some(error);
    while let Some(error) = source {
        eprintln!("  because: {error}");
        source = error.source();
    }
    ExitCode::from(NOT_COMPARED)
}

fn integrity(config: &Config, repair: Repair) -> Result<Integrity, Box<dyn Error>> {
    let StoreUrl::MySql(url) = &config.store.url else {
        return Err("only a MySQL or MariaDB database is looked at by itself: this store is an SQLite file".into());
    };
    let sharing = match config.cluster.redis_url {
        Some(_) => Sharing::WatchingCluster,
        None => Sharing::Watching,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found: Result<Integrity, StoreError> = runtime.block_on(async {
        let how = Use { batch_rows: config.store.batch_rows, pool_size: config.store.pool_size, sharing };
        MySqlStore::open(url, how).await?.integrity(repair).await
    });
    Ok(found?)
}

fn integrity_text(found: &Integrity) -> String {
    let mut text = match found.contradictions_count {
        0 => "the database agrees with itself\n".to_owned(),
        count => format!("contradictions in the database: {count}, of which {} were repaired\n", found.repaired),
    };
    for contradiction in &found.contradictions {
        text.push_str(&format!("  {contradiction}\n"));
    }
    let unnamed = found.contradictions_count - found.contradictions.len() as u64;
    if unnamed > 0 {
        text.push_str(&format!("  and {unnamed} more\n"));
    }
    text.push_str(&format!(
        "  store      has the stream up to entry {}\n  looked at  {} messages, {} inbox rows\n",
        found.applied, found.messages, found.rows
    ));
    if found.inboxes_with_gaps > 0 {
        text.push_str(&format!(
            "  gaps       {} inboxes have numbers left out, as after a loss of Redis or a repair\n",
            found.inboxes_with_gaps
        ));
    }
    if found.names_taken > 0 {
        text.push_str(&format!(
            "  names      {} messages whose names other messages have: both are stored, see the table names_taken\n",
            found.names_taken
        ));
    }
    text
}

fn compare(config: &Config) -> Result<Findings, Box<dyn Error>> {
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
