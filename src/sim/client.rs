//! A device: the client core that users have, over the simulated network.
//!
//! Owned by the world. What always holds: the core decides what is put on the wire, and nothing else does; what goes there
//! and what comes from there is judged by [`DeviceCheck`], which sees the bytes alone, before the core sees them. A device
//! whose program starts anew has kept its unanswered messages, and of its inbox all, some, or nothing.

use ringway::clock::Now;
use ringway_client::client_core::{CoreError, Liveliness, Question};
use ringway_client::{ClientCore, ClientMsgId, Device, NextStep, RequestId};
use ringway_wire::ids::{DeviceId, Seq, UserId};

use crate::device_check::DeviceCheck;
use crate::model::{Checked, Model, SendNo, Violation, violated};
use crate::random::Random;

/// One device of one user.
pub(crate) struct Client {
    pub user: UserId,
    /// Neither reads nor looks at the time: a slow reader.
    pub stalled: bool,
    /// When it connects again.
    pub connect_at_ms: u64,
    /// What its connections carried.
    pub check: DeviceCheck,
    core: ClientCore,
    device: DeviceId,
    token: String,
    is_connected: bool,
    /// Messages that the core was given, the oldest first.
    given: Vec<(RequestId, SendNo)>,
    /// How far its wall clock is from the world's, milliseconds.
    clock_off_ms: i64,
}

/// When the gateway hears of what is safe on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Acks {
    AtOnce,
    /// When the core finds it time.
    Later,
}

/// Who makes a message's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Names {
    /// The core, with this randomness.
    Core(u128),
    /// The user, now or before.
    User,
}

impl Client {
    /// A device that was never online.
    pub(crate) fn new(user: UserId, device: DeviceId, token: String, clock_off_ms: i64) -> Self {
        Client {
            user,
            stalled: false,
            connect_at_ms: 0,
            check: DeviceCheck::new(user, device),
            core: ClientCore::new(Device::new(device, None)),
            device,
            token,
            is_connected: false,
            given: Vec::new(),
            clock_off_ms,
        }
    }

    /// It has no connection.
    pub(crate) fn is_offline(&self) -> bool {
        !self.is_connected
    }

    /// Its login was answered, and neither side has ended the session.
    pub(crate) fn is_live(&self) -> bool {
        self.core.session().is_live()
    }

    /// Whether the core still has this message to send, or waits for its answer.
    pub(crate) fn keeps(&self, number: SendNo) -> bool {
        self.given.iter().any(|(_, given)| *given == number)
    }

    /// Messages without an answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.core.unanswered().len()
    }

    /// Those messages, without those that nobody stores.
    pub(crate) fn unanswered_sends(&self) -> impl Iterator<Item = SendNo> {
        let keeps = |(request, _): &&(RequestId, SendNo)| self.core.unanswered().keeps(*request);
        self.given.iter().filter(keeps).map(|(_, number)| *number)
    }

    /// Nothing waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.check.in_flight() == 0 && self.core.unanswered().is_empty()
    }

    /// What waits for an answer, to be printed.
    pub(crate) fn waiting(&self) -> String {
        format!("{}, {} unanswered", self.check.waiting(), self.core.unanswered().len())
    }

    /// Whether the rows that came reach this one.
    pub(crate) fn caught_up_to(&self, newest: u64) -> bool {
        self.is_live() && self.check.cursor >= newest
    }

    /// A name for a message, and by whom it is made. The user's own is a little off, ahead by less than is refused.
    pub(crate) fn name(&self, now: Now, random: &Random) -> (ClientMsgId, Names) {
        let (now, bits) = (self.now(now), random.bits());
        if random.chance(1, 2) {
            return (self.core.session().new_client_msg_id(now, bits), Names::Core(bits));
        }
        let server_ms = self.core.session().server_ms(now);
        (ClientMsgId::from_parts(server_ms + 2_000 - random.between(0, 4_000), bits), Names::User)
    }

    /// The program on the device starts anew, with what it has kept: the inbox to this row (`None`: what the gateway knows
    /// of), and the messages without an answer under their names.
    pub(crate) fn restart(&mut self, model: &Model, now: Now, last_seq: Option<u64>) {
        let device = Device::new(self.device, last_seq.map(Seq));
        let before = std::mem::replace(&mut self.core, ClientCore::new(device));
        for (request, number) in std::mem::take(&mut self.given) {
            if before.unanswered().keeps(request) {
                self.send(model, now, number, Names::User);
            }
        }
    }

    /// A connection was made.
    pub(crate) fn connected(&mut self, now: Now) {
        self.is_connected = true;
        self.check.connected();
        self.core.connected(self.now(now), &self.token);
    }

    /// Sends a message, or keeps it until it can be sent.
    pub(crate) fn send(&mut self, model: &Model, now: Now, number: SendNo, names: Names) {
        let (send, now) = (&model.sends[number.0], self.now(now));
        let sent = match names {
            Names::Core(random) if send.ephemeral => self.core.send_ephemeral(now, send.to, &send.body, random),
            Names::Core(random) => self.core.send(now, send.to, &send.body, random),
            Names::User => self.core.send_as(now, send.name, send.to, &send.body),
        };
        self.given.extend(sent.ok().map(|request| (request, number)));
    }

    /// Asks for something.
    pub(crate) fn ask(&mut self, now: Now, question: Question<'_>) {
        self.core.ask(self.now(now), question);
    }

    /// All rows that have come are safe on the device.
    pub(crate) fn acknowledge(&mut self, now: Now, acks: Acks) {
        let now = self.now(now);
        self.core.stored(now, self.core.session().cursor());
        if acks == Acks::AtOnce {
            self.core.ack_now(now);
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Now, random: &Random) -> Liveliness {
        self.core.tick(self.now(now), || random.bits())
    }

    /// What is to be put on the connection.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        let bytes = self.core.output().to_vec();
        self.core.written(bytes.len());
        bytes
    }

    /// Bytes came from the gateway.
    pub(crate) fn receive(&mut self, model: &mut Model, now: Now, bytes: &[u8]) -> Checked {
        self.check.told(model, now.mono_ms, bytes)?;
        let (mut input, now) = (bytes, self.now(now));
        loop {
            match self.core.receive(now, &mut input) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(CoreError::Session(error)) => return self.gives_up(&error),
                Err(CoreError::Deframe(error)) => return self.gives_up(&error),
            }
        }
        let (session, cursor) = (self.core.session(), self.check.cursor);
        if session.is_live() && session.cursor().0 != cursor {
            return violated!("{} is at row {cursor}, and its client at {}", self.user, session.cursor());
        }
        self.given.retain(|(request, _)| self.core.unanswered().keeps(*request));
        Ok(())
    }

    fn gives_up(&self, error: &dyn std::error::Error) -> Checked {
        Err(Violation(format!("I3: the client of {} at row {} gives up: {error}", self.user, self.check.cursor)))
    }

    /// The connection is gone: what the core would do next.
    pub(crate) fn disconnected(&mut self, now: Now, random: u64) -> NextStep {
        self.is_connected = false;
        self.check.disconnected();
        self.core.ended(self.now(now), random)
    }

    /// The time, by the device's clocks.
    fn now(&self, now: Now) -> ringway_client::Now {
        ringway_client::Now { mono_ms: now.mono_ms, unix_ms: now.unix_ms.saturating_add_signed(self.clock_off_ms) }
    }
}
