//! The tasks in which connections have their turns: one for those that come and log in, one for sessions.
//!
//! Each runs in its budget's queue. What always holds: a connection is in one list once; a task lets the others run
//! when its slice of the time is over; both end after the last connection of a drain.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::contract::ids::ConnId;
use crate::net::budget::{Budget, Slice};
use crate::net::shell::Door;

/// Who is to have a turn.
#[derive(Default, Debug)]
pub struct Ready {
    coming: Line,
    sessions: Line,
    /// No connection will be ready any more.
    over: bool,
}

#[derive(Default, Debug)]
struct Line {
    connections: VecDeque<ConnId>,
    /// The task that sleeps until there are some.
    sleeper: Option<Waker>,
}

impl Ready {
    fn line(&mut self, budget: Budget) -> &mut Line {
        match budget {
            Budget::Accept => &mut self.coming,
            Budget::Sessions | Budget::Delivery | Budget::Timers => &mut self.sessions,
        }
    }

    /// Adds one, at the end.
    pub fn push(&mut self, budget: Budget, conn: ConnId) {
        self.line(budget).connections.push_back(conn);
        self.wake(budget);
    }

    /// The first.
    pub fn pop(&mut self, budget: Budget) -> Option<ConnId> {
        self.line(budget).connections.pop_front()
    }

    /// There are some.
    pub fn has(&mut self, budget: Budget) -> bool {
        !self.line(budget).connections.is_empty()
    }

    /// Lets the budget's task look around.
    pub fn wake(&mut self, budget: Budget) {
        if let Some(sleeper) = self.line(budget).sleeper.take() {
            sleeper.wake();
        }
    }

    /// Ends the tasks.
    pub fn end(&mut self) {
        self.over = true;
        self.wake(Budget::Accept);
        self.wake(Budget::Sessions);
    }

    /// Both tasks sleep.
    pub fn is_asleep(&self) -> bool {
        self.coming.sleeper.is_some() && self.sessions.sleeper.is_some()
    }

    /// The tasks are to end.
    pub fn is_over(&self) -> bool {
        self.over
    }
}

/// Lets a budget's connections have their turns, until the shard ends.
pub async fn run(door: Door, budget: Budget) {
    loop {
        let mut slice = Slice::begin(&door);
        while door.borrow_mut().take_turns(budget) {
            slice.pass_on(&door).await;
        }
        if door.borrow().ready.is_over() {
            return;
        }
        sleep(&door, budget).await;
    }
}

async fn sleep(door: &Door, budget: Budget) {
    let mut slept = false;
    poll_fn(|cx| {
        let mut shell = door.borrow_mut();
        if std::mem::replace(&mut slept, true) || shell.ready.has(budget) || shell.ready.is_over() {
            return Poll::Ready(());
        }
        shell.ready.line(budget).sleeper = Some(cx.waker().clone());
        shell.fell_asleep();
        Poll::Pending
    })
    .await;
}
