//! A shard's thread: its executor, its task queues, its tasks, from first to last.
//!
//! What always holds: [`run`] returns only when a drain is through, and everything the core wanted passed on has
//! been.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};
use socket2::Socket;
use tokio::sync::mpsc;

use crate::auth::{AuthKeys, Authenticator};
use crate::clock::Clock;
use crate::contract::access::AccessOrder;
use crate::contract::ids::ShardId;
use crate::contract::report::Report;
use crate::limits::{EXECUTOR_IO_MEMORY_BYTES, EXECUTOR_RING_DEPTH};
use crate::net::budget::{Budget, Budgets};
use crate::net::event_loop::{self, Accepting, EventLoop, Times};
use crate::net::listener::Listener;
use crate::net::mail::MailReader;
use crate::net::outlets::{Channels, ShardOutlets};
use crate::net::ring::SocketRing;
use crate::net::shell::Shell;
use crate::net::tasks::Tasks;
use crate::shard::Shard;
use crate::shard::config::ShardConfig;
use crate::topology::mailbox::Mailbox;

/// How often glommio looks at its own rings, in which nothing ever happens: the shard sleeps in a ring of its own (see
/// `net::event_loop`). A kernel that takes so long to let a thread have its first turn would have it sleep for ever.
const LOOK_AT_OWN_RINGS: Duration = Duration::from_secs(3_600);

/// Everything a shard's thread is given.
pub(crate) struct ShardEnds {
    /// The core's settings.
    pub(crate) config: ShardConfig,
    /// Verifies tokens.
    pub(crate) auth: AuthKeys,
    /// Which of its users may not log in.
    pub(crate) access: Vec<AccessOrder>,
    /// The process's time.
    pub(crate) clock: Clock,
    /// Bound, not listening yet.
    pub(crate) socket: Socket,
    /// Where to receive from.
    pub(crate) mailbox: Mailbox,
    /// Where to send to.
    pub(crate) channels: Channels,
    /// How long one budget may let the others wait.
    pub(crate) turn: Duration,
    /// To control.
    pub(crate) reports: mpsc::Sender<Report>,
    /// Over how long a drain spreads the clients' reconnects.
    pub(crate) spread_ms: u32,
    /// Told when the shard listens.
    pub(crate) listening: crossbeam_channel::Sender<ShardId>,
}

/// Runs a shard on the calling thread until a drain is through.
pub(crate) fn run(ends: ShardEnds) -> Result<(), Box<dyn Error + Send + Sync>> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .io_memory(EXECUTOR_IO_MEMORY_BYTES)
        .preempt_timer(LOOK_AT_OWN_RINGS)
        .make()
        .map_err(|error| format!("io_uring cannot be used: {error}"))?;
    executor.run(serve(ends)).map_err(Into::into)
}

async fn serve(ends: ShardEnds) -> io::Result<()> {
    let id = ends.config.id;
    let mut core = Shard::new(ends.config, Authenticator::new(&ends.auth));
    let now = ends.clock.now();
    ends.access.into_iter().for_each(|order| core.apply_access(now, order));
    let (ring, listener) = (SocketRing::new()?, Listener::listen(ends.socket)?);
    let mail = MailReader::new(ends.mailbox, ring.alarm());
    let budgets = Budgets::new(ends.turn);
    let queues = Budget::WORK.map(|budget| (budget, budgets.queue(budget)));
    let shared = Rc::new(RefCell::new(EventLoop {
        shell: Shell::new(core, ShardOutlets::new(id, ends.clock, ends.channels, ring)),
        mail,
        accepting: Accepting::Open(listener),
        spread_ms: ends.spread_ms,
        budgets,
        tasks: Tasks::default(),
        reports: ends.reports,
        times: Times::default(),
    }));
    let mut work = Vec::new();
    for (budget, queue) in queues {
        let task = glommio::spawn_local_into(event_loop::work(Rc::clone(&shared), budget), queue);
        work.push(task.map_err(|error| io::Error::other(error.to_string()))?);
    }
    // Only a main thread that is gone does not hear it, and then the process ends.
    ends.listening.send(id).ok();
    drop(ends.listening);
    event_loop::run(shared).await;
    for task in work {
        task.await;
    }
    Ok(())
}
