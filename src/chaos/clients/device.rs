//! A device: it stays logged in, on one gateway after another, sends in bursts, and records all that comes.
//!
//! What always holds: a message that has no answer is sent again under its name, wherever the device is then.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use ringway_client::incoming::OwnRow;
use ringway_client::{ClientCore, Incoming, NextStep, PushView, RequestId};
use tokio::sync::watch;
use tokio::time::sleep;

use super::socket::{Ended, Socket, device};
use super::{Crowd, Phase};
use crate::clock;
use crate::error::Failure;
use crate::history::{Device, Line, Row, To};

/// Messages of one burst, at most; they are sent without waiting for answers.
const BURST_MAX: u64 = 5;
/// And on average.
pub(super) const BURST_MEAN: f64 = (1 + BURST_MAX) as f64 / 2.0;
/// While so many have no answer nothing is sent.
const UNANSWERED_MAX: usize = 32;
/// A device that is well goes to another gateway after so long, on average.
const STAY_MS: u64 = 30_000;
/// The longest wait before a connection is made again, however long the core would wait: a run is short.
const RECONNECT_MS_MAX: u64 = 3_000;

/// A device.
pub(super) struct Talker {
    who: Device,
    token: String,
    crowd: Rc<Crowd>,
    random: fastrand::Rng,
    core: ClientCore,
    book: Book,
    next_send_ms: u64,
    next: u64,
    has_logged_in: bool,
    /// Of what the crowd counts as unanswered, this device's part.
    counted: usize,
}

/// What it notes in the history.
struct Book {
    who: Device,
    crowd: Rc<Crowd>,
    keys: HashMap<RequestId, String>,
    connection: u32,
    node: usize,
    /// What was refused since it was last looked at.
    refused: Vec<(RequestId, String)>,
}

impl Talker {
    pub(super) fn new(who: Device, token: String, crowd: Rc<Crowd>, random: fastrand::Rng) -> Talker {
        let core = ClientCore::new(device(who.device, Some(0)));
        let keys = HashMap::new();
        let book = Book { who, crowd: Rc::clone(&crowd), keys, connection: 0, node: 0, refused: Vec::new() };
        Talker { who, token, crowd, random, core, book, next_send_ms: 0, next: 1, has_logged_in: false, counted: 0 }
    }

    /// Until it may leave.
    pub(super) async fn run(mut self, phase: watch::Receiver<Phase>) -> Result<(), Failure> {
        while !self.may_leave(&phase) {
            let ended = match self.connection(&phase).await {
                Ok(()) => Ended::Lost("went to another gateway".to_owned()),
                Err(ended) => ended,
            };
            if let Ended::Failed(failure) = ended {
                return Err(failure);
            }
            self.after(ended).await?;
        }
        Ok(())
    }

    fn may_leave(&self, phase: &watch::Receiver<Phase>) -> bool {
        match &*phase.borrow() {
            Phase::Talk | Phase::Quiet => false,
            Phase::Leave(newest) => newest.get(&self.who.user).is_none_or(|seq| self.core.session().cursor().0 >= *seq),
        }
    }

    /// One connection, until it ends or the device goes elsewhere.
    async fn connection(&mut self, phase: &watch::Receiver<Phase>) -> Result<(), Ended> {
        self.book.connection += 1;
        self.book.node = self.random.usize(..self.crowd.gateways.len().max(1));
        let Some(address) = self.crowd.gateways.get(self.book.node).copied() else { return Ok(()) };
        let mut socket = Socket::connect(address, &mut self.core, &self.token).await?;
        let leaves_ms = clock::now().mono_ms + self.random.u64(STAY_MS / 2..STAY_MS * 3 / 2);
        loop {
            let talks = *phase.borrow() == Phase::Talk;
            if talks && clock::now().mono_ms >= self.next_send_ms {
                self.burst()?;
            }
            let until_ms = if talks { self.next_send_ms } else { u64::MAX };
            let book = &mut self.book;
            let exchanged = socket.exchange(&mut self.core, until_ms, |incoming| book.take(incoming)).await;
            self.settle()?;
            exchanged?;
            if !self.has_logged_in && self.core.session().is_live() {
                self.has_logged_in = true;
                self.crowd.logged_in.set(self.crowd.logged_in.get() + 1);
            }
            if self.may_leave(phase) || (talks && clock::now().mono_ms >= leaves_ms) {
                return Ok(());
            }
        }
    }

    /// Sends a few messages to one conversation, or to two.
    fn burst(&mut self) -> Result<(), Failure> {
        self.next_send_ms = clock::now().mono_ms + self.random.u64(1..self.crowd.pause_ms.max(1) * 2);
        let mut to = self.conversation();
        for _ in 0..self.random.u64(1..=BURST_MAX) {
            if self.core.unanswered().len() >= UNANSWERED_MAX {
                return Ok(());
            }
            if self.random.u8(..8) == 0 {
                to = self.conversation();
            }
            let key = format!("{}.{}.{}", self.who.user, self.who.device, self.next);
            self.next += 1;
            let filler: String = (0..self.random.usize(1..48)).map(|_| self.random.alphanumeric()).collect();
            let body = format!("{key}:{filler}");
            let (at_us, who, connection) = (clock::us(), self.who, self.book.connection);
            self.crowd.recorder.record(&Line::Sent { at_us, who, connection, to, body: body.clone() })?;
            let sent = self.core.send(clock::now(), to.into(), body.as_bytes(), self.random.u128(..));
            let request = sent.map_err(|error| Failure::Clients(error.to_string()))?;
            self.book.keys.insert(request, key);
        }
        Ok(())
    }

    fn conversation(&mut self) -> To {
        let groups = self.crowd.groups.borrow();
        let mine: Vec<u64> =
            groups.iter().filter(|(_, members)| members.contains(&self.who.user)).map(|(group, _)| *group).collect();
        match self.random.choice(&mine) {
            Some(group) if self.random.bool() => To::Group(*group),
            _ => To::User(self.random.u64(1..=self.crowd.users)),
        }
    }

    /// Notes what has no answer yet, and which messages the core has given up.
    fn settle(&mut self) -> Result<(), Failure> {
        let unanswered = self.core.unanswered();
        let others = self.crowd.unanswered.get().saturating_sub(self.counted);
        self.counted = unanswered.len();
        self.crowd.unanswered.set(others + self.counted);
        for (request, code) in self.book.refused.drain(..) {
            let Some(key) = self.book.keys.get(&request).cloned() else { continue };
            let at_us = clock::us();
            let line = match unanswered.keeps(request) {
                true => Line::Delayed { at_us, key, code },
                false => Line::Refused { at_us, key, code },
            };
            self.crowd.recorder.record(&line)?;
        }
        Ok(())
    }

    /// After a connection: what the core says is to be done.
    async fn after(&mut self, ended: Ended) -> Result<(), Failure> {
        let (at_us, who, connection) = (clock::us(), self.who, self.book.connection);
        let recorder = &self.crowd.recorder;
        if let Ended::Broken(why) = &ended {
            recorder.record(&Line::Broken { at_us, who, why: why.clone() })?;
        }
        recorder.record(&Line::Disconnected { at_us, who, connection, cause: ended.to_string() })?;
        let now = clock::now();
        let wait_ms = match self.core.ended(now, self.random.u64(..)) {
            NextStep::Reconnect { at_ms } => at_ms.saturating_sub(now.mono_ms).min(RECONNECT_MS_MAX),
            NextStep::DropInbox => {
                let why = "told that its newest row is ahead of the inbox".to_owned();
                recorder.record(&Line::Broken { at_us, who, why })?;
                self.core.forget();
                0
            }
            NextStep::NewToken(reason) | NextStep::Stop(reason) => {
                let why = format!("turned away for good: {reason:?}");
                recorder.record(&Line::Broken { at_us, who, why })?;
                1_000
            }
        };
        sleep(Duration::from_millis(wait_ms)).await;
        Ok(())
    }
}

impl Book {
    /// Notes what came.
    fn take(&mut self, incoming: Incoming<'_>) -> Result<(), Failure> {
        let (at_us, who, connection) = (clock::us(), self.who, self.connection);
        let recorder = &self.crowd.recorder;
        match incoming {
            Incoming::LoggedIn(info) => {
                let (node, from_seq) = (self.node, info.from_seq.0);
                recorder.record(&Line::LoggedIn { at_us, who, node, connection, from_seq })
            }
            Incoming::Row(push) => recorder.record(&Line::Delivered { at_us, who, row: Row::from(&push) }),
            Incoming::Gap { from, to } => recorder.record(&Line::Gap { at_us, who, from: from.0, to: to.0 }),
            Incoming::Sent(sent) => {
                let Some(key) = self.keys.remove(&sent.request) else { return Ok(()) };
                let (msg_id, seq, repeat) = (sent.msg_id.0, sent.seq.0, sent.repeat);
                let own_row = sent.row == OwnRow::Next;
                recorder.record(&Line::Acked { at_us, key, connection, msg_id, seq, own_row, repeat })
            }
            Incoming::Refused(refusal) => {
                // What becomes of it the core says when it has seen this.
                self.refused.push((refusal.request, format!("{:?}", refusal.code)));
                Ok(())
            }
            Incoming::Repeated(_) | Incoming::Ephemeral(_) | Incoming::Closing(_) | Incoming::Other { .. } => Ok(()),
        }
    }
}

impl From<&PushView<'_>> for Row {
    fn from(push: &PushView<'_>) -> Row {
        Row {
            seq: push.seq.0,
            msg_id: push.msg_id.0,
            sender: push.sender.0,
            to: push.to.into(),
            body: String::from_utf8_lossy(push.body).into_owned(),
        }
    }
}
