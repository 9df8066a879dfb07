//! A device: it speaks the protocol's real bytes, keeps its place in its inbox, and tells the model all it
//! makes and all it is told.
//!
//! Owned by the world. What always holds: the session core of `ringway-client` takes the rows, so they come one after
//! another from where the session started, or the run ends (I3). A row that is here already may come only once more,
//! as a push of what a `SendOk` stood for, from a session that was still catching up. What got no answer before a
//! connection ended is sent again under the same name.

use std::collections::{BTreeMap, BTreeSet};

use ringway::clock::Now;
use ringway_client::incoming::{OwnRow, SendAnswer};
use ringway_client::{Incoming, LoginInfo, RequestId, Session};
use ringway_wire::deframer::Deframer;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{DeviceId, GroupId, Seq, UserId};
use ringway_wire::limits::SERVER_FRAME_BYTES_MAX;
use ringway_wire::request::{Durability, PushView, Reply, Taken};
use ringway_wire::schema::{CloseReason, ErrorCode, GroupChangeKind};

use crate::model::{ChangeNo, Checked, Ledger, Model, SeenRow, SendKind, SendNo, Violation, passes, violated};

/// One device of one user.
pub(crate) struct Client {
    pub user: UserId,
    pub device: DeviceId,
    /// Reads nothing: a slow reader.
    pub stalled: bool,
    /// When it may connect again.
    pub connect_at_ms: u64,
    pub state: State,
    /// The highest row it has, with all before it: kept over connections.
    pub cursor: u64,
    /// The highest row it has acknowledged in a session, so the gateway may have kept it.
    pub acknowledged: u64,
    /// Sent without an answer before the connection ended.
    pub unanswered: Vec<SendNo>,
    /// Acked messages, to send again under their name now and then.
    pub acked: Vec<SendNo>,
    /// Why the gateway closed the last connection, if it said so.
    pub closing: Option<CloseReason>,
    /// When anything was last sent.
    pub sent_at_ms: u64,
    /// How often it has logged in.
    sessions: u64,
    token: String,
    asked: BTreeMap<RequestId, Asked>,
    session: Session,
    seen: Seen,
    deframer: Deframer,
    encoder: Encoder,
}

/// Where the device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Offline,
    /// The login was sent.
    LoggingIn,
    Online,
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

#[derive(Clone, Debug)]
enum Asked {
    Login { last_seq: Option<u64>, seen: u64 },
    Send(SendNo, SendKind),
    Change(ChangeNo),
    Sync { after: u64 },
    Info,
    Other,
}

impl Client {
    /// A device that was never online.
    pub(crate) fn new(user: UserId, device: DeviceId, token: String) -> Self {
        Client {
            user,
            device,
            stalled: false,
            connect_at_ms: 0,
            state: State::Offline,
            cursor: 0,
            acknowledged: 0,
            unanswered: Vec::new(),
            acked: Vec::new(),
            closing: None,
            sent_at_ms: 0,
            sessions: 0,
            token,
            asked: BTreeMap::new(),
            session: Session::new(None),
            seen: Seen::default(),
            deframer: Deframer::default(),
            encoder: Encoder::new(),
        }
    }

    /// Nothing waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.unanswered.is_empty()
    }

    /// Requests without an answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.asked.len()
    }

    /// What waits for an answer, to be printed.
    pub(crate) fn waiting(&self) -> String {
        format!("{:?}, to send again {:?}", self.asked, self.unanswered)
    }

    /// Whether the rows that came reach the newest at login.
    pub(crate) fn caught_up_to(&self, newest: u64) -> bool {
        self.state == State::Online && self.cursor >= newest
    }

    fn ask(&mut self, asked: Asked) -> u32 {
        let request = self.session.next_request();
        self.asked.insert(request, asked);
        request.0
    }

    /// Logs in from `last_seq`, or from where the gateway thinks this device is.
    pub(crate) fn login(&mut self, model: &Model, now: Now, last_seq: Option<u64>) -> Vec<u8> {
        self.state = State::LoggingIn;
        self.sessions += 1;
        self.closing = None;
        self.session = Session::new(last_seq.map(Seq));
        self.session.connecting(client_now(now));
        let seen = model.newest_row(self.user);
        let id = self.ask(Asked::Login { last_seq, seen });
        self.encoder.login(id, &self.token, self.device, last_seq.map(Seq)).to_vec()
    }

    /// Sends a message, for the first time or again.
    pub(crate) fn send(&mut self, model: &mut Model, number: SendNo) -> Vec<u8> {
        model.attempted(number, (self.device, self.sessions));
        self.unanswered.retain(|n| *n != number);
        let kind = if model.sends[number.0].ephemeral { SendKind::Ephemeral } else { SendKind::Stored };
        let id = self.ask(Asked::Send(number, kind));
        let send = &model.sends[number.0];
        let durability = if send.ephemeral { Durability::Ephemeral } else { Durability::Durable };
        self.encoder.send(id, send.to, send.name, &send.body, durability).to_vec()
    }

    /// Asks for a change of a group, or for a new one.
    pub(crate) fn change(
        &mut self,
        model: &mut Model,
        group: Option<GroupId>,
        kind: GroupChangeKind,
        users: Vec<UserId>,
    ) -> Vec<u8> {
        let number = model.asked(self.user, group, kind, users.clone());
        let id = self.ask(Asked::Change(number));
        let group = group.unwrap_or_default();
        match kind {
            GroupChangeKind::Created => self.encoder.group_create(id, &users),
            GroupChangeKind::Added => self.encoder.group_add(id, group, &users),
            GroupChangeKind::Removed => self.encoder.group_remove(id, group, &users),
            _ => self.encoder.group_leave(id, group),
        }
        .to_vec()
    }

    /// Acknowledges all it has.
    pub(crate) fn acknowledge(&mut self) -> Vec<u8> {
        self.acknowledged = self.acknowledged.max(self.cursor);
        self.encoder.ack(Seq(self.cursor)).to_vec()
    }

    /// Asks for a page of history.
    pub(crate) fn sync(&mut self, after: u64, rows_max: u32) -> Vec<u8> {
        let id = self.ask(Asked::Sync { after });
        self.encoder.sync(id, Seq(after), rows_max).to_vec()
    }

    /// Asks who is in a group.
    pub(crate) fn info(&mut self, group: GroupId) -> Vec<u8> {
        let id = self.ask(Asked::Info);
        self.encoder.group_info_request(id, group).to_vec()
    }

    /// Asks which groups it is in, who is online, or only whether anybody is there.
    pub(crate) fn other(&mut self, which: usize, users: &[UserId]) -> Vec<u8> {
        let id = self.ask(Asked::Other);
        match which {
            0 => self.encoder.group_list_request(id),
            1 => self.encoder.presence_request(id, users),
            _ => self.encoder.ping(id),
        }
        .to_vec()
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        self.state = State::Offline;
        self.deframer = Deframer::default();
        self.seen = Seen::default();
        for (_, asked) in std::mem::take(&mut self.asked) {
            // Ephemeral messages are not sent again.
            if let Asked::Send(number, SendKind::Stored) = asked
                && !self.unanswered.contains(&number)
            {
                self.unanswered.push(number);
            }
        }
    }

    /// Bytes came from the gateway.
    pub(crate) fn receive(&mut self, model: &mut Model, now: Now, bytes: &[u8]) -> Checked {
        let mut rest = bytes;
        let mut deframer = std::mem::take(&mut self.deframer);
        loop {
            let frame = deframer.next(&mut rest, SERVER_FRAME_BYTES_MAX);
            let Some(frame) = frame.map_err(|error| Violation(format!("{}: {error}", self.user)))? else { break };
            let cursor = self.cursor;
            let incoming = self.session.receive(client_now(now), frame).map_err(|error| {
                Violation(format!("I3: {} device {} at row {cursor}: {error}", self.user, self.device))
            })?;
            // Before the login is answered it is where it was.
            if self.session.is_live() {
                self.cursor = self.session.cursor().0;
            }
            self.incoming(model, incoming)?;
        }
        self.deframer = deframer;
        Ok(())
    }

    fn incoming(&mut self, model: &mut Model, incoming: Incoming<'_>) -> Checked {
        match incoming {
            Incoming::LoggedIn(info) => self.logged_in(model, info),
            Incoming::Row(view) => {
                self.seen.pushed = view.seq.0;
                model.row(self.user, seen(view))
            }
            Incoming::Repeated(view) => self.repeated(model, view),
            Incoming::Ephemeral(view) => model.row(self.user, seen(view)),
            Incoming::Gap { from, to } => model.gap(self.user, from.0, to.0),
            Incoming::Closing(closing) => self.closed(closing.reason),
            Incoming::Sent(sent) => self.sent(model, sent),
            Incoming::Refused(refusal) => self.refused(model, refusal.request, refusal.code),
            Incoming::Other { reply: Reply::GroupChanged { group, version, kind, actor, members, .. }, .. } => {
                model.announced(group, version, kind, actor, members.into_iter().collect())
            }
            Incoming::Other { request, reply } => self.answered(model, request, reply),
        }
    }

    fn sent(&mut self, model: &mut Model, sent: SendAnswer) -> Checked {
        let SendAnswer { request, msg_id, seq, sent_at_ms, repeat, row } = sent;
        match self.asked.remove(&request) {
            Some(Asked::Send(number, _)) => {
                let taken = if repeat { Taken::Before } else { Taken::Now };
                model.acked(number, msg_id, seq.0, sent_at_ms, taken)?;
                if seq.0 > 0 && !self.acked.contains(&number) {
                    self.acked.push(number);
                }
                if row == OwnRow::Next {
                    self.seen.owned.insert(seq.0);
                }
                Ok(())
            }
            asked => violated!("{} asked {asked:?} ({request}) and was answered SendOk", self.user),
        }
    }

    fn refused(&mut self, model: &mut Model, request: RequestId, code: ErrorCode) -> Checked {
        match self.asked.remove(&request) {
            Some(Asked::Send(number, kind)) => {
                if (passes(code) || code == ErrorCode::StorageFull) && kind == SendKind::Stored {
                    self.unanswered.push(number);
                }
                model.refused(number, code)
            }
            Some(Asked::Change(number)) => {
                model.change_refused(number, code);
                Ok(())
            }
            Some(Asked::Info | Asked::Sync { .. } | Asked::Other) => Ok(()),
            asked => violated!("{} asked {asked:?} ({request}) and was answered {code:?}", self.user),
        }
    }

    fn answered(&mut self, model: &mut Model, request: RequestId, reply: Reply<'_>) -> Checked {
        match (self.asked.remove(&request), reply) {
            (Some(Asked::Change(number)), Reply::GroupOk { group, version, .. }) => {
                model.changed(number, group, version)
            }
            (Some(Asked::Sync { after }), Reply::SyncPage { rows, through, end, gap_to }) => {
                self.page(model, after, &rows, (through.0, end, gap_to.map(|to| to.0)))
            }
            (Some(Asked::Info), Reply::GroupInfo { group, version, members }) => {
                model.members(group, version, members.into_iter().map(|(user, _)| user).collect())
            }
            (Some(Asked::Other), Reply::GroupList { .. } | Reply::Presence { .. } | Reply::Pong { .. }) => Ok(()),
            (asked, reply) => violated!("{} asked {asked:?} ({request}) and was answered {reply:?}", self.user),
        }
    }

    fn logged_in(&mut self, model: &Model, info: LoginInfo) -> Checked {
        let LoginInfo { user, last_seq: Seq(newest), from_seq: Seq(from), .. } = info;
        if user != self.user {
            return violated!("{} is logged in as {user}", self.user);
        }
        // One login a session, so its question is the only one of its kind.
        let asked = self.asked.iter().find(|(_, asked)| matches!(asked, Asked::Login { .. })).map(|(id, _)| *id);
        let Some(Asked::Login { last_seq, seen }) = asked.and_then(|id| self.asked.remove(&id)) else {
            return violated!("{} did not ask to log in", self.user);
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
        self.state = State::Online;
        self.seen = Seen { owned: BTreeSet::new(), pushed: from, newest };
        Ok(())
    }

    /// A row that is here already: once more, if it was only seen as a `SendOk`.
    fn repeated(&mut self, model: &mut Model, view: PushView<'_>) -> Checked {
        model.row(self.user, seen(view))?;
        let seq = view.seq.0;
        if seq <= self.seen.pushed || !self.seen.owned.remove(&seq) {
            return violated!(
                "I3: {} device {} has rows up to {} (pushed up to {}) and gets row {seq}",
                self.user,
                self.device,
                self.cursor,
                self.seen.pushed
            );
        }
        self.seen.pushed = seq;
        Ok(())
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

    fn closed(&mut self, reason: CloseReason) -> Checked {
        self.closing = Some(reason);
        match reason {
            // A client that does what the protocol says is never closed for these.
            CloseReason::BadFrame
            | CloseReason::FrameTooLarge
            | CloseReason::UnknownRequest
            | CloseReason::NotLoggedIn
            | CloseReason::TokenInvalid
            | CloseReason::TokenExpired
            | CloseReason::SeqAhead
            | CloseReason::NotRingway => violated!("{} at row {} was closed as {reason:?}", self.user, self.cursor),
            _ => Ok(()),
        }
    }
}

/// The same time, in the client's words.
fn client_now(now: Now) -> ringway_client::Now {
    ringway_client::Now { mono_ms: now.mono_ms, unix_ms: now.unix_ms }
}

fn seen(view: PushView<'_>) -> SeenRow<'_> {
    let PushView { seq, msg_id, sender, to, sent_at_ms, body } = view;
    SeenRow { seq: seq.0, msg_id, sender, to, sent_at_ms, body }
}
