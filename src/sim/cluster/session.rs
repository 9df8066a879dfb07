//! A node's sessions with Redis: connections that carry what is asked one way and answers the other, late, in order, and
//! that break; what is asked, in which order, and what the ledger is told.
//!
//! Stands in for the thread that talks to Redis, and keeps what that promises the ledger: calls are sent in the order of
//! the ledger's orders, their news come in it, the first failure of anything ends the session, and of an ended session
//! nothing is told any more. What had been sent may still be executed.

use std::collections::VecDeque;

use ringway::contract::names_kept::NamesKept;
use ringway::ledger::redis::link::{Compared, Generation, News, What, Writer};
use ringway::limits::{REDIS_SETTLES_MS, REDIS_TIMEOUT_MS, STREAM_READ_MAX, WINDOWS_KEPT};
use ringway_wire::ids::Seq;

use super::answers::{replies_of, status_of};
use super::redis::{Redis, Script, Value};
use crate::random::Random;

/// As long as the production thread waits before it looks again.
const LOOK_AGAIN_MS: u64 = 200;

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    Lost,
    OtherGeneration,
    Taken { renewed: u64 },
    NoMemory,
}

/// What is asked of Redis.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Eval(Script, Vec<Vec<u8>>),
    Count,
    Range { generation: Generation, first: u64, last: u64 },
    Read { generation: Generation, after: u64, until_ms: u64 },
}

/// What it says.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Value(Value),
    Count(Option<u64>),
    Entries(Vec<(u64, Vec<u8>)>),
}

/// One connection.
#[derive(Default)]
pub(super) struct Pipe {
    /// Number, when it was sent, and what is asked.
    pub(super) up: VecDeque<(u64, u64, Ask)>,
    pub(super) down: VecDeque<(u64, Said)>,
}

/// What an order's answer is made of.
#[derive(Debug)]
pub(super) enum Kind {
    Submit(usize),
    Count,
    Begin,
    /// The steps that follow.
    Seed(VecDeque<Vec<Vec<u8>>>),
    Compare(u64),
    Look,
}

/// An order in its turn.
pub(super) enum Turn {
    /// To be asked at this time.
    Later(u64, Ask, Kind),
    /// Asked under this number.
    Asked(u64, Kind),
    Answered(Result<News, Ended>),
    /// Told so at this time.
    Ends(u64, Ended),
}

/// What the session waits for before it does anything else.
pub(super) enum Inline {
    Asked(u64),
    Known { ask: u64, generation: Generation, after: u64, known: Vec<(u64, u32)> },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// It learns its number.
    Numbering,
    Claiming,
    Looking,
    Serving,
}

/// A session.
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) stage: Stage,
    /// Under which number it claims the node's id.
    pub(super) claim: String,
    pub(super) calls: Pipe,
    pub(super) reads: Pipe,
    run: String,
    pub(super) following: Option<(Generation, u64)>,
    pub(super) reading: Option<u64>,
    /// The last entry that Redis is known to have had: now, and when the read that is under way began.
    pub(super) there: u64,
    pub(super) there_before: u64,
    pub(super) in_flight: VecDeque<Turn>,
    pub(super) inline: Option<Inline>,
    arrived: VecDeque<(u64, Said)>,
    pub(super) asked: u64,
    pub(super) began_ms: u64,
    pub(super) beat_at_ms: u64,
    /// Redis, or the network, has ended it.
    pub(super) broken: bool,
}

/// An argument.
pub(super) fn text(text: impl ToString) -> Vec<u8> {
    text.to_string().into_bytes()
}

impl Session {
    /// A connection is there, to a Redis whose process has this name.
    pub(super) fn new(number: u64, run: String, now_ms: u64) -> Session {
        Session {
            number,
            stage: Stage::Numbering,
            claim: String::new(),
            calls: Pipe::default(),
            reads: Pipe::default(),
            run,
            following: None,
            reading: None,
            there: 0,
            there_before: 0,
            in_flight: VecDeque::new(),
            inline: None,
            arrived: VecDeque::new(),
            asked: 0,
            began_ms: now_ms,
            beat_at_ms: now_ms,
            broken: false,
        }
    }

    pub(super) fn ask(&mut self, now_ms: u64, ask: Ask) -> u64 {
        self.asked += 1;
        self.calls.up.push_back((self.asked, now_ms, ask));
        self.asked
    }

    pub(super) fn status(&self, confirms: Option<(Generation, u64)>) -> Ask {
        let (generation, read) = confirms.map_or_else(Default::default, |(ours, read)| (ours.text(), read));
        let values = [text(&self.run), text(REDIS_SETTLES_MS), text(generation), text(read)];
        Ask::Eval(Script::Status, values.to_vec())
    }

    /// Something has not been answered for too long.
    pub(super) fn is_late(&self, now_ms: u64) -> bool {
        let late = |pipe: &Pipe| pipe.up.front().is_some_and(|(_, at_ms, _)| now_ms > at_ms + REDIS_TIMEOUT_MS);
        let beginning = self.stage != Stage::Serving && now_ms > self.began_ms + REDIS_TIMEOUT_MS;
        late(&self.calls) || late(&self.reads) || beginning
    }

    pub(super) fn take_answers(&mut self) {
        self.arrived.append(&mut self.calls.down);
    }

    /// The answer to what was asked under this number, if it has come.
    pub(super) fn take(&mut self, ask: u64) -> Option<Said> {
        let at = self.arrived.iter().position(|(number, _)| *number == ask)?;
        self.arrived.remove(at).map(|(_, said)| said)
    }

    pub(super) fn follow(&mut self, generation: Generation, after: u64) {
        self.reading = None;
        self.following = Some((generation, after));
    }

    /// Redis has other entries under the numbers that are known.
    pub(super) fn found_other_entries(&mut self) {
        (self.reading, self.following) = (None, None);
        self.in_flight.push_back(Turn::Answered(Ok(News::OtherEntries)));
    }

    pub(super) fn carry_out(&mut self, now_ms: u64, what: What, (entries_max, names): (u64, NamesKept)) {
        let turn = match what {
            What::Follow { generation, after, known } => {
                let (Some((first, _)), Some((last, _))) = (known.first(), known.last()) else {
                    return self.follow(generation, after);
                };
                let range = Ask::Range { generation: generation.clone(), first: *first, last: *last };
                let ask = self.ask(now_ms, range);
                self.inline = Some(Inline::Known { ask, generation, after, known });
                return;
            }
            What::Submit { generation, calls } => {
                let submissions = calls.len();
                let (claims_s, slack_s) = (text(names.seconds()), text(names.slack_s()));
                let mut values = vec![text(generation.text()), text(entries_max), claims_s, slack_s];
                values.extend(calls.into_iter().flat_map(|call| call.values));
                Turn::Asked(self.ask(now_ms, Ask::Eval(Script::Submit, values)), Kind::Submit(submissions))
            }
            What::Count => Turn::Asked(self.ask(now_ms, Ask::Count), Kind::Count),
            What::Begin { generation, replaces, node } => {
                let replaces = replaces.map(|there| there.text()).unwrap_or_default();
                let values = vec![text("begin"), text(generation.text()), text(replaces), text(node)];
                Turn::Asked(self.ask(now_ms, Ask::Eval(Script::Seed, values)), Kind::Begin)
            }
            What::Seed { generation, base, floor: Seq(floor), groups } => {
                let step = |step: &str, rest: Vec<Vec<u8>>| [vec![text(step), text(generation.text())], rest].concat();
                let mut steps: VecDeque<Vec<Vec<u8>>> =
                    groups.into_iter().filter(|own| !own.is_empty()).map(|own| step("groups", own)).collect();
                steps.push_back(step("finish", vec![text(base), text(floor), text(1), text(names.seconds())]));
                let first = steps.pop_front().unwrap_or_default();
                Turn::Asked(self.ask(now_ms, Ask::Eval(Script::Seed, first)), Kind::Seed(steps))
            }
            What::Compare { generation, window, digest, node, writer } => {
                let mark = if writer == Writer::This { "!" } else { "" };
                let digest = format!("{digest:016x}");
                let values = vec![
                    text(generation.text()),
                    text(window),
                    text(digest),
                    text(WINDOWS_KEPT),
                    text(node),
                    text(mark),
                ];
                Turn::Asked(self.ask(now_ms, Ask::Eval(Script::Compare, values)), Kind::Compare(window))
            }
            What::Status => {
                (self.following, self.reading) = (None, None);
                Turn::Later(now_ms + LOOK_AGAIN_MS, self.status(None), Kind::Look)
            }
            What::Confirm { generation, read } => {
                let ask = self.status(Some((generation, read)));
                Turn::Asked(self.ask(now_ms, ask), Kind::Look)
            }
        };
        self.in_flight.push_back(turn);
    }

    /// Asks what was to be asked later.
    pub(super) fn ask_what_is_due(&mut self, now_ms: u64) {
        for at in 0..self.in_flight.len() {
            match self.in_flight.remove(at) {
                Some(Turn::Later(at_ms, ask, kind)) if now_ms >= at_ms => {
                    let asked = self.ask(now_ms, ask);
                    self.in_flight.insert(at, Turn::Asked(asked, kind));
                }
                other => other.into_iter().for_each(|turn| self.in_flight.insert(at, turn)),
            }
        }
    }

    /// Makes answers of what Redis has said.
    pub(super) fn answer_turns(&mut self, now_ms: u64) {
        for at in 0..self.in_flight.len() {
            let Some(Turn::Asked(ask, _)) = self.in_flight.get(at) else { continue };
            let Some(said) = self.take(*ask) else { continue };
            let Some(Turn::Asked(_, kind)) = self.in_flight.remove(at) else { continue };
            let turn = self.answered(now_ms, kind, said);
            self.in_flight.insert(at, turn);
        }
    }

    fn answered(&mut self, now_ms: u64, kind: Kind, said: Said) -> Turn {
        let is = |said: &Said, word: &str| matches!(said, Said::Value(Value::Text(bytes)) if bytes == word.as_bytes());
        if matches!(said, Said::Value(Value::NoMemory)) && !matches!(kind, Kind::Submit(_)) {
            return Turn::Answered(Err(Ended::NoMemory));
        }
        Turn::Answered(match kind {
            Kind::Submit(submissions) => replies_of(said, submissions),
            Kind::Count => match said {
                Said::Count(Some(count)) => Ok(News::Count(count)),
                _ => Err(Ended::OtherGeneration),
            },
            Kind::Begin if is(&said, "OK") => Ok(News::Begun),
            Kind::Begin => return Turn::Ends(now_ms + LOOK_AGAIN_MS, Ended::OtherGeneration),
            Kind::Seed(mut steps) if is(&said, "OK") => {
                let (ask, kind) = match steps.pop_front() {
                    Some(step) => (Ask::Eval(Script::Seed, step), Kind::Seed(steps)),
                    None => (self.status(None), Kind::Look),
                };
                return Turn::Asked(self.ask(now_ms, ask), kind);
            }
            Kind::Seed(_) => Err(Ended::OtherGeneration),
            Kind::Compare(window) if is(&said, "OK") => Ok(News::Compared { window, outcome: Compared::Same }),
            Kind::Compare(window) if is(&said, "OTHER") => Ok(News::Compared { window, outcome: Compared::Other }),
            Kind::Compare(_) => Err(Ended::OtherGeneration),
            Kind::Look => status_of(self.number, said),
        })
    }

    /// Redis executes what comes next on the calls' connection.
    pub(super) fn execute_call(&mut self, redis: &mut Redis, redis_ms: u64) {
        if let Some((number, _, ask)) = self.calls.up.pop_front() {
            let said = execute(&ask, redis, redis_ms);
            self.calls.down.push_back((number, said));
        }
    }

    /// The same on the reading one, where it waits for entries until `until_ms` of the node's clock.
    pub(super) fn execute_read(&mut self, redis: &mut Redis, now_ms: u64, random: &Random) {
        let Some((number, _, Ask::Read { generation, after, until_ms })) = self.reads.up.front() else { return };
        let most = if random.chance(1, 2) { STREAM_READ_MAX } else { 1 + random.below(8) };
        let entries = redis.read(&generation.text(), *after, most);
        if !entries.is_empty() || now_ms >= *until_ms {
            self.reads.down.push_back((*number, Said::Entries(entries)));
            self.reads.up.pop_front();
        }
    }

    /// What was sent and not executed, when the connection is gone.
    pub(super) fn take_unexecuted(&mut self) -> Vec<Ask> {
        self.calls.up.drain(..).map(|(_, _, ask)| ask).collect()
    }
}

/// Redis executes something.
pub(super) fn execute(ask: &Ask, redis: &mut Redis, redis_ms: u64) -> Said {
    match ask {
        Ask::Eval(script, values) => Said::Value(redis.eval(*script, redis_ms, values)),
        Ask::Count => Said::Count(redis.count()),
        Ask::Range { generation, first, last } => Said::Entries(redis.range(&generation.text(), *first, *last)),
        Ask::Read { .. } => Said::Entries(Vec::new()),
    }
}
