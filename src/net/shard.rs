//! A shard's thread: its executor, its task queues, its tasks, from first to last.
//!
//! What always holds: [`run`] returns only when a drain is through, and everything the core wanted passed on has
//! been.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement, TaskQueueHandle};
use socket2::Socket;
use tokio::sync::mpsc;

use crate::auth::{AuthKey, Authenticator};
use crate::clock::Clock;
use crate::contract::ids::ShardId;
use crate::contract::report::Report;
use crate::limits::{EXECUTOR_IO_MEMORY_BYTES, EXECUTOR_RING_DEPTH};
use crate::net::budget::{Budget, Budgets};
use crate::net::drain::Drain;
use crate::net::listener::Listener;
use crate::net::pump::Pump;
use crate::net::rest::Rest;
use crate::net::ring::SocketRing;
use crate::net::shell::{Door, Outlets, Shell};
use crate::net::turns;
use crate::shard::Shard;
use crate::shard::config::ShardConfig;
use crate::topology::mailbox::Mailbox;

/// How often glommio looks at its own rings, in which nothing ever happens: the shard rests in a ring of its own (see
/// `net::rest`). A kernel that takes so long to let a thread have its first turn would have it sleep for ever.
const LOOK_AT_OWN_RINGS: Duration = Duration::from_secs(3_600);

/// Everything a shard's thread is given.
pub struct ShardEnds {
    /// The core's settings.
    pub config: ShardConfig,
    /// Verifies tokens.
    pub auth: AuthKey,
    /// The process's time.
    pub clock: Clock,
    /// Bound, not listening yet.
    pub socket: Socket,
    /// Where to receive from.
    pub mailbox: Mailbox,
    /// Where to send to.
    pub outlets: Outlets,
    /// How long a task may let the others wait.
    pub turn: Duration,
    /// To control.
    pub reports: mpsc::Sender<Report>,
    /// Over how long a drain spreads the clients' reconnects.
    pub spread_ms: u32,
    /// Told when the shard listens.
    pub listening: crossbeam_channel::Sender<ShardId>,
}

/// Runs a shard on the calling thread until a drain is through.
pub fn run(ends: ShardEnds) -> Result<(), Box<dyn Error + Send + Sync>> {
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
    let core = Shard::new(ends.config, Authenticator::new(&ends.auth));
    let (ring, listener) = (SocketRing::new()?, Listener::listen(ends.socket)?);
    let alarm = ring.alarm();
    let budgets = Budgets::new(ends.turn);
    let queues = [Budget::Accept, Budget::Sessions, Budget::Delivery].map(|budget| budgets.queue(budget));
    let door: Door = Rc::new(RefCell::new(Shell::new(core, ends.clock, ends.outlets, budgets, ring, listener)));

    let [accept, sessions, delivery] = queues;
    let depths = ends.mailbox.depth_gauge();
    let pump = Pump::new(Rc::clone(&door), ends.mailbox, alarm, Drain::new(ends.spread_ms));
    spawn(turns::run(Rc::clone(&door), Budget::Accept), accept)?;
    spawn(turns::run(Rc::clone(&door), Budget::Sessions), sessions)?;
    spawn(pump.run(), delivery)?;
    // Only a main thread that is gone does not hear it, and then the process ends.
    ends.listening.send(id).ok();
    drop(ends.listening);
    Rest::new(id, door, depths, ends.reports).run().await;
    Ok(())
}

fn spawn(task: impl Future<Output = ()> + 'static, queue: TaskQueueHandle) -> io::Result<()> {
    let task = glommio::spawn_local_into(task, queue).map_err(|error| io::Error::other(error.to_string()))?;
    drop(task.detach());
    Ok(())
}
