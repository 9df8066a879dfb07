//! The journal's virtual disk with chance in it: writes that stop half-way, syncs that fail, space that ends,
//! and (to prove that the simulator notices) syncs that lie.
//!
//! Shared by the ledger and the store of one world, in one thread; it outlives crashes. What always holds:
//! what survives is decided by [`MemoryDisk`], which loses, keeps or tears each un-synced write, sector by
//! sector, when the power goes. A process kill keeps the page cache, but what was un-synced stays un-synced.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use ringway::journal::disk::{Disk, DiskFile};
use ringway::journal::memory_disk::{MemoryDisk, MemoryFile};

use crate::random::Random;

/// What the disk does wrong, beyond losing what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct DiskFaults {
    /// Nothing can be created or written.
    pub full: bool,
    /// So many writes of 1,000 write a part and then fail.
    pub writes_failing: u32,
    /// At so many writes and syncs of 1,000 the machine dies: nothing is written or synced any more.
    pub dying: u32,
    /// So many syncs of 1,000 fail, and what they were for is lost by the next power loss.
    pub syncs_failing: u32,
    /// `sync` does nothing and says it did. No disk may do this: the simulator must notice.
    pub lies: bool,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    disk: MemoryDisk,
    random: Random,
    faults: Rc<Cell<DiskFaults>>,
    dead: Rc<Cell<bool>>,
}

/// A file of it. Clones are the same file.
#[derive(Clone, Debug)]
pub(crate) struct SimFile {
    file: MemoryFile,
    disk: SimDisk,
}

impl SimDisk {
    /// An empty disk without faults.
    pub(crate) fn new(random: Random) -> Self {
        let disk = MemoryDisk::new(random.bits() as u64);
        SimDisk { disk, random, faults: Rc::default(), dead: Rc::default() }
    }

    /// The faults in force.
    pub(crate) fn faults(&self) -> DiskFaults {
        self.faults.get()
    }

    /// From now on, these faults.
    pub(crate) fn set_faults(&self, faults: DiskFaults) {
        self.faults.set(faults);
        match faults.full {
            true => self.disk.fill(),
            false => self.disk.make_room(),
        }
    }

    /// A power loss could take something.
    pub(crate) fn has_unsynced(&self) -> bool {
        self.disk.has_unsynced()
    }

    /// The process or the machine died in a write or a sync: whatever it says from now on, nobody hears it.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// It dies now.
    pub(crate) fn die(&self) {
        self.dead.set(true);
    }

    /// The next process finds it working.
    pub(crate) fn revive(&self) {
        self.dead.set(false);
    }

    /// Whether this call is not carried out any more.
    fn dies(&self) -> io::Result<()> {
        if !self.dead.get() && self.random.chance(self.faults().dying, 1000) {
            self.dead.set(true);
        }
        if self.dead.get() { Err(io::Error::other("the machine has died")) } else { Ok(()) }
    }

    /// The power goes: what was not synced is lost, torn or kept.
    pub(crate) fn lose_power(&self) {
        self.disk.crash();
    }

    fn file(&self, file: MemoryFile) -> SimFile {
        SimFile { file, disk: self.clone() }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<SimFile> {
        self.dies()?;
        self.disk.create(name, bytes).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        self.disk.open(name).map(|file| self.file(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.dies()?;
        self.disk.remove(name)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let was_dead = self.disk.is_dead();
        if let Err(error) = self.disk.dies() {
            // Death in the middle of a write leaves a part of it.
            if !was_dead && self.disk.random.chance(1, 2) {
                self.disk.disk.cut_writes(1);
                self.file.write_at(offset, bytes)?;
            }
            return Err(error);
        }
        if self.disk.random.chance(self.disk.faults().writes_failing, 1000) {
            self.disk.disk.cut_writes(1);
        }
        self.file.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.dies()?;
        if self.disk.faults().lies {
            return Ok(());
        }
        if self.disk.random.chance(self.disk.faults().syncs_failing, 1000) {
            self.disk.disk.fail_syncs(1);
        }
        self.file.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}
