//! The gateways' clocks, each put forward and back without the others.
//!
//! Owned by the lab. A host has one clock for all processes, so what a gateway asks its C library of the time of day goes
//! through libfaketime, which adds what a file says, looked at once a second. What always holds: time that only rises is
//! the host's, and only gateways have another time of day.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Failure;
use crate::process::Process;

/// Where distributions put it.
const LIBRARIES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
];

/// See the module.
#[derive(Debug)]
pub(crate) struct Clocks {
    dir: PathBuf,
    library: &'static str,
}

impl Clocks {
    /// All right; their files are in this directory. An error: there is no libfaketime.
    pub(crate) fn new(dir: &Path, gateways: usize) -> Result<Clocks, Failure> {
        let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists());
        let missing =
            || Failure::Usage(format!("there is no libfaketime to move clocks with, at {}", LIBRARIES.join(", ")));
        let clocks = Clocks { dir: dir.to_owned(), library: library.ok_or_else(missing)? };
        (0..gateways).try_for_each(|at| clocks.put(at, 0))?;
        Ok(clocks)
    }

    /// So many seconds ahead of the host's; zero: right again.
    pub(crate) fn put(&self, at: usize, ahead_s: i64) -> Result<(), Failure> {
        let (file, next) = (self.file(at), self.file(at).with_extension("next"));
        let written = fs::write(&next, format!("{ahead_s:+}\n")).and_then(|()| fs::rename(&next, &file));
        written.map_err(|error| Failure::io(&file, error))
    }

    /// A gateway with its clock.
    pub(crate) fn given_to(&self, at: usize, gateway: Process) -> Process {
        gateway
            .with("LD_PRELOAD", self.library)
            .with("FAKETIME_TIMESTAMP_FILE", self.file(at).display().to_string())
            .with("FAKETIME_CACHE_DURATION", "1")
            .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .with("FAKETIME_DISABLE_SHM", "1")
    }

    fn file(&self, at: usize) -> PathBuf {
        self.dir.join(format!("clock-{}", at + 1))
    }
}
