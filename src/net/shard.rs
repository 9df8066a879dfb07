//! A shard's thread: its executor, its task queues, its tasks, from first to last.
//!
//! What always holds: [`run`] returns only when a drain is through, and everything the core wanted passed on has
//! been.

use std::cell::RefCell;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement, TaskQueueHandle};
use socket2::Socket;
use tokio::sync::mpsc;

use crate::auth::{AuthKey, Authenticator};
use crate::clock::Clock;
use crate::control::Report;
use crate::ids::ShardId;
use crate::net::budget::{BUDGETS, Budget, Budgets, Spent};
use crate::net::drain::Drain;
use crate::net::listener::Listener;
use crate::net::pump::Pump;
use crate::net::ring::SocketRing;
use crate::net::shell::{Door, Outlets, Shell};
use crate::net::turns;
use crate::shard::Shard;
use crate::shard::config::ShardConfig;
use crate::shard::counters::ShardCounters;
use crate::topology::mailbox::{Depths, Mailbox};
use crate::topology::metronome::Ear;

/// Entries of the ring: polls that may be handed to the kernel at once.
pub const RING_DEPTH: usize = 4_096;
/// Registered buffers, which sockets do not use: as little as glommio takes.
pub const IO_MEMORY_BYTES: usize = 64 * 1024;
/// The same while no task queue of ours is active: longer than the kernel will ever keep a thread from its first
/// turn, since glommio would then sleep for ever (see `topology::metronome`).
const PREEMPT_AT_START: Duration = Duration::from_secs(60);
/// Ticks between two reports to control.
const TICKS_PER_REPORT: u32 = 50;

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
    /// How long a task queue may let the others wait.
    pub turn: Duration,
    /// To control.
    pub reports: mpsc::Sender<Report>,
    /// Over how long a drain spreads the clients' reconnects.
    pub spread_ms: u32,
    /// Told when the shard listens, with what the metronome needs.
    pub listening: crossbeam_channel::Sender<Ear>,
}

/// What the shell counts beside the core; all only grow.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ShellCounters {
    /// Successful reads of sockets.
    pub reads: u64,
    /// System calls that wrote to sockets.
    pub sends: u64,
    /// Sockets that took less than there was.
    pub sockets_full: u64,
    /// Times that descriptors or memory ran out while accepting.
    pub descriptors_out: u64,
    /// Connections closed because they could not be handed over.
    pub handovers_refused: u64,
}

/// What control is told about a shard, once a second.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// Which.
    pub shard: ShardId,
    /// The core's counters.
    pub core: ShardCounters,
    /// The shell's.
    pub shell: ShellCounters,
    /// What waits in its mailbox.
    pub depths: Depths,
    /// Questions that wait for the store, all shards' together.
    pub store_asks: u64,
    /// What each budget has taken of the shard's time.
    pub budgets: [Spent; BUDGETS],
}

/// Runs a shard on the calling thread until a drain is through.
pub fn run(ends: ShardEnds) -> Result<(), Box<dyn Error + Send + Sync>> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(RING_DEPTH)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT_AT_START)
        .make()
        .map_err(|error| format!("io_uring cannot be used: {error}"))?;
    executor.run(serve(ends)).map_err(Into::into)
}

async fn serve(ends: ShardEnds) -> io::Result<()> {
    let id = ends.config.id;
    let core = Shard::new(ends.config, Authenticator::new(&ends.auth));
    let (ring, listener) = (SocketRing::new()?, Listener::listen(ends.socket)?);
    let bell = ring.bell()?;
    let budgets = Budgets::new(ends.turn);
    let queues = [Budget::Accept, Budget::Sessions, Budget::Delivery].map(|budget| budgets.queue(budget));
    let door: Door = Rc::new(RefCell::new(Shell::new(core, ends.clock, ends.outlets, budgets, ring, listener)));

    let [accept, sessions, delivery] = queues;
    let depths = ends.mailbox.depth_gauge();
    let pump = Pump::new(Rc::clone(&door), ends.mailbox, Drain::new(ends.spread_ms));
    spawn(turns::run(Rc::clone(&door), Budget::Accept), accept)?;
    spawn(turns::run(Rc::clone(&door), Budget::Sessions), sessions)?;
    spawn(turns::hear_bell(Rc::clone(&door), bell), sessions)?;
    spawn(pump.run(), delivery)?;
    // Here and not in a task of its own: until the metronome has its ear, nothing ends a sleep that glommio falls
    // into by mistake, and only the first turn of the first task is safe from that (see PREEMPT_AT_START).
    tick(id, door, ends.listening, depths, ends.reports).await;
    Ok(())
}

fn spawn(task: impl Future<Output = ()> + 'static, queue: TaskQueueHandle) -> io::Result<()> {
    let task = glommio::spawn_local_into(task, queue).map_err(|error| io::Error::other(error.to_string()))?;
    drop(task.detach());
    Ok(())
}

async fn next_beat(unheard: &AtomicU32) {
    poll_fn(|_| if unheard.swap(0, Ordering::Relaxed) > 0 { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Lets time pass for the shard until every other task has ended: each holds the door, so it is the gate that a
/// drain waits for. It is woken by the metronome alone.
async fn tick(
    id: ShardId,
    door: Door,
    listening: crossbeam_channel::Sender<Ear>,
    depths: impl Fn() -> Depths,
    reports: mpsc::Sender<Report>,
) {
    let unheard = Arc::new(AtomicU32::new(0));
    let ear = Ear { waker: poll_fn(|cx| Poll::Ready(cx.waker().clone())).await, unheard: Arc::clone(&unheard) };
    // Only a main thread that is gone does not hear it, and then the process ends.
    drop(listening.send(ear));
    drop(listening);
    let mut ticks: u32 = 0;
    while Rc::strong_count(&door) > 1 {
        next_beat(&unheard).await;
        let mut shell = door.borrow_mut();
        // The last one passes on what the core keeps for a second.
        shell.tick();
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(TICKS_PER_REPORT) {
            let report = ShardReport {
                shard: id,
                core: shell.core.counters(),
                shell: shell.counters,
                depths: depths(),
                store_asks: shell.store_asks(),
                budgets: shell.spent(),
            };
            // Control that is behind gets the next one.
            drop(reports.try_send(Report::Shard(Box::new(report))));
        }
    }
    door.borrow_mut().tick();
}
