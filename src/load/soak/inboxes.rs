//! What each client must receive, and what it did: every delivery is checked.
//!
//! Owned by a soak's process; knows no socket and no clock. A group's owner has one message open at a time and
//! numbers them from 0, so each member must get 0, 1, 2, ... of each of its groups, and nothing else; the same holds
//! for the one sender of a client's direct messages. That takes four bytes a membership. What always holds: a message
//! counts as delivered to a client at most once, and is missing until then, whatever came behind it.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::assignment::Assignment;
use super::orders::{Missing, Totals};
use crate::body;
use ringway_wire::ids::{Conversation, GroupId};
use ringway_wire::request::PushView;

/// The inboxes of a process's clients.
pub(crate) struct Inboxes {
    assignment: Assignment,
    run: u32,
    body_bytes: usize,
    /// The next message due, by membership: layer times clients, plus client.
    due: Vec<u32>,
    /// The next message due from the client's sender.
    direct_due: Vec<u32>,
    /// Messages passed over, by stream.
    passed: HashMap<u64, Vec<u32>, RandomState>,
    groups: HashMap<GroupId, u32, RandomState>,
}

/// One client's messages from one sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stream {
    /// Of a group, by its number in the plan.
    Group(u32),
    /// Those that its one sender sends it directly.
    Direct,
}

/// What a push was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Judged {
    /// A message that was due, sent at this time.
    Due(u64),
    /// A message of the client's own: its other copy was the ack.
    Own,
    /// Not what it should have been; it is in the totals.
    Wrong,
}

impl Inboxes {
    /// Nobody has anything yet.
    pub(crate) fn new(assignment: Assignment, run: u32, body_bytes: usize) -> Inboxes {
        let share = assignment.share() as usize;
        Inboxes {
            assignment,
            run,
            body_bytes,
            due: vec![0; share * assignment.layers() as usize],
            direct_due: vec![0; share],
            passed: HashMap::default(),
            groups: HashMap::default(),
        }
    }

    /// Learns a group's id.
    pub(crate) fn know(&mut self, group: u32, id: GroupId) {
        self.groups.insert(id, group);
    }

    /// Judges a push to a client by what it carries; its seq is judged where the cursor is.
    pub(crate) fn push(&mut self, local: u32, push: &PushView<'_>, totals: &mut Totals) -> Judged {
        let Some(mark) = body::read(push.body).filter(|m| m.run == self.run && push.body.len() == self.body_bytes)
        else {
            totals.corrupt += 1;
            return Judged::Wrong;
        };
        let user = self.assignment.user(local);
        let stream = match push.to {
            Conversation::Group(id) => {
                let group = self.groups.get(&id).copied();
                group.filter(|group| push.sender == self.assignment.member(*group, 0)).map(Stream::Group)
            }
            Conversation::User(_) if push.sender == user => return Judged::Own,
            Conversation::User(to) => {
                let from = self.assignment.sender(local).map(|from| self.assignment.user(from));
                (to == user && Some(push.sender) == from).then_some(Stream::Direct)
            }
        };
        let Some(place) = stream.and_then(|stream| self.place(local, stream)) else {
            // Nobody sent this client such a thing.
            totals.corrupt += 1;
            return Judged::Wrong;
        };
        if self.arrive(place, mark.index, totals) { Judged::Due(mark.sent_ns) } else { Judged::Wrong }
    }

    /// The client's own message to a group arrived, as its ack.
    pub(crate) fn own_row(&mut self, local: u32, group: u32, index: u32, totals: &mut Totals) {
        if let Some(place) = self.place(local, Stream::Group(group)) {
            self.arrive(place, index, totals);
        }
    }

    /// What is missing of what was acked: `acked` by group, `direct` by sending client. `state` says of a client
    /// whether it is logged in, or `None` if it never was.
    pub(crate) fn compare(
        &self,
        acked: &HashMap<u32, u32, RandomState>,
        direct: impl Fn(u32) -> u32,
        state: impl Fn(u32) -> Option<bool>,
    ) -> Missing {
        let mut missing = Missing::default();
        let share = self.assignment.share();
        for local in 0..share {
            let Some(live) = state(local) else { continue };
            let mut add = |due: u32, lost: u64| {
                missing.due += u64::from(due);
                *(if live { &mut missing.lost } else { &mut missing.away }) += lost;
            };
            for layer in 0..self.assignment.layers() {
                let Some(group) = self.assignment.group(local, layer) else { continue };
                let acked = acked.get(&group).copied().unwrap_or(0);
                add(acked, self.missing_at(layer as usize * share as usize + local as usize, acked));
            }
            if let Some(sender) = self.assignment.sender(local) {
                let acked = direct(sender);
                add(acked, self.missing_at(self.due.len() + local as usize, acked));
            }
        }
        missing
    }

    fn missing_at(&self, place: usize, acked: u32) -> u64 {
        let passed = self.passed.get(&(place as u64));
        let passed = passed.map_or(0, |passed| passed.iter().filter(|index| **index < acked).count());
        u64::from(acked.saturating_sub(self.due_at(place))) + passed as u64
    }

    /// Where a client's stream is counted: in `due`, or behind it in `direct_due`.
    fn place(&self, local: u32, stream: Stream) -> Option<usize> {
        match stream {
            Stream::Group(group) => {
                let layer = self.assignment.layer(local, group)?;
                Some(layer as usize * self.assignment.share() as usize + local as usize)
            }
            Stream::Direct => Some(self.due.len() + local as usize),
        }
    }

    fn due_at(&self, place: usize) -> u32 {
        let direct = || self.direct_due.get(place - self.due.len());
        self.due.get(place).or_else(direct).copied().unwrap_or(0)
    }

    /// True: the message had not arrived before.
    fn arrive(&mut self, place: usize, index: u32, totals: &mut Totals) -> bool {
        let groups = self.due.len();
        let Some(due) = self.due.get_mut(place).or_else(|| self.direct_due.get_mut(place - groups)) else {
            return false;
        };
        if index < *due {
            let passed = self.passed.get_mut(&(place as u64));
            let Some((passed, at)) = passed.and_then(|p| p.iter().position(|i| *i == index).map(|at| (p, at))) else {
                totals.duplicated += 1;
                return false;
            };
            passed.swap_remove(at);
        } else {
            if index > *due {
                totals.out_of_order += 1;
                self.passed.entry(place as u64).or_default().extend(*due..index);
            }
            *due = index + 1;
        }
        totals.delivered += 1;
        true
    }
}

#[cfg(test)]
mod tests;
