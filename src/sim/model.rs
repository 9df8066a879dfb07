//! What must be true, judged only by what clients did and what they were told.
//!
//! Owned by the world. It shares no code with the core: it knows ids and what frames said. What always holds:
//! a fact once seen by any client (this row holds that message, this change made that version) never changes;
//! the first frame that contradicts it ends the run. What can only be judged with all inboxes in hand (nothing
//! acked is missing, everybody in the group got it, nobody else did) is in `check.rs`.

mod groups;

use std::collections::{BTreeMap, BTreeSet};

use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, UserId};
use ringway_wire::request::Taken;
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

use crate::fairness::Fairness;
use crate::ledger::{Deleted, Ledger, Truth};

/// Why the run failed: which invariant, and what was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Violation(pub String);

/// What a check returns.
pub(crate) type Checked = Result<(), Violation>;

macro_rules! violated {
    ($($text:tt)*) => { Err($crate::model::Violation(format!($($text)*))) };
}
pub(crate) use violated;

/// A message that a client made, by its place in [`Model::sends`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SendNo(pub usize);

/// A change of a group that a client asked for, by its place in [`Model::changes`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ChangeNo(pub usize);

/// A message as its sender made it, and what became of it.
#[derive(Debug)]
pub(crate) struct Send {
    pub sender: UserId,
    pub to: Conversation,
    pub name: ClientMsgId,
    pub body: Vec<u8>,
    pub ephemeral: bool,
    /// It bears the name of an acked message: it must be refused.
    pub reuses: bool,
    /// In which session of which device it was first sent.
    pub session: (DeviceId, u64),
    /// How often it was put on a wire.
    pub attempts: u32,
    /// It was refused at least once, perhaps only for a while.
    pub was_refused: bool,
    /// How often it was refused.
    pub refusals: u32,
    /// How often its name was refused as one of the future: under that one nothing was stored.
    ahead: u32,
    /// Its number, once anybody has seen it.
    pub msg_id: Option<MsgId>,
    /// The same in each generation, as far as a Redis that forgets may have let it be made twice.
    msg_ids: BTreeMap<u64, MsgId>,
    /// The sender's row, once acked.
    pub acked: Option<u64>,
    /// The newest version of the group that anybody knew when this was first sent: it is ordered after.
    pub version_known: u32,
    /// When somebody first saw it: it is ordered before.
    pub seen_at: Option<u64>,
    /// When it was made, Unix milliseconds.
    made_at_ms: u64,
}

/// A change as it was asked for.
#[derive(Debug)]
pub(crate) struct Change {
    pub actor: UserId,
    /// `None`: a new group.
    pub group: Option<GroupId>,
    pub kind: GroupChangeKind,
    pub users: Vec<UserId>,
    /// When it was asked for: it is ordered after.
    pub asked_at: u64,
    /// The group and version it was answered with.
    pub answer: Option<(GroupId, u32)>,
    pub refused: bool,
}

/// What is known of one version of a group.
#[derive(Default, Debug)]
pub(crate) struct Version {
    /// All members, where somebody was told all of them.
    pub members: Option<BTreeSet<UserId>>,
    /// What the announcement said: kind, by whom, to whom.
    pub announced: Option<(GroupChangeKind, UserId, BTreeSet<UserId>)>,
}

/// One inbox as far as anybody has seen it.
#[derive(Default, Debug)]
pub(crate) struct Inbox {
    /// seq to message number and message.
    pub rows: BTreeMap<u64, (MsgId, SendNo)>,
}

/// Says nothing of what became of the message: it is to be sent again. (A node whose clock is behind takes a name for one
/// of the future.)
pub(crate) fn passes(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::RetryLater | ErrorCode::ClientMsgIdAhead)
}

/// A node of a cluster whose clock is further off numbers nothing; and a moment passes before it knows.
const OFF_MAX_MS: u64 = 62_000;

/// Rows of two generations lie at least so far apart.
const GENERATION_ROWS: u64 = 1 << 20;

/// The generation of a row, as far as the numbers tell.
pub(crate) fn generation_of(seq: u64) -> u64 {
    seq / GENERATION_ROWS
}

/// Everything known.
#[derive(Default, Debug)]
pub(crate) struct Model {
    pub ledger: Ledger,
    pub truth: Truth,
    /// A node went on from another snapshot: what it had in flight it may find there.
    pub is_reloaded: bool,
    /// A node's directory was put back: what it had withdrawn may be open again.
    pub is_put_back: bool,
    pub deleted: Deleted,
    pub sends: Vec<Send>,
    pub changes: Vec<Change>,
    pub inboxes: BTreeMap<UserId, Inbox>,
    pub groups: BTreeMap<GroupId, BTreeMap<u32, Version>>,
    pub fairness: Fairness,
    by_msg_id: BTreeMap<MsgId, SendNo>,
    by_body: BTreeMap<Vec<u8>, SendNo>,
    /// Counts what happened, to say what was before what.
    pub time: u64,
    /// What the time really is, Unix milliseconds; zero: nobody knows.
    pub now_ms: u64,
}

/// A row as a frame showed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenRow<'a> {
    pub seq: u64,
    pub msg_id: MsgId,
    pub sender: UserId,
    pub to: Conversation,
    pub sent_at_ms: u64,
    pub body: &'a [u8],
}

/// A message id's time, by the layout that the protocol documents: 41 bits from 2024-01-01 in Unix milliseconds.
fn time_of(msg_id: MsgId) -> u64 {
    1_704_067_200_000 + (msg_id.0 >> 22)
}

impl Model {
    /// A client made a message; nothing was sent yet.
    pub(crate) fn made(
        &mut self,
        sender: UserId,
        to: Conversation,
        name: ClientMsgId,
        body: Vec<u8>,
        kind: SendKind,
    ) -> SendNo {
        let number = SendNo(self.sends.len());
        let version_known = match to {
            Conversation::Group(group) => self.newest_version(group),
            Conversation::User(_) => 0,
        };
        self.by_body.insert(body.clone(), number);
        self.sends.push(Send {
            sender,
            to,
            name,
            body,
            ephemeral: kind == SendKind::Ephemeral,
            reuses: kind == SendKind::Reuse,
            session: Default::default(),
            attempts: 0,
            was_refused: false,
            refusals: 0,
            ahead: 0,
            msg_id: None,
            msg_ids: BTreeMap::new(),
            acked: None,
            version_known,
            seen_at: None,
            made_at_ms: self.now_ms,
        });
        number
    }

    /// It was put on a wire under this name, in this session of this device.
    pub(crate) fn attempted(&mut self, number: SendNo, name: ClientMsgId, session: (DeviceId, u64)) -> Checked {
        let send = &mut self.sends[number.0];
        if send.name != name && !send.ephemeral {
            if send.ahead < send.attempts {
                let (first, attempts) = (send.name, send.attempts);
                return violated!("I4: {number:?} was sent {attempts} times as {first:?}, and is now sent as {name:?}");
            }
            send.name = name;
        }
        if send.attempts == 0 {
            send.session = session;
        }
        send.attempts += 1;
        Ok(())
    }

    /// SendOk came.
    pub(crate) fn acked(&mut self, number: SendNo, msg_id: MsgId, seq: u64, sent_at_ms: u64, taken: Taken) -> Checked {
        let send = &self.sends[number.0];
        if send.reuses {
            return violated!("I4: {number:?} reuses the name of another message and was acked as {msg_id:?}");
        }
        if send.ephemeral {
            return if seq == 0 { Ok(()) } else { violated!("ephemeral {number:?} was acked with seq {seq}") };
        }
        if send.acked.is_some() && taken == Taken::Now && self.ledger != Ledger::ForgetfulRedis {
            return violated!("I4: {number:?} was acked before, and now as new");
        }
        // What another node has read and stored, this one finds there when the ledger is made anew.
        let is_made_once = matches!(self.ledger, Ledger::Journal | Ledger::Redis);
        if taken == Taken::Before && send.attempts < 2 && is_made_once && !self.is_reloaded {
            return violated!("I4: {number:?} was sent once and is called a repeat");
        }
        let forgets = self.ledger == Ledger::ForgetfulRedis;
        if send.acked.is_some_and(|first| first != seq && !(forgets && generation_of(first) != generation_of(seq))) {
            return violated!("I4: {number:?} was acked with row {:?} and now with {seq}", send.acked);
        }
        let (sender, to, body) = (send.sender, send.to, send.body.clone());
        self.sends[number.0].acked = Some(seq);
        self.row(sender, SeenRow { seq, msg_id, sender, to, sent_at_ms, body: &body })
    }

    /// An error came for it.
    pub(crate) fn refused(&mut self, number: SendNo, code: ErrorCode) -> Checked {
        let is_deleted = self.is_deleted(number);
        let send = &mut self.sends[number.0];
        send.was_refused = true;
        send.ahead += u32::from(code == ErrorCode::ClientMsgIdAhead);
        // Whoever waits too long for Redis is told to ask again, and what was sent may be stored all the same.
        send.refusals += u32::from(self.ledger == Ledger::Journal || !passes(code));
        if code == ErrorCode::ClientMsgIdReused && !send.reuses {
            return violated!("I4: {number:?} was refused as a reuse and is none");
        }
        // Only for a while: who has left the group since is answered all the same.
        let may_come = passes(code) || code == ErrorCode::StorageFull || is_deleted;
        if send.acked.is_some() && !may_come {
            return violated!("I4: {number:?} was acked, and a repeat refused with {code:?}");
        }
        self.nothing_refused_is_visible(number)
    }

    /// A message all of whose attempts were refused must not be seen.
    fn nothing_refused_is_visible(&self, number: SendNo) -> Checked {
        let send = &self.sends[number.0];
        let is_stored = send.msg_id.is_some() && !self.is_deleted(number);
        if is_stored && send.acked.is_none() && send.refusals >= send.attempts {
            return violated!("{number:?} was refused each of {} times and is stored all the same", send.attempts);
        }
        Ok(())
    }

    /// A user was shown a row of the inbox, in whatever frame.
    pub(crate) fn row(&mut self, user: UserId, row: SeenRow<'_>) -> Checked {
        self.time += 1;
        let Some(&number) = self.by_body.get(row.body) else {
            return violated!("{user} was shown a body that nobody sent: {row:?}");
        };
        let send = &mut self.sends[number.0];
        if (send.sender, send.to) != (row.sender, row.to) {
            return violated!("{number:?} was sent by {} to {:?} and is shown as {row:?}", send.sender, send.to);
        }
        if send.reuses {
            return violated!("I4: {number:?} reuses the name of another message and was stored: {row:?}");
        }
        if send.ephemeral != (row.seq == 0) {
            return violated!("{number:?} (ephemeral: {}) is shown with seq {}", send.ephemeral, row.seq);
        }
        let concerned = send.sender == user || send.to == Conversation::User(user);
        if !concerned && !matches!(send.to, Conversation::Group(_)) {
            return violated!("{user} was shown {number:?}, which is between {} and {:?}", send.sender, send.to);
        }
        if row.sent_at_ms != time_of(row.msg_id) {
            return violated!(
                "{number:?} has time {} and its {:?} says {}",
                row.sent_at_ms,
                row.msg_id,
                time_of(row.msg_id)
            );
        }
        if send.ephemeral {
            // Repeats of it are not recognised: each time it is sent it has another number.
            return Ok(());
        }
        let (from_ms, to_ms) = (send.made_at_ms.saturating_sub(OFF_MAX_MS), self.now_ms + OFF_MAX_MS);
        if self.ledger != Ledger::Journal && self.now_ms > 0 && !(from_ms..=to_ms).contains(&row.sent_at_ms) {
            return violated!("clock: {number:?} is dated {}, and may be from {from_ms} to {to_ms}", row.sent_at_ms);
        }
        let first = match self.ledger {
            Ledger::ForgetfulRedis => send.msg_ids.entry(generation_of(row.seq)).or_insert(row.msg_id),
            _ => send.msg_id.get_or_insert(row.msg_id),
        };
        // What a replica lacks is known by no name, until it is found that others have it.
        if *first != row.msg_id && self.truth == Truth::One {
            return violated!("I4: {number:?} is {first:?} and {:?}", row.msg_id);
        }
        send.msg_id = Some(row.msg_id);
        send.seen_at.get_or_insert(self.time);
        if *self.by_msg_id.entry(row.msg_id).or_insert(number) != number {
            return violated!("I2: {:?} is {number:?} and {:?}", row.msg_id, self.by_msg_id.get(&row.msg_id));
        }
        if row.seq > 0 {
            self.keep_row(user, row.seq, row.msg_id, number)?;
        }
        self.nothing_refused_is_visible(number)
    }

    fn keep_row(&mut self, user: UserId, seq: u64, msg_id: MsgId, number: SendNo) -> Checked {
        let rows = &mut self.inboxes.entry(user).or_default().rows;
        if let Some(&(kept, of)) = rows.get(&seq) {
            if kept != msg_id && self.truth == Truth::One {
                return violated!("I2: row {seq} of {user} was {kept:?} ({of:?}) and is {msg_id:?} ({number:?})");
            }
            rows.insert(seq, (msg_id, number));
            return Ok(());
        }
        let before = rows.range(..seq).next_back();
        let after = rows.range(seq..).next();
        let by_number = self.ledger == Ledger::Journal;
        if by_number
            && (before.is_some_and(|(_, row)| row.0 >= msg_id) || after.is_some_and(|(_, row)| row.0 <= msg_id))
        {
            return violated!("order: row {seq} of {user} is {msg_id:?}, between {before:?} and {after:?}");
        }
        rows.insert(seq, (msg_id, number));
        Ok(())
    }

    /// It was acked, and not because the time of its name was reached later: a repeat of it can be answered.
    pub(crate) fn is_owed(&self, number: SendNo) -> bool {
        let send = &self.sends[number.0];
        send.acked.is_some() && send.ahead == 0
    }

    /// Retention has deleted it.
    pub(crate) fn is_deleted(&self, number: SendNo) -> bool {
        self.sends[number.0].msg_id.is_some_and(|msg_id| self.deleted.messages.contains(&msg_id))
    }

    /// Retention has deleted some of its rows, or all: who had it nobody can tell any more.
    pub(crate) fn is_thinned(&self, number: SendNo) -> bool {
        self.sends[number.0].msg_id.is_some_and(|msg_id| self.deleted.thinned.contains(&msg_id))
    }

    /// A user was told that these rows are no longer to be had: they were deleted. Or a new generation's rows lie far above
    /// those of the one before; and a cluster's first one may be made more than once before anybody has any.
    pub(crate) fn gap(&self, user: UserId, from: u64, to: u64) -> Checked {
        let from = from.max(self.deleted.rows_to.get(&user).map_or(0, |last| last + 1));
        if from > to {
            return Ok(());
        }
        let jumps = generation_of(from) < generation_of(to + 1);
        match self.ledger {
            Ledger::Redis if jumps && self.users_have_nothing_up_to(to) => Ok(()),
            Ledger::RemadeRedis if jumps && self.knows_nothing_of(user, from, to) => Ok(()),
            Ledger::ForgetfulRedis if jumps => Ok(()),
            _ => violated!("I3: {user} is told that rows {from} to {to} are gone, which nothing has deleted"),
        }
    }

    fn knows_nothing_of(&self, user: UserId, from: u64, to: u64) -> bool {
        self.inboxes.get(&user).is_none_or(|inbox| inbox.rows.range(from..=to).next().is_none())
    }

    fn users_have_nothing_up_to(&self, seq: u64) -> bool {
        self.inboxes.keys().all(|user| self.knows_nothing_of(*user, 0, seq))
    }

    /// Which message has this body.
    pub(crate) fn by_body(&self, body: &[u8]) -> Option<SendNo> {
        self.by_body.get(body).copied()
    }

    /// The highest row anybody has seen of this inbox.
    pub(crate) fn newest_row(&self, user: UserId) -> u64 {
        self.inboxes.get(&user).and_then(|i| i.rows.keys().next_back().copied()).unwrap_or(0)
    }

    /// The highest version of the group anybody knows of; 0: none.
    pub(crate) fn newest_version(&self, group: GroupId) -> u32 {
        self.groups.get(&group).and_then(|versions| versions.keys().next_back().copied()).unwrap_or(0)
    }

    /// Whether anybody last heard that the user is in the group.
    pub(crate) fn was_member(&self, group: GroupId, user: UserId) -> bool {
        let versions = self.groups.get(&group).into_iter().flatten().rev();
        for (_, facts) in versions {
            if let Some(members) = &facts.members {
                return members.contains(&user);
            }
            match &facts.announced {
                Some((GroupChangeKind::Created | GroupChangeKind::Added, actor, users))
                    if users.contains(&user) || *actor == user =>
                {
                    return true;
                }
                Some((GroupChangeKind::Removed | GroupChangeKind::Left, _, users)) if users.contains(&user) => {
                    return false;
                }
                _ => {}
            }
        }
        false
    }
}

/// What a client makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SendKind {
    /// An ordinary message.
    Stored,
    /// For whoever is online.
    Ephemeral,
    /// Another body under the name of an acked message.
    Reuse,
}
