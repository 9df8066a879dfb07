//! Connections that wait for their turns: those that come and log in, and those that are in.
//!
//! Owned by the loop of one shard. What always holds: a connection is in one queue, once (its slot says whether it is).

use std::collections::VecDeque;

use crate::contract::ids::ConnId;

/// Which queue a connection waits in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// It has not logged in yet.
    Login,
    /// It is one of its user's sessions.
    Session,
}

/// The two queues.
#[derive(Default, Debug)]
pub(crate) struct RunQueues {
    logins: VecDeque<ConnId>,
    sessions: VecDeque<ConnId>,
}

impl RunQueues {
    fn queue(&mut self, line: Line) -> &mut VecDeque<ConnId> {
        match line {
            Line::Login => &mut self.logins,
            Line::Session => &mut self.sessions,
        }
    }

    /// Adds one, at the end.
    pub(crate) fn push(&mut self, line: Line, conn: ConnId) {
        self.queue(line).push_back(conn);
    }

    /// Takes the first.
    pub(crate) fn pop(&mut self, line: Line) -> Option<ConnId> {
        self.queue(line).pop_front()
    }

    /// Nobody waits.
    pub(crate) fn is_empty(&self, line: Line) -> bool {
        match line {
            Line::Login => self.logins.is_empty(),
            Line::Session => self.sessions.is_empty(),
        }
    }
}
