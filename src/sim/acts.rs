//! What clients do of their own accord, as chance has it.
//!
//! Part of the world. What always holds: each body is sent under one name and is like no other; what a client
//! asks is something the protocol allows it to ask, though not always something it is allowed to do.

use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, UserId};
use ringway_wire::schema::GroupChangeKind;

use crate::client::State;
use crate::model::{Checked, Ledger, SendKind};
use crate::world::World;

/// Requests a client has open at once.
const IN_FLIGHT_MAX: usize = 12;
/// Groups of one world.
const GROUPS_MAX: usize = 6;

impl World {
    /// One client does something.
    pub(crate) fn client_step(&mut self, at: usize) -> Checked {
        if self.clients[at].state != State::Online || self.random.chance(1, 4) {
            self.client_upkeep(at);
            return Ok(());
        }
        if self.clients[at].in_flight() >= IN_FLIGHT_MAX {
            return Ok(());
        }
        let bytes = match self.random.below(100) {
            0..28 => {
                let to = Conversation::User(self.any_user());
                self.new_send(at, to)
            }
            28..50 if self.plan.leaves => self.change_group(at),
            28..68 => match self.any_group(at) {
                Some(group) => self.new_send(at, Conversation::Group(group)),
                None => self.new_group(at),
            },
            68..71 => self.new_group(at),
            71..80 => self.change_group(at),
            80..86 => self.clients[at].acknowledge(),
            86..89 => {
                let after = self.random.below(self.clients[at].cursor as usize + 1) as u64;
                self.clients[at].sync(after, self.random.between(1, 50) as u32)
            }
            89..93 => self.ask_something(at),
            93..98 => self.send_again(at),
            _ => self.reuse_a_name(at),
        };
        self.transmit(at, &bytes);
        Ok(())
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

    fn name(&self) -> ClientMsgId {
        // The client's clock is a little off; ahead of the server's by less than is refused.
        let skew = self.random.between(0, 4_000);
        ClientMsgId::from_parts(self.now.unix_ms + 2_000 - skew, self.random.bits())
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

    fn new_send(&mut self, at: usize, to: Conversation) -> Vec<u8> {
        let kind = if self.random.chance(1, 20) { SendKind::Ephemeral } else { SendKind::Stored };
        let (name, body) = (self.name(), self.body());
        let number = self.model.made(self.clients[at].user, to, name, body, kind);
        self.events.note(format!("client {at} makes {number:?} {name:?} to {to:?} {kind:?}"));
        self.clients[at].send(&mut self.model, number)
    }

    /// An acked message comes once more, now and then from long ago.
    fn send_again(&mut self, at: usize) -> Vec<u8> {
        match self.random.pick(&self.clients[at].acked).copied() {
            Some(number) => {
                self.events.note(format!("client {at} repeats {number:?}"));
                self.clients[at].send(&mut self.model, number)
            }
            None => self.clients[at].other(2, &[]),
        }
    }

    fn reuse_a_name(&mut self, at: usize) -> Vec<u8> {
        if self.model.ledger == Ledger::ForgetfulRedis {
            // Who does that where Redis loses what was acked may lose the first message.
            return self.clients[at].other(2, &[]);
        }
        let Some(first) = self.random.pick(&self.clients[at].acked).copied() else {
            return self.clients[at].other(2, &[]);
        };
        let (sender, to, name) = {
            let send = &self.model.sends[first.0];
            (send.sender, send.to, send.name)
        };
        let body = self.body();
        let number = self.model.made(sender, to, name, body, SendKind::Reuse);
        self.events.note(format!("client {at} reuses the name of {first:?} for {number:?}"));
        self.clients[at].send(&mut self.model, number)
    }

    fn new_group(&mut self, at: usize) -> Vec<u8> {
        if self.model.groups.len() >= GROUPS_MAX {
            return self.clients[at].acknowledge();
        }
        let users = self.any_users();
        self.clients[at].change(&mut self.model, None, GroupChangeKind::Created, users)
    }

    fn change_group(&mut self, at: usize) -> Vec<u8> {
        let Some(group) = self.any_group(at) else { return self.new_group(at) };
        let kind = match self.random.below(10) {
            2.. if self.plan.leaves => GroupChangeKind::Left,
            0..5 => GroupChangeKind::Added,
            5..9 => GroupChangeKind::Removed,
            _ => GroupChangeKind::Left,
        };
        let user = self.clients[at].user;
        let users = match kind {
            GroupChangeKind::Left => Vec::new(),
            _ => self.any_users().into_iter().filter(|other| *other != user).collect(),
        };
        if users.is_empty() && kind != GroupChangeKind::Left {
            return self.clients[at].info(group);
        }
        self.clients[at].change(&mut self.model, Some(group), kind, users)
    }

    fn ask_something(&mut self, at: usize) -> Vec<u8> {
        let users = self.any_users();
        match (self.random.below(4), self.any_group(at)) {
            (0, Some(group)) => self.clients[at].info(group),
            (which, _) => self.clients[at].other(which.min(2), &users),
        }
    }
}
