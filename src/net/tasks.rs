//! Whose turn it is: the loop, or the tasks that do the budgets' work.
//!
//! Four tasks of one thread, as many as there are budgets, since the executor divides the time among task queues and not
//! within one. What always holds: the loop alone wakes a task that has stopped, and it does so when that has work; the
//! loop goes on when all others have stopped, or one has used up a slice of the time; so one of the four can always run.

use std::task::Waker;

use crate::net::budget::Budget;

/// One of a shard's tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    /// The loop.
    Loop,
    /// The one that does this budget's work.
    Work(Budget),
}

/// A shard's tasks: those that have stopped have left what wakes them.
#[derive(Default, Debug)]
pub(crate) struct Tasks {
    event_loop: Option<Waker>,
    work: [Option<Waker>; Budget::WORK.len()],
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Stage {
    #[default]
    Running,
    Over,
}

impl Tasks {
    fn waker(&mut self, task: Task) -> &mut Option<Waker> {
        match task {
            Task::Loop => &mut self.event_loop,
            Task::Work(budget) => &mut self.work[budget as usize],
        }
    }

    /// Lets a task go on; nothing if it has not stopped.
    pub(crate) fn wake(&mut self, task: Task) {
        if let Some(waker) = self.waker(task).take() {
            waker.wake();
        }
    }

    /// All but the loop have stopped.
    pub(crate) fn are_stopped(&self) -> bool {
        self.work.iter().all(Option::is_some)
    }

    /// Lets all of them end.
    pub(crate) fn end(&mut self) {
        self.stage = Stage::Over;
        Budget::WORK.iter().for_each(|budget| self.wake(Task::Work(*budget)));
    }

    /// They are to end.
    pub(crate) fn are_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// A task stops, and leaves what wakes it.
    pub(crate) fn stop(&mut self, task: Task, waker: Waker) {
        *self.waker(task) = Some(waker);
        if self.are_stopped() && task != Task::Loop {
            self.wake(Task::Loop);
        }
    }
}
