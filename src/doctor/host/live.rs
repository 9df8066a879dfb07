//! The machine this process runs on.

use std::io;
use std::path::{Path, PathBuf};

use sysctl::{Ctl, Sysctl};

use crate::doctor::host::{DiskSpace, Machine, Reading};
use crate::doctor::uring::{self, Uring};

/// This one.
pub(crate) struct ThisMachine;

impl Machine for ThisMachine {
    fn sysctl(&self, name: &str) -> Reading {
        let read = Ctl::new(name).and_then(|ctl| ctl.value_string());
        match read {
            Ok(text) => Reading::Value(text),
            // The crate calls everything that it cannot open "not found": ask again what the reason is.
            Err(error) => match std::fs::File::open(format!("/proc/sys/{}", name.replace('.', "/"))) {
                Err(open) => failed(&open),
                Ok(_) => Reading::Unreadable(error.to_string()),
            },
        }
    }

    fn file(&self, path: &str) -> Reading {
        read(Path::new(path))
    }

    fn names(&self, directory: &str) -> Vec<String> {
        names(Path::new(directory))
    }

    fn uring(&self) -> Uring {
        uring::probe()
    }

    fn disk(&self, data_dir: &Path) -> DiskSpace {
        let directory = existing(data_dir);
        let free_bytes = match nix::sys::statvfs::statvfs(&directory) {
            Ok(stat) => Ok(stat.blocks_available() * stat.fragment_size()),
            Err(error) => Err(error.desc().to_owned()),
        };
        DiskSpace { directory: directory.to_string_lossy().into_owned(), free_bytes }
    }
}

/// What a file holds.
pub(crate) fn read(path: &Path) -> Reading {
    match std::fs::read(path) {
        Ok(bytes) => Reading::Value(String::from_utf8_lossy(&bytes).trim().to_owned()),
        Err(error) => failed(&error),
    }
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn failed(error: &io::Error) -> Reading {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Reading::Absent,
        _ => Reading::Unreadable(error.to_string()),
    }
}

/// The directory itself or the nearest above that exists, without links.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find_map(|above| above.canonicalize().ok()).unwrap_or_else(|| PathBuf::from("/"))
}
