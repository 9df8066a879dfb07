//! Faults that no cluster may have, put in on purpose: the simulator must report each of them.
//!
//! Pure. What always holds: with [`Mutation::None`] nothing is touched. They lie where the simulator stands in for
//! something: in its Redis, its database, its link between the two threads.

use ringway::ledger::redis::link::News;

use super::redis::Bent;

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Mutation {
    /// Nothing.
    #[default]
    None,
    /// What Redis does otherwise.
    Redis(Bent),
    /// A session that begins never finds other entries than the node has followed.
    KnowsNoOtherEntries,
    /// Two entries that are read at once change places, and their numbers do not.
    SwapsEntries,
}

/// All of them, with what the report must contain.
pub(crate) const MUTATIONS: [(Mutation, &str); 3] = [
    (Mutation::Redis(Bent::ClaimsNothing), "I4"),
    (Mutation::Redis(Bent::IgnoresVersions), "node"),
    (Mutation::SwapsEntries, ""),
];

impl Mutation {
    /// What the ledger is told in place of this.
    pub(super) fn bend_news(self, news: News) -> News {
        match (self, news) {
            (Mutation::SwapsEntries, News::Entries(mut entries)) => {
                if let [.., one, two] = entries.as_mut_slice() {
                    std::mem::swap(&mut one.entry, &mut two.entry);
                }
                News::Entries(entries)
            }
            (_, news) => news,
        }
    }
}
