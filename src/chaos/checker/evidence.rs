//! The history as the rules want it: messages, and who had which of them under which number.
//!
//! What always holds: a row here is one that was really sent, to whom it came and as it came; any other is a finding
//! already and is left out.

use std::collections::{BTreeMap, HashMap};

use super::{Findings, Kind};
use crate::history::{Device, Harm, Line, Row, To, key};

/// A message, by its place in [`Evidence::messages`].
pub(crate) type At = usize;

/// A message that was sent.
#[derive(Debug)]
pub(crate) struct Message {
    pub(super) who: Device,
    pub(super) connection: u32,
    pub(super) to: To,
    pub(super) body: String,
    pub(super) at_us: u64,
    pub(super) delayed: u32,
    pub(super) refused: Option<String>,
    pub(super) answer: Option<Answer>,
}

impl Message {
    pub(super) fn key(&self) -> &str {
        key(&self.body)
    }
}

/// What a sender was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(super) at_us: u64,
    pub(super) connection: u32,
    pub(super) msg_id: u64,
    pub(super) seq: u64,
}

/// A row of an inbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(super) seq: u64,
    pub(super) msg_id: u64,
    pub(super) message: At,
}

/// What came to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    Row(Entry),
    Gap { from: u64, to: u64 },
}

/// What happened.
#[derive(Default, Debug)]
pub(crate) struct Evidence {
    pub(super) groups: BTreeMap<u64, Vec<u64>>,
    pub(super) messages: Vec<Message>,
    by_key: HashMap<String, At>,
    /// What came to each device, in the order it came.
    pub(super) streams: BTreeMap<Device, Vec<Item>>,
    /// By user and node: the inbox when all was over.
    pub(super) inboxes: BTreeMap<(u64, usize), Vec<Entry>>,
    /// By user and node: its newest number.
    pub(super) last_seqs: BTreeMap<(u64, usize), u64>,
    /// By user.
    pub(super) stored: BTreeMap<u64, Vec<Entry>>,
    /// How often which fault.
    pub(crate) faults: BTreeMap<String, u64>,
    /// The worst that was done.
    worst: Option<Harm>,
    /// Logins, sends refused for now, gaps.
    pub(crate) logins: u64,
    pub(crate) delays: BTreeMap<String, u64>,
    pub(crate) disconnects: BTreeMap<String, u64>,
    pub(crate) gaps: u64,
    pub(crate) deliveries: u64,
    pub(crate) acked: u64,
    pub(crate) repeats: u64,
}

impl Evidence {
    /// Messages that were sent.
    pub(crate) fn sent(&self) -> usize {
        self.messages.len()
    }

    /// Rows in the database.
    pub(crate) fn stored_rows(&self) -> usize {
        self.stored.values().map(Vec::len).sum()
    }

    /// Rows in the inboxes, of one node.
    pub(crate) fn inbox_rows(&self) -> usize {
        self.inboxes.iter().filter(|((_, node), _)| *node == 0).map(|(_, rows)| rows.len()).sum()
    }

    /// Redis may have lost something: what was acked may come again under higher numbers.
    pub(super) fn redis_lost(&self) -> bool {
        self.worst == Some(Harm::RedisLost)
    }

    /// The ledger may have been made anew: devices may be told of a gap.
    pub(super) fn made_anew(&self) -> bool {
        matches!(self.worst, Some(Harm::MadeAnew | Harm::RedisLost))
    }

    /// Who must have a message.
    pub(super) fn recipients(&self, message: &Message) -> Vec<u64> {
        match message.to {
            To::User(user) if user == message.who.user => vec![user],
            To::User(user) => vec![message.who.user, user],
            To::Group(group) => self.groups.get(&group).cloned().unwrap_or_default(),
        }
    }

    /// Takes a line.
    pub(crate) fn take(&mut self, line: Line, findings: &mut Findings) {
        match line {
            Line::Group { group, members } => drop(self.groups.insert(group, members)),
            Line::LoggedIn { .. } => self.logins += 1,
            Line::Disconnected { cause, .. } => *self.disconnects.entry(cause).or_default() += 1,
            Line::Sent { at_us, who, connection, to, body } => {
                self.by_key.insert(key(&body).to_owned(), self.messages.len());
                let (delayed, refused, answer) = (0, None, None);
                self.messages.push(Message { who, connection, to, body, at_us, delayed, refused, answer });
            }
            Line::Delayed { key, code, .. } => {
                *self.delays.entry(code).or_default() += 1;
                self.with(&key, findings, |message| message.delayed += 1);
            }
            Line::Refused { key, code, .. } => self.with(&key, findings, |message| message.refused = Some(code)),
            Line::Acked { at_us, key, connection, msg_id, seq, own_row, repeat } => {
                self.acked += 1;
                self.repeats += u64::from(repeat);
                self.acked(&key, Answer { at_us, connection, msg_id, seq }, own_row, findings);
            }
            Line::Delivered { who, row, .. } => {
                self.deliveries += 1;
                if let Some(entry) = self.entry(who.user, row, findings) {
                    self.streams.entry(who).or_default().push(Item::Row(entry));
                }
            }
            Line::Gap { who, from, to, .. } => {
                self.gaps += 1;
                self.streams.entry(who).or_default().push(Item::Gap { from, to });
            }
            Line::Broken { who, why, .. } => {
                findings.add(Kind::Broken, || format!("user {}, device {}: {why}", who.user, who.device));
            }
            Line::Inbox { user, node, row } => {
                if let Some(entry) = self.entry(user, row, findings) {
                    self.inboxes.entry((user, node)).or_default().push(entry);
                }
            }
            Line::InboxRead { user, node, last_seq } => {
                self.inboxes.entry((user, node)).or_default();
                self.last_seqs.insert((user, node), last_seq);
            }
            Line::Stored { user, row } => {
                if let Some(entry) = self.entry(user, row, findings) {
                    self.stored.entry(user).or_default().push(entry);
                }
            }
            Line::Fault { name, harm, .. } => {
                *self.faults.entry(name).or_default() += 1;
                self.worst = match (self.worst, harm) {
                    (Some(Harm::RedisLost), _) | (_, Harm::RedisLost) => Some(Harm::RedisLost),
                    (Some(Harm::MadeAnew), _) | (_, Harm::MadeAnew) => Some(Harm::MadeAnew),
                    (_, Harm::None) => Some(Harm::None),
                };
            }
            Line::Observed { what_is_wrong, .. } => findings.add(Kind::Observed, || what_is_wrong),
        }
    }

    fn acked(&mut self, key: &str, answer: Answer, own_row: bool, findings: &mut Findings) {
        let mut before = None;
        self.with(key, findings, |message| before = message.answer.replace(answer));
        if let Some(before) = before
            && before.msg_id != answer.msg_id
        {
            let (one, two) = (before.msg_id, answer.msg_id);
            findings.add(Kind::Duplicated, || format!("{key} was acked as message {one} and as message {two}"));
        }
        if let Some(at) = self.by_key.get(key).copied()
            && own_row
            && let Some(message) = self.messages.get(at)
        {
            let entry = Entry { seq: answer.seq, msg_id: answer.msg_id, message: at };
            self.streams.entry(message.who).or_default().push(Item::Row(entry));
        }
    }

    fn with(&mut self, key: &str, findings: &mut Findings, change: impl FnOnce(&mut Message)) {
        match self.by_key.get(key).and_then(|at| self.messages.get_mut(*at)) {
            Some(message) => change(message),
            None => findings.add(Kind::Unexpected, || format!("{key} was answered and never sent")),
        }
    }

    /// A row that is as it was sent, and where it belongs.
    fn entry(&self, user: u64, row: Row, findings: &mut Findings) -> Option<Entry> {
        let Row { seq, msg_id, sender, to, body } = row;
        let at = self.by_key.get(key(&body)).copied();
        let Some((at, message)) = at.and_then(|at| Some((at, self.messages.get(at)?))) else {
            findings.add(Kind::Unexpected, || format!("row {seq} of user {user} was never sent: {body:?}"));
            return None;
        };
        let about = || format!("row {seq} of user {user}, {}", message.key());
        if message.body != body {
            findings.add(Kind::Unexpected, || format!("{}: its body is {body:?}", about()));
        } else if message.who.user != sender || message.to != to {
            findings.add(Kind::Unexpected, || format!("{}: from {sender} to {to:?}", about()));
        } else if !self.recipients(message).contains(&user) {
            findings.add(Kind::Unexpected, || format!("{}: it was not for this user", about()));
        } else {
            return Some(Entry { seq, msg_id, message: at });
        }
        None
    }
}
