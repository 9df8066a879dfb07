//! A disk in memory that can be full, fail, and lose what was not synced: for tests, benches and the simulator.
//!
//! Owned by one thread; clones are the same disk. What always holds: after [`MemoryDisk::crash`] all that was
//! written before a successful sync is there, and of what was written since, each sector is or is not, as the
//! seed decides. It leaves out what the journal does not lean on: names that are lost, reads that fail.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use super::disk::{Disk, DiskFile};

/// What a power loss keeps or loses as a whole.
const SECTOR_BYTES: usize = 512;

/// The disk.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: Rc<RefCell<State>>,
}

/// An open file of it.
#[derive(Clone, Debug)]
pub struct MemoryFile {
    state: Rc<RefCell<State>>,
    name: String,
}

#[derive(Debug)]
struct State {
    files: BTreeMap<String, Content>,
    rng: fastrand::Rng,
    full: bool,
    writes_to_cut: u32,
    syncs_to_fail: u32,
    removals_to_fail: u32,
    syncs: u64,
}

#[derive(Debug, Default)]
struct Content {
    size: u64,
    /// What a power loss leaves; bytes behind its end are zeroes.
    durable: Vec<u8>,
    /// What reads see; as above.
    visible: Vec<u8>,
    /// Written since the last sync.
    unsynced: Vec<Range<usize>>,
}

impl MemoryDisk {
    /// An empty disk; the seed decides what a crash leaves.
    pub fn new(seed: u64) -> MemoryDisk {
        let rng = fastrand::Rng::with_seed(seed);
        let state = State {
            files: BTreeMap::new(),
            rng,
            full: false,
            writes_to_cut: 0,
            syncs_to_fail: 0,
            removals_to_fail: 0,
            syncs: 0,
        };
        MemoryDisk { state: Rc::new(RefCell::new(state)) }
    }

    /// The power goes: un-synced writes are lost, kept or torn. Open files must not be used afterwards.
    pub fn crash(&self) {
        let state = &mut *self.state.borrow_mut();
        for content in state.files.values_mut() {
            for range in content.unsynced.drain(..) {
                // One in four writes is lost whole, one in four is kept whole, the others are torn.
                let fate = state.rng.u8(..4);
                for start in (range.start / SECTOR_BYTES * SECTOR_BYTES..range.end).step_by(SECTOR_BYTES) {
                    let kept = fate == 0 || (fate > 1 && state.rng.bool());
                    let sector = start.max(range.start)..(start + SECTOR_BYTES).min(range.end);
                    if kept {
                        put(&mut content.durable, sector.start, &content.visible[sector]);
                    }
                }
            }
            content.visible.clone_from(&content.durable);
        }
    }

    /// From now on nothing can be created or written.
    pub fn fill(&self) {
        self.state.borrow_mut().full = true;
    }

    /// From now on everything can be created and written.
    pub fn make_room(&self) {
        self.state.borrow_mut().full = false;
    }

    /// The next so many writes stop in the middle and fail.
    pub fn cut_writes(&self, count: u32) {
        self.state.borrow_mut().writes_to_cut = count;
    }

    /// The next so many syncs fail, and what they should have synced is lost by the next crash.
    pub fn fail_syncs(&self, count: u32) {
        self.state.borrow_mut().syncs_to_fail = count;
    }

    /// The next so many removals happen, and then it is reported that they could not be made durable.
    #[cfg(test)]
    pub(crate) fn fail_syncs_of_removals(&self, count: u32) {
        self.state.borrow_mut().removals_to_fail = count;
    }

    /// Syncs that succeeded so far.
    #[cfg(test)]
    pub(crate) fn syncs(&self) -> u64 {
        self.state.borrow().syncs
    }

    /// Something was written and not synced.
    pub fn has_unsynced(&self) -> bool {
        self.state.borrow().files.values().any(|content| !content.unsynced.is_empty())
    }

    /// Bytes of a file are not what was written any more.
    #[cfg(test)]
    pub(crate) fn damage(&self, name: &str, offset: usize, bytes: &[u8]) {
        if let Some(content) = self.state.borrow_mut().files.get_mut(name) {
            put(&mut content.visible, offset, bytes);
            put(&mut content.durable, offset, bytes);
        }
    }

    /// Cuts a file off, durably.
    #[cfg(test)]
    pub(crate) fn truncate(&self, name: &str, bytes: usize) {
        if let Some(content) = self.state.borrow_mut().files.get_mut(name) {
            content.visible.truncate(bytes);
            content.durable.truncate(bytes);
            content.size = bytes as u64;
        }
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.borrow().files.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<MemoryFile> {
        let mut state = self.state.borrow_mut();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.insert(name.to_owned(), Content { size: bytes, ..Content::default() });
        Ok(MemoryFile { state: self.state.clone(), name: name.to_owned() })
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        if !self.state.borrow().files.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(MemoryFile { state: self.state.clone(), name: name.to_owned() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        if state.files.remove(name).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let failed = state.removals_to_fail > 0;
        state.removals_to_fail -= u32::from(failed);
        if failed { Err(io::Error::other("the sync of a removal was made to fail")) } else { Ok(()) }
    }
}

impl MemoryFile {
    fn with<T>(&self, act: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.borrow_mut();
        act(state.files.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?)
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.with(|content| {
            let count = content.size.saturating_sub(offset).min(buf.len() as u64) as usize;
            let written = content.visible.get(offset as usize..).unwrap_or_default();
            let copied = count.min(written.len());
            buf[..copied].copy_from_slice(&written[..copied]);
            buf[copied..count].fill(0);
            Ok(count)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (cut, full) = {
            let mut state = self.state.borrow_mut();
            let cut = state.writes_to_cut > 0;
            state.writes_to_cut -= u32::from(cut);
            (cut, state.full)
        };
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let bytes = if cut { &bytes[..bytes.len() / 2] } else { bytes };
        self.with(|content| {
            let offset = offset as usize;
            put(&mut content.visible, offset, bytes);
            content.unsynced.push(offset..offset + bytes.len());
            content.size = content.size.max((offset + bytes.len()) as u64);
            Ok(())
        })?;
        if cut { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let failed = {
            let mut state = self.state.borrow_mut();
            let failed = state.syncs_to_fail > 0;
            state.syncs_to_fail -= u32::from(failed);
            state.syncs += u64::from(!failed);
            failed
        };
        self.with(|content| {
            for range in content.unsynced.drain(..) {
                if !failed {
                    put(&mut content.durable, range.start, &content.visible[range]);
                }
            }
            if failed { Err(io::Error::other("the sync was made to fail")) } else { Ok(()) }
        })
    }

    fn size(&self) -> io::Result<u64> {
        self.with(|content| Ok(content.size))
    }
}

/// Writes into a buffer that is zeroes behind its end.
fn put(buffer: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if buffer.len() < end {
        buffer.resize(end, 0);
    }
    buffer[offset..end].copy_from_slice(bytes);
}
