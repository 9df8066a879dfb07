//! Messages to groups that Redis was given and that are not settled, and at which version of their group each was.
//!
//! Owned by what is in flight. Redis takes a message only at the group's current version: when the group has changed, those
//! that are on their way come back, and must go before what was sent to the group later. What always holds: all of a group
//! that are on their way are of one version, because those of a newer one wait; so the first one's tells.

use std::collections::{BTreeSet, HashMap};

use crate::contract::keyed::TableKey;
use ringway_wire::ids::{GroupId, MsgId, RosterVersion};

/// What is on its way, by group.
#[derive(Debug, Default)]
pub(super) struct GroupCalls {
    groups: HashMap<GroupId, InTransit, TableKey>,
}

/// What is on its way to one group.
#[derive(Debug)]
struct InTransit {
    version: RosterVersion,
    messages: BTreeSet<MsgId>,
}

impl GroupCalls {
    /// Redis is given a message at this version.
    pub(super) fn called(&mut self, group: GroupId, version: RosterVersion, msg_id: MsgId) {
        let nothing = || InTransit { version, messages: BTreeSet::new() };
        let on_the_way = self.groups.entry(group).or_insert_with(nothing);
        debug_assert!(on_the_way.version == version, "what is of a newer version waits");
        on_the_way.messages.insert(msg_id);
    }

    /// It is settled, or to be called again.
    pub(super) fn ended(&mut self, group: GroupId, msg_id: MsgId) {
        // What is settled by another's entry may never have been called.
        let Some(on_the_way) = self.groups.get_mut(&group) else { return };
        on_the_way.messages.remove(&msg_id);
        if on_the_way.messages.is_empty() {
            self.groups.remove(&group);
        }
    }

    /// Something is on its way at another version of the group than this one, which is the newest.
    pub(super) fn has_older(&self, group: GroupId, version: RosterVersion) -> bool {
        self.groups.get(&group).is_some_and(|on_the_way| on_the_way.version != version)
    }
}
