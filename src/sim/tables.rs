//! What a simulated database has: tables, and what changes them.
//!
//! Pure. What always holds: a change is whole, or not there; and one that contradicts what is there says so.

use std::collections::{BTreeMap, BTreeSet};

use ringway::contract::store::{CursorRow, StorePosition};
use ringway::store::{GroupWrite, InboxRow, StoredBody};
use ringway_wire::ids::{ClientMsgId, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};

#[derive(Clone, Default)]
pub(crate) struct Tables {
    pub messages: BTreeMap<MsgId, StoredBody>,
    pub names: BTreeMap<(UserId, ClientMsgId), MsgId>,
    pub inbox: BTreeMap<(UserId, Seq), MsgId>,
    pub groups: BTreeMap<GroupId, (RosterVersion, BTreeMap<UserId, u8>)>,
    pub makers: BTreeMap<GroupId, UserId>,
    /// Groups that everybody has left.
    pub left: BTreeSet<GroupId>,
    pub cursors: BTreeMap<(UserId, DeviceId), Seq>,
    pub position: StorePosition,
    /// From here on it has every message that it was given.
    pub kept_from: MsgId,
    pub deleted: BTreeSet<MsgId>,
    /// Messages of which some rows are gone, or all.
    pub thinned: BTreeSet<MsgId>,
}

#[derive(Clone)]
pub(crate) enum Change {
    Applied {
        messages: Vec<StoredBody>,
        rows: Vec<InboxRow>,
        groups: Vec<GroupWrite>,
        at: StorePosition,
    },
    Cursors(Vec<CursorRow>),
    /// What is older goes.
    Deleted(MsgId),
}

impl Tables {
    /// Applies a change; returns what contradicts the tables.
    pub(crate) fn change(&mut self, change: &Change) -> Option<String> {
        let (messages, rows, groups, at) = match change {
            Change::Applied { messages, rows, groups, at } => (messages, rows, groups, *at),
            Change::Cursors(cursors) => {
                for row in cursors {
                    let kept = self.cursors.entry((row.user, row.device)).or_default();
                    *kept = (*kept).max(row.seq);
                }
                return None;
            }
            Change::Deleted(kept_from) => {
                self.delete_before(*kept_from);
                return None;
            }
        };
        if at.applied <= self.position.applied {
            return None;
        }
        let mut contradiction = None;
        for message in messages {
            let name = (message.sender, message.client_msg_id);
            let kept = *self.names.entry(name).or_insert(message.msg_id);
            if kept != message.msg_id {
                contradiction = Some(format!("I4: {name:?} is stored as {kept:?} and again as {:?}", message.msg_id));
            }
            if self.deleted.contains(&message.msg_id) {
                contradiction = Some(format!("retention: {:?} was deleted, and is stored again", message.msg_id));
            }
            self.messages.entry(message.msg_id).or_insert_with(|| message.clone());
        }
        for row in rows {
            let kept = *self.inbox.entry((row.user, row.seq)).or_insert(row.msg_id);
            if kept != row.msg_id {
                contradiction =
                    Some(format!("I2: {:?} {:?} is stored as {kept:?} and as {:?}", row.user, row.seq, row.msg_id));
            }
        }
        for write in groups {
            self.write_group(write);
        }
        self.position = StorePosition { msg_id_max: self.position.msg_id_max.max(at.msg_id_max), ..at };
        contradiction
    }

    /// Each inbox loses its oldest rows, as far as they are older, but not the newest one; and with its last row goes a
    /// message.
    fn delete_before(&mut self, kept_from: MsgId) {
        self.kept_from = self.kept_from.max(kept_from);
        let mut newest: BTreeMap<UserId, Seq> = BTreeMap::new();
        newest.extend(self.inbox.keys().copied());
        let (mut keeps, thinned) = (BTreeSet::new(), &mut self.thinned);
        self.inbox.retain(|(user, seq), msg_id| {
            let goes = *msg_id < kept_from && newest.get(user) != Some(seq) && !keeps.contains(user);
            if goes {
                thinned.insert(*msg_id);
            } else {
                keeps.insert(*user);
            }
            !goes
        });
        let referred: BTreeSet<MsgId> = self.inbox.values().copied().collect();
        let (gone, kept) = std::mem::take(&mut self.messages)
            .into_iter()
            .partition(|(msg_id, _)| *msg_id < kept_from && !referred.contains(msg_id));
        self.messages = kept;
        let gone: BTreeMap<MsgId, StoredBody> = gone;
        self.names.retain(|_, msg_id| !gone.contains_key(msg_id));
        self.deleted.extend(gone.into_keys());
    }

    fn write_group(&mut self, write: &GroupWrite) {
        let (version, members) = self.groups.entry(write.group).or_default();
        if write.version <= *version {
            return;
        }
        *version = write.version;
        for user in &write.delete {
            members.remove(user);
        }
        members.extend(write.put.iter().map(|(user, role)| (*user, role.0)));
        self.makers.extend(write.maker.map(|maker| (write.group, maker)));
        if members.is_empty() {
            self.left.insert(write.group);
            self.groups.remove(&write.group);
            self.makers.remove(&write.group);
        }
    }
}
