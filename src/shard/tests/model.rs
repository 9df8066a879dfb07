//! The ledger and the store as the core may rely on them, in the simplest way: everything at once, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::contract::delivery::{Delivery, GroupAnnouncement};
use crate::contract::ids::{LedgerSlot, Origin, ShardId};
use crate::contract::message::{Incoming, Message, Roster, RosterMember};
use crate::contract::store::{Page, StoreAnswer, StoreAsk, Traced};
use crate::contract::submission::{ChangeSubmission, GroupChange, MessageSubmission, Submission};
use ringway_wire::frame::PushFrame;
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::request::{Adding, GroupEntry};
use ringway_wire::schema::{ErrorCode, GroupChangeKind, Role};

/// Nobody can add this one to a group.
pub(crate) const FULL: UserId = UserId(666_666);

/// Numbers rows and remembers everything.
pub(crate) struct Ledger {
    pub shards: u16,
    pub inboxes: BTreeMap<UserId, Vec<(Seq, Arc<Message>)>>,
    pub rosters: BTreeMap<GroupId, Arc<Roster>>,
    known: BTreeMap<(UserId, ClientMsgId), (MsgId, Seq)>,
    /// Rows up to here are gone.
    pub kept_after: BTreeMap<UserId, Seq>,
    pub cursors: BTreeMap<(UserId, DeviceId), Seq>,
    next_id: u64,
    /// Submissions taken, by kind.
    pub rosters_asked: usize,
}

pub(super) fn message(id: u64, sender: UserId, to: Conversation, body: &[u8]) -> Arc<Message> {
    let msg_id = MsgId(id);
    let push = PushFrame::encode(msg_id, sender, to, 1_000, body);
    Arc::new(Message { msg_id, sender, to, client_msg_id: ClientMsgId::default(), sent_at_ms: 1_000, push })
}

impl Ledger {
    pub(crate) fn new(shards: u16) -> Self {
        Ledger {
            shards,
            inboxes: BTreeMap::new(),
            rosters: BTreeMap::new(),
            known: BTreeMap::new(),
            kept_after: BTreeMap::new(),
            cursors: BTreeMap::new(),
            next_id: 1,
            rosters_asked: 0,
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn newest(&self, user: UserId) -> Seq {
        self.inboxes.get(&user).and_then(|rows| rows.last()).map_or(Seq(0), |row| row.0)
    }

    fn row(&mut self, user: UserId, message: &Arc<Message>) -> Seq {
        let seq = self.newest(user).next();
        self.inboxes.entry(user).or_default().push((seq, Arc::clone(message)));
        seq
    }

    /// Makes a group, or its next version, without telling any shard.
    pub(crate) fn set_members(&mut self, group: GroupId, members: &[u64]) -> Arc<Roster> {
        let version = self.rosters.get(&group).map_or(1, |roster| roster.version.0 + 1);
        let members = members
            .iter()
            .enumerate()
            .map(|(at, user)| RosterMember {
                user: UserId(*user),
                slot: LedgerSlot(*user as u32),
                role: if at == 0 { Role::Owner } else { Role::Member },
            })
            .collect();
        let roster = Arc::new(Roster::new(group, RosterVersion(version), members, self.shards));
        self.rosters.insert(group, Arc::clone(&roster));
        roster
    }

    /// A durable group message, by whomever.
    pub(crate) fn group_message(
        &mut self,
        roster: &Arc<Roster>,
        sender: UserId,
        body: &[u8],
        origin: Origin,
    ) -> Vec<(ShardId, Delivery)> {
        let message = message(self.id(), sender, Conversation::Group(roster.group), body);
        let seqs: Arc<[Seq]> = roster.members().iter().map(|member| self.row(member.user, &message)).collect();
        roster
            .shards()
            .map(|shard| {
                let (message, roster, seqs) = (Arc::clone(&message), Arc::clone(roster), Arc::clone(&seqs));
                (shard, Delivery::Group { message, roster, seqs, origin })
            })
            .collect()
    }

    pub(crate) fn direct_message(
        &mut self,
        sender: UserId,
        to: UserId,
        body: &[u8],
        origin: Origin,
    ) -> Vec<(ShardId, Delivery)> {
        let message = message(self.id(), sender, Conversation::User(to), body);
        let sender_seq = self.row(sender, &message);
        let recipient_seq = if to == sender { sender_seq } else { self.row(to, &message) };
        let mut homes = vec![ShardId::of_user(sender, self.shards), ShardId::of_user(to, self.shards)];
        homes.dedup();
        homes
            .into_iter()
            .map(|shard| (shard, Delivery::Direct { message: Arc::clone(&message), sender_seq, recipient_seq, origin }))
            .collect()
    }

    fn repeat(&self, origin: Origin, sender: UserId, name: ClientMsgId) -> Option<Vec<(ShardId, Delivery)>> {
        let (msg_id, seq) = *self.known.get(&(sender, name))?;
        Some(vec![(origin.session.shard, Delivery::Repeat { origin, msg_id, seq, sent_at_ms: 1_000 })])
    }

    fn message(&mut self, submission: MessageSubmission) -> Vec<(ShardId, Delivery)> {
        let Incoming { origin, sender, to, client_msg_id, .. } = submission.incoming;
        if let Some(repeat) = self.repeat(origin, sender, client_msg_id) {
            return repeat;
        }
        let refused = |code| vec![(origin.session.shard, Delivery::Refused { origin, code, retry_after_ms: 0 })];
        let out = match to {
            Conversation::User(to) => self.direct_message(sender, to, submission.incoming.body(), origin),
            Conversation::Group(group) => {
                let Some(roster) = self.rosters.get(&group).cloned() else { return refused(ErrorCode::UnknownGroup) };
                if roster.position(sender).is_none() {
                    return refused(ErrorCode::NotAMember);
                }
                self.group_message(&roster, sender, submission.incoming.body(), origin)
            }
        };
        let first = (MsgId(self.next_id), self.newest(sender));
        self.known.insert((sender, client_msg_id), first);
        out
    }

    pub(crate) fn submit(&mut self, submission: Submission) -> Vec<(ShardId, Delivery)> {
        match submission {
            Submission::Message(submission) => self.message(submission),
            Submission::Change(change) => self.change(change),
            Submission::Position { origin, user } => {
                vec![(origin.session.shard, Delivery::Position { origin, newest: self.newest(user), given: Seq(0) })]
            }
            Submission::Groups { origin, user } => {
                let entry = |roster: &Arc<Roster>| {
                    let members_count = roster.members().len() as u32;
                    let (group, version) = (roster.group, roster.version);
                    roster.role(user).map(|role| GroupEntry { group, version, role, members_count })
                };
                let groups = self.rosters.values().filter_map(entry).collect();
                vec![(origin.session.shard, Delivery::Groups { origin, groups })]
            }
            Submission::Made { .. } => panic!("only the API asks for it"),
            Submission::Sharing { origin, user, users } => {
                let users = users.into_iter().filter(|other| self.share(user, *other)).collect();
                vec![(origin.session.shard, Delivery::Sharing { origin, users })]
            }
            Submission::Ephemeral(incoming) => {
                let (origin, code) = (incoming.origin, ErrorCode::NotAllowed);
                let may = matches!(incoming.to, Conversation::User(to) if self.share(incoming.sender, to));
                let delivery = match may {
                    true => Delivery::Permitted { origin, incoming: Box::new(incoming) },
                    false => Delivery::Refused { origin, code, retry_after_ms: 0 },
                };
                vec![(origin.session.shard, delivery)]
            }
            Submission::Roster { shard, group } => {
                self.rosters_asked += 1;
                vec![(shard, Delivery::Roster { group, roster: self.rosters.get(&group).cloned() })]
            }
        }
    }

    fn share(&self, one: UserId, other: UserId) -> bool {
        self.rosters.values().any(|roster| roster.role(one).is_some() && roster.role(other).is_some())
    }

    /// Whoever asks may do it: who may is the real ledger's business.
    fn change(&mut self, submission: ChangeSubmission) -> Vec<(ShardId, Delivery)> {
        let ChangeSubmission { origin, actor, mut change, adding } = submission;
        let members = |ledger: &Ledger, group: &GroupId| -> Option<Vec<u64>> {
            Some(ledger.rosters.get(group)?.members().iter().map(|member| member.user.0).collect())
        };
        let mut left_out = Vec::new();
        if let GroupChange::Create(users) | GroupChange::Add(_, users) = &mut change
            && users.contains(&FULL)
        {
            if adding == Adding::All {
                let code = ErrorCode::TooManyGroups;
                return vec![(origin.session.shard, Delivery::NotAdded { origin, code, users: vec![FULL] })];
            }
            users.retain(|user| *user != FULL);
            left_out.push(FULL);
        }
        let (group, kind, users, members) = match change {
            GroupChange::Create(users) => {
                let group = GroupId(self.id());
                let all = [actor].into_iter().chain(users.iter().copied()).map(|user| user.0).collect();
                (group, GroupChangeKind::Created, users, Some(all))
            }
            GroupChange::Add(group, users) => {
                let all = members(self, &group).map(|mut all| {
                    all.extend(users.iter().map(|user| user.0));
                    all
                });
                (group, GroupChangeKind::Added, users, all)
            }
            GroupChange::Remove(group, users) => {
                let all = members(self, &group).map(|mut all| {
                    all.retain(|user| !users.contains(&UserId(*user)));
                    all
                });
                (group, GroupChangeKind::Removed, users, all)
            }
            GroupChange::Leave(group) => {
                let all = members(self, &group).map(|mut all| {
                    all.retain(|user| *user != actor.0);
                    all
                });
                (group, GroupChangeKind::Left, vec![actor], all)
            }
        };
        let Some(members) = members else {
            let code = ErrorCode::UnknownGroup;
            return vec![(origin.session.shard, Delivery::Refused { origin, code, retry_after_ms: 0 })];
        };
        let roster = self.set_members(group, &members);
        if members.is_empty() {
            self.rosters.remove(&group);
        }
        let announcement = Arc::new(GroupAnnouncement { kind, actor, users, left_out });
        (0..self.shards)
            .map(|shard| {
                let (roster, announcement) = (Arc::clone(&roster), Arc::clone(&announcement));
                (ShardId(shard), Delivery::Changed { origin, roster, announcement })
            })
            .collect()
    }

    /// The store sees all that is durable.
    pub(crate) fn ask(&mut self, ask: StoreAsk) -> Option<StoreAnswer> {
        match ask {
            StoreAsk::Page { session, purpose, user, after, rows_max } => {
                let kept_after = self.kept_after.get(&user).copied().unwrap_or_default();
                let rows = self.inboxes.get(&user).map(Vec::as_slice).unwrap_or_default();
                let from = after.max(kept_after);
                let rows = rows.iter().filter(|row| row.0 > from).take(usize::from(rows_max)).cloned().collect();
                let gap_to = (kept_after > after).then_some(kept_after);
                Some(StoreAnswer::Page { session, purpose, after, page: Page { rows, gap_to } })
            }
            StoreAsk::Cursor { origin, user, device } => {
                Some(StoreAnswer::Cursor { origin, seq: self.cursors.get(&(user, device)).copied() })
            }
            StoreAsk::SaveCursors(rows) => {
                for row in rows {
                    let cursor = self.cursors.entry((row.user, row.device)).or_default();
                    *cursor = row.seq.max(*cursor);
                }
                None
            }
            // No shard asks it.
            StoreAsk::Trace { origin, .. } => Some(StoreAnswer::Traced { origin, traced: Traced::Unavailable }),
        }
    }
}
