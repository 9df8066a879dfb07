//! A shard's loop: polls the ring, lets time pass, gives each budget's task its work, and sleeps when there is none.
//!
//! One per shard, in the executor's own queue ([`run`]); the work itself is done in three tasks beside it, one per budget
//! ([`work`]), because the executor divides the time by task queues. What always holds: the ring is polled here and
//! nowhere else, between any two slices; the shard sleeps here and nowhere else, in its own ring, with one system call,
//! until a socket, another thread or the time wants something; the executor itself never sleeps, it only divides the
//! time; the core's time passes at least every 40 ms while the shard has the CPU.
//!
//! Left to glommio 0.9, a sleep and a wake-up are ten system calls in three rings, and one sleep in some 5,000 on a busy
//! machine is by mistake, with tasks that are ready: when it finds its preemption timer expired before it has run a
//! single task, it takes this for having nothing to run.

use std::cell::RefCell;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::contract::ids::PeerAddress;
use crate::contract::internal::{OrCount, Place};
use crate::contract::report::{Report, ShardReport};
use crate::limits::TURN_ITEMS_MAX;
use crate::net::budget::{Budget, Budgets};
use crate::net::listener::{Accepted, Listener};
use crate::net::mail::{Left, MailReader};
use crate::net::ring::Event;
use crate::net::run_queue::Line;
use crate::net::shell::Shell;
use crate::net::tasks::{Task, Tasks};
use crate::topology::mailbox::Order;
use ringway_wire::schema::CloseReason;

/// Time passes for the core so often while the shard is awake.
const TICK_MS: u64 = 20;
/// And so often while it sleeps: mostly it is woken by something else before.
const TICK_LATE_MS: u64 = 2 * TICK_MS;
/// Between two reports to control.
const REPORT_MS: u64 = 1_000;
/// Connections that have their turn, and as many that are accepted, before the loop looks whose time it is.
const TURNS_MAX: usize = TURN_ITEMS_MAX / 4;

/// The loop, as its tasks hold it.
pub(crate) type SharedLoop = Rc<RefCell<EventLoop>>;

/// What a shard's thread has.
pub(crate) struct EventLoop {
    /// The core, and what its effects go to.
    pub(crate) shell: Shell,
    /// What other threads send.
    pub(crate) mail: MailReader,
    /// Where new connections come from.
    pub(crate) accepting: Accepting,
    /// Over how long clients come back after a drain.
    pub(crate) spread_ms: u32,
    /// Whose time is whose.
    pub(crate) budgets: Budgets,
    /// Who has stopped for want of work.
    pub(crate) tasks: Tasks,
    /// To control.
    pub(crate) reports: mpsc::Sender<Report>,
    /// When time last passed for the core, and when control was last told.
    pub(crate) times: Times,
}

/// When something was last done, in monotonic milliseconds.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Times {
    ticked_ms: u64,
    reported_ms: u64,
}

/// Where new connections come from.
#[derive(Debug)]
pub(crate) enum Accepting {
    /// Peers are let in.
    Open(Listener),
    /// Clients are told one after another to go to another node: nobody is let in any more.
    Dispersing,
    /// A drain has begun: nobody is let in any more, and the shard ends with the last connection.
    Draining,
}

/// What follows a round.
enum Next {
    /// Tasks have work: the loop goes on when they are through, or a slice of the time is over.
    Work,
    /// Nobody had work; now somebody may have.
    Again,
    /// A drain is through.
    End,
}

/// Runs a shard until a drain is through.
pub(crate) async fn run(shared: SharedLoop) {
    loop {
        let next = shared.borrow_mut().round();
        match next {
            Next::Work => stop(&shared, Task::Loop).await,
            Next::Again => {}
            Next::End => break,
        }
    }
    let mut shard = shared.borrow_mut();
    // What the core keeps for a second is passed on.
    shard.tick();
    shard.tasks.end();
}

/// Stops until somebody wakes the task.
async fn stop(shared: &SharedLoop, task: Task) {
    let mut stopped = false;
    poll_fn(|context| {
        if std::mem::replace(&mut stopped, true) {
            return Poll::Ready(());
        }
        shared.borrow_mut().tasks.stop(task, context.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Does a budget's work, until the shard ends.
pub(crate) async fn work(shared: SharedLoop, budget: Budget) {
    while !shared.borrow().tasks.are_over() {
        let left = shared.borrow_mut().slice(budget);
        match left {
            Left::Nothing => stop(&shared, Task::Work(budget)).await,
            Left::More => {
                shared.borrow_mut().tasks.wake(Task::Loop);
                glommio::executor().yield_task_queue_now().await;
            }
        }
    }
}

impl EventLoop {
    fn round(&mut self) -> Next {
        self.poll();
        self.tick_if_due();
        for budget in Budget::WORK {
            if self.has_work(budget) {
                self.tasks.wake(Task::Work(budget));
            }
        }
        if !self.tasks.are_stopped() {
            self.shell.outlets.ring.submit();
            return Next::Work;
        }
        if matches!(self.accepting, Accepting::Draining) && self.shell.outlets.connections.is_empty() {
            return Next::End;
        }
        self.sleep();
        Next::Again
    }

    /// Takes what the ring has to say.
    fn poll(&mut self) {
        let outlets = &mut self.shell.outlets;
        while let Some(event) = outlets.ring.next_event() {
            match event {
                Event::Listener => self.accepting.notify(),
                Event::Alarm => self.mail.notify(),
                Event::Socket(conn, watch) => {
                    let connection = outlets.connections.get(conn);
                    // A socket that is watched does not leave the table.
                    if let Some(connection) = connection.or_count(Place::Connections) {
                        connection.watch_ended(watch);
                        outlets.enqueue(conn);
                    }
                }
            }
        }
    }

    /// Sleeps in the ring until something happens, or the next tick.
    fn sleep(&mut self) {
        let outlets = &mut self.shell.outlets;
        let began_ns = outlets.clock.mono_ns();
        let until_ns = (self.times.ticked_ms + TICK_LATE_MS) * 1_000_000;
        if until_ns > began_ns {
            outlets.ring.wait(Duration::from_nanos(until_ns - began_ns));
            self.budgets.slept(outlets.clock.mono_ns() - began_ns);
        }
    }

    fn has_work(&self, budget: Budget) -> bool {
        let outlets = &self.shell.outlets;
        match budget {
            Budget::Accept => self.accepting.is_waiting() || !outlets.run_queues.is_empty(Line::Login),
            Budget::Sessions => !outlets.run_queues.is_empty(Line::Session),
            Budget::Delivery => self.mail.has_work(&self.shell),
            Budget::Timers => false,
        }
    }

    /// Does a budget's work until there is none, or its slice of the time is over.
    fn slice(&mut self, budget: Budget) -> Left {
        let end_ns = self.shell.outlets.clock.mono_ns() + self.budgets.slice_ns();
        loop {
            let left = self.take_turn(budget);
            if left == Left::Nothing || self.shell.outlets.clock.mono_ns() >= end_ns {
                return left;
            }
        }
    }

    /// Does a little of a budget's work.
    fn take_turn(&mut self, budget: Budget) -> Left {
        let left = match budget {
            Budget::Accept => {
                let accepted = self.accept_some();
                if self.let_connections_turn(Line::Login) == Left::Nothing { accepted } else { Left::More }
            }
            Budget::Sessions => self.let_connections_turn(Line::Session),
            Budget::Delivery => {
                let EventLoop { mail, shell, accepting, spread_ms, .. } = self;
                mail.take_turn(shell, |core, order, now| match order {
                    Order::Disperse => {
                        *accepting = Accepting::Dispersing;
                        core.disperse(now, *spread_ms);
                    }
                    _ => {
                        *accepting = Accepting::Draining;
                        core.drain(now, *spread_ms);
                    }
                })
            }
            Budget::Timers => Left::Nothing,
        };
        self.shell.outlets.wake_ledger_for_logins();
        left
    }

    fn let_connections_turn(&mut self, line: Line) -> Left {
        for _ in 0..TURNS_MAX {
            let Some(conn) = self.shell.outlets.run_queues.pop(line) else { return Left::Nothing };
            self.shell.take_turn(conn);
        }
        if self.shell.outlets.run_queues.is_empty(line) { Left::Nothing } else { Left::More }
    }

    /// Lets some of those in who wait at the listener.
    fn accept_some(&mut self) -> Left {
        if !self.accepting.is_waiting() {
            return Left::Nothing;
        }
        self.shell.outlets.refused.look_at_limit();
        for _ in 0..TURNS_MAX {
            let Accepting::Open(listener) = &mut self.accepting else { return Left::Nothing };
            match listener.accept(self.shell.outlets.clock.now()) {
                Accepted::Socket(socket, from) => accept(&mut self.shell, socket, from),
                Accepted::Nobody => {
                    listener.watch(&mut self.shell.outlets.ring);
                    return Left::Nothing;
                }
                Accepted::NotNow => return Left::Nothing,
                Accepted::OutOfDescriptors => self.shell.outlets.counters.descriptors_out += 1,
            }
        }
        Left::More
    }

    fn tick_if_due(&mut self) {
        let now_ms = self.shell.outlets.clock.now().mono_ms;
        if now_ms < self.times.ticked_ms + TICK_MS {
            return;
        }
        self.times.ticked_ms = now_ms;
        self.tick();
        if now_ms >= self.times.reported_ms + REPORT_MS {
            self.times.reported_ms = now_ms;
            self.report();
        }
    }

    /// Lets time pass: the core's time-outs, connections that have lingered long enough, a listener that was put off.
    fn tick(&mut self) {
        let accepting = &mut self.accepting;
        self.shell.with_core(|core, outlets, now| {
            accepting.tick(now);
            core.tick(now);
            outlets.end_lingering(now);
            outlets.answer_refused(core, now);
        });
        self.shell.outlets.wake_ledger_for_logins();
    }

    fn report(&mut self) {
        let report = ShardReport {
            shard: self.shell.outlets.shard,
            core: self.shell.counters(),
            shell: self.shell.outlets.counters,
            depths: self.mail.depths(),
            store_asks: self.shell.outlets.store_asks(),
            budgets: self.budgets.spent(),
        };
        // Control that is behind gets the next one.
        drop(self.reports.try_send(Report::Shard(Box::new(report))));
    }
}

/// Takes a socket that was accepted, or tells its peer why not.
fn accept(shell: &mut Shell, socket: OwnedFd, from: PeerAddress) {
    shell.with_core(|core, outlets, now| {
        if !outlets.has_descriptor_for_newcomer(core, now, &socket) {
            core.refused_for_descriptors();
            return outlets.refuse_newcomer(core, now, socket, CloseReason::Overloaded);
        }
        match core.accept(now, from) {
            Ok(conn) => outlets.connect(conn, socket, Line::Login),
            Err(reason) => outlets.refuse_newcomer(core, now, socket, reason),
        }
    });
}

impl Accepting {
    /// Somebody may wait.
    fn notify(&mut self) {
        if let Accepting::Open(listener) = self {
            listener.notify();
        }
    }

    fn is_waiting(&self) -> bool {
        matches!(self, Accepting::Open(listener) if listener.is_waiting())
    }

    /// Time passes for a listener that was put off.
    fn tick(&mut self, now: crate::clock::Now) {
        if let Accepting::Open(listener) = self
            && listener.is_due(now)
        {
            listener.notify();
        }
    }
}
