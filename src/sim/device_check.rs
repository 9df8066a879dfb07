//! What one device's connections carried, judged frame by frame, both ways.
//!
//! Owned by its client, of which it knows nothing but the bytes that were put on the wire and those that came from it. What
//! always holds after a check returned `Ok`: rows came one after another from where the session started, and one that was
//! here already only once more, as a push of what a `SendOk` stood for (I3); each answer belongs to a request; the client
//! claimed and acknowledged no row that it was not given, asked nothing before its login was answered, and sent what was
//! refused no sooner than the gateway had said.

use std::collections::{BTreeMap, BTreeSet};

use ringway_wire::frame::{read_client, read_server};
use ringway_wire::ids::{DeviceId, GroupId, MsgId, UserId};
use ringway_wire::request::{Login, PushView, Reply, Request, Taken};
use ringway_wire::schema::{CloseReason, ErrorCode, GroupChangeKind};

use crate::ledger::{Ledger, Truth};
use crate::model::{ChangeNo, Checked, Model, SeenRow, SendNo, Violation, passes, violated};

/// One device, over all its connections.
pub(crate) struct DeviceCheck {
    pub user: UserId,
    device: DeviceId,
    /// The highest row that came in this session or the one before, with all before it.
    pub cursor: u64,
    /// The highest row that ever came.
    pub had: u64,
    /// The highest row that was acknowledged, so the gateway may have kept it.
    acknowledged: u64,
    /// Acked messages.
    pub acked: Vec<SendNo>,
    /// Why the gateway closed the last connection, if it said so.
    pub closing: Option<CloseReason>,
    /// How often it has connected.
    sessions: u64,
    stage: Stage,
    /// Requests without an answer.
    open: BTreeMap<u32, Open>,
    /// Messages that were refused on this connection, and when they may be sent again.
    put_off: BTreeMap<SendNo, u64>,
    seen: Seen,
    /// The front of a frame whose end is not there yet.
    sent_bytes: Vec<u8>,
    told_bytes: Vec<u8>,
}

/// Where a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Nothing was said.
    Begun,
    /// The login was sent.
    LoggingIn { last_seq: Option<u64>, seen: u64 },
    /// It was answered.
    Live,
    /// The gateway has said its last.
    Closed,
}

/// What came in one session.
#[derive(Default)]
struct Seen {
    /// Rows that `SendOk` stood for.
    owned: BTreeSet<u64>,
    /// The last row that came as a push.
    pushed: u64,
    /// The user's newest row when it began.
    newest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    asked: Asked,
    since_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Login,
    Send(SendNo),
    Change(ChangeNo),
    Sync { after: u64 },
    Info,
    Groups,
    Presence,
    Ping,
}

impl DeviceCheck {
    /// A device that was never connected.
    pub(crate) fn new(user: UserId, device: DeviceId) -> Self {
        DeviceCheck {
            user,
            device,
            cursor: 0,
            had: 0,
            acknowledged: 0,
            acked: Vec::new(),
            closing: None,
            sessions: 0,
            stage: Stage::Closed,
            open: BTreeMap::new(),
            put_off: BTreeMap::new(),
            seen: Seen::default(),
            sent_bytes: Vec::new(),
            told_bytes: Vec::new(),
        }
    }

    /// A connection begins.
    pub(crate) fn connected(&mut self) {
        self.sessions += 1;
        (self.stage, self.closing) = (Stage::Begun, None);
        self.disconnected();
    }

    /// The connection is gone, and what was asked on it.
    pub(crate) fn disconnected(&mut self) {
        self.open.clear();
        self.put_off.clear();
        self.seen = Seen::default();
        self.sent_bytes.clear();
        self.told_bytes.clear();
    }

    /// Requests without an answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// How long the oldest of them has waited.
    pub(crate) fn waits_ms(&self, now_ms: u64) -> u64 {
        self.open.values().map(|open| now_ms.saturating_sub(open.since_ms)).max().unwrap_or_default()
    }

    /// What waits for an answer, to be printed.
    pub(crate) fn waiting(&self) -> String {
        format!("{:?}", self.open.values().map(|open| open.asked).collect::<Vec<_>>())
    }

    /// The client put these bytes on its connection.
    pub(crate) fn sent(&mut self, model: &mut Model, now_ms: u64, bytes: &[u8]) -> Checked {
        for frame in whole_frames(&mut self.sent_bytes, bytes) {
            let (request, asks) = read_client(&frame)
                .map_err(|error| Violation(format!("{} sends what cannot be read: {error}", self.user)))?;
            self.asks(model, now_ms, request, asks)?;
        }
        Ok(())
    }

    fn asks(&mut self, model: &mut Model, now_ms: u64, request: u32, asks: Request<'_>) -> Checked {
        if let Request::Login(login) = asks {
            return self.logs_in(model, now_ms, request, &login);
        }
        if self.stage != Stage::Live {
            return violated!("{} asks {asks:?} while its connection is {:?}", self.user, self.stage);
        }
        let mut change = |group, kind, users| Asked::Change(model.asked(self.user, group, kind, users));
        let asked = match asks {
            Request::Ack { seq } => return self.acknowledges(seq.0),
            Request::Send { to, client_msg_id, body, ephemeral } => {
                let Some(number) = model.by_body(body) else {
                    return violated!("{} sends to {to:?} what nobody has made", self.user);
                };
                let send = &model.sends[number.0];
                if (send.sender, send.to, send.ephemeral) != (self.user, to, ephemeral) {
                    return violated!("{} made {number:?} for {:?} and sends it to {to:?}", self.user, send.to);
                }
                if self.put_off.get(&number).is_some_and(|until_ms| now_ms < *until_ms) {
                    return violated!("{number:?} was refused for longer, and is sent again at {now_ms}");
                }
                model.attempted(number, client_msg_id, (self.device, self.sessions))?;
                model.fairness.asked(self.user);
                Asked::Send(number)
            }
            Request::GroupCreate { members, .. } => {
                let users = members.map(|users| users.iter().collect()).unwrap_or_default();
                change(None, GroupChangeKind::Created, users)
            }
            Request::GroupAdd { group, members, .. } => {
                change(Some(group), GroupChangeKind::Added, members.iter().collect())
            }
            Request::GroupRemove { group, members } => {
                change(Some(group), GroupChangeKind::Removed, members.iter().collect())
            }
            Request::GroupLeave { group } => change(Some(group), GroupChangeKind::Left, Vec::new()),
            Request::Sync { after, .. } => Asked::Sync { after: after.0 },
            Request::GroupInfo { .. } => Asked::Info,
            Request::GroupList => Asked::Groups,
            Request::Presence { .. } => Asked::Presence,
            Request::Ping => Asked::Ping,
            Request::Login(_) | Request::Logout | Request::Refresh { .. } | Request::SendToUnknownKind { .. } => {
                return violated!("{} asks {asks:?}, which no client here does", self.user);
            }
        };
        self.open(now_ms, request, asked)
    }

    fn open(&mut self, now_ms: u64, request: u32, asked: Asked) -> Checked {
        if request == 0 || self.open.contains_key(&request) {
            return violated!("{} asks {asked:?} under the number {request}, which is taken", self.user);
        }
        self.open.insert(request, Open { asked, since_ms: now_ms });
        Ok(())
    }

    fn logs_in(&mut self, model: &Model, now_ms: u64, request: u32, login: &Login<'_>) -> Checked {
        let last_seq = login.cursor.map(|seq| seq.0);
        if self.stage != Stage::Begun || login.device != self.device {
            return violated!("{} device {} logs in while it is {:?}", self.user, login.device, self.stage);
        }
        if last_seq.is_some_and(|last_seq| last_seq > self.had) {
            return violated!("I3: {} claims row {last_seq:?} and has had row {} at most", self.user, self.had);
        }
        self.stage = Stage::LoggingIn { last_seq, seen: model.newest_row(self.user) };
        self.open(now_ms, request, Asked::Login)
    }

    fn acknowledges(&mut self, seq: u64) -> Checked {
        if seq > self.cursor {
            return violated!("I3: {} acknowledges row {seq} and is at row {}", self.user, self.cursor);
        }
        self.acknowledged = self.acknowledged.max(seq);
        Ok(())
    }

    /// These bytes came from the gateway.
    pub(crate) fn told(&mut self, model: &mut Model, now_ms: u64, bytes: &[u8]) -> Checked {
        for frame in whole_frames(&mut self.told_bytes, bytes) {
            let (request, reply) = read_server(&frame)
                .map_err(|error| Violation(format!("{} is sent what cannot be read: {error}", self.user)))?;
            self.reply(model, now_ms, request, reply)?;
        }
        Ok(())
    }

    fn reply(&mut self, model: &mut Model, now_ms: u64, request: u32, reply: Reply<'_>) -> Checked {
        let is_due = match (self.stage, &reply) {
            (Stage::Live, Reply::LoginOk { .. }) | (Stage::Begun | Stage::Closed, _) => false,
            (Stage::LoggingIn { .. }, Reply::LoginOk { .. } | Reply::Closing { .. }) | (Stage::Live, _) => true,
            (Stage::LoggingIn { .. }, _) => false,
        };
        if !is_due {
            return violated!("{} is told {reply:?} while its connection is {:?}", self.user, self.stage);
        }
        match reply {
            Reply::LoginOk { user, last_seq, from_seq, .. } => {
                self.logged_in(model, request, user, (last_seq.0, from_seq.0))
            }
            Reply::Push(view) => self.pushed(model, view),
            Reply::Gap { from, to } => {
                if from.0 > self.cursor + 1 {
                    return violated!("I3: {} at row {} is told of a gap from {from}", self.user, self.cursor);
                }
                self.cursor = self.cursor.max(to.0);
                self.had = self.had.max(self.cursor);
                model.gap(self.user, from.0, to.0)
            }
            Reply::Closing { reason, .. } => self.closed(model, reason),
            Reply::SendOk { msg_id, seq, sent_at_ms, repeat } => {
                let taken = if repeat { Taken::Before } else { Taken::Now };
                model.fairness.taken(self.user, now_ms)?;
                self.send_ok(model, request, (msg_id, seq.0, sent_at_ms), taken)
            }
            Reply::Error { code, retry_after_ms, .. } => self.refused(model, now_ms, request, code, retry_after_ms),
            Reply::GroupChanged { group, version, kind, actor, members, .. } => {
                model.announced(group, version, kind, actor, members.into_iter().collect())
            }
            other => self.answered(model, request, other),
        }
    }

    fn take(&mut self, request: u32) -> Option<Asked> {
        self.open.remove(&request).map(|open| open.asked)
    }

    fn logged_in(&mut self, model: &Model, request: u32, user: UserId, (newest, from): (u64, u64)) -> Checked {
        if user != self.user {
            return violated!("{} is logged in as {user}", self.user);
        }
        let (Some(Asked::Login), Stage::LoggingIn { last_seq, seen }) = (self.take(request), self.stage) else {
            return violated!("{} did not ask to log in as {request}", self.user);
        };
        // A node whose Redis is away answers by what it has read.
        if newest < seen && model.ledger == Ledger::Journal {
            return violated!(
                "I1/I2: {user} was shown row {seen} before this login, which says {newest} is the newest"
            );
        }
        match last_seq {
            Some(last_seq) if from != last_seq => {
                return violated!("I3: {user} logged in from {last_seq} and the session starts from {from}");
            }
            None if from > self.acknowledged => {
                return violated!("I3: {user} acknowledged {} and the session starts from {from}", self.acknowledged);
            }
            _ => {}
        }
        (self.stage, self.cursor) = (Stage::Live, from);
        self.seen = Seen { owned: BTreeSet::new(), pushed: from, newest };
        Ok(())
    }

    fn pushed(&mut self, model: &mut Model, view: PushView<'_>) -> Checked {
        let seq = view.seq.0;
        if seq > self.cursor + 1 {
            let (user, device, cursor) = (self.user, self.device, self.cursor);
            return violated!("I3: {user} device {device} at row {cursor}: row {seq} came where the next was due");
        }
        model.row(self.user, seen(view))?;
        if seq == 0 {
            return Ok(());
        }
        // A row that is here already: once more, if it was only seen as a `SendOk`.
        if seq <= self.cursor && (seq <= self.seen.pushed || !self.seen.owned.remove(&seq)) {
            return violated!(
                "I3: {} device {} has rows up to {} (pushed up to {}) and gets row {seq}",
                self.user,
                self.device,
                self.cursor,
                self.seen.pushed
            );
        }
        self.seen.pushed = seq;
        self.cursor = self.cursor.max(seq);
        self.had = self.had.max(seq);
        Ok(())
    }

    fn send_ok(
        &mut self,
        model: &mut Model,
        request: u32,
        (msg_id, seq, sent_at_ms): (MsgId, u64, u64),
        taken: Taken,
    ) -> Checked {
        let asked = self.take(request);
        let Some(Asked::Send(number)) = asked else {
            return violated!("{} asked {asked:?} ({request}) and was answered SendOk", self.user);
        };
        model.acked(number, msg_id, seq, sent_at_ms, taken)?;
        if seq > 0 && !self.acked.contains(&number) {
            self.acked.push(number);
        }
        if seq == self.cursor + 1 {
            self.cursor = seq;
            self.had = self.had.max(seq);
            self.seen.owned.insert(seq);
        }
        Ok(())
    }

    fn refused(&mut self, model: &mut Model, now_ms: u64, request: u32, code: ErrorCode, after_ms: u32) -> Checked {
        match self.take(request) {
            Some(Asked::Send(number)) => {
                if (passes(code) && code != ErrorCode::ClientMsgIdAhead || code == ErrorCode::StorageFull)
                    && after_ms == 0
                {
                    return violated!("{number:?} was refused with {code:?}, and not told until when");
                }
                self.put_off.insert(number, now_ms + u64::from(after_ms));
                model.fairness.refused(self.user, code)?;
                model.refused(number, code)
            }
            Some(Asked::Change(number)) => {
                model.change_refused(number, code);
                Ok(())
            }
            Some(Asked::Info | Asked::Sync { .. } | Asked::Groups | Asked::Presence | Asked::Ping) => Ok(()),
            asked => violated!("{} asked {asked:?} ({request}) and was answered {code:?}", self.user),
        }
    }

    fn answered(&mut self, model: &mut Model, request: u32, reply: Reply<'_>) -> Checked {
        match (self.take(request), reply) {
            (Some(Asked::Change(number)), Reply::GroupOk { group, version, .. }) => {
                model.changed(number, group, version)
            }
            (Some(Asked::Sync { after }), Reply::SyncPage { rows, through, end, gap_to }) => {
                self.page(model, after, &rows, (through.0, end, gap_to.map(|to| to.0)))
            }
            (Some(Asked::Info), Reply::GroupInfo { group, version, members }) => {
                self.members(model, group, version, members.into_iter().map(|(user, _)| user).collect())
            }
            (Some(Asked::Groups), Reply::GroupList { .. })
            | (Some(Asked::Presence), Reply::Presence { .. })
            | (Some(Asked::Ping), Reply::Pong { .. }) => Ok(()),
            (asked, reply) => violated!("{} asked {asked:?} ({request}) and was answered {reply:?}", self.user),
        }
    }

    /// Nobody reads who is in a group that he is not in.
    fn members(&self, model: &mut Model, group: GroupId, version: u32, members: BTreeSet<UserId>) -> Checked {
        if !members.contains(&self.user) {
            return violated!("{} was told who is in {group}: {members:?}", self.user);
        }
        model.members(group, version, members)
    }

    fn page(&mut self, model: &mut Model, after: u64, rows: &[PushView<'_>], end: (u64, bool, Option<u64>)) -> Checked {
        let (through, is_end, gap_to) = end;
        let mut last = after;
        if let Some(gap_to) = gap_to {
            model.gap(self.user, after + 1, gap_to)?;
            last = gap_to;
        }
        for row in rows {
            if row.seq.0 != last + 1 {
                let row = row.seq;
                return violated!("I3: {} asked for rows after {after} and row {row} came behind {last}", self.user);
            }
            last += 1;
            model.row(self.user, seen(*row))?;
        }
        // A cluster's database may have lost for a moment what is not yet written again.
        let may_lack = model.ledger != Ledger::Journal;
        if through != last || (!is_end && rows.is_empty() && !may_lack) {
            return violated!(
                "I3: {}'s page after {after} has rows to {last}, is said to cover {through}, end {is_end}, gap {gap_to:?}",
                self.user
            );
        }
        if is_end && through < self.seen.newest {
            return violated!("I3: {}'s page ends at {through}, before row {}", self.user, self.seen.newest);
        }
        Ok(())
    }

    fn closed(&mut self, model: &Model, reason: CloseReason) -> Checked {
        (self.closing, self.stage) = (Some(reason), Stage::Closed);
        match reason {
            // Who was shown what a replica lacked comes to a node that has not read it.
            CloseReason::SeqAhead if model.truth == Truth::Parted => Ok(()),
            // A client that does what the protocol says is never closed for these.
            CloseReason::BadFrame
            | CloseReason::FrameTooLarge
            | CloseReason::UnknownRequest
            | CloseReason::NotLoggedIn
            | CloseReason::TokenInvalid
            | CloseReason::TokenExpired
            | CloseReason::SeqAhead
            | CloseReason::NotRingway => violated!("{} at row {} was closed as {reason:?}", self.user, self.cursor),
            CloseReason::Overloaded => model.fairness.overloaded(self.user),
            _ => Ok(()),
        }
    }
}

/// The whole frames that are there by now; the front of one whose end is missing is kept.
fn whole_frames(kept: &mut Vec<u8>, bytes: &[u8]) -> Vec<Vec<u8>> {
    kept.extend_from_slice(bytes);
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(length) = kept[at..].first_chunk::<4>()
        && let Some(frame) = kept.get(at..at + 4 + u32::from_le_bytes(*length) as usize)
    {
        frames.push(frame.to_vec());
        at += frame.len();
    }
    kept.drain(..at);
    frames
}

fn seen(view: PushView<'_>) -> SeenRow<'_> {
    let PushView { seq, msg_id, sender, to, sent_at_ms, body } = view;
    SeenRow { seq: seq.0, msg_id, sender, to, sent_at_ms, body }
}
