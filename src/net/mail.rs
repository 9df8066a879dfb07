//! What comes from other threads: out of the shard's mailbox, into the core, and what becomes of it into sockets.
//!
//! Owned by the loop of one shard. What always holds: outboxes are written when the mailbox is empty or enough has been
//! put into them, each once; and after a turn of `TURN_ITEMS_MAX` items or sockets, or of
//! a part of a fan-out, the loop looks whose time it is.

use std::task::Waker;
use std::vec;

use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::ids::ConnId;
use crate::contract::internal::{Place, count};
use crate::contract::report::Depths;
use crate::limits::{FANOUT_PART_BYTES_MAX, OUTBOX_BYTES_MAX, TURN_ITEMS_MAX};
use crate::net::outlets::ShardOutlets;
use crate::net::outlets::write::write;
use crate::net::run_queue::Line;
use crate::net::shell::Shell;
use crate::net::written::Unwritten;
use crate::shard::fanout::{Delivered, Write};
use crate::shard::{NotAdopted, Shard};
use crate::topology::mailbox::{Crossing, Handover, Mail, Mailbox, Order};

/// Pushed bytes per recipient after which outboxes are written although more waits: a quarter of an outbox, so
/// that a member of every group fanned out in one commit does not fall behind only because nobody wrote.
const FLUSH_BYTES: usize = OUTBOX_BYTES_MAX / 4;

/// A shard's mailbox, and how far the shard is with what was in it.
pub(crate) struct MailReader {
    mailbox: Mailbox,
    /// What the mailbox wakes: the ring.
    alarm: Waker,
    state: State,
    /// Which part of the mailbox is next.
    turn: usize,
    /// What is left of the commit being handed in.
    commit: vec::IntoIter<Delivery>,
    /// Bytes one recipient of everything would have waiting.
    unflushed_bytes: usize,
    /// Outboxes being written; keeps its memory from turn to turn.
    flushing: Vec<ConnId>,
    /// Messages that wait for that.
    unwritten: Unwritten,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing waits in the mailbox; it sounds the alarm when something does.
    Empty,
    /// Something may wait.
    Taking,
    /// Dirty outboxes are written first.
    Writing(Then),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Empty,
    Taking,
}

/// What a turn leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// There may be more to do.
    More,
    /// Nothing.
    Nothing,
}

impl MailReader {
    /// Nothing has come yet. `alarm`: ends the shard's sleep.
    pub(crate) fn new(mailbox: Mailbox, alarm: Waker) -> Self {
        MailReader {
            mailbox,
            alarm,
            state: State::Taking,
            turn: 0,
            commit: Vec::new().into_iter(),
            unflushed_bytes: 0,
            flushing: Vec::new(),
            unwritten: Unwritten::default(),
        }
    }

    /// The alarm has sounded.
    pub(crate) fn notify(&mut self) {
        if self.state == State::Empty {
            self.state = State::Taking;
        }
        if let State::Writing(then) = &mut self.state {
            *then = Then::Taking;
        }
    }

    /// Whether there is something to take or to write.
    pub(crate) fn has_work(&self, shell: &Shell) -> bool {
        self.state != State::Empty || shell.has_ephemerals() || !shell.outlets.dirty.is_empty()
    }

    /// How much waits in the mailbox.
    pub(crate) fn depths(&self) -> Depths {
        self.mailbox.depths()
    }

    /// Takes some items out of the mailbox, or writes some outboxes. An order to drain, or to disperse, is handed to `drain`.
    pub(crate) fn take_turn(&mut self, shell: &mut Shell, drain: impl FnMut(&mut Shard, Order, Now)) -> Left {
        match self.state {
            State::Empty if !shell.has_ephemerals() => self.state = State::Writing(Then::Empty),
            State::Empty | State::Taking => self.take_some(shell, drain),
            State::Writing(_) => {}
        }
        if let State::Writing(then) = self.state
            && self.flush_some(shell) == Left::Nothing
        {
            self.state = match then {
                Then::Taking => State::Taking,
                Then::Empty => State::Empty,
            };
        }
        if self.has_work(shell) { Left::More } else { Left::Nothing }
    }

    /// Hands some of the mail to the core, then a part of the ephemeral messages that wait in it.
    fn take_some(&mut self, shell: &mut Shell, mut drain: impl FnMut(&mut Shard, Order, Now)) {
        shell.with_core(|core, outlets, now| {
            let left = self.take_mail(core, outlets, now, &mut drain);
            if let Some(delivered) = core.deliver_ephemerals(now) {
                outlets.delivery_step();
                self.count(delivered);
            }
            self.state = if self.unflushed_bytes >= FLUSH_BYTES {
                State::Writing(Then::Taking)
            } else if left == Left::More || core.has_ephemerals() {
                State::Taking
            } else {
                // What comes from now on sounds the alarm; what came just before has not.
                self.mailbox.register(&self.alarm);
                State::Writing(if self.mailbox.is_empty() { Then::Empty } else { Then::Taking })
            };
        });
    }

    /// Hands up to `TURN_ITEMS_MAX` items to the core, or as many as put enough into outboxes.
    fn take_mail(
        &mut self,
        core: &mut Shard,
        outlets: &mut ShardOutlets,
        now: Now,
        drain: &mut impl FnMut(&mut Shard, Order, Now),
    ) -> Left {
        let mut given_bytes = 0;
        for _ in 0..TURN_ITEMS_MAX {
            if self.commit.len() > 0 {
                outlets.delivery_step();
                if let Some(delivered) = core.deliver_next(now, &mut self.commit) {
                    given_bytes += delivered.bytes;
                    self.count(delivered);
                }
                self.unwritten.taken_but(self.commit.len());
            } else {
                match self.mailbox.next(&mut self.turn) {
                    Some(Mail::Deliveries(commit)) => {
                        self.unwritten.begin(&commit);
                        self.commit = commit.into_iter();
                    }
                    Some(Mail::Order(order @ (Order::Drain | Order::Disperse))) => drain(core, order, now),
                    Some(Mail::Order(Order::Access(order))) => core.apply_access(now, order),
                    Some(Mail::Order(Order::Rules(rules, keys))) => core.set_rules(*rules, keys.as_deref()),
                    Some(Mail::Order(Order::Memory(pressure))) => core.set_pressure(now, pressure),
                    Some(Mail::Crossing(Crossing::Look(asked))) => {
                        core.look(now, *asked, |conn| outlets.peer(conn));
                        // Others have their turn first: an operator has time.
                        break;
                    }
                    Some(mail) => take(core, outlets, now, mail),
                    None => return Left::Nothing,
                }
            }
            if self.unflushed_bytes >= FLUSH_BYTES || given_bytes >= FANOUT_PART_BYTES_MAX {
                break;
            }
        }
        Left::More
    }

    /// A step was taken.
    fn count(&mut self, delivered: Delivered) {
        self.unflushed_bytes += delivered.recipient_bytes;
        if delivered.write == Write::Now {
            self.unflushed_bytes = FLUSH_BYTES;
        }
    }

    /// Writes up to `TURN_ITEMS_MAX` dirty outboxes.
    fn flush_some(&mut self, shell: &mut Shell) -> Left {
        self.unflushed_bytes = 0;
        if self.flushing.is_empty() {
            std::mem::swap(&mut self.flushing, &mut shell.outlets.dirty);
        }
        if self.flushing.is_empty() {
            self.all_written(&mut shell.outlets);
            return Left::Nothing;
        }
        shell.with_core(|core, outlets, now| {
            outlets.delivery_step();
            for _ in 0..TURN_ITEMS_MAX {
                let Some(conn) = self.flushing.pop() else { break };
                write(core, outlets, now, conn);
            }
        });
        if !self.flushing.is_empty() || !shell.outlets.dirty.is_empty() {
            return Left::More;
        }
        self.all_written(&mut shell.outlets);
        Left::Nothing
    }

    fn all_written(&mut self, outlets: &mut ShardOutlets) {
        if self.unwritten.is_empty() {
            return;
        }
        self.unwritten.written(outlets.clock.mono_us(), outlets.shard, &mut outlets.counters);
    }
}

/// Hands the core what is neither a commit nor an order.
fn take(core: &mut Shard, outlets: &mut ShardOutlets, now: Now, mail: Mail) {
    match mail {
        Mail::Crossing(Crossing::Envelope(envelope)) => core.lane(now, envelope),
        Mail::Crossing(Crossing::Connection(handover)) => adopt(core, outlets, now, *handover),
        Mail::Answer(answer) => core.stored(now, answer),
        Mail::Nodes(envelope) => core.receive_from_nodes(now, envelope),
        Mail::Deliveries(_) | Mail::Order(_) | Mail::Crossing(Crossing::Look(_)) => count(Place::Mailbox),
    }
}

/// A connection comes from another shard: as one that was accepted.
fn adopt(core: &mut Shard, outlets: &mut ShardOutlets, now: Now, handover: Handover) {
    match core.adopt(now, handover.session) {
        Ok(conn) => outlets.connect(conn, handover.descriptor, Line::Session),
        Err(NotAdopted { reason, bytes }) => outlets.refuse_peer(now, handover.descriptor, reason, &bytes),
    }
}
