//! A host whose files were recorded, for tests: a directory with `proc/` and `sys/` as they were there, and
//! `facts.toml` with what no file tells.
//!
//! A record may name another one that it is `like`: what it does not hold itself is looked for there. So a host that
//! differs in one thing is a record of one thing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::doctor::host::{DiskSpace, Machine, Reading, live};
use crate::doctor::uring::{RingCall, Uring};

/// Where the records are.
const RECORDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctor/hosts");

/// `facts.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    /// A record beside this one, for everything that is not in this one.
    like: Option<String>,
    /// Paths that are not there, though they are in the record that this one is like.
    #[serde(default)]
    absent: Vec<String>,
    /// Paths that may not be read, and the error.
    #[serde(default)]
    unreadable: BTreeMap<String, String>,
    /// What io_uring answered.
    uring: Option<UringFacts>,
    /// Bytes left on the data directory's file system.
    free_bytes: Option<u64>,
}

/// [`Uring`], as it is written down.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum UringFacts {
    Works { missing: Vec<String> },
    Refused { call: CallFacts, errno: i32 },
    Mute { errno: i32 },
}

/// [`RingCall`], as it is written down.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CallFacts {
    Setup,
    Register,
    Enter,
}

/// A recorded host: its own files and facts, then those of the records it is like.
pub(crate) struct Record {
    layers: Vec<(PathBuf, Facts)>,
}

impl Record {
    /// The one of this name.
    pub(crate) fn open(name: &str) -> Record {
        let mut layers: Vec<(PathBuf, Facts)> = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next {
            let directory = Path::new(RECORDS).join(&name);
            assert!(layers.iter().all(|(path, _)| *path != directory), "{name} is like itself");
            let facts: Facts = toml::from_str(&std::fs::read_to_string(directory.join("facts.toml")).unwrap()).unwrap();
            next = facts.like.clone();
            layers.push((directory, facts));
        }
        Record { layers }
    }

    fn fact<T>(&self, what: &str, of: impl Fn(&Facts) -> Option<T>) -> T {
        self.layers.iter().find_map(|(_, facts)| of(facts)).expect(what)
    }
}

impl Machine for Record {
    fn sysctl(&self, name: &str) -> Reading {
        self.file(&format!("/proc/sys/{}", name.replace('.', "/")))
    }

    fn file(&self, path: &str) -> Reading {
        for (directory, facts) in &self.layers {
            if facts.absent.iter().any(|absent| absent == path) {
                return Reading::Absent;
            }
            if let Some(error) = facts.unreadable.get(path) {
                return Reading::Unreadable(error.clone());
            }
            match live::read(&directory.join(path.trim_start_matches('/'))) {
                Reading::Absent => {}
                found => return found,
            }
        }
        Reading::Absent
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let inside = directory.trim_start_matches('/');
        let mut names: Vec<String> =
            self.layers.iter().flat_map(|(layer, _)| live::names(&layer.join(inside))).collect();
        names.sort();
        names.dedup();
        names
    }

    fn uring(&self) -> Uring {
        match self.fact("a record says what io_uring answered", |facts| facts.uring.clone()) {
            UringFacts::Works { missing } => Uring::Works { missing },
            UringFacts::Refused { call, errno } => Uring::Refused {
                call: match call {
                    CallFacts::Setup => RingCall::Setup,
                    CallFacts::Register => RingCall::Register,
                    CallFacts::Enter => RingCall::Enter,
                },
                errno,
            },
            UringFacts::Mute { errno } => Uring::Mute { errno },
        }
    }

    fn disk(&self, data_dir: &Path) -> DiskSpace {
        let free_bytes = self.fact("a record says what is left on the disk", |facts| facts.free_bytes);
        DiskSpace { directory: data_dir.to_string_lossy().into_owned(), free_bytes: Ok(free_bytes) }
    }
}
