//! Faults that no cluster may have, put in on purpose: the simulator must report each of them.
//!
//! Pure. What always holds: with [`Mutation::None`] nothing is touched. They lie where the simulator stands in for
//! something: in its Redis, its database, its link between the two threads.

use ringway::ledger::redis::link::{Found, News, Reply, What};
use ringway_wire::ids::Seq;

use super::redis::Bent;
use crate::mutation as gateway;
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
    /// The ledger is told its own clock's time as Redis's.
    HidesSkew,
    /// Two processes with one data directory, or a copy of it, are one to Redis.
    SharesTokens,
    /// The header of a copy that has no entry counts as something to be stored.
    CountsHeader,
    /// A stream is followed again, whatever entries it has under the numbers of those that were read.
    FollowsAnyEntries,
    /// What is stored is written behind whatever entry the database has at its position.
    WritesBehindAnyEntry,
    /// What each gateway does otherwise.
    Gateways(gateway::Mutation),
}

/// All of them, with what the report must contain, and a seed that reports it, which is tried first.
pub(crate) const MUTATIONS: [(Mutation, &str, u64); 27] = [
    (Mutation::HidesLostSessions, "liveness", 5),
    (Mutation::Redis(Bent::ClaimsNothing), "I4", 2),
    (Mutation::Redis(Bent::IgnoresVersions), "cannot be understood", 10),
    (Mutation::Redis(Bent::CutsUnread), "which nothing has deleted", 5),
    (Mutation::Database(Untrue::HidesThatItWentBack), "I3", 10),
    (Mutation::Database(Untrue::LosesRows), "I3", 2),
    (Mutation::Database(Untrue::FindsNothing), "I4", 5),
    (Mutation::SwapsEntries, "cannot be understood", 37),
    (Mutation::SwapsCalls, "order", 5),
    (Mutation::SeedsLow, "numbers rows above", 3),
    (Mutation::TakesRepeatsForAppended, "liveness", 15),
    (Mutation::SwapsReplies, "I4", 2),
    (Mutation::Redis(Bent::ConfirmsItself), "SeqAhead", 58),
    (Mutation::Database(Untrue::ForgetsNewestMessage), "I4", 18),
    (Mutation::HidesSkew, "clock", 57),
    (Mutation::SharesTokens, "number as one node", 37),
    (Mutation::Redis(Bent::VouchesForForgotten), "I4", 76),
    (Mutation::Database(Untrue::ForgetsRetention), "was deleted, and is stored again", 161),
    (Mutation::Database(Untrue::KeepsLocks), "liveness", 7),
    (Mutation::Redis(Bent::DeniesHeartbeats), "liveness", 6),
    (Mutation::FollowsAnyEntries, "I1", 77),
    (Mutation::WritesBehindAnyEntry, "I2", 55),
    (Mutation::Database(Untrue::ForgetsWhoHasLeft), "was announced, and the ledger has", 173),
    (Mutation::CountsHeader, "would wait for its store", 11),
    (Mutation::Gateways(gateway::Mutation::StopsAtHostile), "liveness", 8),
    (Mutation::Gateways(gateway::Mutation::TrustsHostile), "that nobody sent", 72),
    (Mutation::Gateways(gateway::Mutation::Unlimited), "and may send", 7),
];

impl Mutation {
    /// What each gateway does otherwise.
    pub(super) fn of_gateways(self) -> gateway::Mutation {
        match self {
            Mutation::Gateways(mutation) => mutation,
            _ => gateway::Mutation::None,
        }
    }

    /// What Redis does otherwise.
    pub(super) fn of_redis(self) -> Bent {
        match self {
            Mutation::Redis(bent) => bent,
            // Sessions are told apart beside tokens.
            Mutation::SharesTokens => Bent::TakesOldSessions,
            _ => Bent::No,
        }
    }

    /// What the ledger is told in place of this, if anything.
    pub(super) fn bend_news(self, news: News, unix_ms: u64) -> Option<News> {
        Some(match (self, news) {
            (Mutation::HidesSkew, News::Clock { generation, count, .. }) => {
                News::Clock { generation, count, redis_ms: unix_ms }
            }
            (Mutation::HidesSkew, News::Status { session, found: Some(found), highest }) => {
                News::Status { session, found: Some(Found { now_ms: unix_ms, ..found }), highest }
            }
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
            (Mutation::HidesLostSessions, News::Disconnected | News::OtherGeneration) => return None,
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
            (Mutation::FollowsAnyEntries, What::Follow { generation, after, .. }) => {
                What::Follow { generation, after, known: Vec::new() }
            }
            (_, what) => what,
        }
    }
}
