//! The rules about what is there: lost, duplicated, resurrected, numbers, and the database beside the inboxes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::evidence::{At, Entry, Evidence, Item};
use super::{Findings, Kind};

/// All rows that anybody had, each with its user.
fn all_rows(evidence: &Evidence) -> impl Iterator<Item = (u64, Entry)> {
    let live = evidence.streams.iter().flat_map(|(who, items)| {
        items.iter().filter_map(|item| match item {
            Item::Row(entry) => Some((who.user, *entry)),
            Item::Gap { .. } => None,
        })
    });
    let read = evidence.inboxes.iter().flat_map(|((user, _), rows)| rows.iter().map(|entry| (*user, *entry)));
    let stored = evidence.stored.iter().flat_map(|(user, rows)| rows.iter().map(|entry| (*user, *entry)));
    live.chain(read).chain(stored)
}

/// What was acked, or seen by anybody, is in the inboxes of all its recipients, once, and in the database.
pub(super) fn whole(evidence: &Evidence, findings: &mut Findings) {
    let mut wanted: BTreeSet<At> = all_rows(evidence).map(|(_, entry)| entry.message).collect();
    wanted
        .extend(evidence.messages.iter().enumerate().filter(|(_, message)| message.answer.is_some()).map(|(at, _)| at));
    let nodes: BTreeSet<usize> = evidence.inboxes.keys().map(|(_, node)| *node).collect();
    let mut have: HashMap<u64, Vec<(String, HashSet<At>)>> = HashMap::new();
    let users = evidence.inboxes.keys().map(|(user, _)| *user).chain(evidence.stored.keys().copied());
    for user in users.collect::<BTreeSet<u64>>() {
        let mut places = Vec::new();
        for node in &nodes {
            let rows = evidence.inboxes.get(&(user, *node)).map_or(&[][..], Vec::as_slice);
            places.push((format!("the inbox of user {user} on node {}", node + 1), once(rows, user, findings)));
        }
        let rows = evidence.stored.get(&user).map_or(&[][..], Vec::as_slice);
        places.push((format!("the database's inbox of user {user}"), once(rows, user, findings)));
        have.insert(user, places);
    }
    for at in wanted {
        let Some(message) = evidence.messages.get(at) else { continue };
        let said = if message.answer.is_some() { "acked" } else { "seen" };
        for user in evidence.recipients(message) {
            let places = have.get(&user).map_or(&[][..], Vec::as_slice);
            if places.is_empty() {
                findings.add(Kind::Lost, || format!("{} was {said}, and user {user} has nothing", message.key()));
            }
            for (place, _) in places.iter().filter(|(_, has)| !has.contains(&at)) {
                findings.add(Kind::Lost, || format!("{} was {said} and is not in {place}", message.key()));
            }
        }
    }
}

/// The messages of an inbox; each is there once.
fn once(rows: &[Entry], user: u64, findings: &mut Findings) -> HashSet<At> {
    let mut has = HashSet::new();
    for entry in rows {
        if !has.insert(entry.message) {
            findings.add(Kind::Duplicated, || {
                format!("message {} is twice in an inbox of user {user}, again as row {}", entry.msg_id, entry.seq)
            });
        }
    }
    has
}

/// What was refused for good is nowhere, and what was not is acked.
pub(super) fn answers(evidence: &Evidence, findings: &mut Findings) {
    let seen: HashSet<At> = all_rows(evidence).map(|(_, entry)| entry.message).collect();
    for (at, message) in evidence.messages.iter().enumerate() {
        match (&message.refused, &message.answer) {
            (Some(code), _) if seen.contains(&at) => {
                findings.add(Kind::Resurrected, || format!("{} was refused ({code}) and is there", message.key()));
            }
            (None, None) => findings.add(Kind::Unanswered, || format!("{} has no answer", message.key())),
            _ => {}
        }
    }
}

/// A number of an inbox is one message's, and a message has one number.
pub(super) fn numbers(evidence: &Evidence, findings: &mut Findings) {
    let mut by_seq: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut by_msg_id: HashMap<u64, At> = HashMap::new();
    let mut by_message: HashMap<At, u64> = HashMap::new();
    let mut seqs: HashMap<(u64, At), u64> = HashMap::new();
    let answers = evidence.messages.iter().enumerate().filter_map(|(at, message)| {
        let answer = message.answer?;
        Some((message.who.user, Entry { seq: answer.seq, msg_id: answer.msg_id, message: at }))
    });
    for (user, entry) in all_rows(evidence).chain(answers) {
        let Entry { seq, msg_id, message } = entry;
        let first = *by_seq.entry((user, seq)).or_insert(msg_id);
        if first != msg_id {
            findings.add(Kind::NumberedTwice, || format!("row {seq} of user {user} is message {first} and {msg_id}"));
        }
        let first = *by_msg_id.entry(msg_id).or_insert(message);
        if first != message {
            findings.add(Kind::NumberedTwice, || format!("message {msg_id} has two bodies"));
        }
        let first = *by_message.entry(message).or_insert(msg_id);
        if first != msg_id {
            findings
                .add(Kind::Duplicated, || format!("one message is {first} and {msg_id} (row {seq} of user {user})"));
        }
        let first = *seqs.entry((user, message)).or_insert(seq);
        if first != seq && !evidence.redis_lost() {
            findings.add(Kind::Duplicated, || format!("message {msg_id} of user {user} is row {first} and row {seq}"));
        }
    }
}

/// What came to each device rises, has each message once, and lacks nothing without a word.
pub(super) fn streams(evidence: &Evidence, findings: &mut Findings) {
    for (who, items) in &evidence.streams {
        let about = || format!("user {}, device {}", who.user, who.device);
        let (mut newest, mut gaps, mut seen) = (0, 0, HashMap::new());
        for item in items {
            match *item {
                Item::Row(Entry { seq, msg_id, message }) => {
                    if seq <= newest {
                        findings.add(Kind::NotRising, || format!("{}: row {seq} after row {newest}", about()));
                    } else if seq != newest + 1 {
                        findings.add(Kind::Skipped, || format!("{}: row {seq} came after row {newest}", about()));
                    }
                    newest = newest.max(seq);
                    // Only after Redis has lost it, and a gap has said so, may it come again.
                    if let Some(before) = seen.insert(message, gaps)
                        && !(evidence.redis_lost() && before < gaps)
                    {
                        let words = || format!("{}: message {msg_id} came again as row {seq}", about());
                        findings.add(Kind::Duplicated, words);
                    }
                }
                Item::Gap { from, to } => {
                    gaps += 1;
                    newest = newest.max(to);
                    if !evidence.made_anew() {
                        findings.add(Kind::Skipped, || format!("{}: told of a gap from {from} to {to}", about()));
                    }
                }
            }
        }
        let last = evidence.last_seqs.iter().filter(|((user, _), _)| *user == who.user).map(|(_, last)| *last).max();
        if let Some(last) = last
            && newest != last
        {
            findings.add(Kind::Skipped, || format!("{}: has rows up to {newest} of {last}", about()));
        }
    }
    for ((user, node), rows) in &evidence.inboxes {
        for pair in rows.windows(2).filter_map(|pair| <&[Entry; 2]>::try_from(pair).ok()) {
            let [before, after] = pair.map(|entry| entry.seq);
            let about = || format!("the inbox of user {user} on node {}", node + 1);
            if after <= before {
                findings.add(Kind::NotRising, || format!("{}: row {after} after row {before}", about()));
            } else if after != before + 1 && !evidence.made_anew() {
                findings.add(Kind::Skipped, || format!("{}: row {after} after row {before}", about()));
            }
        }
    }
}

/// The database has the rows of the inboxes, and all nodes the same.
pub(super) fn database(evidence: &Evidence, findings: &mut Findings) {
    let nothing = Vec::new();
    let users: BTreeSet<u64> =
        evidence.inboxes.keys().map(|(user, _)| *user).chain(evidence.stored.keys().copied()).collect();
    for user in users {
        let stored: BTreeMap<u64, u64> = rows_of(evidence.stored.get(&user).unwrap_or(&nothing));
        for ((_, node), rows) in evidence.inboxes.range((user, 0)..=(user, usize::MAX)) {
            let read = rows_of(rows);
            let seqs: BTreeSet<&u64> = read.keys().chain(stored.keys()).collect();
            for seq in seqs.into_iter().filter(|seq| read.get(seq) != stored.get(seq)) {
                let (here, there) = (read.get(seq), stored.get(seq));
                findings.add(Kind::DatabaseDiffers, || {
                    format!("row {seq} of user {user} is {here:?} on node {} and {there:?} in the database", node + 1)
                });
            }
        }
    }
}

fn rows_of(rows: &[Entry]) -> BTreeMap<u64, u64> {
    rows.iter().map(|entry| (entry.seq, entry.msg_id)).collect()
}
