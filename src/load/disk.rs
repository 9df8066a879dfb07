//! `bench disk`: what the disk alone does, without any gateway: writes as the journal makes them (`pwrite` into space
//! that is there, then `fdatasync`), at a steady pace.
//!
//! The latencies of durable messages stand on this, and no gateway can be quicker; machines that share their disk
//! with others differ tenfold, and so does one machine from hour to hour. What always holds: it writes where a gateway that a
//! bench starts has its data, into a file that is allocated and was written once before.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tempfile::TempDir;

use super::args::DiskArgs;
use super::error::LoadError;
use super::gateway::{data_base, pause};
use super::latency::{Quantiles, latencies};
use super::table::Table;
use crate::clock::Clock;

/// The report as `--json` prints it.
#[derive(Serialize, Debug)]
struct DiskReport {
    scenario: &'static str,
    syncs: u64,
    bytes: usize,
    sync_us: Quantiles,
    clean: bool,
}

/// Runs it and prints the report.
pub(crate) fn run(args: &DiskArgs) -> Result<bool, LoadError> {
    args.check()?;
    let failed = LoadError::io("the disk cannot be measured");
    let sync_us = measure(args).map_err(failed)?;
    let report = DiskReport { scenario: "disk", syncs: args.syncs, bytes: args.bytes, sync_us, clean: true };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(true);
    }
    let mut table = Table::default();
    table.line("writes, each synced", &format!("{} of {} bytes", report.syncs, report.bytes));
    table.quantiles_head();
    table.quantiles("write and fdatasync", &report.sync_us);
    print!("{}", table.text());
    Ok(true)
}

fn measure(args: &DiskArgs) -> std::io::Result<Quantiles> {
    let mut segment = Segment::make(args.dir.clone(), args.syncs, args.bytes)?;
    let clock = Clock::start();
    let mut latency = latencies();
    let between = Duration::from_secs_f64(1.0 / args.rate);
    for _ in 0..args.syncs {
        pause(between);
        let began_ns = clock.mono_ns();
        segment.write()?;
        latency.saturating_record(clock.mono_ns() - began_ns);
    }
    Ok(Quantiles::of(&latency))
}

/// A file as the journal has them: allocated, written once before, and gone with its directory.
pub(crate) struct Segment {
    file: File,
    file_bytes: u64,
    data: Vec<u8>,
    at: u64,
    _directory: TempDir,
}

impl Segment {
    /// With room for so many writes of so many bytes, in `dir` or where a bench's gateway has its data.
    pub(crate) fn make(dir: Option<PathBuf>, writes: u64, bytes: usize) -> std::io::Result<Segment> {
        let base = dir.unwrap_or_else(data_base);
        let directory = tempfile::Builder::new().prefix("ringway-disk-").tempdir_in(base)?;
        let file_bytes = writes * bytes as u64;
        let file = OpenOptions::new().write(true).create_new(true).open(directory.path().join("segment"))?;
        let block = vec![0; 1 << 20];
        for offset in (0..file_bytes).step_by(block.len()) {
            let left = (file_bytes - offset).min(block.len() as u64) as usize;
            file.write_all_at(block.get(..left).unwrap_or_default(), offset)?;
        }
        file.sync_all()?;
        Ok(Segment { file, file_bytes: file_bytes.max(1), data: vec![1; bytes], at: 0, _directory: directory })
    }

    /// The next write, and its `fdatasync`; behind the last one the first is written over.
    pub(crate) fn write(&mut self) -> std::io::Result<()> {
        self.file.write_all_at(&self.data, self.at % self.file_bytes)?;
        self.at += self.data.len() as u64;
        self.file.sync_data()
    }
}
