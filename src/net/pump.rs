//! The pump: empties the shard's mailbox into the core, and writes what became of it.
//!
//! One task per shard. What always holds: it lets the other tasks run after `TURN_ITEMS_MAX` items when their
//! time has come, whatever waits; outboxes are written when the mailbox is empty or enough has been put into
//! them, each once; it sleeps only when there is nothing to hand in and nothing to write.

use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::vec;

use crate::contract::delivery::Delivery;
use crate::limits::{OUTBOX_BYTES_MAX, TURN_ITEMS_MAX};
use crate::net::budget::Slice;
use crate::net::drain::Drain;
use crate::net::shell::{Door, Flush, Shell};
use crate::shard::fanout::Write;
use crate::topology::mailbox::{Crossing, Mail, Mailbox, Order};

/// Pushed bytes per recipient after which outboxes are written although more waits: a quarter of an outbox, so
/// that a member of every group fanned out in one commit does not fall behind only because nobody wrote.
const FLUSH_BYTES: usize = OUTBOX_BYTES_MAX / 4;

/// A shard's pump.
pub struct Pump {
    door: Door,
    mailbox: Mailbox,
    /// What the mailbox wakes.
    alarm: Waker,
    /// Which part of the mailbox is next.
    turn: usize,
    /// What is left of the commit being handed in.
    commit: vec::IntoIter<Delivery>,
    /// Bytes one recipient of everything would have waiting.
    unflushed_bytes: usize,
    drain: Drain,
}

/// What a turn found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// Nothing waits any more.
    Nothing,
    /// There may be more.
    More,
}

impl Pump {
    /// The pump of a shard's mailbox, which sounds the alarm of its ring.
    pub fn new(door: Door, mailbox: Mailbox, alarm: Waker, drain: Drain) -> Self {
        Pump { door, mailbox, alarm, turn: 0, commit: Vec::new().into_iter(), unflushed_bytes: 0, drain }
    }

    /// Runs until a drain is through.
    pub async fn run(mut self) {
        loop {
            let mut slice = Slice::begin(&self.door);
            loop {
                let found = self.take_turn();
                if found == Found::Nothing || self.unflushed_bytes >= FLUSH_BYTES {
                    self.flush(&mut slice).await;
                }
                if found == Found::Nothing {
                    break;
                }
                slice.pass_on(&self.door).await;
            }
            if self.drain.is_over(&self.door) {
                self.door.borrow_mut().end();
                return;
            }
            self.sleep().await;
        }
    }

    /// Hands up to `TURN_ITEMS_MAX` items to the core.
    fn take_turn(&mut self) -> Found {
        let door = self.door.clone();
        let mut shell = door.borrow_mut();
        shell.hear();
        let mut found = Found::More;
        for _ in 0..TURN_ITEMS_MAX {
            if self.commit.len() > 0 {
                let now = shell.clock.now();
                shell.delivery_step();
                if let Some(delivered) = shell.core.deliver_next(now, &mut self.commit) {
                    self.unflushed_bytes += delivered.recipient_bytes;
                    if delivered.write == Write::Now {
                        self.unflushed_bytes = FLUSH_BYTES;
                    }
                }
                if self.unflushed_bytes >= FLUSH_BYTES {
                    break;
                }
                continue;
            }
            match self.mailbox.next(&mut self.turn) {
                Some(Mail::Deliveries(commit)) => self.commit = commit.into_iter(),
                Some(mail) => self.take(&mut shell, mail),
                None => {
                    found = Found::Nothing;
                    break;
                }
            }
        }
        shell.route();
        shell.wake_ledger();
        found
    }

    fn take(&mut self, shell: &mut Shell, mail: Mail) {
        let now = shell.clock.now();
        match mail {
            Mail::Deliveries(commit) => self.commit = commit.into_iter(),
            Mail::Crossing(Crossing::Envelope(envelope)) => shell.core.lane(now, envelope),
            Mail::Crossing(Crossing::Connection(handover)) => shell.adopt(*handover),
            Mail::Answer(answer) => shell.core.stored(now, answer),
            Mail::Nodes(envelope) => shell.core.from_nodes(now, envelope),
            Mail::Order(Order::Drain) => self.drain.begin(shell),
        }
    }

    /// Writes every dirty outbox.
    async fn flush(&mut self, slice: &mut Slice) {
        self.unflushed_bytes = 0;
        loop {
            let flush = self.write_some();
            if flush == Flush::Done {
                break;
            }
            slice.pass_on(&self.door).await;
        }
    }

    fn write_some(&mut self) -> Flush {
        let mut shell = self.door.borrow_mut();
        shell.delivery_step();
        shell.flush(TURN_ITEMS_MAX)
    }

    /// Sleeps until there is mail, or something to write, or the last connection of a drain has gone.
    async fn sleep(&mut self) {
        let mut slept = false;
        poll_fn(|cx| {
            // Woken, for whatever reason: look around.
            if std::mem::replace(&mut slept, true) {
                return Poll::Ready(());
            }
            // Other threads wake the ring, which the shard hears whatever it does.
            self.mailbox.register(&self.alarm);
            // What came before the alarm was there has set off none.
            if self.mailbox.is_empty() && self.door.borrow_mut().pump_sleeps(cx.waker()) {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }
}
