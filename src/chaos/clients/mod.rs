//! The clients: a process of its own, which talks over the client's core and writes the history.
//!
//! One thread. It is told what to do by lines on its standard input (`quiet`: send no more; `read`: read all inboxes;
//! `end`), and says on its standard output when that is done. What always holds: what is sent is in the history before
//! it is in a socket.

mod device;
mod inbox;
mod socket;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::error::Failure;
use crate::history::{self, Line, Recorder};
use device::Talker;

/// How long anything that must happen once all is well may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// Devices of each user.
const DEVICES: u64 = 2;

/// What the driver tells them at start.
#[derive(Args, Debug)]
pub(crate) struct ClientsArgs {
    /// Where the history goes
    #[arg(long)]
    pub(crate) history: PathBuf,
    /// A token a line, of users 1, 2, 3, ...
    #[arg(long)]
    pub(crate) tokens: PathBuf,
    /// The gateways
    #[arg(long = "gateway")]
    pub(crate) gateways: Vec<SocketAddr>,
    /// Messages a second, of all together
    #[arg(long)]
    pub(crate) rate: f64,
    /// What chance begins with
    #[arg(long)]
    pub(crate) seed: u64,
}

/// What all devices do at the moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Send and receive.
    Talk,
    /// Receive, and send again what has no answer.
    Quiet,
    /// Leave, once this newest row of each user is there.
    Leave(BTreeMap<u64, u64>),
}

/// What the devices share.
pub(crate) struct Crowd {
    pub(crate) gateways: Vec<SocketAddr>,
    pub(crate) recorder: Recorder,
    /// Groups with their members.
    pub(crate) groups: RefCell<Vec<(u64, Vec<u64>)>>,
    pub(crate) users: u64,
    /// Milliseconds between two turns of one device to send, on average.
    pub(crate) pause_ms: u64,
    /// Messages without an answer, of all.
    pub(crate) unanswered: Cell<usize>,
    /// Devices that have logged in, of all.
    pub(crate) logged_in: Cell<usize>,
}

/// Runs the process of the clients.
pub(crate) fn run(args: &ClientsArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Clients(error.to_string()))?;
    LocalSet::new().block_on(&runtime, talk(args))
}

async fn talk(args: &ClientsArgs) -> Result<(), Failure> {
    let tokens = std::fs::read_to_string(&args.tokens).map_err(|error| Failure::io(&args.tokens, error))?;
    let tokens: Vec<String> = tokens.lines().map(str::to_owned).collect();
    let devices = tokens.len() as u64 * DEVICES;
    let crowd = Rc::new(Crowd {
        gateways: args.gateways.clone(),
        recorder: Recorder::create(&args.history)?,
        groups: RefCell::default(),
        users: tokens.len() as u64,
        pause_ms: (devices as f64 * 1_000.0 * device::BURST_MEAN / args.rate.max(0.1)) as u64,
        unanswered: Cell::new(0),
        logged_in: Cell::new(0),
    });
    let mut random = fastrand::Rng::with_seed(args.seed);
    make_groups(&crowd, &tokens, &mut random).await?;
    let (phase, _) = watch::channel(Phase::Talk);
    let mut talkers = Vec::new();
    for (user, token) in (1..).zip(&tokens) {
        for device in 1..=DEVICES {
            let who = history::Device { user, device };
            let talker = Talker::new(who, token.clone(), Rc::clone(&crowd), random.fork());
            talkers.push(tokio::task::spawn_local(talker.run(phase.subscribe())));
        }
    }
    until("all devices have logged in", || crowd.logged_in.get() as u64 == devices).await?;
    say("talking");
    let mut orders = orders();
    expect(&mut orders, "quiet").await?;
    phase.send_replace(Phase::Quiet);
    // Who has not had a look at the phase yet may still send.
    sleep(Duration::from_millis(200)).await;
    let unanswered = until("all messages are answered", || crowd.unanswered.get() == 0).await;
    crowd.recorder.flush()?;
    say(if unanswered.is_ok() { "answered" } else { "unanswered" });
    expect(&mut orders, "read").await?;
    let newest = inbox::read_all(&crowd, &tokens).await?;
    say("read");
    expect(&mut orders, "end").await?;
    phase.send_replace(Phase::Leave(newest));
    for talker in talkers {
        // One that does not come so far is found by the checker.
        if let Ok(ended) = timeout(PATIENCE, talker).await {
            ended.map_err(|error| Failure::Clients(error.to_string()))??;
        }
    }
    crowd.recorder.flush()?;
    say("ended");
    Ok(())
}

/// Makes a group for every three users, each with members from two to nearly all.
async fn make_groups(crowd: &Crowd, tokens: &[String], random: &mut fastrand::Rng) -> Result<(), Failure> {
    let mut users: Vec<u64> = (1..=crowd.users).collect();
    for at in 0..(crowd.users as usize / 3).max(1) {
        random.shuffle(&mut users);
        let size = 2 + at % (users.len() - 2).max(1);
        let mut members: Vec<u64> = users.iter().copied().take(size).collect();
        let owner = members.first().copied().unwrap_or(1);
        let token = tokens.get(owner as usize - 1).map(String::as_str).unwrap_or_default();
        let group = socket::make_group(crowd, token, &members).await?;
        members.sort_unstable();
        crowd.recorder.record(&Line::Group { group, members: members.clone() })?;
        crowd.groups.borrow_mut().push((group, members));
    }
    Ok(())
}

/// Waits for something that must happen.
async fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<(), Failure> {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if done() {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err(Failure::Clients(format!("waited in vain for {} s until {what}", PATIENCE.as_secs())))
}

/// Tells the driver.
fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    // A driver that is gone takes this process along.
    drop(writeln!(out, "{word}"));
    drop(out.flush());
}

/// What the driver says, line by line.
fn orders() -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel(4);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receive
}

async fn expect(orders: &mut mpsc::Receiver<String>, word: &str) -> Result<(), Failure> {
    match orders.recv().await {
        Some(line) if line == word => Ok(()),
        other => Err(Failure::Clients(format!("expected {word:?} from the driver, and heard {other:?}"))),
    }
}

/// Reads lines until there are no more: what `BufRead` is for here.
pub(crate) fn lines_of(reader: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::BufReader::new(reader).lines().map_while(Result::ok) {
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receive
}
