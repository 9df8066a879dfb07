//! The checker: what the history says of the promises. It knows no socket and no cluster, only lines.
//!
//! In the manner of Jepsen's queue and total-order workloads, with what the cluster's page promises. What always holds:
//! a verdict names the message or the number it is about; a history in which nothing happened is not "well".

mod evidence;
mod order;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::history::Line;
pub(crate) use evidence::Evidence;

/// Verdicts of a kind that are kept with their words; of more only the number.
const WORDS_MAX: usize = 20;

/// What may be wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kind {
    /// Acked, or seen by somebody, and not in a recipient's inbox or not in the database.
    Lost,
    /// One message twice: under two numbers of its own, or two numbers of an inbox, or to a device again.
    Duplicated,
    /// One sender's messages, or a conversation's, otherwise than they were sent, or otherwise for others.
    Reordered,
    /// Refused for good, and there.
    Resurrected,
    /// Never sent, or not like this, or not to whom it came.
    Unexpected,
    /// A number that two messages have.
    NumberedTwice,
    /// An inbox's numbers do not rise.
    NotRising,
    /// The database has other rows than the inboxes.
    DatabaseDiffers,
    /// A device has not all rows of its inbox, and nothing that was done explains it.
    Skipped,
    /// A message has no answer though everything is well.
    Unanswered,
    /// A device was told or sent what the protocol does not allow.
    Broken,
    /// What the driver has seen: a process that crashed, or a cluster that does not become ready.
    Observed,
}

/// What was found.
#[derive(Default, Debug)]
pub(crate) struct Findings {
    /// Words, at most [`WORDS_MAX`] of a kind.
    words: BTreeMap<Kind, Vec<String>>,
    counts: BTreeMap<Kind, u64>,
}

impl Findings {
    /// Something is wrong.
    pub(crate) fn add(&mut self, kind: Kind, words: impl FnOnce() -> String) {
        *self.counts.entry(kind).or_default() += 1;
        let kept = self.words.entry(kind).or_default();
        if kept.len() < WORDS_MAX {
            kept.push(words());
        }
    }

    /// How often something of a kind was found.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// Each kind that was found, how often, and the first of them in words.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Kind, u64, &[String])> {
        self.words.iter().map(|(kind, words)| (*kind, self.count(*kind), words.as_slice()))
    }

    /// Nothing was.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

/// Checks a history: all of its lines, those of each file in their order.
pub(crate) fn check(lines: impl IntoIterator<Item = Line>) -> (Evidence, Findings) {
    let mut findings = Findings::default();
    let mut evidence = Evidence::default();
    for line in lines {
        evidence.take(line, &mut findings);
    }
    judge(&evidence, &mut findings);
    (evidence, findings)
}

/// Checks what was taken.
pub(crate) fn judge(evidence: &Evidence, findings: &mut Findings) {
    rules::whole(evidence, findings);
    rules::answers(evidence, findings);
    rules::numbers(evidence, findings);
    rules::streams(evidence, findings);
    rules::database(evidence, findings);
    order::of_senders(evidence, findings);
    order::of_conversations(evidence, findings);
}
