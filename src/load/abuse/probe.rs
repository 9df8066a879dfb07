//! What the disk does meanwhile, for a program that is no gateway: a write and an `fdatasync`, a hundred times a second.
//!
//! On a thread of its own, which goes first on the load's CPUs as the pair does, so that it is the disk that is measured. What
//! always holds: it writes where the gateway has its data, into a file of its own that was written once before. A pair that
//! waits no longer than this does waits for the disk, whoever keeps it busy.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::cpus;
use crate::disk::Segment;
use crate::error::LoadError;
use crate::latency::{Quantiles, latencies};

/// As the journal writes a message of the pair's.
const BYTES: usize = 512;
const EVERY: Duration = Duration::from_millis(10);
/// Its file has room for so many; then the first is written over.
const WRITES: u64 = 8_192;

/// It runs.
pub(super) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Quantiles>>,
}

impl Probe {
    /// In this directory; `None`: where a gateway that a bench starts has its data.
    pub(super) fn start(dir: Option<PathBuf>, clock: Clock) -> Result<Probe, LoadError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&stop);
        let mut segment = Segment::make(dir, WRITES, BYTES).map_err(LoadError::io("the disk cannot be measured"))?;
        let measure = move || {
            cpus::go_first();
            let mut latency = latencies();
            while !stops.load(Ordering::Relaxed) {
                let began_ns = clock.mono_ns();
                segment.write()?;
                latency.saturating_record(clock.mono_ns() - began_ns);
                std::thread::park_timeout(EVERY);
            }
            Ok(Quantiles::of(&latency))
        };
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(measure);
        Ok(Probe { stop, thread: thread.map_err(LoadError::io("the disk's thread cannot be started"))? })
    }

    /// How long its writes took, microseconds.
    pub(super) fn stop(self) -> Result<Quantiles, LoadError> {
        self.stop.store(true, Ordering::Relaxed);
        let measured = self.thread.join().map_err(|_| LoadError::Options("the disk's thread has panicked"))?;
        measured.map_err(LoadError::io("the disk cannot be measured"))
    }
}
