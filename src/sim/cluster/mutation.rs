//! Faults that no cluster may have, put in on purpose: the simulator must report each of them.
//!
//! Pure. What always holds: with [`Mutation::None`] nothing is touched. They lie where the simulator stands in for
//! something: in its Redis, its database, its link between the two threads.

use ringway::ledger::redis::link::{News, Reply, What};
use ringway_wire::ids::Seq;

use super::redis::Bent;
use crate::store::Untrue;

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Mutation {
    /// Nothing.
    #[default]
    None,
    /// What Redis does otherwise.
    Redis(Bent),
    /// What the database does otherwise.
    Database(Untrue),
    /// Two entries that are read at once change places, and their numbers do not.
    SwapsEntries,
    /// Calls change places.
    SwapsCalls,
    /// A new generation's rows are numbered from the beginning.
    SeedsLow,
    /// Who sent a repeat is told nothing of it.
    TakesRepeatsForAppended,
    /// The replies to a call change places.
    SwapsReplies,
    /// The ledger does not hear that a session has ended.
    HidesLostSessions,
}

/// All of them, with what the report must contain, and a seed that reports it, which is tried first.
pub(crate) const MUTATIONS: [(Mutation, &str, u64); 12] = [
    (Mutation::HidesLostSessions, "liveness", 1),
    (Mutation::Redis(Bent::ClaimsNothing), "I4", 1),
    (Mutation::Redis(Bent::IgnoresVersions), "cannot be understood", 5),
    (Mutation::Redis(Bent::CutsUnread), "liveness", 11),
    (Mutation::Database(Untrue::HidesThatItWentBack), "I3", 4),
    (Mutation::Database(Untrue::LosesRows), "I3", 3),
    (Mutation::Database(Untrue::FindsNothing), "I4", 1),
    (Mutation::SwapsEntries, "cannot be understood", 14),
    (Mutation::SwapsCalls, "order", 10),
    (Mutation::SeedsLow, "numbers rows above", 7),
    (Mutation::TakesRepeatsForAppended, "liveness", 1),
    (Mutation::SwapsReplies, "I4", 6),
];

impl Mutation {
    /// What the ledger is told in place of this, if anything.
    pub(super) fn bend_news(self, news: News) -> Option<News> {
        Some(match (self, news) {
            (Mutation::SwapsEntries, News::Entries(mut entries)) => {
                if let [.., one, two] = entries.as_mut_slice() {
                    std::mem::swap(&mut one.entry, &mut two.entry);
                }
                News::Entries(entries)
            }
            (Mutation::TakesRepeatsForAppended, News::Replies { mut replies, count }) => {
                for reply in replies.iter_mut().filter(|reply| matches!(reply, Reply::Repeat(_))) {
                    *reply = Reply::Appended;
                }
                News::Replies { replies, count }
            }
            (Mutation::SwapsReplies, News::Replies { mut replies, count }) => {
                replies.reverse();
                News::Replies { replies, count }
            }
            (Mutation::HidesLostSessions, News::Disconnected) => return None,
            (_, news) => news,
        })
    }

    /// What the session is ordered in place of this.
    pub(super) fn bend_order(self, what: What) -> What {
        match (self, what) {
            (Mutation::SwapsCalls, What::Submit { generation, mut calls }) => {
                calls.reverse();
                What::Submit { generation, calls }
            }
            (Mutation::SeedsLow, What::Seed { generation, base, groups, .. }) => {
                What::Seed { generation, base, floor: Seq(0), groups }
            }
            (_, what) => what,
        }
    }
}
