//! What several parts of the gateway hold together: a numbered message and a group's roster.
//!
//! Both are immutable once made and cross threads inside an `Arc`: a message is made by the ledger (or, when
//! ephemeral, by the group's shard), a roster by the ledger. What always holds: a roster is sorted by
//! (shard of the user, user), so each shard's members are one range of it, and the ledger's `seqs` for a
//! message run parallel to `Roster::members`.

use std::ops::Range;

use crate::contract::ids::{LedgerSlot, ShardId};
use ringway_wire::frame::PushFrame;
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::request::PushView;
use ringway_wire::schema::Role;

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
    pub fn view(&self, seq: Seq) -> PushView<'_> {
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

    /// Of a group that does not exist, or no longer: nobody, at a version that no group has.
    pub fn of_nobody(group: GroupId) -> Self {
        Roster { group, version: RosterVersion(0), members: Vec::new(), ends: Vec::new() }
    }

    /// All members, by (home shard, user).
    pub fn members(&self) -> &[RosterMember] {
        &self.members
    }

    /// Where in [`Self::members`] a shard's members stand.
    pub fn range(&self, shard: ShardId) -> Range<usize> {
        let at = usize::from(shard.0);
        let start = if at == 0 { 0 } else { self.ends.get(at - 1).copied().unwrap_or(0) };
        let end = self.ends.get(at).copied().unwrap_or(start);
        start as usize..end as usize
    }

    /// The user's index in [`Self::members`], by binary search.
    pub fn position(&self, user: UserId) -> Option<usize> {
        let shards = self.ends.len() as u16;
        let key = (ShardId::of_user(user, shards), user);
        self.members.binary_search_by_key(&key, |m| (ShardId::of_user(m.user, shards), m.user)).ok()
    }

    /// The user's role, if a member.
    pub fn role(&self, user: UserId) -> Option<Role> {
        self.position(user).and_then(|at| self.members.get(at)).map(|m| m.role)
    }

    /// The shards that have at least one member.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        (0..self.ends.len() as u16).map(ShardId).filter(|s| !self.range(*s).is_empty())
    }
}
