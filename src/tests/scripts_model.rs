//! The scripts that Redis runs for a cluster against the simulator's model of them: random calls of both say the same.
//!
//! What always holds: a call is compared at the time that Redis had before it or after it, whichever fits; leases outlast
//! the test, and what is cut off is cut off exactly.

use crate::redis::Redis;
use crate::redis_model::{Bent, Redis as Model, Script, Value};

const ROOT: &str = "{ringway:0}:3:";
const CALLS: usize = 500;
const LEASE_MS: &str = "3600000";
/// Old enough to be forgotten, whatever time it is.
const LONG_AGO_S: u64 = 1;

fn source(script: Script) -> &'static str {
    match script {
        Script::Submit => include_str!("../cluster/submit.lua"),
        Script::Seed => include_str!("../cluster/seed.lua"),
        Script::Heartbeat => concat!(include_str!("../cluster/order_at.lua"), include_str!("../cluster/heartbeat.lua")),
        Script::Status => include_str!("../cluster/status.lua"),
        Script::Compare => include_str!("../cluster/compare.lua"),
    }
}

/// What Redis answers, as the model says it.
fn parse(lines: &mut std::str::Split<'_, &str>) -> Value {
    let line = lines.next().unwrap();
    let (kind, rest) = line.split_at(1);
    match kind {
        ":" => Value::Int(rest.parse().unwrap()),
        "$" => Value::Text(lines.next().unwrap().as_bytes().to_vec()),
        "*" => Value::List((0..rest.parse().unwrap()).map(|_| parse(lines)).collect()),
        _ => panic!("{line}"),
    }
}

/// Without what differs from moment to moment, or has no order.
fn comparable(script: Script, value: Value) -> Value {
    let Value::List(mut values) = value else { return value };
    let moments: &[usize] = match script {
        Script::Status => &[4, 10],
        Script::Heartbeat => &[5],
        _ => &[],
    };
    for at in moments {
        if let Some(value) = values.get_mut(*at) {
            *value = Value::Int(0);
        }
    }
    if script == Script::Heartbeat && values.len() == 2 && values[0] == Value::Text(b"SESSION".to_vec()) {
        values[1] = Value::Int(0);
    }
    if script == Script::Heartbeat && values.len() > 8 {
        values[8..].sort_by_key(|value| format!("{value:?}"));
    }
    Value::List(values)
}

/// Both, and what a caller would know of them.
struct Both<'a> {
    redis: &'a Redis,
    model: Model,
    random: fastrand::Rng,
    generation: String,
    begun: String,
    number: u64,
    /// In what some nodes are set otherwise: in the number of buckets, or in how long names are kept. Of both at once
    /// either may be told first.
    buckets_differ: bool,
    /// The first call that they have answered otherwise.
    differs: Option<String>,
}

impl Both<'_> {
    fn now_ms(&self) -> u64 {
        let time = self.redis.command(&["TIME"]).unwrap();
        let mut parts = time.lines().filter_map(|line| line.parse::<u64>().ok());
        let (seconds, micros) = (parts.next().unwrap(), parts.next().unwrap());
        seconds * 1_000 + micros / 1_000
    }

    fn call(&mut self, script: Script, arguments: &[String]) -> Value {
        let before_ms = self.now_ms();
        let words: Vec<&str> =
            ["EVAL", source(script), "1", ROOT].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let said = self.redis.command(&words).unwrap();
        let said = comparable(script, parse(&mut said.split("\r\n")));
        let bytes: Vec<Vec<u8>> = arguments.iter().map(|argument| argument.clone().into_bytes()).collect();
        let mut modelled = Vec::new();
        for at_ms in [before_ms, self.now_ms()] {
            let mut model = self.model.clone();
            let value = comparable(script, model.eval(script, at_ms, &bytes));
            if value == said {
                self.model = model;
                return said;
            }
            modelled.push(value);
        }
        let differs = format!("{script:?} {arguments:?}: Redis says {said:?}, the model {modelled:?}");
        self.differs.get_or_insert(differs);
        said
    }

    fn entry(&mut self) -> u64 {
        let (base, count) = (self.number << 40, self.model.count().unwrap_or_default());
        base + self.random.u64(0..count.saturating_sub(base).min(1_000) + 3)
    }

    fn submit(&mut self) {
        let generation = if self.random.u8(..10) == 0 { "9.b".to_owned() } else { self.generation.clone() };
        let mut values = vec![generation, self.random.u64(5..400).to_string(), "900".to_owned(), "60".to_owned()];
        let now_s = self.now_ms() / 1_000;
        for _ in 0..self.random.usize(1..5) {
            let kind = ["G", "G", "D", "D", "D", "C", "C", "E"][self.random.usize(..8)];
            let since_s = if self.random.u8(..6) == 0 { LONG_AGO_S } else { now_s };
            values.extend([
                kind.to_owned(),
                self.random.u8(..3).to_string(),
                self.random.u8(..3).to_string(),
                format!("name{}", self.random.u8(..60)),
                self.random.u8(..3).to_string(),
                "0123456789abcdef".to_owned(),
                since_s.to_string(),
                format!("entry{}", self.random.u32(..)),
            ]);
        }
        self.call(Script::Submit, &values);
    }

    fn seed(&mut self) {
        let node = self.random.u8(1..3).to_string();
        if self.begun.is_empty() || self.random.u8(..3) == 0 {
            let replaced = if self.random.u8(..5) == 0 { "7.c".to_owned() } else { self.generation.clone() };
            let new = format!("{}.{}", self.number + 1, node);
            let said = self.call(Script::Seed, &["begin".to_owned(), new.clone(), replaced, node]);
            if said == Value::Text(b"OK".to_vec()) {
                self.begun = new;
            }
            return;
        }
        let (begun, number) = (self.begun.clone(), self.number + 1);
        if self.random.bool() {
            let groups = ["0", "1", "1", "2"].map(str::to_owned);
            self.call(Script::Seed, &[&["groups".to_owned(), begun][..], &groups].concat());
            return;
        }
        let (base, floor) = ((number << 40).to_string(), (number << 20).to_string());
        self.call(Script::Seed, &["finish".to_owned(), begun.clone(), base, floor, "1".to_owned(), "900".to_owned()]);
        (self.generation, self.begun, self.number) = (begun, String::new(), number);
    }

    fn heartbeat(&mut self) {
        let node = self.random.u8(1..4);
        let token = if self.random.u8(..8) == 0 { 9 } else { node };
        let (read, stored, kept) = (self.entry(), self.entry(), self.random.u8(..20));
        let differs = self.random.u8(..20) == 0;
        let values = [
            node.to_string(),
            token.to_string(),
            LEASE_MS.to_owned(),
            read.to_string(),
            stored.to_string(),
            kept.to_string(),
            if differs && self.buckets_differ { "3" } else { "1" }.to_owned(),
            "=".to_owned(),
            if self.random.u8(..8) == 0 { String::new() } else { self.random.u8(1..9).to_string() },
            if differs && !self.buckets_differ { "20" } else { "900" }.to_owned(),
        ];
        if !differs || token == 9 {
            self.call(Script::Heartbeat, &values);
        }
    }

    fn status(&mut self) {
        let run = if self.random.u8(..10) == 0 { "another run" } else { "a run" };
        let (generation, read) = match self.random.u8(..3) {
            0 => (String::new(), 0),
            1 => ("9.b".to_owned(), self.entry()),
            _ => (self.generation.clone(), self.entry()),
        };
        self.call(Script::Status, &[run.to_owned(), "2000".to_owned(), generation, read.to_string()]);
    }

    fn compare(&mut self) {
        let generation = if self.random.u8(..10) == 0 { "9.b".to_owned() } else { self.generation.clone() };
        let (window, digest) = (self.random.u8(..40), if self.random.u8(..5) == 0 { "bad" } else { "aaa" });
        let mark = if self.random.u8(..3) == 0 { "!" } else { "" };
        let node = self.random.u8(1..4).to_string();
        let values = [generation, window.to_string(), digest.to_owned(), "16".to_owned(), node, mark.to_owned()];
        self.call(Script::Compare, &values);
    }

    /// Both have the same stream.
    fn check_stream(&self) {
        let stream = format!("{ROOT}{}:stream", self.generation);
        let has = self.redis.command(&["XLEN", &stream]).unwrap();
        let entries = self.model.read(&self.generation, 0, usize::MAX);
        assert_eq!(has.trim(), format!(":{}", entries.len()));
        for (entry, bytes) in entries.iter().take(1).chain(entries.last()) {
            let id = format!("{}-{entry}", self.number);
            let found = self.redis.command(&["XRANGE", &stream, &id, &id]).unwrap();
            assert!(found.lines().any(|line| line.as_bytes() == bytes), "{id}: {found}");
        }
    }
}

/// Random calls, as far as both say the same; returns the one that they answered otherwise.
fn differ(redis: &Redis, bent: Bent, seed: u64) -> Option<String> {
    redis.flush();
    let mut model = Model::new("a run");
    model.bent = bent;
    let (mut random, generation, begun) = (fastrand::Rng::with_seed(seed), String::new(), String::new());
    let buckets_differ = random.bool();
    let mut both = Both { redis, model, random, generation, begun, number: 0, buckets_differ, differs: None };
    for _ in 0..CALLS {
        match both.random.u8(..20) {
            0..9 if !both.generation.is_empty() => both.submit(),
            0..12 => both.seed(),
            12..15 => both.heartbeat(),
            15..18 => both.status(),
            _ if !both.generation.is_empty() => both.compare(),
            _ => both.status(),
        }
        if both.differs.is_some() {
            return both.differs;
        }
        if !both.generation.is_empty() {
            both.check_stream();
        }
    }
    assert!(both.number > 2, "generations were made: {}", both.number);
    None
}

#[test]
fn the_scripts_say_what_their_model_in_the_simulator_says_whatever_they_are_asked() {
    let redis = Redis::start();
    for seed in [1, 2, fastrand::u64(3..)] {
        assert_eq!(differ(&redis, Bent::No, seed), None, "seed {seed}");
    }
}

#[test]
fn a_model_that_does_something_otherwise_than_the_scripts_is_found() {
    let redis = Redis::start();
    for bent in [Bent::ClaimsNothing, Bent::IgnoresVersions, Bent::ConfirmsItself, Bent::TakesOldSessions] {
        assert!(differ(&redis, bent, 1).is_some(), "{bent:?}");
    }
}
