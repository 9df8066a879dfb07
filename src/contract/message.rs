//! What several parts of the gateway hold together: a message on its way in, a numbered message, a group's roster.
//!
//! A message on its way in has one owner, who moves it on; numbering it consumes it. A numbered message and a roster
//! are immutable and cross threads inside an `Arc`: a message is numbered by the ledger (or, when ephemeral, by its
//! group's shard), a roster is made by the ledger. What always holds: a body is copied once between the read buffer
//! and every outbox, into the push that all recipients share; a roster is sorted by (shard of the user, user), so each
//! shard's members are one range of it, and the ledger's `seqs` for a message run parallel to `Roster::members`.

use std::ops::Range;

use crate::contract::ids::{LedgerSlot, Origin, ShardId};
use crate::contract::internal::{OrCount, Place};
use ringway_wire::frame::PushFrame;
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::push::PushDraft;
use ringway_wire::request::PushView;
use ringway_wire::schema::Role;

/// A message on its way in: made once, where it is read, and moved until it is numbered, refused or found a repeat.
#[derive(Debug)]
pub struct Incoming {
    /// The sending session, which is answered.
    pub(crate) origin: Origin,
    /// That session's user.
    pub sender: UserId,
    /// Where it is addressed: a user (perhaps the sender) or a group.
    pub to: Conversation,
    /// The sender's name for it; of no meaning in an ephemeral message.
    pub client_msg_id: ClientMsgId,
    /// Its push, with a body of 1 to `BODY_BYTES_MAX` bytes and without a number.
    push: PushDraft,
}

impl Incoming {
    /// Copies the body.
    pub fn new(origin: Origin, sender: UserId, to: Conversation, client_msg_id: ClientMsgId, body: &[u8]) -> Incoming {
        Incoming { origin, sender, to, client_msg_id, push: PushDraft::encode(sender, to, body) }
    }

    /// What is said.
    pub fn body(&self) -> &[u8] {
        self.push.body()
    }

    /// The message, now that it has a number.
    pub(crate) fn numbered(self, msg_id: MsgId) -> Message {
        let Incoming { sender, to, client_msg_id, push, .. } = self;
        let sent_at_ms = msg_id.sent_at_ms();
        Message { msg_id, sender, to, client_msg_id, sent_at_ms, push: push.numbered(msg_id, sent_at_ms) }
    }
}

/// A message as recipients see it, with its frame encoded once for all of them.
#[derive(Debug)]
pub struct Message {
    /// Its number; 0 only in tests.
    pub msg_id: MsgId,
    /// Who sent it.
    pub sender: UserId,
    /// Where it was addressed.
    pub to: Conversation,
    /// The sender's own name for it.
    pub client_msg_id: ClientMsgId,
    /// The ledger's time when it was numbered, Unix milliseconds.
    pub sent_at_ms: u64,
    /// The encoded Push frame, `seq` to be patched per recipient.
    pub push: PushFrame,
}

impl Message {
    /// The message as a recipient sees it, who has it as row `seq`.
    pub(crate) fn view(&self, seq: Seq) -> PushView<'_> {
        let body = self.push.body();
        PushView { seq, msg_id: self.msg_id, sender: self.sender, to: self.to, sent_at_ms: self.sent_at_ms, body }
    }
}

/// One member of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RosterMember {
    /// Who.
    pub user: UserId,
    /// The user's index in the ledger's table of seqs.
    pub slot: LedgerSlot,
    /// Owner or member.
    pub role: Role,
}

/// A group's members at one version. Replaced, never changed.
#[derive(PartialEq, Eq, Debug)]
pub struct Roster {
    /// Whose members.
    pub group: GroupId,
    /// Which version, from 1.
    pub version: RosterVersion,
    members: Vec<RosterMember>,
    /// `ends[s]` is where shard `s`'s members end; they start where the shard's before end.
    ends: Vec<u32>,
}

impl Roster {
    /// Sorts `members` by home shard and user. A user named twice stays once, with the first one's role.
    pub fn new(group: GroupId, version: RosterVersion, mut members: Vec<RosterMember>, shards: u16) -> Self {
        members.sort_by_key(|m| (ShardId::of_user(m.user, shards), m.user));
        members.dedup_by_key(|m| m.user);
        let mut ends = vec![0u32; usize::from(shards)];
        for member in &members {
            ends[usize::from(ShardId::of_user(member.user, shards).0)] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        Roster { group, version, members, ends }
    }

    /// All members, by (home shard, user).
    pub fn members(&self) -> &[RosterMember] {
        &self.members
    }

    /// Where in [`Self::members`] a shard's members stand.
    pub(crate) fn range(&self, shard: ShardId) -> Range<usize> {
        let at = usize::from(shard.0);
        let Some(end) = self.ends.get(at).or_count(Place::Rosters) else { return 0..0 };
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        start as usize..*end as usize
    }

    /// The user's index in [`Self::members`], by binary search.
    pub(crate) fn position(&self, user: UserId) -> Option<usize> {
        let shards = self.ends.len() as u16;
        let key = (ShardId::of_user(user, shards), user);
        self.members.binary_search_by_key(&key, |m| (ShardId::of_user(m.user, shards), m.user)).ok()
    }

    /// The user's role, if a member.
    pub(crate) fn role(&self, user: UserId) -> Option<Role> {
        self.position(user).and_then(|at| self.members.get(at)).map(|m| m.role)
    }

    /// Who owns the group; `None`: it has no members.
    pub(crate) fn owner(&self) -> Option<UserId> {
        self.members.iter().find(|member| member.role == Role::Owner).map(|member| member.user)
    }

    /// The shards that have at least one member.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        (0..self.ends.len() as u16).map(ShardId).filter(|s| !self.range(*s).is_empty())
    }
}
