//! A model of the Redis that a cluster shares: what the scripts do, as a pure function of their arguments and the time.
//!
//! Shares nothing with production but how a call is encoded. It is judged itself: the end-to-end suite makes random calls
//! of a real Redis and of this, and compares what both say. What always holds: a script is atomic, and one that has no
//! memory for the first thing it would write has done nothing.

use std::collections::{BTreeMap, BTreeSet};

/// What a script replies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    /// A number.
    Int(i64),
    /// A string.
    Text(Vec<u8>),
    /// Several.
    List(Vec<Value>),
    /// `OOM command not allowed when used memory > 'maxmemory'.`
    NoMemory,
}

/// A script of the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Script {
    /// `submit.lua`
    Submit,
    /// `seed.lua`
    Seed,
    /// `heartbeat.lua`
    Heartbeat,
    /// `status.lua`
    Status,
    /// `compare.lua`
    Compare,
}

/// What this model does otherwise than the scripts, to see whether somebody notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Bent {
    /// Nothing.
    #[default]
    No,
    /// Names are not claimed.
    ClaimsNothing,
    /// A group's version is not looked at.
    IgnoresVersions,
    /// What no node has read, and no database, is cut off.
    CutsUnread,
    /// Says that a node was there all the time, when none was.
    ConfirmsItself,
    /// A heartbeat of an earlier session takes a node's id.
    TakesOldSessions,
    /// Vouches for names that it has forgotten, which it does soon.
    VouchesForForgotten,
    /// A heartbeat that finds no memory makes none.
    DeniesHeartbeats,
}

/// Names and what is known of them.
type Names = BTreeMap<Vec<u8>, Vec<u8>>;

/// A generation's keys.
#[derive(Clone, Default, Debug)]
struct Keys {
    groups: BTreeMap<Vec<u8>, u64>,
    /// Entry to what it holds.
    stream: BTreeMap<u64, Vec<u8>>,
    /// Slice to when it expires, Unix milliseconds, and names with what is known of them.
    claims: BTreeMap<Vec<u8>, (u64, Names)>,
    newest_window: u64,
    windows: BTreeMap<u64, String>,
}

/// The hash `state`.
#[derive(Clone, Default, Debug)]
struct State {
    run: Option<String>,
    run_ms: u64,
    generation: String,
    count: u64,
    stored: u64,
    floor: u64,
    since_s: u64,
    seeding: String,
    seeding_s: u64,
    seeder: String,
    buckets: Option<u64>,
    order: Option<String>,
    taken: Option<String>,
    confirmed: Option<String>,
    names_s: Option<String>,
}

/// A node's lease.
#[derive(Clone, Debug)]
struct Lease {
    token: String,
    read: u64,
    buckets: String,
    names_s: String,
    renewed: u64,
    expires_ms: u64,
}

/// What a node's sessions are told apart by.
#[derive(Clone, Copy, Default, Debug)]
struct Sessions {
    given: u64,
    holds: u64,
}

/// All keys: what a dump of it has.
#[derive(Clone, Default, Debug)]
pub(crate) struct Data {
    state: State,
    generations: BTreeMap<String, Keys>,
    nodes: BTreeSet<String>,
    leases: BTreeMap<String, Lease>,
    sessions: BTreeMap<String, Sessions>,
    /// Token, and when it ends.
    writer: Option<(String, u64)>,
}

/// A server.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    /// Its keys.
    pub(crate) data: Data,
    /// What it calls its own process.
    pub(crate) run: String,
    /// Entries of streams for which it has memory.
    pub(crate) entries_max: usize,
    /// What it does otherwise.
    pub(crate) bent: Bent,
}

fn text(bytes: impl AsRef<[u8]>) -> Value {
    Value::Text(bytes.as_ref().to_vec())
}

fn decimal(number: u64) -> Value {
    text(number.to_string())
}

fn string(argument: &[u8]) -> String {
    String::from_utf8_lossy(argument).into_owned()
}

fn number(argument: &[u8]) -> u64 {
    string(argument).parse().unwrap_or(0)
}

fn number_of(generation: &str) -> u64 {
    generation.split('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

impl Data {
    /// The database has all up to `stored`: cuts off what is not kept and, if that is told, what everybody has read.
    fn cut(&mut self, stored: u64, kept: u64, read_by_all: Option<u64>) {
        let state = &mut self.state;
        if state.generation.is_empty() || stored >> 40 != number_of(&state.generation) {
            return;
        }
        let is_more = stored > state.stored && stored <= state.count;
        let kept_from = state.count.saturating_sub(kept);
        let needless = if is_more { stored } else { state.stored };
        let cut = read_by_all.map_or(kept_from, |read| needless.min(read).min(kept_from));
        let keys = self.generations.entry(state.generation.clone()).or_default();
        keys.stream.retain(|entry, _| *entry > cut);
        if is_more {
            state.stored = stored;
        }
    }
}

impl Redis {
    /// An empty one.
    pub(crate) fn new(run: &str) -> Redis {
        Redis { data: Data::default(), run: run.to_owned(), entries_max: usize::MAX, bent: Bent::No }
    }

    fn is_out_of_memory(&self) -> bool {
        self.data.generations.values().map(|keys| keys.stream.len()).sum::<usize>() >= self.entries_max
    }

    /// Runs a script at this time of its clock, Unix milliseconds.
    pub(crate) fn eval(&mut self, script: Script, now_ms: u64, arguments: &[Vec<u8>]) -> Value {
        self.expire(now_ms);
        match script {
            Script::Submit => self.submit(now_ms, arguments),
            Script::Seed => self.seed(now_ms, arguments),
            Script::Heartbeat => self.heartbeat(now_ms, arguments),
            Script::Status => self.status(now_ms, arguments),
            Script::Compare => self.compare(arguments),
        }
    }

    fn expire(&mut self, now_ms: u64) {
        self.data.leases.retain(|_, lease| lease.expires_ms > now_ms);
        self.data.writer.take_if(|(_, expires_ms)| *expires_ms <= now_ms);
        for keys in self.data.generations.values_mut() {
            keys.claims.retain(|_, (expires_ms, _)| *expires_ms > now_ms);
        }
    }

    fn submit(&mut self, now_ms: u64, arguments: &[Vec<u8>]) -> Value {
        let [generation, unstored_max, claim_s, slack_s, calls @ ..] = arguments else { return text("GEN") };
        let is_out_of_memory = self.is_out_of_memory();
        let Data { state, generations, .. } = &mut self.data;
        if state.generation.as_bytes() != generation.as_slice() {
            return text("GEN");
        }
        if is_out_of_memory {
            return Value::NoMemory;
        }
        let (unstored_max, claim_s, slack_s) = (number(unstored_max), number(claim_s), number(slack_s));
        let lives_s = if self.bent == Bent::VouchesForForgotten { claim_s / 4 } else { claim_s };
        let known_since_s = (now_ms / 1_000) as i64 - claim_s as i64 + slack_s as i64;
        let keys = generations.entry(state.generation.clone()).or_default();
        let (mut replies, mut has_old) = (Vec::new(), false);
        for call in calls.chunks_exact(8) {
            let [kind, group, version, name, slice, known, since, entry] = call else { break };
            let (is_message, is_direct) = (kind == b"G" || kind == b"D", kind == b"D");
            let version = number(version);
            let claimed = keys.claims.get(slice).and_then(|(_, names)| names.get(name)).filter(|_| is_message);
            let is_old = number(since) as i64 <= known_since_s && self.bent != Bent::VouchesForForgotten;
            replies.push(if let Some(claimed) = claimed {
                text([b"R", claimed.as_slice()].concat())
            } else if is_message && (has_old || is_old) {
                has_old = true;
                text("O")
            } else if state.count - state.stored >= unstored_max {
                text("F")
            } else if !is_direct
                && self.bent != Bent::IgnoresVersions
                && keys.groups.get(group).copied().unwrap_or(0) != version
            {
                text("B")
            } else {
                state.count += 1;
                keys.stream.insert(state.count, entry.clone());
                if is_message && self.bent != Bent::ClaimsNothing {
                    let (expires_ms, names) = keys.claims.entry(slice.clone()).or_default();
                    *expires_ms = now_ms + lives_s * 1_000;
                    names.insert(name.clone(), [known.as_slice(), state.count.to_string().as_bytes()].concat());
                } else if kind == b"E" {
                    keys.groups.remove(group);
                } else if kind == b"C" {
                    keys.groups.insert(group.clone(), version + 1);
                }
                text("A")
            });
        }
        replies.push(decimal(state.count));
        Value::List(replies)
    }

    fn seed(&mut self, now_ms: u64, arguments: &[Vec<u8>]) -> Value {
        let [step, generation, rest @ ..] = arguments else { return text("GEN") };
        let (generation, now_s) = (string(generation), now_ms / 1_000);
        let is_out_of_memory = self.is_out_of_memory();
        let Data { state, generations, .. } = &mut self.data;
        if let (b"begin", [replaced, node]) = (step.as_slice(), rest) {
            if state.generation != string(replaced) {
                return text("GEN");
            }
            const PATIENCE_S: u64 = 10;
            let is_seeding = !state.seeding.is_empty() && state.seeder != string(node);
            if is_seeding && now_s.saturating_sub(state.seeding_s) < PATIENCE_S {
                return text("BUSY");
            }
            if is_out_of_memory {
                return Value::NoMemory;
            }
            (state.seeding, state.seeding_s, state.seeder) = (generation, now_s, string(node));
            return text("OK");
        }
        if state.seeding != generation {
            return text("BUSY");
        }
        if is_out_of_memory {
            return Value::NoMemory;
        }
        state.seeding_s = now_s;
        match (step.as_slice(), rest) {
            (b"groups", pairs) => {
                let groups = &mut generations.entry(generation).or_default().groups;
                groups.extend(pairs.chunks_exact(2).map(|pair| (pair[0].clone(), number(&pair[1]))));
            }
            (b"finish", [count, floor, buckets, names_s]) => {
                // Its claims stay until they expire, and nobody asks for them.
                generations.remove(&state.generation);
                let (count_text, each) = (string(count), number(buckets).max(1) as usize);
                *state = State {
                    generation,
                    count: number(count),
                    stored: number(count),
                    floor: number(floor),
                    since_s: now_s,
                    seeding: String::new(),
                    run_ms: 0,
                    buckets: Some(number(buckets)),
                    taken: Some(vec![count_text.clone(); each].join(" ")),
                    order: Some(count_text),
                    confirmed: Some(state.run.clone().unwrap_or_default()),
                    names_s: Some(string(names_s)),
                    ..std::mem::take(state)
                };
            }
            _ => {}
        }
        text("OK")
    }

    fn status(&mut self, now_ms: u64, arguments: &[Vec<u8>]) -> Value {
        let [run, settles_ms, generation, read] = arguments else { return text("") };
        let (run, generation) = (string(run), string(generation));
        let (is_out_of_memory, confirms_itself) = (self.is_out_of_memory(), self.bent == Bent::ConfirmsItself);
        let state = &mut self.data.state;
        let is_new = state.run.as_ref() != Some(&run);
        if is_new {
            (state.run, state.run_ms) = (Some(run.clone()), now_ms);
        }
        let is_split = state.buckets.is_some_and(|buckets| buckets != 1);
        let entries = match &state.order {
            Some(order) if is_split => number(order.as_bytes()),
            _ => state.count,
        };
        let confirms = !generation.is_empty() && generation == state.generation && number(read) <= entries;
        if confirms {
            if is_out_of_memory && !is_new {
                return Value::NoMemory;
            }
            state.confirmed = Some(run.clone());
        }
        let left_ms = (state.run_ms + number(settles_ms)).saturating_sub(now_ms);
        Value::List(vec![
            text(&state.generation),
            decimal(state.count),
            decimal(state.floor),
            decimal(state.since_s),
            decimal(left_ms),
            decimal(state.buckets.unwrap_or(1)),
            text(state.order.as_deref().unwrap_or("0")),
            text(state.taken.as_deref().unwrap_or("")),
            decimal(number_of(&state.generation).max(number_of(&state.seeding))),
            text(if state.confirmed == Some(run) || confirms_itself { "1" } else { "0" }),
            decimal(now_ms),
            text(state.names_s.as_deref().unwrap_or("900")),
        ])
    }

    fn heartbeat(&mut self, now_ms: u64, arguments: &[Vec<u8>]) -> Value {
        let [node, token, lease_ms, read, stored, kept, buckets, _, session, names_s] = arguments else {
            return text("TAKEN");
        };
        let (node, token, buckets, names_s) = (string(node), string(token), string(buckets), string(names_s));
        let has_memory = !self.is_out_of_memory();
        let (cuts_unread, takes_old) = (self.bent == Bent::CutsUnread, self.bent == Bent::TakesOldSessions);
        let denies = self.bent == Bent::DeniesHeartbeats;
        let data = &mut self.data;
        let sessions = data.sessions.entry(node.clone()).or_default();
        if session.is_empty() {
            sessions.given = (now_ms * 1_000).max(sessions.given + 1).max(sessions.holds + 1);
            return Value::List(vec![text("SESSION"), decimal(sessions.given)]);
        }
        let lease = data.leases.get(&node);
        let (holder, renewed) = (lease.map(|lease| lease.token.clone()), lease.map_or(0, |lease| lease.renewed));
        let is_late = number(session) < sessions.holds && !takes_old;
        if is_late || holder.as_ref().is_some_and(|holder| *holder != token) {
            return Value::List(vec![text("TAKEN"), decimal(renewed)]);
        }
        if !has_memory && denies {
            return Value::NoMemory;
        }
        let mut read_by_all = number(read);
        let mut alive = Vec::new();
        let (mut freed, mut others) = (false, data.nodes.clone());
        others.remove(&node);
        for other in others {
            match data.leases.get(&other) {
                Some(lease) => {
                    if holder.is_none() && lease.buckets != buckets {
                        return Value::List(vec![text("BUCKETS"), text(&lease.buckets)]);
                    }
                    if holder.is_none() && lease.names_s != names_s {
                        return Value::List(vec![text("NAMES"), text(&lease.names_s)]);
                    }
                    read_by_all = read_by_all.min(lease.read);
                    alive.push(text(other));
                }
                None => {
                    freed = true;
                    data.nodes.remove(&other);
                }
            }
        }
        alive.push(text(&node));
        let expires_ms = now_ms + number(lease_ms);
        let writer = data.writer.as_ref().map_or(token.clone(), |(writer, _)| writer.clone());
        let (kept, read_by) = if cuts_unread { (0, None) } else { (number(kept), Some(read_by_all)) };
        data.cut(number(stored), kept, read_by);
        data.sessions.entry(node.clone()).or_default().holds = number(session);
        let (token_kept, read, renewed) = (token.clone(), number(read), renewed + 1);
        let lease = Lease { token: token_kept, read, buckets, names_s, renewed, expires_ms };
        data.leases.insert(node.clone(), lease);
        data.nodes.insert(node);
        if writer == token {
            data.writer = Some((token.clone(), expires_ms));
        }
        let mut reply = vec![
            text("OK"),
            Value::Int((writer == token).into()),
            text(&data.state.generation),
            text(""),
            text(""),
            decimal(now_ms),
            decimal(data.state.count),
            text(if has_memory || freed { "1" } else { "0" }),
        ];
        reply.extend(alive);
        Value::List(reply)
    }

    fn compare(&mut self, arguments: &[Vec<u8>]) -> Value {
        let [generation, window, digest, kept, node, writes] = arguments else { return text("GEN") };
        let Data { state, generations, .. } = &mut self.data;
        if state.generation != string(generation) {
            return text("GEN");
        }
        let keys = generations.entry(state.generation.clone()).or_default();
        let (window, kept, node) = (number(window), number(kept), string(node));
        if window + kept <= keys.newest_window {
            return text("OK");
        }
        let words = keys.windows.entry(window).or_default();
        if !words.split(' ').any(|word| word.starts_with(&format!("{node}="))) {
            let word = format!("{node}={}{}", string(digest), string(writes));
            *words = if words.is_empty() { word } else { format!("{words} {word}") };
        }
        if window > keys.newest_window {
            keys.newest_window = window;
            keys.windows.retain(|old, _| old + kept > window);
        }
        const AGAIN: u64 = 8;
        let looked_at = keys.windows.range(window.saturating_sub(AGAIN)..=window);
        text(if looked_at.into_iter().any(|(_, words)| is_other(words, &node)) { "OTHER" } else { "OK" })
    }

    /// `XREAD`: so many entries behind one.
    pub(crate) fn read(&self, generation: &str, after: u64, most: usize) -> Vec<(u64, Vec<u8>)> {
        let Some(keys) = self.data.generations.get(generation) else { return Vec::new() };
        keys.stream.range(after + 1..).take(most).map(|(entry, bytes)| (*entry, bytes.clone())).collect()
    }

    /// `XRANGE`: the entries from one to another.
    pub(crate) fn range(&self, generation: &str, first: u64, last: u64) -> Vec<(u64, Vec<u8>)> {
        let Some(keys) = self.data.generations.get(generation) else { return Vec::new() };
        keys.stream.range(first..=last).map(|(entry, bytes)| (*entry, bytes.clone())).collect()
    }

    /// A node that was there before it was started has said that it has all that node had read; or it has nothing.
    pub(crate) fn is_confirmed(&self) -> bool {
        let state = &self.data.state;
        state.generation.is_empty() || state.confirmed.as_deref() == Some(&self.run)
    }

    /// `HGET state count`.
    pub(crate) fn count(&self) -> Option<u64> {
        self.data.state.buckets.map(|_| self.data.state.count)
    }
}

/// Whether most nodes, or as many and the one whose store writes, have told another digest of a window than this node.
fn is_other(words: &str, node: &str) -> bool {
    let (mut votes, mut mine, mut marked) = (BTreeMap::<&str, u64>::new(), None, None);
    for (its_node, told) in words.split(' ').filter_map(|word| word.split_once('=')) {
        let digest = told.trim_end_matches('!');
        *votes.entry(digest).or_default() += 1;
        if its_node == node {
            mine = Some(digest);
        }
        if told.ends_with('!') {
            marked = Some(digest);
        }
    }
    let Some(mine) = mine else { return false };
    let own = votes[mine];
    votes.iter().any(|(other, count)| *other != mine && (*count > own || *count == own && Some(*other) == marked))
}
