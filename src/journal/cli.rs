//! `ringway journal` on the command line.

use std::error::Error;
use std::path::Path;

use super::disk::Directory;
use super::recovery;
use crate::contract::position::JournalPosition;
use crate::limits::SEGMENT_BYTES;

/// Prints what a journal, or the one in a data directory, holds; damage is an error. Returns where it ends.
pub(crate) fn verify(dir: &Path) -> Result<JournalPosition, Box<dyn Error>> {
    let inner = dir.join("journal");
    let dir = if inner.is_dir() { &inner } else { dir };
    let disk = Directory::existing(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let report = recovery::verify(&disk, SEGMENT_BYTES)?;
    let journal = &report.journal;
    if journal.segments == 0 {
        return Err(format!("{} holds no journal", dir.display()).into());
    }
    println!("{}: every batch is whole", dir.display());
    println!("  positions  {} to {}", journal.first.0, journal.end.0);
    println!("  segments   {}", journal.segments);
    println!("  batches    {}", journal.batches);
    println!("  records    {}", report.records);
    println!("  messages   {}, {} inbox rows", report.messages, report.rows);
    println!("  changes    {} of groups", report.changes);
    if let Some(torn) = &journal.torn {
        println!(
            "  torn end   {} from byte {}: being written when the power went, nobody was told of it; the next start \
             throws it away",
            torn.file, torn.offset
        );
    }
    Ok(journal.end)
}
