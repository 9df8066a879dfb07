//! The bench against a gateway in memory that can be told to misbehave: whatever goes wrong must be found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use clap::Parser;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::*;
use crate::clock::Clock;
use crate::contract::{StoreError, StoredRows, Stores};
use crate::cpus::Cpus;
use crate::pace::Pace;
use crate::rounds::Round;
use crate::tokens::Secret;
use ringway_wire::deframer::Deframer;
use ringway_wire::frame::{Encoder, PushFrame, read_client};
use ringway_wire::ids::{MsgId, RosterVersion};
use ringway_wire::limits::CLIENT_FRAME_BYTES_MAX;
use ringway_wire::request::{Login, PageEnd, PushView, Request, Taken};

/// What the gateway does wrong, with message 15: the warm-up has ten, the measured round the next ten.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Loses,
    Doubles,
    Swaps,
    Harms,
    AcksNever,
    AcksAnother,
    StoresNot,
    StoresAnother,
    RefusesOnce,
}

const FAULTY: u64 = 15;
/// Who suffers from it.
const VICTIM: UserId = UserId(FIRST_USER + 2);

enum Event {
    Opened(u32, TcpStream),
    Frame(u32, Vec<u8>),
    Closed(u32),
}

/// A message with its frame.
struct Message {
    msg_id: MsgId,
    sender: UserId,
    to: Conversation,
    push: PushFrame,
}

impl Message {
    fn view(&self, seq: Seq) -> PushView<'_> {
        let body = self.push.body();
        PushView { seq, msg_id: self.msg_id, sender: self.sender, to: self.to, sent_at_ms: 1, body }
    }
}

/// A gateway for one group, on a thread.
struct Fake {
    fault: Fault,
    links: HashMap<u32, (TcpStream, UserId)>,
    members: Vec<UserId>,
    inboxes: HashMap<UserId, Vec<std::sync::Arc<Message>>>,
    messages: u64,
    held: HashMap<u32, Vec<u8>>,
    encoder: Encoder,
}

fn start(fault: Fault) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (events_to, events) = bounded(64);
    std::thread::spawn(move || {
        for (id, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let id = id as u32;
            if events_to.send(Event::Opened(id, stream.try_clone().unwrap())).is_err() {
                return;
            }
            let events_to = events_to.clone();
            std::thread::spawn(move || read(id, stream, &events_to));
        }
    });
    std::thread::spawn(move || {
        let (links, members, inboxes) = (HashMap::new(), Vec::new(), HashMap::new());
        let encoder = Encoder::new();
        Fake { fault, links, members, inboxes, messages: 0, held: HashMap::new(), encoder }.run(&events);
    });
    addr
}

fn read(id: u32, mut stream: TcpStream, events_to: &Sender<Event>) {
    let mut deframer = Deframer::default();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        let mut input = &buffer[..n];
        while let Some(frame) = deframer.next(&mut input, CLIENT_FRAME_BYTES_MAX).unwrap() {
            events_to.send(Event::Frame(id, frame.to_vec())).ok();
        }
    }
    events_to.send(Event::Closed(id)).ok();
}

impl Fake {
    fn run(mut self, events: &Receiver<Event>) {
        for event in events {
            match event {
                Event::Opened(id, stream) => drop(self.links.insert(id, (stream, UserId(0)))),
                Event::Closed(id) => drop(self.links.remove(&id)),
                Event::Frame(id, frame) => self.frame(id, &frame),
            }
        }
    }

    fn reply(&mut self, id: u32, bytes: &[u8]) {
        if let Some((stream, _)) = self.links.get_mut(&id) {
            stream.write_all(bytes).ok();
        }
    }

    fn frame(&mut self, id: u32, frame: &[u8]) {
        let (request_id, request) = read_client(frame).unwrap();
        let bytes = match request {
            Request::Login(Login { token, .. }) => {
                let user = bearer(token);
                self.links.get_mut(&id).unwrap().1 = user;
                let newest = Seq(self.inboxes.get(&user).map_or(0, Vec::len) as u64);
                self.encoder.login_ok(request_id, 1, user, 1, 60_000, newest, newest).to_vec()
            }
            Request::GroupCreate { members, .. } => {
                self.members = members.unwrap().iter().chain([self.links[&id].1]).collect();
                self.encoder.group_ok(request_id, GroupId(9), RosterVersion(1)).to_vec()
            }
            Request::Send { to, body, .. } => return self.send(id, request_id, to, body),
            Request::Sync { after, .. } => {
                let user = self.links[&id].1;
                let inbox = &self.inboxes[&user];
                let rows = inbox.iter().enumerate().skip(after.0 as usize);
                let rows = rows.map(|(at, message)| message.view(Seq(at as u64 + 1))).collect::<Vec<_>>();
                let through = Seq(inbox.len() as u64);
                self.encoder.sync_page(request_id, rows.into_iter(), None, through, PageEnd::Newest).to_vec()
            }
            Request::Logout => return drop(self.links.remove(&id)),
            _ => return,
        };
        self.reply(id, &bytes);
    }

    fn send(&mut self, id: u32, request_id: u32, to: Conversation, body: &[u8]) {
        let number = self.messages;
        let faulty = number == FAULTY;
        if faulty && self.fault == Fault::RefusesOnce {
            self.fault = Fault::None;
            let code = ringway_wire::schema::ErrorCode::RetryLater;
            let bytes = self.encoder.error(request_id, code, "full", 5, 1).to_vec();
            return self.reply(id, &bytes);
        }
        self.messages += 1;
        let fault = if faulty { self.fault } else { Fault::None };
        let sender = self.links[&id].1;
        let message = message(number, sender, to, body);
        let mut ack_seq = Seq(0);
        for user in self.members.clone() {
            let inbox = self.inboxes.entry(user).or_default();
            let seq = Seq(inbox.len() as u64 + 1);
            let victim = user == VICTIM;
            inbox.push(if victim && fault == Fault::StoresAnother { inbox[0].clone() } else { message.clone() });
            if user == sender {
                ack_seq = seq;
                continue;
            }
            let online: Vec<u32> = self.links.iter().filter(|(_, (_, who))| *who == user).map(|(id, _)| *id).collect();
            for id in online {
                self.push(id, &message, seq, if victim { fault } else { Fault::None });
            }
            if victim && fault == Fault::StoresNot {
                self.inboxes.get_mut(&user).unwrap().pop();
            }
        }
        if fault != Fault::AcksNever {
            let id_acked = if fault == Fault::AcksAnother { MsgId(1) } else { message.msg_id };
            let bytes = self.encoder.send_ok(request_id, id_acked, ack_seq, 1, Taken::Now).to_vec();
            self.reply(id, &bytes);
        }
    }

    fn push(&mut self, id: u32, message: &Message, seq: Seq, fault: Fault) {
        let mut bytes = message.push.bytes().to_vec();
        let at = message.push.seq_at();
        bytes[at..at + 8].copy_from_slice(&seq.0.to_le_bytes());
        match fault {
            Fault::Loses => return,
            Fault::Swaps => return drop(self.held.insert(id, bytes)),
            Fault::Doubles => bytes.extend_from_slice(&bytes.clone()),
            Fault::Harms => bytes[message.push.body_at() + 50] ^= 1,
            _ => {}
        }
        self.reply(id, &bytes);
        if let Some(held) = self.held.remove(&id) {
            self.reply(id, &held);
        }
    }
}

fn message(number: u64, sender: UserId, to: Conversation, body: &[u8]) -> std::sync::Arc<Message> {
    let msg_id = MsgId(1_000 + number);
    let push = PushFrame::encode(msg_id, sender, to, 1, body);
    std::sync::Arc::new(Message { msg_id, sender, to, push })
}

/// Who a token says its bearer is.
fn bearer(token: &str) -> UserId {
    #[derive(serde::Deserialize)]
    struct Claims {
        sub: String,
    }
    let key = jsonwebtoken::DecodingKey::from_secret(b"secret");
    let rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    UserId(jsonwebtoken::decode::<Claims>(token, &key, &rules).unwrap().claims.sub.parse().unwrap())
}

/// Rows are counted over the protocol.
struct NoStores;

impl Stores for NoStores {
    fn check(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    fn open(&self, _: Option<&str>, _: Option<&std::path::Path>) -> Result<Box<dyn StoredRows>, StoreError> {
        Err(StoreError::NoFile)
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: GroupArgs,
}

/// Ten members, six online, ten messages; one round after the warm-up.
fn round(fault: Fault) -> Round {
    let args = Line::parse_from(["group", "--members", "10", "--online", "6"]).args;
    let secret = Secret(b"secret".to_vec());
    let target = Target {
        addr: start(fault),
        secret,
        gateway: None,
        others: Vec::new(),
        cpus: Cpus::default(),
        clock: Clock::start(),
    };
    let group = found(&target, args.members).unwrap();
    let mut bench = log_in(&args, target, group, &NoStores).unwrap();
    bench.patience_ns = 400_000_000;
    let rounds = bench.rounds(1, Pace::Burst(10)).unwrap();
    rounds.rounds.into_iter().next().unwrap()
}

#[test]
fn a_gateway_that_does_everything_right_is_clean() {
    let round = round(Fault::None);
    assert!(round.is_clean(), "{round:?}");
    assert_eq!((round.messages, round.expected, round.tally.delivered, round.acked), (10, 60, 60, 10));
    assert_eq!((round.rows_expected, round.rows_stored), (100, Some(100)));
}

#[test]
fn a_refusal_is_no_loss_because_the_message_is_sent_again() {
    let round = round(Fault::RefusesOnce);
    assert!(round.is_clean(), "{round:?}");
    assert_eq!((round.deferred, round.tally.delivered, round.rows_stored), (1, 60, Some(100)));
}

#[test]
fn one_delivery_of_many_that_goes_wrong_is_found_and_named() {
    let lost = round(Fault::Loses);
    assert_eq!((lost.lost(), lost.is_clean()), (1, false), "{lost:?}");
    let doubled = round(Fault::Doubles);
    assert_eq!((doubled.lost(), doubled.tally.duplicated, doubled.is_clean()), (0, 1, false), "{doubled:?}");
    let swapped = round(Fault::Swaps);
    assert_eq!((swapped.lost(), swapped.tally.out_of_order, swapped.is_clean()), (0, 1, false), "{swapped:?}");
    let harmed = round(Fault::Harms);
    assert_eq!((harmed.lost(), harmed.tally.corrupt, harmed.is_clean()), (1, 1, false), "{harmed:?}");
}

#[test]
fn an_ack_that_is_missing_or_names_another_message_is_found() {
    let missing = round(Fault::AcksNever);
    assert_eq!((missing.acked, missing.is_clean()), (9, false), "{missing:?}");
    let other = round(Fault::AcksAnother);
    assert!(!other.is_clean() && other.tally.corrupt > 0, "{other:?}");
}

#[test]
fn a_row_that_is_not_stored_or_is_another_is_found() {
    for fault in [Fault::StoresNot, Fault::StoresAnother] {
        let round = round(fault);
        assert!(!round.is_clean() && round.rows_stored < Some(100), "{round:?}");
    }
}
