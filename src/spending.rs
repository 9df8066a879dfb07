//! What those who send have taken of their limits lately.
//!
//! Owned by a shard or by the ledger, each for itself. What always holds: it has its size from the start and is never
//! searched as a whole; whoever sends nothing costs nothing; where places run out, those are forgotten who owe least, so
//! that nobody gets rid of what he owes by the help of accounts that owe less. Its hash is keyed.

use crate::contract::keyed::TableKey;
use crate::contract::traffic::{Limited, TrafficLimit, TrafficLimits};
use crate::rate::Spent;
use ringway_wire::ids::{Conversation, UserId};

/// Places that an id may have: two or three cache lines.
const WAYS: usize = 8;
/// Sets of so many places: 32,768 who owe something at the same time, in 1 MiB at most.
const SETS: usize = 4_096;

/// What each of some has taken of `N` rates.
#[derive(Debug)]
pub(crate) struct Spending<const N: usize> {
    key: TableKey,
    /// Made when the first one spends.
    sets: Vec<[Entry<N>; WAYS]>,
}

#[derive(Clone, Copy, Debug)]
struct Entry<const N: usize> {
    id: u64,
    spent: [Spent; N],
}

impl<const N: usize> Spending<N> {
    /// Nobody has spent anything.
    pub(crate) fn new(key: TableKey) -> Self {
        Spending { key, sets: Vec::new() }
    }

    /// What this one has spent; room is made for it.
    pub(crate) fn of(&mut self, id: u64) -> &mut [Spent; N] {
        if self.sets.is_empty() {
            self.sets = vec![[Entry { id: 0, spent: [Spent::default(); N] }; WAYS]; SETS];
        }
        let set = &mut self.sets[self.key.hash(id) as usize % SETS];
        let at = set.iter().position(|entry| entry.id == id).unwrap_or_else(|| {
            let owes_least = (0..WAYS).min_by_key(|at| set[*at].spent.iter().max().copied());
            let at = owes_least.unwrap_or_default();
            set[at] = Entry { id, spent: [Spent::default(); N] };
            at
        });
        &mut set[at].spent
    }
}

/// What is counted where a group's members are known: of messages, rows by sender, and messages and rows by group; of
/// changes, groups made and members added by who does it; recipients that nobody has written to, by who does.
#[derive(Debug)]
pub(crate) struct FanoutSpending {
    senders: Spending<1>,
    groups: Spending<2>,
    makers: Spending<2>,
    writers: Spending<1>,
}

impl FanoutSpending {
    /// Nobody has sent anything.
    pub(crate) fn new(key: TableKey) -> Self {
        FanoutSpending {
            senders: Spending::new(key.derived(1)),
            groups: Spending::new(key.derived(2)),
            makers: Spending::new(key.derived(3)),
            writers: Spending::new(key.derived(4)),
        }
    }

    /// Takes a change of a group of all limits that it counts for, or of none.
    pub(crate) fn take_change(
        &mut self,
        now_ms: u64,
        limits: &TrafficLimits,
        actor: UserId,
        change: Making,
    ) -> Result<(), Limited> {
        let Making { groups, members } = change;
        if members == 0 {
            return Ok(());
        }
        let [made, added] = self.makers.of(actor.0);
        let after = (
            made.with(now_ms, &limits.user_groups_made, groups).map_err(met(TrafficLimit::UserGroupsMade))?,
            added.with(now_ms, &limits.user_members_added, members).map_err(met(TrafficLimit::UserMembersAdded))?,
        );
        (*made, *added) = after;
        Ok(())
    }

    /// Takes a message to so many recipients of all limits that it counts for, or of none.
    pub(crate) fn take(
        &mut self,
        now_ms: u64,
        limits: &TrafficLimits,
        (sender, to): (UserId, Conversation),
        rows: usize,
        recipient: Recipient,
    ) -> Result<(), Limited> {
        let [of_writer] = self.writers.of(sender.0);
        let recipients = match recipient {
            Recipient::Known => *of_writer,
            Recipient::New => {
                let limit = TrafficLimit::UserRecipientsNew;
                of_writer.with(now_ms, &limits.user_recipients_new, 1).map_err(met(limit))?
            }
        };
        let rows = rows as u64;
        let [of_sender] = self.senders.of(sender.0);
        let sender_rows = of_sender.with(now_ms, &limits.user_rows, rows).map_err(met(TrafficLimit::UserRows))?;
        if let Conversation::Group(group) = to {
            let [sends, group_rows] = self.groups.of(group.0);
            let after = (
                sends.with(now_ms, &limits.group_sends, 1).map_err(met(TrafficLimit::GroupSends))?,
                group_rows.with(now_ms, &limits.group_rows, rows).map_err(met(TrafficLimit::GroupRows))?,
            );
            (*sends, *group_rows) = after;
        }
        (*of_writer, *of_sender) = (recipients, sender_rows);
        Ok(())
    }
}

/// Whom a one-to-one message goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Recipient {
    /// Somebody who has sent or received something before, or is in a group; or it goes to a group.
    Known,
    /// Nobody that the ledger knows.
    New,
}

/// What a change of a group makes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Making {
    /// New groups.
    pub(crate) groups: u64,
    /// New members, the maker of a new group included.
    pub(crate) members: u64,
}

/// A limit is met, and lets go again after so long.
pub(crate) fn met(limit: TrafficLimit) -> impl Fn(u32) -> Limited {
    move |retry_after_ms| Limited { limit, retry_after_ms }
}

#[cfg(test)]
mod tests;
