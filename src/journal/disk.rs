//! What the journal asks of a disk: the seam at which the simulator puts one that loses and tears writes.
//!
//! Every call blocks and belongs to the thread that makes it. What always holds: after `File::sync` returns
//! `Ok`, what was written before it survives a power loss; nothing else does.

use std::io;

/// A directory of files.
pub trait Disk {
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
pub trait DiskFile: Clone {
    /// Reads until `buf` is full or the file ends; returns how much.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`. On an error any part of it may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// `fdatasync`.
    fn sync(&self) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
}
