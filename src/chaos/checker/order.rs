//! The rules about order, as the inboxes have it when all was over.
//!
//! What one device sends to one conversation keeps its order; a message that was acked before another was sent stands
//! before it, whoever sent them; and all members of a conversation have it in one order. What is no promise is left out:
//! a message that was refused for now may be overtaken by those that were sent meanwhile; and after Redis has lost
//! something what was acked is submitted again, behind what came first, but never out of the order of its connection.

use std::collections::{BTreeMap, HashMap};

use super::evidence::{At, Entry, Evidence, Message};
use super::{Findings, Kind};
use crate::history::{Device, To};

/// One node's inboxes; that the others have the same is another rule.
fn inboxes(evidence: &Evidence) -> impl Iterator<Item = (u64, &[Entry])> {
    let first = evidence.inboxes.keys().map(|(_, node)| *node).min();
    let of_first = evidence.inboxes.iter().filter(move |((_, node), _)| Some(*node) == first);
    of_first.map(|((user, _), rows)| (*user, rows.as_slice()))
}

/// A conversation as an inbox has it: of two users it is one, whoever sends.
fn conversation(message: &Message) -> (To, u64) {
    match message.to {
        To::Group(_) => (message.to, 0),
        To::User(user) => (To::User(user.min(message.who.user)), user.max(message.who.user)),
    }
}

/// What one device sends to one conversation keeps its order.
pub(super) fn of_senders(evidence: &Evidence, findings: &mut Findings) {
    let mut lines: BTreeMap<(Device, To), Vec<At>> = BTreeMap::new();
    for (at, message) in evidence.messages.iter().enumerate() {
        lines.entry((message.who, message.to)).or_default().push(at);
    }
    for (user, rows) in inboxes(evidence) {
        let places: HashMap<At, u64> = rows.iter().map(|entry| (entry.message, entry.seq)).collect();
        for line in lines.values() {
            in_order(evidence, user, line, &places, findings);
        }
    }
}

/// `line`: what one device sent to one conversation, in that order; `places`: the rows of an inbox.
fn in_order(evidence: &Evidence, user: u64, line: &[At], places: &HashMap<At, u64>, findings: &mut Findings) {
    // Of those before which the next may not stand, the last.
    let mut newest: Option<(u64, &Message)> = None;
    // Refused for now, so that what was sent before their ack may stand before them.
    let mut late: Vec<(u64, &Message)> = Vec::new();
    for at in line {
        let (Some(message), Some(seq)) = (evidence.messages.get(*at), places.get(at)) else { continue };
        let (settled, open) = late.into_iter().partition(|(_, before)| is_acked_before(before, message));
        late = open;
        let known: Vec<(u64, &Message)> = settled;
        newest = known.into_iter().chain(newest).max_by_key(|(seq, _)| *seq);
        if let Some((before_seq, before)) = newest
            && before_seq > *seq
            && must_follow(evidence, before, message)
        {
            findings.add(Kind::Reordered, || {
                format!(
                    "{} was sent before {} and stands behind it in the inbox of user {user}, as row {before_seq} and {seq}",
                    before.key(),
                    message.key()
                )
            });
        }
        match message.delayed {
            0 => newest = newest.into_iter().chain([(*seq, message)]).max_by_key(|(seq, _)| *seq),
            _ => late.push((*seq, message)),
        }
    }
}

fn is_acked_before(before: &Message, after: &Message) -> bool {
    before.answer.is_some_and(|answer| answer.at_us < after.at_us)
}

/// After Redis has lost something only what went over one connection, and nowhere else, is bound to its order.
fn must_follow(evidence: &Evidence, before: &Message, after: &Message) -> bool {
    let connection = |message: &Message| {
        message.answer.map(|answer| answer.connection).filter(|connection| *connection == message.connection)
    };
    !evidence.redis_lost() || (connection(before).is_some() && connection(before) == connection(after))
}

/// All members have a conversation in one order, and what was acked before another message was sent stands before it.
pub(super) fn of_conversations(evidence: &Evidence, findings: &mut Findings) {
    let mut first: BTreeMap<(To, u64), (u64, Vec<At>)> = BTreeMap::new();
    for (user, rows) in inboxes(evidence) {
        let mut lines: BTreeMap<(To, u64), Vec<At>> = BTreeMap::new();
        for entry in rows {
            if let Some(message) = evidence.messages.get(entry.message) {
                lines.entry(conversation(message)).or_default().push(entry.message);
            }
        }
        for (conversation, line) in lines {
            match first.get(&conversation) {
                None => drop(first.insert(conversation, (user, line))),
                Some((other, as_other)) => same_order(evidence, (*other, as_other), (user, &line), findings),
            }
        }
    }
    if !evidence.redis_lost() {
        for (user, line) in first.values() {
            in_time(evidence, *user, line, findings);
        }
    }
}

/// Two members' order of a conversation.
fn same_order(evidence: &Evidence, one: (u64, &[At]), two: (u64, &[At]), findings: &mut Findings) {
    let places: HashMap<At, usize> = one.1.iter().enumerate().map(|(place, at)| (*at, place)).collect();
    let mut newest: Option<(usize, At)> = None;
    for at in two.1 {
        // What one of them lacks is another rule's.
        let Some(place) = places.get(at) else { continue };
        if let Some((before, before_at)) = newest
            && before > *place
            && let (Some(a), Some(b)) = (evidence.messages.get(before_at), evidence.messages.get(*at))
        {
            findings.add(Kind::Reordered, || {
                let (one, two) = (one.0, two.0);
                format!("user {two} has {} before {}, user {one} the other way round", a.key(), b.key())
            });
        }
        newest = newest.into_iter().chain([(*place, *at)]).max();
    }
}

/// A message that was acked before another was sent stands before it.
fn in_time(evidence: &Evidence, user: u64, line: &[At], findings: &mut Findings) {
    // From the end: the earliest ack of all that stand behind.
    let mut earliest: Option<(u64, &Message)> = None;
    for message in line.iter().rev().filter_map(|at| evidence.messages.get(*at)) {
        if let Some((acked_us, behind)) = earliest
            && acked_us < message.at_us
        {
            findings.add(Kind::Reordered, || {
                let (behind, before) = (behind.key(), message.key());
                format!("{behind} was acked before {before} was sent, and stands behind it for user {user}")
            });
        }
        let acked = message.answer.map(|answer| (answer.at_us, message));
        earliest = earliest.into_iter().chain(acked).min_by_key(|(at_us, _)| *at_us);
    }
}
