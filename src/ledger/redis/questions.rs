//! What shards ask about users and groups, answered when the stream has been read as far as it was when they asked.
//!
//! On the ledger's thread. What always holds: an answer stands among the deliveries where what it tells of does.

use std::collections::VecDeque;

use super::RedisEngine;
use super::link::What;
use super::session::Certainty;
use crate::contract::delivery::Delivery;
use crate::contract::ids::Origin;
use crate::contract::internal::{self, OrCount, Place};
use crate::contract::position::StreamPosition;
use crate::journal::disk::Disk;
use crate::ledger::pending_delivery::PendingDelivery;
use ringway_wire::ids::{GroupId, Seq, UserId};

/// Questions that wait until the stream has been read as far as it was when they were asked.
#[derive(Debug, Default)]
pub(super) struct Questions {
    pub(super) new: Vec<Question>,
    pub(super) asked: VecDeque<(Option<StreamPosition>, Vec<Question>)>,
}

impl Questions {
    /// The session is over: nobody will say any more how far the stream was.
    pub(super) fn lost(&mut self) {
        let asked = std::mem::take(&mut self.asked).into_iter().flat_map(|(_, questions)| questions);
        self.new = asked.chain(std::mem::take(&mut self.new)).collect();
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    Position { origin: Origin, user: UserId },
    Groups { origin: Origin, user: UserId },
    Roster(GroupId),
}

impl<D: Disk> RedisEngine<D> {
    /// Passes questions on: Redis says how far the stream is. Without Redis the answer is what this node knows.
    pub(super) fn ask(&mut self) {
        let followed = self.follower.followed.generation();
        if followed.is_none() || self.session.reads_another_snapshot(followed) {
            // Nothing of the stream has been read since the start: what this node knows may be less than a session.
            return;
        }
        if self.session.reading().is_none() {
            self.questions.lost();
            let all = std::mem::take(&mut self.questions.new);
            return all.into_iter().for_each(|question| self.answer(question));
        }
        if !self.questions.new.is_empty() && self.offer(What::Count) {
            let new = std::mem::take(&mut self.questions.new);
            self.questions.asked.push_back((None, new));
        }
        while let Some((Some(last), _)) = self.questions.asked.front()
            && *last <= self.follower.followed.seen()
        {
            let Some((_, questions)) = self.questions.asked.pop_front().or_count(Place::Stream) else { return };
            questions.into_iter().for_each(|question| self.answer(question));
        }
    }

    pub(super) fn counted(&mut self, last: StreamPosition) {
        match self.questions.asked.iter_mut().find(|(waiting, _)| waiting.is_none()) {
            Some((waiting, _)) => *waiting = Some(last),
            None if self.session.reading().is_some() => internal::count(Place::Stream),
            // The stream was found to be another one meanwhile, and they are asked again.
            None => {}
        }
    }

    fn answer(&mut self, question: Question) {
        let (groups, sequences) = (&self.follower.groups, &self.follower.sequences);
        self.answers.push(match question {
            Question::Position { origin, user } => {
                // Another node may have read more than this one, when it does not read, or all of them had.
                let reading = self.session.reading();
                let knows_all = reading.is_some_and(|reading| reading.certainty == Certainty::Confirmed);
                let given = if knows_all { sequences.floor() } else { Seq(u64::MAX) };
                PendingDelivery::Position { origin, user, newest: sequences.newest(user), given }
            }
            Question::Groups { origin, user } => {
                PendingDelivery::Groups { origin, user, groups: groups.of_user(user, sequences) }
            }
            Question::Roster(group) => {
                PendingDelivery::Delivery(Delivery::Roster { group, roster: groups.roster(group).cloned() })
            }
        });
    }
}
