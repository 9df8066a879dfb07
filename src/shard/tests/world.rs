//! Shards, a ledger, a store and clients, wired together without a thread: `settle` runs until nothing is left to do.

use std::collections::{BTreeMap, VecDeque};

pub(crate) use super::got::Got;
use super::got::owned;
use super::model::Ledger;
use crate::auth::{Authenticator, Minter, mint_hs256};
use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::ids::{ConnId, PeerAddress, ShardId};
use crate::contract::internal::InternalErrors;
use crate::contract::lane::{HandedOver, LaneEnvelope};
use crate::contract::nodes::ToNodes;
use crate::contract::store::{StoreAnswer, StoreAsk};
use crate::contract::submission::Submission;
use crate::shard::config::ShardConfig;
use crate::shard::effects::Closed;
use crate::shard::route::Outlets;
use crate::shard::{AfterWrite, Shard};
use ringway_wire::deframer::Deframer;
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, Seq, UserId};
use ringway_wire::request::Durability;
use ringway_wire::schema::CloseReason;

pub(crate) const SECRET: &[u8] = b"a secret that is long enough for tests";
pub(crate) const START: Now = Now { mono_ms: 1_000, unix_ms: 1_800_000_000_000 };

/// A client, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Client(pub usize);

pub(crate) struct ClientState {
    pub at: Option<(ShardId, ConnId)>,
    deframer: Deframer,
    /// All bytes that came.
    pub raw: Vec<u8>,
    read_at: usize,
    /// Does not read.
    pub stalled: bool,
    /// Bytes the socket takes before it is full, while stalled.
    pub takes: usize,
    /// Sent and not yet read by the gateway.
    sending: VecDeque<u8>,
}

/// Whether the shards' outlets take anything.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Room {
    #[default]
    Enough,
    Full,
}

/// What one shard wants passed on.
#[derive(Default)]
struct Wires {
    room: Room,
    unacknowledged: Option<u64>,
    submissions: Vec<Submission>,
    lanes: Vec<(ShardId, LaneEnvelope)>,
    asks: Vec<StoreAsk>,
    to_nodes: Vec<ToNodes>,
    handovers: Vec<(ConnId, ShardId, HandedOver)>,
    refused: Vec<(ConnId, Vec<u8>)>,
    closed: Vec<Closed>,
    resumed: Vec<ConnId>,
    cuts: Vec<ConnId>,
    dirty: Vec<ConnId>,
}

impl Wires {
    fn take<T>(room: Room, into: &mut Vec<T>, what: T) -> Result<(), T> {
        match room {
            Room::Enough => into.push(what),
            Room::Full => return Err(what),
        }
        Ok(())
    }
}

impl Outlets for Wires {
    type Peer = ConnId;

    fn submit(&mut self, submission: Submission) -> Result<(), Submission> {
        Wires::take(self.room, &mut self.submissions, submission)
    }

    fn cross(&mut self, to: ShardId, envelope: LaneEnvelope) -> Result<(), LaneEnvelope> {
        Wires::take(self.room, &mut self.lanes, (to, envelope)).map_err(|(_, envelope)| envelope)
    }

    fn ask(&mut self, ask: StoreAsk) -> Result<(), StoreAsk> {
        Wires::take(self.room, &mut self.asks, ask)
    }

    fn notify_nodes(&mut self, envelope: ToNodes) -> Result<(), ToNodes> {
        Wires::take(self.room, &mut self.to_nodes, envelope)
    }

    fn hand_over(&mut self, conn: ConnId, to: ShardId, session: HandedOver) -> Result<(), (ConnId, HandedOver)> {
        let refused = Wires::take(self.room, &mut self.handovers, (conn, to, session));
        refused.map_err(|(conn, _, session)| (conn, session))
    }

    fn refuse(&mut self, _: Now, conn: ConnId, _: CloseReason, last: &[u8]) {
        self.refused.push((conn, last.to_vec()));
    }

    fn unacknowledged(&mut self, _: ConnId) -> Option<u64> {
        self.unacknowledged
    }

    fn closed(&mut self, closed: &Closed) {
        self.closed.push(*closed);
    }

    fn resume(&mut self, conn: ConnId) {
        self.resumed.push(conn);
    }

    fn cut(&mut self, conn: ConnId) {
        self.cuts.push(conn);
    }

    fn write(&mut self, dirty: &mut Vec<ConnId>) {
        self.dirty.append(dirty);
    }

    fn wake(&mut self) {}
}

pub(crate) struct World {
    pub shards: Vec<Shard>,
    pub now: Now,
    pub ledger: Ledger,
    pub clients: Vec<ClientState>,
    by_conn: BTreeMap<(u16, u32, u32), usize>,
    encoder: Encoder,
    pub room: Room,
    /// Of every connection, bytes in the kernel's buffers.
    pub unacknowledged: Option<u64>,
    pub hold_ledger: bool,
    /// Ephemeral messages to groups wait for their recipients.
    pub hold_ephemerals: bool,
    pub hold_store: bool,
    pub held_submissions: VecDeque<Submission>,
    pub held_asks: VecDeque<(ShardId, StoreAsk)>,
    /// Answers of the store that come later than everything else.
    pub hold_answers: bool,
    pub held_answers: VecDeque<(ShardId, StoreAnswer)>,
    next_name: u64,
    /// All closes, if the shards list them.
    pub closed: Vec<Closed>,
    /// What was sent to other nodes.
    pub to_nodes: Vec<ToNodes>,
    /// The thread's count when the world was made.
    internal_errors_before: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        let errors = InternalErrors::of_this_thread();
        if !std::thread::panicking() && errors.total() > self.internal_errors_before {
            panic!("an internal error was counted: {errors:?}");
        }
    }
}

impl World {
    pub(crate) fn new(shards: u16) -> Self {
        Self::with(shards, |_| {})
    }

    pub(crate) fn with(shards: u16, adjust: impl Fn(&mut ShardConfig)) -> Self {
        let make = |id| {
            let mut config = ShardConfig::new(ShardId(id), shards);
            adjust(&mut config);
            Shard::new(config, Authenticator::hs256(SECRET))
        };
        World {
            shards: (0..shards).map(make).collect(),
            now: START,
            ledger: Ledger::new(shards),
            internal_errors_before: InternalErrors::of_this_thread().total(),
            clients: Vec::new(),
            by_conn: BTreeMap::new(),
            encoder: Encoder::new(),
            room: Room::Enough,
            unacknowledged: None,
            hold_ledger: false,
            hold_ephemerals: false,
            hold_store: false,
            held_submissions: VecDeque::new(),
            held_asks: VecDeque::new(),
            hold_answers: false,
            held_answers: VecDeque::new(),
            next_name: 0,
            closed: Vec::new(),
            to_nodes: Vec::new(),
        }
    }

    /// A user who lives on `shard`; `n` tells several apart.
    pub(crate) fn user_on(&self, shard: u16, n: usize) -> u64 {
        (1..).filter(|id| ShardId::of_user(UserId(*id), self.shards.len() as u16) == ShardId(shard)).nth(n).unwrap()
    }

    /// A group that lives on `shard`.
    pub(crate) fn group_on(&self, shard: u16) -> GroupId {
        (1_000..).map(GroupId).find(|id| ShardId::of_group(*id, self.shards.len() as u16) == ShardId(shard)).unwrap()
    }

    pub(crate) fn connect(&mut self, shard: u16) -> Client {
        self.connect_from(shard, PeerAddress::default())
    }

    pub(crate) fn connect_from(&mut self, shard: u16, from: PeerAddress) -> Client {
        let conn = self.shards[usize::from(shard)].accept(self.now, from).expect("accepted");
        let client = Client(self.clients.len());
        self.clients.push(ClientState {
            at: Some((ShardId(shard), conn)),
            deframer: Deframer::default(),
            raw: Vec::new(),
            read_at: 0,
            stalled: false,
            takes: 0,
            sending: VecDeque::new(),
        });
        self.by_conn.insert((shard, conn.slot, conn.generation), client.0);
        client
    }

    /// What a client writes reaches the shard that has its connection, when that reads.
    pub(crate) fn send_bytes(&mut self, client: Client, bytes: &[u8]) {
        self.clients[client.0].sending.extend(bytes);
        self.read_from(client);
    }

    fn read_from(&mut self, client: Client) {
        let state = &mut self.clients[client.0];
        let Some((shard, conn)) = state.at else { return };
        let shard = &mut self.shards[usize::from(shard.0)];
        if shard.wants_read(conn) {
            let mut bytes: Vec<u8> = state.sending.drain(..).collect();
            if !bytes.is_empty() {
                shard.receive(self.now, conn, &mut bytes);
            }
        }
    }

    pub(crate) fn frame(&mut self, client: Client, encode: impl for<'e> FnOnce(&'e mut Encoder) -> &'e [u8]) {
        let bytes = encode(&mut self.encoder).to_vec();
        self.send_bytes(client, &bytes);
    }

    pub(crate) fn token(&self, user: u64, device: Option<u64>) -> String {
        mint_hs256(SECRET, UserId(user), device.map(DeviceId), self.now.unix_ms / 1000 + 3_600)
    }

    /// A token that says when it was issued, or does not.
    pub(crate) fn token_issued(&self, user: u64, issued_at_s: Option<u64>) -> String {
        let expires_at_s = self.now.unix_ms / 1000 + 3_600;
        Minter::hs256(SECRET).mint_issued(UserId(user), None, issued_at_s, expires_at_s)
    }

    /// Connects to the user's own shard and logs in.
    pub(crate) fn login(&mut self, user: u64, device: u64, last_seq: Option<u64>) -> Client {
        let client = self.connect(ShardId::of_user(UserId(user), self.shards.len() as u16).0);
        self.login_frame(client, user, device, last_seq);
        self.settle();
        client
    }

    pub(crate) fn login_frame(&mut self, client: Client, user: u64, device: u64, last_seq: Option<u64>) {
        let token = self.token(user, None);
        self.frame(client, |encoder| encoder.login(1, &token, DeviceId(device), last_seq.map(Seq)));
    }

    /// A name that no message had.
    pub(crate) fn name(&mut self) -> ClientMsgId {
        self.next_name += 1;
        ClientMsgId::from_parts(self.now.unix_ms, u128::from(self.next_name))
    }

    pub(crate) fn send_to(&mut self, client: Client, request: u32, to: Conversation, body: &[u8]) {
        let name = self.name();
        self.frame(client, |encoder| encoder.send(request, to, name, body, Durability::Durable));
    }

    /// Runs until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        while self.step() {}
    }

    fn step(&mut self) -> bool {
        let mut busy = false;
        for at in 0..self.shards.len() {
            let shard = ShardId(at as u16);
            busy |= !self.shards[at].effects().is_empty();
            let mut wires = Wires { room: self.room, unacknowledged: self.unacknowledged, ..Wires::default() };
            self.shards[at].route(self.now, &mut wires);
            self.pass_on(shard, wires);
            busy |= !self.hold_ephemerals && self.shards[at].deliver_ephemerals(self.now).is_some();
        }
        busy | self.ledger_step() | self.store_step()
    }

    fn pass_on(&mut self, shard: ShardId, wires: Wires) {
        self.closed.extend(wires.closed);
        self.to_nodes.extend(wires.to_nodes);
        self.held_submissions.extend(wires.submissions);
        self.held_asks.extend(wires.asks.into_iter().map(|ask| (shard, ask)));
        for (to, envelope) in wires.lanes {
            self.shards[usize::from(to.0)].lane(self.now, envelope);
        }
        for (conn, to, handed) in wires.handovers {
            let client = self.by_conn.remove(&(shard.0, conn.slot, conn.generation)).expect("a client's connection");
            let conn = self.shards[usize::from(to.0)].adopt(self.now, handed).expect("adopted");
            self.by_conn.insert((to.0, conn.slot, conn.generation), client);
            self.clients[client].at = Some((to, conn));
        }
        for (conn, last) in wires.refused {
            let client = self.by_conn.remove(&(shard.0, conn.slot, conn.generation)).expect("a client's connection");
            self.clients[client].raw.extend_from_slice(&last);
            self.clients[client].at = None;
        }
        for conn in wires.dirty {
            self.write(shard, conn);
        }
        for conn in wires.cuts {
            self.gone(shard, conn);
        }
        for conn in wires.resumed {
            let client = self.by_conn.get(&(shard.0, conn.slot, conn.generation)).copied();
            self.read_from(Client(client.expect("a client's connection")));
        }
    }

    fn ledger_step(&mut self) -> bool {
        if self.hold_ledger {
            return false;
        }
        let Some(submission) = self.held_submissions.pop_front() else { return false };
        let deliveries = self.ledger.submit(submission);
        self.deliver(deliveries);
        true
    }

    pub(crate) fn deliver(&mut self, deliveries: Vec<(ShardId, Delivery)>) {
        for (shard, delivery) in deliveries {
            self.shards[usize::from(shard.0)].deliver(self.now, delivery);
        }
    }

    fn store_step(&mut self) -> bool {
        if !self.hold_answers
            && let Some((shard, answer)) = self.held_answers.pop_front()
        {
            self.shards[usize::from(shard.0)].stored(self.now, answer);
            return true;
        }
        if self.hold_store {
            return false;
        }
        let Some((shard, ask)) = self.held_asks.pop_front() else { return false };
        if let Some(answer) = self.ledger.ask(ask) {
            self.held_answers.push_back((shard, answer));
        }
        true
    }

    /// Writes as much of a connection's outbox as its client takes.
    pub(crate) fn write(&mut self, shard: ShardId, conn: ConnId) {
        let Some(client) = self.by_conn.get(&(shard.0, conn.slot, conn.generation)).copied() else { return };
        loop {
            let core = &mut self.shards[usize::from(shard.0)];
            let mut bytes = core.outbox(conn).map(|outbox| outbox.to_vec()).unwrap_or_default();
            let state = &mut self.clients[client];
            if state.stalled {
                bytes.truncate(state.takes);
                state.takes -= bytes.len();
            }
            state.raw.extend_from_slice(&bytes);
            match core.written(self.now, conn, bytes.len()) {
                AfterWrite::Drained => return,
                AfterWrite::CloseNow => return self.gone(shard, conn),
                AfterWrite::More if self.clients[client].stalled => return,
                AfterWrite::More => {}
            }
        }
    }

    fn gone(&mut self, shard: ShardId, conn: ConnId) {
        self.shards[usize::from(shard.0)].disconnected(self.now, conn);
        if let Some(client) = self.by_conn.remove(&(shard.0, conn.slot, conn.generation)) {
            self.clients[client].at = None;
        }
    }

    /// The client closes its socket.
    pub(crate) fn hang_up(&mut self, client: Client) {
        if let Some((shard, conn)) = self.clients[client.0].at {
            self.gone(shard, conn);
        }
        self.settle();
    }

    /// The client reads again.
    pub(crate) fn unstall(&mut self, client: Client) {
        self.clients[client.0].stalled = false;
        if let Some((shard, conn)) = self.clients[client.0].at {
            self.write(shard, conn);
        }
        self.settle();
    }

    /// Time passes, with a tick every 20 ms.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now.mono_ms + ms;
        while self.now.mono_ms < until {
            let step = 20.min(until - self.now.mono_ms);
            self.now = Now { mono_ms: self.now.mono_ms + step, unix_ms: self.now.unix_ms + step };
            for shard in &mut self.shards {
                shard.tick(self.now);
            }
            self.settle();
        }
    }

    /// What the client received since the last call.
    pub(crate) fn got(&mut self, client: Client) -> Vec<Got> {
        let state = &mut self.clients[client.0];
        let mut input = &state.raw[state.read_at..];
        let mut all = Vec::new();
        while let Some(frame) = state.deframer.next(&mut input, 1 << 20).expect("whole frames") {
            all.push(owned(frame));
        }
        state.read_at = state.raw.len();
        all
    }

    /// The seqs of the pushes received since the last call.
    pub(crate) fn seqs(&mut self, client: Client) -> Vec<u64> {
        let seq = |got: Got| match got {
            Got::Push { seq, .. } => Some(seq),
            _ => None,
        };
        self.got(client).into_iter().filter_map(seq).collect()
    }

    pub(crate) fn is_open(&self, client: Client) -> bool {
        self.clients[client.0].at.is_some()
    }

    pub(crate) fn conn(&self, client: Client) -> (ShardId, ConnId) {
        self.clients[client.0].at.expect("connected")
    }

    /// Bytes waiting for a client.
    pub(crate) fn waiting(&mut self, client: Client) -> usize {
        let (shard, conn) = self.conn(client);
        self.shards[usize::from(shard.0)].outbox(conn).map_or(0, |outbox| outbox.len())
    }

    pub(crate) fn refuse_next_submission(&mut self, shard: u16) {
        let submission = self.held_submissions.pop_front().expect("a submission");
        self.shards[usize::from(shard)].refused_submission(self.now, submission);
    }
}
