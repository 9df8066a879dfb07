//! A shard's thread: its executor, its task queues, its tasks, from first to last.
//!
//! What always holds: [`run`] returns only when a drain is through, and everything the core wanted passed on has
//! been.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle};
use socket2::Socket;
use tokio::sync::mpsc;

use crate::auth::Authenticator;
use crate::clock::Clock;
use crate::control::Report;
use crate::ids::ShardId;
use crate::net::drain::Drain;
use crate::net::listener::Listener;
use crate::net::pump::Pump;
use crate::net::shell::{Door, Outlets, Shell};
use crate::shard::Shard;
use crate::shard::config::ShardConfig;
use crate::shard::counters::ShardCounters;
use crate::topology::mailbox::{Depths, Mailbox};

/// Entries of the ring: polls that may be handed to the kernel at once.
const RING_DEPTH: usize = 4_096;
/// Registered buffers, which sockets do not use: as little as glommio takes.
const IO_MEMORY_BYTES: usize = 64 * 1024;
/// A task queue that others wait for is interrupted after this.
const PREEMPT: Duration = Duration::from_millis(1);
/// How often the core's time passes.
const TICK: Duration = Duration::from_millis(20);
/// Ticks between two reports to control.
const TICKS_PER_REPORT: u32 = 50;

/// Everything a shard's thread is given.
pub struct ShardEnds {
    /// The core's settings.
    pub config: ShardConfig,
    /// Verifies tokens.
    pub auth: Authenticator,
    /// The process's time.
    pub clock: Clock,
    /// Bound, not listening yet.
    pub socket: Socket,
    /// Where to receive from.
    pub mailbox: Mailbox,
    /// Where to send to.
    pub outlets: Outlets,
    /// To control.
    pub reports: mpsc::Sender<Report>,
    /// Over how long a drain spreads the clients' reconnects.
    pub spread_ms: u32,
    /// Told when the shard listens.
    pub listening: crossbeam_channel::Sender<ShardId>,
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
}

/// Runs a shard on the calling thread until a drain is through.
pub fn run(ends: ShardEnds) -> Result<(), Box<dyn Error + Send + Sync>> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(RING_DEPTH)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT)
        .make()
        .map_err(|error| format!("io_uring cannot be used: {error}"))?;
    executor.run(serve(ends)).map_err(Into::into)
}

async fn serve(ends: ShardEnds) -> io::Result<()> {
    let id = ends.config.id;
    let core = Shard::new(ends.config, ends.auth);
    let shell = Shell::new(core, ends.clock, ends.outlets, queue("connections", 400));
    let door: Door = Rc::new(RefCell::new(shell));

    let listener = Listener::listen(ends.socket)?;
    let accepting = spawn(listener.accept(Rc::clone(&door)), queue("accept", 100))?;
    if ends.listening.send(id).is_err() {
        return Err(io::Error::other("the main thread is gone"));
    }
    let depths = ends.mailbox.depth_gauge();
    let ticking = spawn(tick(id, Rc::clone(&door), depths, ends.reports), queue("tick", 100))?;
    let pump = Pump::new(Rc::clone(&door), ends.mailbox, Drain::new(accepting, ends.spread_ms));
    spawn(pump.run(), queue("pump", 1_000))?.await;

    ticking.cancel().await;
    // What the core keeps for a second, it says now.
    door.borrow_mut().tick();
    Ok(())
}

fn queue(name: &str, shares: usize) -> TaskQueueHandle {
    glommio::executor().create_task_queue(Shares::Static(shares), Latency::Matters(PREEMPT), name)
}

fn spawn(task: impl Future<Output = ()> + 'static, queue: TaskQueueHandle) -> io::Result<glommio::Task<()>> {
    glommio::spawn_local_into(task, queue).map_err(|error| io::Error::other(error.to_string()))
}

async fn tick(id: ShardId, door: Door, depths: impl Fn() -> Depths, reports: mpsc::Sender<Report>) {
    let mut ticks: u32 = 0;
    loop {
        glommio::timer::sleep(TICK).await;
        door.borrow_mut().tick();
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(TICKS_PER_REPORT) {
            let report = {
                let shell = door.borrow();
                ShardReport {
                    shard: id,
                    core: shell.core.counters(),
                    shell: shell.counters,
                    depths: depths(),
                    store_asks: shell.store_asks(),
                }
            };
            // Control that is behind gets the next one.
            drop(reports.try_send(Report::Shard(Box::new(report))));
        }
    }
}
