//! The jobs, and their files: `broadcasts/NAME.json` is a job, `NAME.progress` beside it how far it is.
//!
//! What always holds: a job's file is whole and on disk before it is said to be; the progress that a file says was made, since it
//! is written after it, and may lag behind: what is sent again is the same message.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringway_wire::ids::ClientMsgId;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Broadcast;
use crate::api::messages::uuid;
use crate::contract::chain::Chain;
use crate::datadir::replace_file;
use crate::limits::BROADCASTS_MAX;

/// The directory in the data directory.
const DIRECTORY: &str = "broadcasts";

/// What is sent, and to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Job {
    /// What it is called.
    pub(super) name: ClientMsgId,
    /// In whose name it is sent.
    pub(super) from: u64,
    /// To whom; sorted, each once.
    pub(super) users: Vec<u64>,
    /// What it says.
    pub(super) body: Vec<u8>,
    /// Messages a second.
    pub(super) rate_per_s: u32,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Progress {
    /// So many of the users have it, or cannot have it.
    pub(super) through: usize,
    /// Of these, those who cannot.
    pub(super) failed: usize,
    /// It was stopped.
    is_stopped: bool,
}

/// All jobs, the oldest first.
#[derive(Debug)]
pub(super) struct Jobs {
    directory: PathBuf,
    jobs: Vec<(Job, Progress)>,
}

impl Job {
    /// The name of the message for one of the users: always the same one.
    pub(super) fn name_for(&self, user: u64) -> ClientMsgId {
        let digest = Sha256::digest([&self.name.0[..], &user.to_be_bytes()].concat());
        let random = digest.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes));
        ClientMsgId::from_parts(self.name.unix_ms().unwrap_or_default(), random)
    }

    fn text(&self) -> String {
        let Job { from, users, body, rate_per_s, .. } = self;
        json!({"from": from, "users": users, "body": STANDARD.encode(body), "rate_per_s": rate_per_s}).to_string()
    }

    fn parse(name: ClientMsgId, text: &str) -> Option<Job> {
        let json: Value = serde_json::from_str(text).ok()?;
        let users = json.get("users")?.as_array()?.iter().map(Value::as_u64).collect::<Option<_>>()?;
        let body = STANDARD.decode(json.get("body")?.as_str()?).ok()?;
        let rate_per_s = json.get("rate_per_s")?.as_u64()?.try_into().ok()?;
        Some(Job { name, from: json.get("from")?.as_u64()?, users, body, rate_per_s })
    }
}

impl Progress {
    fn text(self) -> String {
        format!("{} {} {}\n", self.through, self.failed, u8::from(self.is_stopped))
    }

    fn parse(text: &str) -> Option<Progress> {
        let numbers: Vec<usize> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [through, failed, stopped] = numbers[..] else { return None };
        Some(Progress { through, failed, is_stopped: stopped != 0 })
    }
}

/// A job's name as it is shown and as its files are called.
fn shown_name(name: ClientMsgId) -> String {
    name.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Jobs {
    /// Those that the data directory has. A file that cannot be understood is passed over, and the log says so.
    pub(super) fn read(data_dir: PathBuf) -> Jobs {
        let directory = data_dir.join(DIRECTORY);
        let mut jobs: Vec<(Job, Progress)> = Vec::new();
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else { continue };
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let job = fs::read_to_string(&path).ok().and_then(|text| Job::parse(uuid(&stem)?, &text));
            let Some(job) = job else {
                tracing::warn!(path = %path.display(), "this is no broadcast");
                continue;
            };
            // Not there: it was not begun.
            let progress = fs::read_to_string(progress_path(&directory, &stem)).ok();
            jobs.push((job, progress.and_then(|text| Progress::parse(&text)).unwrap_or_default()));
        }
        jobs.sort_by_key(|(job, _)| job.name.0);
        Jobs { directory, jobs }
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn any_runs(&self) -> bool {
        self.jobs.iter().any(|(job, progress)| is_running(job, *progress))
    }

    /// A job that is not over.
    pub(super) fn running(&self, at: usize) -> Option<(&Job, Progress)> {
        let (job, progress) = self.jobs.get(at)?;
        is_running(job, *progress).then_some((job, *progress))
    }

    /// A new one, or the one that has its name already. `None`: there are as many as may be, and none is over.
    pub(super) fn begin(&mut self, job: Job) -> io::Result<Option<Broadcast>> {
        if let Some(broadcast) = self.shown(&shown_name(job.name)) {
            return Ok(Some(broadcast));
        }
        if self.jobs.len() >= BROADCASTS_MAX {
            let over = self.jobs.iter().position(|(job, progress)| !is_running(job, *progress));
            let Some(over) = over else { return Ok(None) };
            let (job, _) = self.jobs.remove(over);
            let stem = shown_name(job.name);
            fs::remove_file(self.directory.join(format!("{stem}.json")))?;
            // It may never have been made.
            fs::remove_file(progress_path(&self.directory, &stem)).ok();
        }
        fs::create_dir_all(&self.directory)?;
        replace_file(&self.directory, &format!("{}.json", shown_name(job.name)), &job.text())?;
        let broadcast = shown(&job, Progress::default());
        self.jobs.push((job, Progress::default()));
        Ok(Some(broadcast))
    }

    /// One, by its name.
    pub(super) fn shown(&self, name: &str) -> Option<Broadcast> {
        let name = uuid(name)?;
        self.jobs.iter().find(|(job, _)| job.name == name).map(|(job, progress)| shown(job, *progress))
    }

    /// Stops one; `None`: there is none of this name.
    pub(super) fn stop(&mut self, name: &str) -> io::Result<Option<Broadcast>> {
        let Some(name) = uuid(name) else { return Ok(None) };
        let Some((job, progress)) = self.jobs.iter_mut().find(|(job, _)| job.name == name) else { return Ok(None) };
        if is_running(job, *progress) {
            let stopped = Progress { is_stopped: true, ..*progress };
            replace_file(&self.directory, &format!("{}.progress", shown_name(name)), &stopped.text())?;
            *progress = stopped;
        }
        Ok(Some(shown(job, *progress)))
    }

    /// More of a job's users are through.
    pub(super) fn advance(&mut self, at: usize, through: usize, failed: usize) {
        let Some((job, progress)) = self.jobs.get_mut(at) else { return };
        if progress.through == through {
            return;
        }
        *progress = Progress { through, failed, ..*progress };
        // Not made sure of on disk, for which everybody would wait here: after a power loss the file may lag behind or be empty,
        // and the same messages are sent again.
        let (new, path) = (self.directory.join("progress.new"), progress_path(&self.directory, &shown_name(job.name)));
        if let Err(error) = fs::write(&new, progress.text()).and_then(|()| fs::rename(&new, path)) {
            tracing::warn!(error = %Chain(&error), "how far a broadcast is cannot be kept");
        }
    }
}

fn progress_path(directory: &Path, stem: &str) -> PathBuf {
    directory.join(format!("{stem}.progress"))
}

fn is_running(job: &Job, progress: Progress) -> bool {
    !progress.is_stopped && progress.through < job.users.len()
}

fn shown(job: &Job, progress: Progress) -> Broadcast {
    let Progress { through, failed, is_stopped } = progress;
    let is_through = through >= job.users.len();
    Broadcast {
        broadcast: shown_name(job.name),
        state: match (is_through, is_stopped) {
            (true, _) => "done",
            (false, true) => "stopped",
            (false, false) => "running",
        },
        users: job.users.len(),
        sent: through - failed,
        failed,
    }
}
