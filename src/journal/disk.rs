//! What the journal asks of a disk: the seam at which the simulator puts one that loses and tears writes.
//!
//! Every call blocks and belongs to the thread that makes it. What always holds: after `File::sync` returns
//! `Ok`, what was written before it survives a power loss; nothing else does.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// What is written at once when a file system cannot allocate ahead.
const ZEROES_BYTES: usize = 1 << 20;

/// A directory of files. Clones are the same directory.
pub trait Disk: Clone + fmt::Debug {
    /// An open file of it. Clones share the file.
    type File: DiskFile;
    /// The names in the directory, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file of `bytes` zeroes, allocated on disk, its name durable. Fails if it exists.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Self::File>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Removes a file, durably.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Clone + fmt::Debug {
    /// Reads until `buf` is full or the file ends; returns how much.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`. On an error any part of it may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// `fdatasync`.
    fn sync(&self) -> io::Result<()>;
    /// The file's length in bytes.
    fn size(&self) -> io::Result<u64>;
}

/// A directory of the real file system.
#[derive(Clone, Debug)]
pub struct Directory {
    path: Arc<Path>,
    handle: Arc<File>,
}

impl Directory {
    /// Opens a directory, creating it (its own name durable) if it is not there.
    pub fn open(path: &Path) -> io::Result<Directory> {
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            if let Some(parent) = path.canonicalize()?.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Directory { path: Arc::from(path), handle: Arc::new(File::open(path)?) })
    }

    /// Opens a directory that must be there.
    pub(crate) fn existing(path: &Path) -> io::Result<Directory> {
        if !path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such directory"));
        }
        Directory::open(path)
    }

    fn of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Disk for Directory {
    type File = DirectoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<DirectoryFile> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.of(name))?;
        let done = allocate(&file, bytes).and_then(|()| file.sync_all()).and_then(|()| self.handle.sync_all());
        if let Err(error) = done {
            drop(file);
            // A file that could not be allocated is of no use; if it cannot be removed either, recovery will.
            fs::remove_file(self.of(name)).ok();
            return Err(error);
        }
        Ok(DirectoryFile { file: Arc::new(file) })
    }

    fn open(&self, name: &str) -> io::Result<DirectoryFile> {
        let path = self.of(name);
        // Only the writer needs to write; whoever verifies a journal may not be allowed to.
        let file = OpenOptions::new().read(true).write(true).open(&path).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => File::open(&path),
            _ => Err(error),
        })?;
        Ok(DirectoryFile { file: Arc::new(file) })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.of(name))?;
        self.handle.sync_all()
    }
}

/// A file of a [`Directory`].
#[derive(Clone, Debug)]
pub struct DirectoryFile {
    file: Arc<File>,
}

impl DiskFile for DirectoryFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.file.read_at(&mut buf[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// Gives an empty file `bytes` zeroes that have their place on disk.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let length = i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match fallocate(file.as_raw_fd(), FallocateFlags::empty(), 0, length) {
        Ok(()) => return Ok(()),
        // The file system cannot: zeroes are written instead.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
        Err(refused) => return Err(refused.into()),
    }
    let zeroes = vec![0; ZEROES_BYTES];
    let mut at = 0;
    while at < bytes {
        let part = (bytes - at).min(ZEROES_BYTES as u64) as usize;
        file.write_all_at(&zeroes[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
