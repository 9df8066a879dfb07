//! The processes of a soak, as the conductor has them: started, ordered, read from, ended.
//!
//! Owned by the conductor. What always holds: none outlives the conductor (the kernel ends them with it, and their
//! standard input ends); a process that ends before it is ordered to is news, not an error of the conductor's.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::signal::Signal;

use super::orders::{Beat, Order, Plan};
use crate::error::LoadError;

/// The hidden subcommand that is a process of a soak.
pub const SUBCOMMAND: &str = "soak-process";
/// Beats that may wait for the conductor.
const NEWS_MAX: usize = 1_024;

/// What a process said, or that it says nothing more.
#[derive(Debug)]
pub enum News {
    /// A beat.
    Beat(Box<Beat>),
    /// Its output has ended.
    Ended,
}

/// All processes.
pub struct Children {
    /// What they say, by process.
    pub news: Receiver<(usize, News)>,
    children: Vec<(Child, Option<ChildStdin>)>,
}

impl Children {
    /// Starts a process for each plan.
    pub fn start(plans: &[Plan]) -> Result<Children, LoadError> {
        let (send, news) = bounded(NEWS_MAX);
        let mut all = Children { news, children: Vec::with_capacity(plans.len()) };
        for (at, plan) in plans.iter().enumerate() {
            all.start_one(at, plan, send.clone())?;
        }
        Ok(all)
    }

    /// Their process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().map(|(child, _)| child.id()).collect()
    }

    /// Sends one an order. One that is gone gets nothing; its end is in the news.
    pub fn send(&mut self, at: usize, order: &Order) -> Result<(), LoadError> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        if let Some((_, place)) = self.children.get_mut(at)
            && place.as_mut().is_some_and(|input| input.write_all(&line).and_then(|()| input.flush()).is_err())
        {
            *place = None;
        }
        Ok(())
    }

    /// Sends all of them an order.
    pub fn send_all(&mut self, order: &Order) -> Result<(), LoadError> {
        (0..self.children.len()).try_for_each(|at| self.send(at, order))
    }

    fn start_one(&mut self, at: usize, plan: &Plan, news: Sender<(usize, News)>) -> Result<(), LoadError> {
        let exe = std::env::current_exe().map_err(LoadError::io("this program's own path is not known"))?;
        let mut command = Command::new(exe);
        // Ctrl-C is the conductor's: it ends them when the report is written.
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one prctl.
        unsafe {
            command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
        }
        let mut child = command.spawn().map_err(LoadError::io("a process of the soak cannot be started"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        self.children.push((child, input));
        let mut line = serde_json::to_vec(plan)?;
        line.push(b'\n');
        if let Some((_, Some(input))) = self.children.last_mut() {
            input.write_all(&line).map_err(LoadError::io("a process of the soak ended at once"))?;
        }
        let Some(output) = output else { return Ok(()) };
        let listen = move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(beat) = serde_json::from_str(&line) else { break };
                if news.send((at, News::Beat(Box::new(beat)))).is_err() {
                    return;
                }
            }
            // Nobody listens any more, then nobody misses it.
            news.send((at, News::Ended)).ok();
        };
        let thread = std::thread::Builder::new().name(format!("news-{at}"));
        thread.spawn(listen).map(drop).map_err(LoadError::io("no thread can be started"))
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for (child, input) in &mut self.children {
            drop(input.take());
            // Those that were ordered to end have ended or are about to; the others have nothing more to say.
            child.kill().ok();
            child.wait().ok();
        }
    }
}
