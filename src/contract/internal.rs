//! Internal errors: states that only a mistake of this program can bring about, where going on is better than ending.
//!
//! Each thread counts its own, in plain integers, and hands them to control with its report: control serves them as
//! `ringway_internal_errors_total{where}` and says in the log, once a minute for each place, where one was last met.
//! What always holds: a place is counted only where nothing that a peer, a disk or a database does can lead; on the
//! way of a message it costs nothing unless it happens. Tests fail if one was counted.

use std::cell::Cell;
use std::panic::Location;

macro_rules! places {
    ($($(#[$doc:meta])* $place:ident => $name:literal,)*) => {
        /// Where an internal error was met.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Place {
            $($(#[$doc])* $place,)*
        }

        impl Place {
            /// All of them, in the order of [`InternalErrors`].
            pub(crate) const ALL: &[Place] = &[$(Place::$place,)*];

            /// As a metric's label.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Place::$place => $name,)*
                }
            }
        }
    };
}

places! {
    /// A shard's table of connections and sessions.
    Sessions => "shard_sessions",
    /// A shard's tables by id.
    Index => "shard_index",
    /// A shard's users.
    Directory => "shard_directory",
    /// Who of a group is online.
    Audience => "shard_audience",
    /// The rosters of a shard's groups.
    Rosters => "shard_rosters",
    /// Deliveries into outboxes.
    Fanout => "shard_fanout",
    /// Pages for sessions that catch up.
    Pages => "shard_pages",
    /// Sessions on other nodes.
    RemoteSessions => "shard_remote_sessions",
    /// Sockets and what the shell knows of them.
    Connections => "net_connections",
    /// What a core wants passed on.
    Route => "net_route",
    /// Mailboxes and the threads' loops.
    Mailbox => "topology_mailbox",
    /// Numbers, names and groups of the ledger.
    Ledger => "ledger",
    /// Submissions that Redis has not settled.
    InFlight => "ledger_in_flight",
    /// Following the cluster's stream.
    Stream => "ledger_stream",
    /// The journal's records and segments.
    Journal => "journal",
    /// What is durable and not in the database yet.
    Tail => "store_tail",
    /// The store's batches and answers.
    Store => "store",
    /// Talking to Redis and to other nodes.
    Cluster => "cluster",
}

/// How many were counted, by place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InternalErrors {
    counts: [u64; Place::ALL.len()],
    last: Option<&'static Location<'static>>,
}

thread_local! {
    static HERE: Cell<InternalErrors> = const { Cell::new(InternalErrors::NONE) };
}

impl Default for InternalErrors {
    fn default() -> Self {
        InternalErrors::NONE
    }
}

impl InternalErrors {
    /// Nothing was counted.
    pub(crate) const NONE: InternalErrors = InternalErrors { counts: [0; Place::ALL.len()], last: None };

    /// What the calling thread has counted since it began.
    pub fn of_this_thread() -> InternalErrors {
        HERE.get()
    }

    /// Each place with its count.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Place, u64)> {
        std::iter::zip(Place::ALL.iter().copied(), self.counts)
    }

    /// Of all places.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// With what another thread has counted.
    #[must_use]
    pub(crate) fn with(mut self, other: &InternalErrors) -> InternalErrors {
        for (ours, (_, theirs)) in self.counts.iter_mut().zip(other.each()) {
            *ours += theirs;
        }
        self.last = other.last.or(self.last);
        self
    }

    /// Where in the code the last one was met.
    pub fn last(&self) -> Option<&'static Location<'static>> {
        self.last
    }

    fn add(&mut self, place: Place, at: &'static Location<'static>) {
        self.counts[place as usize] += 1;
        self.last = Some(at);
    }
}

/// Counts one, on the calling thread. What was to be done is left undone.
#[cold]
#[track_caller]
pub(crate) fn count(place: Place) {
    let mut here = HERE.get();
    here.add(place, Location::caller());
    HERE.set(here);
}

/// What is always there, unless this program is wrong.
pub(crate) trait OrCount {
    /// Counts an internal error if it is not there.
    #[must_use]
    fn or_count(self, place: Place) -> Self;
}

impl<T> OrCount for Option<T> {
    #[inline]
    #[track_caller]
    fn or_count(self, place: Place) -> Self {
        if self.is_none() {
            count(place);
        }
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_not_there_is_counted_once_where_it_is_missed() {
        let of_a_thread_of_its_own = std::thread::spawn(|| {
            assert_eq!(InternalErrors::of_this_thread(), InternalErrors::NONE);
            assert_eq!(Some(7).or_count(Place::Tail), Some(7));
            assert_eq!(InternalErrors::of_this_thread().total(), 0);
            assert_eq!(None::<u32>.or_count(Place::Tail), None);
            let errors = InternalErrors::of_this_thread();
            let counted: Vec<_> = errors.each().filter(|(_, count)| *count > 0).collect();
            assert_eq!(counted, [(Place::Tail, 1)]);
            assert_eq!(errors.last().map(Location::file), Some(file!()));
        });
        assert!(of_a_thread_of_its_own.join().is_ok());
    }

    /// The code of all files under a directory that are no tests', up to the tests in them.
    fn code_below(dir: &Path, code: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["tests", "sim", "chaos", "load", "client", "wire"].contains(&name) {
                code_below(&path, code);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = std::fs::read_to_string(&path).unwrap();
                code.push_str(text.split("\nmod tests {").next().unwrap());
            }
        }
    }

    #[test]
    fn each_place_is_counted_somewhere_in_the_gateway() {
        let mut code = String::new();
        code_below(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut code);
        let is_counted = |place: &Place| {
            ["count(Place", "count(internal::Place"].iter().any(|call| code.contains(&format!("{call}::{place:?})")))
        };
        let uncounted: Vec<&Place> = Place::ALL.iter().filter(|place| !is_counted(place)).collect();
        assert!(uncounted.is_empty(), "these are labels of a metric that can only be zero: {uncounted:?}");
    }

    #[test]
    fn no_two_places_have_one_name() {
        let mut names: Vec<&str> = Place::ALL.iter().map(|place| place.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Place::ALL.len());
    }
}
