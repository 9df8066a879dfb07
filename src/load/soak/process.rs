//! One process of a soak: its clients, what they send and receive, and a beat to the conductor once a second.
//!
//! One thread for all of it, and one that waits for orders. What always holds: nothing here waits for the gateway or
//! for the conductor; how late the thread was is measured in every turn, because a load generator that is late makes
//! the gateway look slow; when the conductor is gone, so is the process.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use foldhash::fast::RandomState;
use hdrhistogram::Histogram;
use nix::time::ClockId;

use super::assignment::Assignment;
use super::clients::{Clients, since_ping};
use super::dial::Dialer;
use super::inboxes::{Inboxes, Judged};
use super::orders::{Beat, Buckets, Effort, LATE_NS, Order, Plan, Totals};
use super::pace::Pace;
use super::sending::{Acked, Sending, by_group};
use crate::clock::Clock;
use crate::error::LoadError;
use crate::gateway::{pause, resident_bytes};
use crate::latency::latencies;
use crate::swarm::{Brought, Swarm};
use crate::tokens::Secret;
use ringway_client::Incoming;
use ringway_client::incoming::{OwnRow, SendAnswer};
use ringway_wire::ids::GroupId;
use ringway_wire::request::{PushView, Reply};

/// Orders that may wait.
const ORDERS_MAX: usize = 64;
/// The longest wait for something to happen: orders, returns and pings are looked at so often.
const WAIT_MAX: Duration = Duration::from_millis(5);
/// The shortest: epoll counts in milliseconds.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// While everybody logs in and nobody sends, answers are gathered for so long: to be woken for each of them would cost
/// both sides more than the login, above all where the CPU is emulated.
const GATHER: Duration = Duration::from_millis(5);
const BEAT_EVERY_NS: u64 = 1_000_000_000;
/// Who breaks off comes back after so many milliseconds.
const CHURN_AWAY_MS: std::ops::RangeInclusive<u32> = 1_000..=5_000;
/// Clients tried, to find one that can break off.
const CHURN_TRIES: u32 = 8;

/// Everything but the sockets.
struct Load {
    clients: Clients,
    inboxes: Inboxes,
    sending: Sending,
    totals: Totals,
    delivery: Histogram<u64>,
    pong: Histogram<u64>,
    /// Clients that have just logged in.
    back: Vec<u32>,
}

struct Process {
    load: Load,
    swarm: Swarm,
    clock: Clock,
    orders: Receiver<Order>,
    carried_out: u32,
    churn: Pace,
    quiescing: bool,
    compare: Option<HashMap<u32, u32, RandomState>>,
    effort: Effort,
    beat_ns: u64,
    cpu_ns: u64,
    made_reported: bool,
}

/// Runs until the conductor says so, or is gone.
pub fn run() -> Result<(), LoadError> {
    let mut lines = std::io::stdin().lock().lines();
    let first = lines.next().transpose().map_err(LoadError::io("the plan cannot be read"))?.unwrap_or_default();
    let plan: Plan = serde_json::from_str(&first)?;
    drop(lines);
    let (send, orders) = bounded(ORDERS_MAX);
    std::thread::Builder::new()
        .name("orders".into())
        .spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let Ok(order) = serde_json::from_str(&line) else { break };
                if send.send(order).is_err() {
                    break;
                }
            }
        })
        .map_err(LoadError::io("no thread can be started"))?;
    Process::new(plan, orders)?.run()
}

impl Process {
    fn new(plan: Plan, orders: Receiver<Order>) -> Result<Process, LoadError> {
        let clock = Clock::of_host();
        let assignment = Assignment::new(plan.counts, plan.process);
        let mut swarm = Swarm::new(clock).map_err(LoadError::io("epoll is not available"))?;
        swarm.reserve(assignment.share() as usize);
        let dialer = Dialer::new(plan.target, plan.sources);
        let load = Load {
            clients: Clients::new(assignment, dialer, Secret(plan.secret), plan.heartbeat_ms, clock),
            inboxes: Inboxes::new(assignment, plan.run, plan.body_bytes),
            sending: Sending::new(assignment, plan.run, plan.body_bytes, clock),
            totals: Totals::default(),
            delivery: latencies(),
            pong: latencies(),
            back: Vec::new(),
        };
        Ok(Process {
            load,
            swarm,
            clock,
            orders,
            carried_out: 0,
            churn: Pace::default(),
            quiescing: false,
            compare: None,
            effort: Effort::default(),
            beat_ns: clock.mono_ns(),
            cpu_ns: 0,
            made_reported: false,
        })
    }

    fn run(mut self) -> Result<(), LoadError> {
        self.beat()?;
        let mut polled_ns = self.clock.mono_ns();
        loop {
            match self.orders.try_recv() {
                Ok(Order::End) | Err(TryRecvError::Disconnected) => return Ok(()),
                Ok(order) => self.carry_out(order),
                Err(TryRecvError::Empty) => {}
            }
            self.work();
            let before_ns = self.clock.mono_ns();
            let gathers = self.gathers();
            let wait = if gathers { GATHER } else { self.wait(before_ns) };
            if gathers {
                pause(GATHER);
            }
            let Process { load, swarm, .. } = &mut self;
            swarm
                .turn(if gathers { Duration::ZERO } else { wait }, &mut |link, brought, at_ns| {
                    load.receive(link.0, brought, at_ns)
                })
                .map_err(LoadError::io("waiting for the sockets failed"))?;
            let woken_ns = self.swarm.polled_ns();
            let overslept_ns = woken_ns.saturating_sub(before_ns + wait.as_nanos() as u64);
            self.account(before_ns.saturating_sub(polled_ns), overslept_ns);
            polled_ns = woken_ns;
            if woken_ns.saturating_sub(self.beat_ns) >= BEAT_EVERY_NS {
                self.beat()?;
            }
        }
    }

    /// What time asks for.
    fn work(&mut self) {
        let Load { clients, sending, totals, back, .. } = &mut self.load;
        let now_ms = clients.now_ms();
        for client in back.drain(..) {
            sending.back(client, now_ms);
        }
        clients.turn(&mut self.swarm, totals);
        sending.turn(clients, &mut self.swarm, totals);
        for _ in 0..self.churn.due(self.clock.mono_ns()) {
            self.churn.done();
            let share = clients.assignment.share().max(1);
            let away_ms = fastrand::u32(CHURN_AWAY_MS);
            let broke = (0..CHURN_TRIES).any(|_| clients.break_off(fastrand::u32(..share), away_ms, &mut self.swarm));
            totals.churned += u64::from(broke);
        }
    }

    /// Nothing is measured but how many have logged in.
    fn gathers(&self) -> bool {
        self.load.clients.census().dialing > 0 && self.load.sending.next_ns() == u64::MAX
    }

    /// Until the next message is due. One that is due and cannot go waits for an answer, which ends the wait.
    fn wait(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(self.load.sending.next_ns().saturating_sub(now_ns)).clamp(WAIT_MIN, WAIT_MAX)
    }

    fn account(&mut self, busy_ns: u64, overslept_ns: u64) {
        let lag_ns = busy_ns.max(overslept_ns);
        self.effort.busy_ns += busy_ns;
        self.effort.lag_ns_max = self.effort.lag_ns_max.max(lag_ns);
        if lag_ns > LATE_NS {
            self.effort.late_ns += lag_ns;
        }
    }

    fn carry_out(&mut self, order: Order) {
        let Load { clients, inboxes, sending, .. } = &mut self.load;
        match order {
            Order::Come { per_s } => clients.come(per_s),
            Order::MakeGroups => sending.make_groups(),
            Order::Know { groups } => groups.into_iter().for_each(|(group, id)| inboxes.know(group, GroupId(id))),
            Order::Traffic { group_per_s, direct_per_s, churn_per_s } => {
                sending.start(group_per_s, direct_per_s);
                self.churn.start(churn_per_s, self.clock.mono_ns());
            }
            Order::Leave => {
                clients.leave();
                // Who is ordered to leave can no longer be asked for what is missing: what was found before stands.
                self.compare = None;
            }
            Order::Quiesce => {
                clients.hurry();
                self.quiescing = true;
            }
            Order::Compare { acked } => self.compare = Some(by_group(acked)),
            Order::End => {}
        }
        self.carried_out += 1;
    }

    /// Reports to the conductor.
    fn beat(&mut self) -> Result<(), LoadError> {
        let now_ns = self.clock.mono_ns();
        let cpu_ns = cpu_ns();
        let effort = Effort {
            wall_ns: now_ns.saturating_sub(self.beat_ns),
            cpu_ns: cpu_ns.saturating_sub(self.cpu_ns),
            ..std::mem::take(&mut self.effort)
        };
        (self.beat_ns, self.cpu_ns) = (now_ns, cpu_ns);
        let load = &mut self.load;
        let census = load.clients.census();
        let made = if self.made_reported { None } else { load.sending.made() };
        self.made_reported |= made.is_some();
        let beat = Beat {
            orders: self.carried_out,
            live: census.live,
            seen: census.seen,
            dialing: census.dialing,
            away: census.away,
            open: load.sending.open(),
            login_ns: load.clients.login_ns,
            resident_bytes: resident_bytes(std::process::id()),
            totals: load.totals,
            ends: load.clients.ends.clone(),
            refusals: load.sending.refusals.clone(),
            kernel: load.clients.kernel.clone(),
            effort,
            delivery: Buckets::take(&mut load.delivery),
            ack: Buckets::take(&mut load.sending.ack),
            pong: Buckets::take(&mut load.pong),
            made,
            acked: self.quiescing.then(|| load.sending.acked()),
            missing: self.compare.as_ref().map(|acked| {
                let direct = |client| load.sending.direct_acked(client);
                load.inboxes.compare(acked, direct, |client| load.clients.state(client))
            }),
        };
        let mut line = serde_json::to_vec(&beat)?;
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        out.write_all(&line).and_then(|()| out.flush()).map_err(LoadError::io("the conductor is gone"))
    }
}

impl Load {
    fn receive(&mut self, client: u32, brought: Brought<'_>, at_ns: u64) {
        let frame = match brought {
            Brought::Frame(frame) => frame,
            Brought::End(errno) => return self.clients.ended(client, errno, &mut self.totals),
        };
        let Load { clients, sending, totals, .. } = self;
        let Some(incoming) = clients.receive(client, frame, at_ns, totals) else { return };
        match incoming {
            Incoming::Row(push) => self.push(client, &push, at_ns),
            Incoming::LoggedIn(_) => self.back.push(client),
            Incoming::Sent(sent) => self.send_ok(client, &sent, at_ns),
            Incoming::Refused(refusal) => sending.refused(client, &refusal, clients.now_ms()),
            Incoming::Other { request, reply } => match reply {
                Reply::Pong { .. } => self.pong.saturating_record(since_ping(request.0, at_ns)),
                Reply::GroupOk { group, .. } => sending.made_by(client, request, group),
                Reply::GroupChanged { .. } => {}
                // Nobody asked for anything else.
                _ => totals.corrupt += 1,
            },
            // They are counted, and that is all.
            Incoming::Repeated(_) | Incoming::Ephemeral(_) | Incoming::Gap { .. } | Incoming::Closing(_) => {}
        }
    }

    fn push(&mut self, client: u32, push: &PushView<'_>, at_ns: u64) {
        let Load { clients, inboxes, totals, .. } = self;
        if let Judged::Due(sent_ns) = inboxes.push(client, push, totals) {
            if clients.was_live_at(client, sent_ns, at_ns) {
                self.delivery.saturating_record(at_ns.saturating_sub(sent_ns));
            } else {
                totals.caught_up += 1;
            }
        }
    }

    /// On the sending session this is the message's row, if it has the next number.
    fn send_ok(&mut self, client: u32, sent: &SendAnswer, at_ns: u64) {
        let Load { inboxes, sending, totals, .. } = self;
        let acked = sending.acked_by(client, sent, at_ns, totals);
        if acked == Acked::Unknown {
            totals.corrupt += 1;
        }
        if sent.row == OwnRow::Next
            && let Acked::Group(group, index) = acked
        {
            inboxes.own_row(client, group, index, totals);
        }
    }
}

/// CPU time of this process.
fn cpu_ns() -> u64 {
    ClockId::CLOCK_PROCESS_CPUTIME_ID.now().map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}
