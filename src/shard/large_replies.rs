//! Requests that are large, or whose replies are: one of a session's is on its way at a time, and only while there is room
//! for its reply.
//!
//! Part of the shard's core. A client may send sixteen requests for a list of 100 KB in one piece; what it has no room for
//! waits here as requests, which are small, and not as replies. What always holds: they are answered in the order in which
//! they came; each counts among the session's requests in flight from the beginning; what one user is sent in a time is
//! limited (`user_bytes_out`), and what is above it waits here too; what waits of a session and of a shard is bounded in
//! bytes (`LARGE_WAITING_SESSION_BYTES_MAX`, `LARGE_WAITING_BYTES_MAX`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use super::Shard;
use super::catchup::PAGE_OUTBOX_BYTES;
use crate::clock::Now;
use crate::contract::ids::{ConnId, Origin, SessionRef, ShardId};
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::lane::LaneEnvelope;
use crate::contract::policies::Permission;
use crate::contract::submission::{ChangeSubmission, GroupChange, Submission};
use crate::limits::{LARGE_WAITING_BYTES_MAX, LARGE_WAITING_SESSION_BYTES_MAX, RETRY_AFTER_MS};
use ringway_wire::ids::{GroupId, Seq, UserId};
use ringway_wire::request::Adding;
use ringway_wire::schema::ErrorCode;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum LargeAsk {
    Groups,
    Info(GroupId),
    Sync {
        after: Seq,
        rows_max: u16,
    },
    /// Who of these is online?
    Presence(Vec<UserId>),
    /// Of a group, with many users.
    Change(GroupChange, Adding),
}

impl LargeAsk {
    /// Bytes of memory while it waits.
    fn bytes(&self) -> usize {
        let users = match self {
            LargeAsk::Presence(users) => users.len(),
            LargeAsk::Change(change, _) => change.users().len(),
            LargeAsk::Groups | LargeAsk::Info(_) | LargeAsk::Sync { .. } => 0,
        };
        size_of::<(u32, LargeAsk)>() + users * size_of::<UserId>()
    }
}

/// A session's.
#[derive(Debug)]
struct Asks {
    conn: ConnId,
    turn: Turn,
    /// By request id.
    waiting: VecDeque<(u32, LargeAsk)>,
    /// Of these.
    waiting_bytes: usize,
}

/// Whether a session may be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// It may.
    Free,
    /// The reply to this request is on its way.
    InFlight(u32),
    /// Not before this moment, monotonic milliseconds: its user was sent as much as may be.
    Later(u64),
}

/// All of a shard's: only sessions that have asked.
#[derive(Debug)]
pub(super) struct LargeReplies {
    by_slot: HashMap<u32, Asks, TableKey>,
    waiting_bytes: usize,
    /// Sessions whose reply has come, or whose outbox has more room: the next may follow.
    answered: Vec<ConnId>,
    /// Those whose user was sent as much as may be, by when they go on, slot and generation; the soonest first.
    later: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

impl LargeReplies {
    pub(super) fn new(key: TableKey) -> Self {
        LargeReplies {
            by_slot: HashMap::with_hasher(key),
            waiting_bytes: 0,
            answered: Vec::new(),
            later: BinaryHeap::new(),
        }
    }

    /// The session ends.
    pub(super) fn forget(&mut self, slot: u32) {
        if !self.by_slot.is_empty()
            && let Some(asks) = self.by_slot.remove(&slot)
        {
            self.waiting_bytes -= asks.waiting_bytes;
        }
    }

    /// A request of the session has its reply.
    pub(super) fn settled(&mut self, origin: Origin) {
        if self.by_slot.is_empty() {
            return;
        }
        let conn = origin.session.conn;
        if let Some(asks) = self.by_slot.get_mut(&conn.slot).filter(|asks| asks.conn == conn)
            && asks.turn == Turn::InFlight(origin.request_id)
        {
            asks.turn = Turn::Free;
            self.answered.push(conn);
        }
    }

    /// The session's outbox has more room. What follows is not put into it before others have had their turns: whoever reads
    /// fast would have all of it written in one.
    pub(super) fn has_room(&mut self, conn: ConnId) {
        if self.waits(conn.slot) {
            self.answered.push(conn);
        }
    }

    /// Something of the session waits here for its turn.
    pub(super) fn waits(&self, slot: u32) -> bool {
        self.by_slot.get(&slot).is_some_and(|asks| !asks.waiting.is_empty())
    }

    /// Somebody may go on.
    pub(super) fn has_answered(&self) -> bool {
        !self.answered.is_empty()
    }
}

impl Shard {
    /// A session asks for what may be long.
    pub(super) fn ask_large(&mut self, now: Now, slot: u32, request_id: u32, ask: LargeAsk) {
        let Some((origin, _)) = self.asking(slot, request_id) else { return };
        self.wait_for_turn(now, origin, ask);
    }

    /// The same of a request that counts as in flight already.
    pub(super) fn wait_for_turn(&mut self, now: Now, origin: Origin, ask: LargeAsk) {
        let Origin { session: SessionRef { conn, .. }, request_id, .. } = origin;
        let slot = conn.slot;
        let bytes = ask.bytes();
        let of_session = self.large.by_slot.get(&slot).map_or(0, |asks| asks.waiting_bytes);
        if of_session + bytes > LARGE_WAITING_SESSION_BYTES_MAX
            || self.large.waiting_bytes + bytes > LARGE_WAITING_BYTES_MAX
        {
            self.counts.shed.large_replies += 1;
            return self.refuse_origin(now, origin, ErrorCode::RetryLater, RETRY_AFTER_MS);
        }
        let nothing = || Asks { conn, turn: Turn::Free, waiting: VecDeque::new(), waiting_bytes: 0 };
        let asks = self.large.by_slot.entry(slot).or_insert_with(nothing);
        asks.waiting.push_back((request_id, ask));
        asks.waiting_bytes += bytes;
        self.large.waiting_bytes += bytes;
        self.next_large(now, slot);
    }

    /// Those whose reply has come go on.
    pub(super) fn next_large_replies(&mut self, now: Now) {
        for conn in std::mem::take(&mut self.large.answered) {
            if let Some(slot) = self.slot_of(conn) {
                self.next_large(now, slot);
            }
        }
    }

    /// What the session asked next, if nothing of it is on its way and its user may be sent the reply now.
    fn take_turn(&mut self, now: Now, slot: u32, user: UserId) -> Option<(u32, LargeAsk)> {
        let asks = self.large.by_slot.get(&slot)?;
        match asks.turn {
            Turn::InFlight(_) => return None,
            Turn::Later(until_ms) if until_ms > now.mono_ms => return None,
            Turn::Free | Turn::Later(_) => {}
        }
        let (conn, next) = (asks.conn, asks.waiting.front());
        let Some((_, next)) = next else {
            self.large.by_slot.remove(&slot);
            return None;
        };
        // A change has a short answer, and limits of its own.
        let wait = if matches!(next, LargeAsk::Change(..)) { Ok(()) } else { self.may_be_answered(now, user) };
        let asks = self.large.by_slot.get_mut(&slot)?;
        if let Err(wait_ms) = wait {
            let until_ms = now.mono_ms + u64::from(wait_ms);
            asks.turn = Turn::Later(until_ms);
            self.large.later.push(Reverse((until_ms, conn.slot, conn.generation)));
            return None;
        }
        let (request_id, ask) = asks.waiting.pop_front()?;
        asks.turn = Turn::InFlight(request_id);
        asks.waiting_bytes -= ask.bytes();
        self.large.waiting_bytes -= ask.bytes();
        Some((request_id, ask))
    }

    /// Those go on whose user may be sent more again.
    pub(super) fn later_large_replies(&mut self, now: Now) {
        while let Some(Reverse((until_ms, slot, generation))) = self.large.later.peek().copied()
            && until_ms <= now.mono_ms
        {
            self.large.later.pop();
            if self.slot_of(ConnId { slot, generation }).is_some() {
                self.next_large(now, slot);
            }
        }
    }

    /// Asks what the session asked next, if its turn has come and its outbox has room for the reply.
    pub(super) fn next_large(&mut self, now: Now, slot: u32) {
        if self.large.by_slot.is_empty() {
            return;
        }
        let room = self.config.outbox_bytes_max.saturating_sub(PAGE_OUTBOX_BYTES);
        let Some(session) = self.sessions.at(slot).filter(|session| session.phase.is_open()) else { return };
        if session.outbox_len() > room {
            return;
        }
        let Some(user) = self.directory.at(session.user).map(|user| user.id).or_count(Place::Directory) else { return };
        let Some((request_id, ask)) = self.take_turn(now, slot, user) else { return };
        let Some(session) = self.sessions.at(slot).or_count(Place::Sessions) else { return };
        let origin = Origin::new(self.config.session_ref(session.conn(slot)), request_id);
        match ask {
            LargeAsk::Groups => self.effects.submissions.push_back(Submission::Groups { origin, user }),
            LargeAsk::Info(group) => {
                let ask = LaneEnvelope::GroupInfo { origin, user, group };
                let home = ShardId::of_group(group, self.config.shards);
                if home == self.config.id {
                    self.lane(now, ask);
                } else {
                    self.effects.lanes.push_back((home, ask));
                }
            }
            LargeAsk::Presence(users) if self.config.policies.presence == Permission::SharedGroup => {
                self.effects.submissions.push_back(Submission::Sharing { origin, user, users });
            }
            LargeAsk::Presence(users) => self.gather_presence(now, origin, users),
            LargeAsk::Change(change, adding) => {
                let change = ChangeSubmission { origin, actor: user, change, adding };
                self.effects.submissions.push_back(Submission::Change(change));
            }
            LargeAsk::Sync { after, rows_max } => {
                if !self.want_sync(slot, request_id, after, rows_max) {
                    self.counts.shed.syncs += 1;
                    self.refuse_origin(now, origin, ErrorCode::RetryLater, RETRY_AFTER_MS);
                }
            }
        }
    }
}
