//! The run: starts the cluster and its clients, disturbs them, puts all right again, and has the history checked.
//!
//! What always holds: what chance decides follows from the seed; and the run is judged only after every fault was
//! ended, every gateway was ready by itself and all inboxes were read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use clap::{Args, ValueEnum};
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::checker::{Evidence, Findings, judge};
use crate::clients::lines_of;
use crate::error::Failure;
use crate::faults::Fault;
use crate::history::{self, Harm, Line, Recorder};
use crate::lab::{Lab, NODES, gateway_address, make_tokens};
use crate::plan::{Plan, RedisKind};
use crate::process::End;
use crate::{clock, database, report};

/// How long the cluster may take to be ready once nothing is wrong any more, on a busy machine.
const READY_PATIENCE: Duration = Duration::from_secs(120);
/// How long the clients may take for each thing they are told.
const CLIENTS_PATIENCE: Duration = Duration::from_secs(400);
/// Two faults at a time, of so many rounds one.
const TWO_AT_A_TIME: u8 = 2;

/// What a gateway says that stood still until the stream was cut off behind it.
const STOOD_STILL: &str = "stood still for too long";
/// How a gateway's log names what is its own fault.
const OWN_ERRORS: [&str; 2] = ["internal error:", "panicked at"];

/// What a run is told.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// How long the cluster is disturbed
    #[arg(long = "for", default_value = "90s")]
    pub(crate) time: humantime::Duration,
    /// What chance begins with; another one each time, if none is given
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Users, each with two devices
    #[arg(long, default_value_t = 24)]
    pub(crate) users: u64,
    /// Messages a second, of all together
    #[arg(long, default_value_t = 40.0)]
    pub(crate) rate: f64,
    /// The gateway's binary
    #[arg(long, default_value = "target/release/ringway")]
    pub(crate) ringway: PathBuf,
    /// Where the history and the logs go
    #[arg(long, default_value = "target/chaos")]
    pub(crate) report: PathBuf,
    /// How Redis is run; as chance says, if it is not said
    #[arg(long)]
    pub(crate) redis: Option<RedisKind>,
    /// Nothing is done after which Redis may have lost something, so that order is judged most strictly; without this in
    /// every second run, as chance says
    #[arg(long)]
    pub(crate) redis_keeps_data: bool,
    /// How long Redis keeps names, 15 s to 15 m: if it is a minute or less, gateways are away for longer again and again,
    /// and else once, in a run that has time for it
    #[arg(long, default_value = "15m")]
    pub(crate) names: humantime::Duration,
    /// A directory for the servers' data, which goes afterwards
    #[arg(long)]
    pub(crate) data: PathBuf,
}

/// The process of the clients.
struct Clients {
    child: Child,
    orders: ChildStdin,
    words: mpsc::Receiver<String>,
}

/// A run.
struct Run<'a> {
    lab: Lab,
    recorder: &'a Recorder,
    random: fastrand::Rng,
    began: Instant,
    deck: Vec<Fault>,
    losses: Losses,
    names: Duration,
    /// Gateways whose processes have stood still, or heard nothing of Redis.
    have_stood_still: BTreeSet<usize>,
}

/// Whether Redis may lose something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Losses {
    Too,
    Never,
}

/// Carries a run out; whether all was well.
pub(crate) async fn run(args: &RunArgs) -> Result<bool, Failure> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(1..1_000_000));
    let mut random = fastrand::Rng::with_seed(seed);
    let kinds = RedisKind::value_variants();
    let chosen = kinds.get(random.usize(..kinds.len())).copied().unwrap_or(RedisKind::Alone);
    let redis = args.redis.unwrap_or(chosen);
    let losses = if args.redis_keeps_data || random.bool() { Losses::Never } else { Losses::Too };
    let words = if losses == Losses::Never { "keeps what it has" } else { "may lose what it has" };
    println!(
        "chaos: for {}, seed {seed}: three gateways, MariaDB with a replica, Redis: {redis:?}, {words}",
        args.time
    );
    if args.users < 4 {
        return Err(Failure::Usage("--users: at least 4, so that there are groups".to_owned()));
    }
    fs::create_dir_all(&args.report).map_err(|error| Failure::io(&args.report, error))?;
    let (ringway, dir, names) = (args.ringway.clone(), args.data.clone(), args.names.into());
    let plan = Plan { ringway, dir, report: args.report.clone(), redis, names };
    let (driven, talked) = (args.report.join("faults.jsonl"), args.report.join("history.jsonl"));
    let recorder = Recorder::create(&driven)?;
    let lab = Lab::start(&plan).await?;
    let mut clients = Clients::start(args, &plan, &talked, random.u64(..))?;
    clients.answer(&["talking"]).await?;
    let mut run = Run {
        lab,
        recorder: &recorder,
        random,
        began: Instant::now(),
        deck: Vec::new(),
        losses,
        names: args.names.into(),
        have_stood_still: BTreeSet::new(),
    };
    run.disturb(args.time.into()).await?;
    run.until_ready("at the end").await?;
    clients.order("quiet")?;
    if clients.answer(&["answered", "unanswered"]).await? == "unanswered" {
        run.say("not all messages are answered");
    }
    clients.order("read")?;
    clients.answer(&["read"]).await?;
    clients.order("end")?;
    clients.answer(&["ended"]).await?;
    let (mut evidence, mut findings) = (Evidence::default(), Findings::default());
    // The groups and messages first, then what the database has of them.
    history::read(&talked, |line| evidence.take(line, &mut findings))?;
    database::read(&recorder, evidence.inbox_rows() as u64).await?;
    run.stop_gateways().await?;
    recorder.flush()?;
    history::read(&driven, |line| evidence.take(line, &mut findings))?;
    judge(&evidence, &mut findings);
    drop(run);
    Ok(report::print(&evidence, &findings, &args.report, seed))
}

impl Run<'_> {
    fn say(&self, words: &str) {
        println!("chaos: {:6.1} s  {words}", self.began.elapsed().as_secs_f64());
    }

    /// Rounds of faults with quiet spells between, until the time is over.
    async fn disturb(&mut self, time: Duration) -> Result<(), Failure> {
        self.quiet(2_000).await?;
        self.deck = Fault::deck(self.names, &mut self.random);
        // Drawn from the other end, when all others have been.
        for fault in Fault::of_long_runs(time, self.names, &mut self.random) {
            self.deck.insert(0, fault);
        }
        while self.began.elapsed() < time {
            let mut faults = vec![self.draw()];
            if self.random.u8(..TWO_AT_A_TIME) == 0 {
                let second = self.draw();
                match faults.iter().all(|first| first.may_meet(second)) {
                    true => faults.push(second),
                    false => self.deck.push(second),
                }
            }
            self.suffer(&faults).await?;
            // Mostly the cluster has time to recover; sometimes the next blow comes at once.
            if self.random.u8(..4) > 0 {
                self.until_ready("again").await?;
            }
            self.quiet(3_000).await?;
        }
        Ok(())
    }

    fn draw(&mut self) -> Fault {
        loop {
            match self.deck.pop() {
                Some(fault) if self.losses == Losses::Never && self.may_lose(fault) => {}
                Some(fault) => return fault,
                None => self.deck = Fault::deck(self.names, &mut self.random),
            }
        }
    }

    fn may_lose(&self, fault: Fault) -> bool {
        fault.harm(self.lab.redis.kind) == Harm::RedisLost
    }

    /// Begins faults one after another, and ends them.
    async fn suffer(&mut self, faults: &[Fault]) -> Result<(), Failure> {
        let mut open: Vec<(Instant, Fault)> = Vec::new();
        for fault in faults {
            self.look_after_gateways()?;
            let time = fault.time(&mut self.random);
            let detail = fault.begin(&mut self.lab).await?;
            self.have_stood_still.extend((0..NODES).filter(|at| fault.keeps_from_redis(*at)));
            self.say(&format!("{}{}{detail}, for {time:.1?}", fault.name(), if detail.is_empty() { "" } else { ": " }));
            let (at_us, name, harm) = (clock::us(), fault.name(), fault.harm(self.lab.redis.kind));
            self.recorder.record(&Line::Fault { at_us, name, detail, harm })?;
            open.push((Instant::now() + time, *fault));
            let pause = Duration::from_millis(self.random.u64(..1_500));
            self.pass(Instant::now() + pause).await?;
        }
        open.sort_by_key(|(end, _)| *end);
        for (end, fault) in open {
            self.pass(end).await?;
            fault.end(&mut self.lab).await?;
            if let Fault::GatewayKilled(at) = fault {
                self.have_stood_still.remove(&at);
            }
        }
        Ok(())
    }

    /// Lets time pass, in which Sentinel may promote.
    async fn pass(&mut self, end: Instant) -> Result<(), Failure> {
        loop {
            if let Some(words) = self.lab.redis.follow(&self.lab.network)? {
                self.say(&words);
            }
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            sleep((end - now).min(Duration::from_millis(200))).await;
        }
    }

    async fn quiet(&mut self, ms_max: u64) -> Result<(), Failure> {
        let pause = Duration::from_millis(self.random.u64(500..ms_max));
        self.pass(Instant::now() + pause).await?;
        self.look_after_gateways()
    }

    /// Waits until every gateway says that it is ready.
    async fn until_ready(&mut self, when: &str) -> Result<(), Failure> {
        let since = Instant::now();
        let mut not_ready = Vec::new();
        while since.elapsed() < READY_PATIENCE {
            self.pass(Instant::now()).await?;
            self.look_after_gateways()?;
            let words = |at| self.lab.not_ready(at).map(|words| format!("gateway {}: {words}", at + 1));
            not_ready = (0..NODES).filter_map(words).collect::<Vec<String>>();
            if not_ready.is_empty() {
                self.say(&format!("ready {when}, after {:.1} s", since.elapsed().as_secs_f64()));
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        self.wrong(format!("not ready {when} after {} s: {}", READY_PATIENCE.as_secs(), not_ready.join("; ")))
    }

    /// One that stood still and has ended by itself, as the cluster's page says it may, is started again, as its operator
    /// would; one that has ended otherwise is a finding.
    fn look_after_gateways(&mut self) -> Result<(), Failure> {
        for at in 0..self.lab.gateways.len() {
            let Some(gateway) = self.lab.gateways.get_mut(at) else { continue };
            let Some(end) = gateway.ended() else { continue };
            let (name, log) = (gateway.name.clone(), gateway.log_end());
            gateway.start()?;
            let (stood_still, last) = (self.have_stood_still.remove(&at), log.lines().last().unwrap_or_default());
            match end {
                End::Code(_) if stood_still && last.contains(STOOD_STILL) => {
                    self.say(&format!("{name} ended with the stream cut off behind it, and is started again: {last}"));
                }
                End::Code(code) => self.wrong(format!("{name} ended with {code}: {log}"))?,
                End::Crash(signal) => self.wrong(format!("{name} was ended by signal {signal}: {log}"))?,
            }
        }
        Ok(())
    }

    /// A stop is clean, and nobody has found an error of its own.
    async fn stop_gateways(&mut self) -> Result<(), Failure> {
        self.look_after_gateways()?;
        self.lab.gateways.iter().for_each(|gateway| gateway.signal(Signal::SIGTERM));
        for at in 0..self.lab.gateways.len() {
            let since = Instant::now();
            let Some(gateway) = self.lab.gateways.get_mut(at) else { continue };
            let end = loop {
                match gateway.ended() {
                    None if since.elapsed() < READY_PATIENCE => sleep(Duration::from_millis(50)).await,
                    end => break end,
                }
            };
            let (name, log) = (gateway.name.clone(), gateway.log());
            if end != Some(End::Code(0)) {
                self.wrong(format!("{name} was told to stop, and what came of it is {end:?}"))?;
            }
            for line in log.lines().filter(|line| OWN_ERRORS.iter().any(|words| line.contains(words))) {
                self.wrong(format!("{name}: {line}"))?;
            }
        }
        Ok(())
    }

    fn wrong(&self, what_is_wrong: String) -> Result<(), Failure> {
        self.say(&what_is_wrong);
        self.recorder.record(&Line::Observed { at_us: clock::us(), what_is_wrong })
    }
}

impl Clients {
    fn start(args: &RunArgs, plan: &Plan, history: &Path, seed: u64) -> Result<Clients, Failure> {
        let tokens = plan.dir.join("tokens");
        make_tokens(plan, args.users, &tokens)?;
        let failed = |error: std::io::Error| Failure::Clients(error.to_string());
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("clients").arg("--history").arg(history).arg("--tokens").arg(&tokens);
        command.args(["--rate", &args.rate.to_string(), "--seed", &seed.to_string()]);
        for at in 0..NODES {
            command.args(["--gateway", &gateway_address(at)]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(orders), Some(words)) => Ok(Clients { child, orders, words: lines_of(words) }),
            _ => Err(Failure::Clients("they have no pipes".to_owned())),
        }
    }

    fn order(&mut self, order: &str) -> Result<(), Failure> {
        use std::io::Write;
        writeln!(self.orders, "{order}").map_err(|error| Failure::Clients(error.to_string()))
    }

    async fn answer(&mut self, words: &[&str]) -> Result<String, Failure> {
        match timeout(CLIENTS_PATIENCE, self.words.recv()).await {
            Ok(Some(word)) if words.contains(&word.as_str()) => Ok(word),
            Ok(other) => Err(Failure::Clients(format!("expected {words:?}, but {other:?} came"))),
            Err(_elapsed) => Err(Failure::Clients(format!("waited in vain for {words:?}"))),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
