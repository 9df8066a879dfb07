//! What clients do of their own accord, as chance has it.
//!
//! Part of the world. What always holds: each body is sent under one name and is like no other; what a client
//! asks is something the protocol allows it to ask, though not always something it is allowed to do.

use ringway_client::client_core::Question;
use ringway_wire::ids::{Conversation, GroupId, Seq, UserId};
use ringway_wire::schema::GroupChangeKind;

use crate::client::{Acks, Names};
use crate::ledger::Ledger;
use crate::model::{Checked, SendKind, SendNo};
use crate::world::World;

/// Requests a client has open at once.
const IN_FLIGHT_MAX: usize = 12;
/// Unanswered messages above which a greedy one waits.
const GREEDY_MAX: usize = 150;
/// Groups of one world.
const GROUPS_MAX: usize = 6;

impl World {
    /// One client does something.
    pub(crate) fn client_step(&mut self, at: usize) -> Checked {
        if !self.clients[at].is_live() || self.random.chance(1, 4) {
            return self.client_upkeep(at);
        }
        if self.clients[at].user == self.users[0] && self.plan.is_greedy && self.random.chance(1, 2) {
            return self.send_many(at);
        }
        if self.clients[at].check.in_flight() >= IN_FLIGHT_MAX {
            return Ok(());
        }
        match self.random.below(100) {
            0..28 => {
                let to = Conversation::User(self.any_user());
                self.new_send(at, to);
            }
            28..50 if self.plan.leaves => self.change_group(at),
            28..68 => match self.any_group(at) {
                Some(group) => self.new_send(at, Conversation::Group(group)),
                None => self.new_group(at),
            },
            68..71 => self.new_group(at),
            71..80 => self.change_group(at),
            80..86 => self.acknowledge(at),
            86..89 => {
                let after = Seq(self.random.below(self.clients[at].check.cursor as usize + 1) as u64);
                self.ask(at, Question::Sync { after, rows_max: self.random.between(1, 50) as u32 });
            }
            89..93 => self.ask_something(at),
            93..98 => self.send_again(at),
            _ => self.reuse_a_name(at),
        }
        self.transmit(at)
    }

    fn ask(&mut self, at: usize, question: Question<'_>) {
        self.clients[at].ask(self.now, question);
    }

    fn send(&mut self, at: usize, number: SendNo, names: Names) {
        self.clients[at].send(&self.model, self.now, number, names);
    }

    fn acknowledge(&mut self, at: usize) {
        let acks = if self.random.chance(1, 2) { Acks::AtOnce } else { Acks::Later };
        self.clients[at].acknowledge(self.now, acks);
    }

    /// Who is greedy sends all that the core keeps, and sooner than he gets answers.
    fn send_many(&mut self, at: usize) -> Checked {
        if self.clients[at].unanswered() < GREEDY_MAX {
            for _ in 0..self.random.between(10, 60) {
                let to = self.any_group(at).map_or(Conversation::User(self.any_user()), Conversation::Group);
                self.new_send(at, to);
            }
        }
        self.transmit(at)
    }

    fn any_user(&self) -> UserId {
        self.random.pick(&self.users).copied().unwrap_or_default()
    }

    fn any_users(&self) -> Vec<UserId> {
        let most = self.users.len();
        (0..1 + self.random.below(most)).map(|_| self.any_user()).collect()
    }

    /// Mostly a group that the client's user was in when last heard of.
    fn any_group(&self, at: usize) -> Option<GroupId> {
        let user = self.clients[at].user;
        let mine = |group: &&GroupId| self.model.was_member(**group, user);
        let all: Vec<GroupId> = self.model.groups.keys().copied().collect();
        let mine: Vec<GroupId> = all.iter().filter(mine).copied().collect();
        let from = if mine.is_empty() || self.random.chance(1, 20) { &all } else { &mine };
        self.random.pick(from).copied()
    }

    fn body(&self) -> Vec<u8> {
        let mut body = format!("message {}: ", self.model.sends.len()).into_bytes();
        let most = if self.plan.floods || self.random.chance(1, 4) {
            self.plan.body_bytes_max
        } else {
            100.min(self.plan.body_bytes_max)
        };
        let length = body.len() + self.random.below(most - body.len());
        body.resize(length, b'x');
        body
    }

    fn new_send(&mut self, at: usize, to: Conversation) {
        let ((name, names), body) = (self.clients[at].name(self.now, &self.random), self.body());
        let kind = match names {
            Names::Core(_) if self.random.chance(1, 10) => SendKind::Ephemeral,
            _ => SendKind::Stored,
        };
        let number = self.model.made(self.clients[at].user, to, name, body, kind);
        self.events.note(format!("client {at} makes {number:?} {name:?} to {to:?} {kind:?}"));
        self.send(at, number, names);
    }

    /// An acked message comes once more, now and then from long ago.
    fn send_again(&mut self, at: usize) {
        let acked = self.random.pick(&self.clients[at].check.acked).copied();
        match acked.filter(|number| !self.clients[at].keeps(*number)) {
            Some(number) => {
                self.events.note(format!("client {at} repeats {number:?}"));
                self.send(at, number, Names::User);
            }
            None => self.ask(at, Question::Ping),
        }
    }

    fn reuse_a_name(&mut self, at: usize) {
        let acked = self.random.pick(&self.clients[at].check.acked).copied();
        // Who does that where Redis loses what was acked may lose the first message.
        let Some(first) = acked.filter(|_| self.model.ledger != Ledger::ForgetfulRedis) else {
            return self.ask(at, Question::Ping);
        };
        let (sender, to, name) = {
            let send = &self.model.sends[first.0];
            (send.sender, send.to, send.name)
        };
        let body = self.body();
        let number = self.model.made(sender, to, name, body, SendKind::Reuse);
        self.events.note(format!("client {at} reuses the name of {first:?} for {number:?}"));
        self.send(at, number, Names::User);
    }

    fn new_group(&mut self, at: usize) {
        if self.model.groups.len() >= GROUPS_MAX {
            return self.acknowledge(at);
        }
        let users = self.any_users();
        self.ask(at, Question::GroupCreate { members: &users });
    }

    fn change_group(&mut self, at: usize) {
        let Some(group) = self.any_group(at) else { return self.new_group(at) };
        let kind = match self.random.below(10) {
            2.. if self.plan.leaves => GroupChangeKind::Left,
            0..5 => GroupChangeKind::Added,
            5..9 => GroupChangeKind::Removed,
            _ => GroupChangeKind::Left,
        };
        let user = self.clients[at].user;
        let others = match kind {
            GroupChangeKind::Left => Vec::new(),
            _ => self.any_users().into_iter().filter(|other| *other != user).collect(),
        };
        let members = others.as_slice();
        self.ask(
            at,
            match kind {
                GroupChangeKind::Left => Question::GroupLeave { group },
                _ if members.is_empty() => Question::GroupInfo { group },
                GroupChangeKind::Added => Question::GroupAdd { group, members },
                _ => Question::GroupRemove { group, members },
            },
        );
    }

    fn ask_something(&mut self, at: usize) {
        let users = self.any_users();
        let question = match (self.random.below(4), self.any_group(at)) {
            (0, Some(group)) => Question::GroupInfo { group },
            (0, None) => Question::GroupList,
            (1, _) => Question::Presence { users: &users },
            _ => Question::Ping,
        };
        self.ask(at, question);
    }
}
