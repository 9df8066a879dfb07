//! What can be judged when every inbox is at hand: right after a restart, and at the end.
//!
//! Pure. What always holds after [`audit`] returned `Ok`: every message that anybody was ever shown, or got an
//! ack for, is in the inbox of each of its recipients, once, and in no other; inboxes have no holes; all
//! inboxes agree on one order; and the recipients of each group message are one version of the group, one that
//! existed between the message's sending and its first being seen, versions never going back.

use std::collections::{BTreeMap, BTreeSet};

use ringway_wire::ids::{Conversation, GroupId, MsgId, UserId};
use ringway_wire::schema::GroupChangeKind;

use crate::ledger::Ledger;
use crate::model::{Checked, Model, SeenRow, Send, SendNo, Version, Violation, generation_of, violated};

/// A row as the gateway has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StoredRow {
    pub seq: u64,
    pub msg_id: MsgId,
    pub sender: UserId,
    pub to: Conversation,
    pub sent_at_ms: u64,
    pub body: Vec<u8>,
}

/// Checks all inboxes against what is known, and adds what they say to it.
pub(crate) fn audit(model: &mut Model, inboxes: &BTreeMap<UserId, Vec<StoredRow>>) -> Checked {
    // Where the first row of a generation lies, which is the same for everybody.
    let mut begins: BTreeMap<u64, u64> = BTreeMap::new();
    for (&user, rows) in inboxes {
        let (mut expected, mut bodies) = (1, BTreeSet::new());
        for row in rows {
            if !bodies.insert(&row.body) {
                return violated!("I4: {:?} is stored for {user} once more, as row {}", row.msg_id, row.seq);
            }
            if row.seq != expected {
                model.gap(user, expected, row.seq - 1)?;
                let is_behind_deleted = model.deleted.rows_to.get(&user).is_some_and(|last| last + 1 == row.seq);
                if !is_behind_deleted {
                    let first = *begins.entry(generation_of(row.seq)).or_insert(row.seq);
                    if first != row.seq {
                        return violated!("I2: a generation begins with row {first} and, for {user}, with {}", row.seq);
                    }
                }
            }
            expected = row.seq + 1;
            let StoredRow { seq, msg_id, sender, to, sent_at_ms, .. } = *row;
            model.row(user, SeenRow { seq, msg_id, sender, to, sent_at_ms, body: &row.body })?;
        }
        let (seen, last) = (model.newest_row(user), rows.last().map_or(0, |row| row.seq));
        // Of a lost generation somebody may have been shown more than is kept.
        if seen > last && (model.ledger != Ledger::ForgetfulRedis || generation_of(seen) > generation_of(last)) {
            return violated!("I1: {user} was shown row {seen}, and the inbox ends at {last}");
        }
    }
    let recipients = recipients(model, inboxes);
    for (&number, users) in &recipients {
        check_direct(&model.sends[number.0], number, users)?;
    }
    check_acked(model, &recipients)?;
    inboxes.iter().try_for_each(|(user, rows)| check_sender(model, *user, rows))?;
    let order = order(model, inboxes)?;
    if model.ledger == Ledger::ForgetfulRedis {
        // Changes may be lost, and made again otherwise.
        return Ok(());
    }
    let groups: Vec<GroupId> = model.groups.keys().copied().collect();
    for group in groups {
        check_group(model, group, &recipients, &order)?;
    }
    Ok(())
}

type Recipients = BTreeMap<SendNo, BTreeSet<UserId>>;

/// Who has what, but for what was deleted. Where rows may be lost and given again under other numbers, what somebody was
/// shown is not enough.
fn recipients(model: &Model, inboxes: &BTreeMap<UserId, Vec<StoredRow>>) -> Recipients {
    let mut recipients = Recipients::new();
    if model.ledger == Ledger::ForgetfulRedis {
        for (&user, rows) in inboxes {
            for number in rows.iter().filter_map(|row| model.by_body(&row.body)) {
                recipients.entry(number).or_default().insert(user);
            }
        }
        return recipients;
    }
    for (&user, inbox) in &model.inboxes {
        for (_, number) in inbox.rows.values().filter(|(_, number)| !model.is_thinned(*number)) {
            recipients.entry(*number).or_default().insert(user);
        }
    }
    recipients
}

fn check_direct(send: &Send, number: SendNo, users: &BTreeSet<UserId>) -> Checked {
    let Conversation::User(to) = send.to else { return Ok(()) };
    if *users != BTreeSet::from([send.sender, to]) {
        return violated!("I1: {number:?} from {} to {to} is in the inboxes of {users:?}", send.sender);
    }
    Ok(())
}

fn check_acked(model: &Model, recipients: &Recipients) -> Checked {
    for (at, send) in model.sends.iter().enumerate() {
        let number = SendNo(at);
        if model.is_thinned(number) {
            continue;
        }
        let stored = recipients.contains_key(&number);
        if !stored && send.acked.is_some() {
            return violated!("I1: {number:?} was acked and is in no inbox");
        }
        if !stored && send.msg_id.is_some() && !send.ephemeral {
            return violated!("I1: {number:?} was shown to somebody and is in no inbox");
        }
        if stored && send.attempts == 0 {
            return violated!("{number:?} was never sent and is stored");
        }
    }
    Ok(())
}

/// What one session sent to one conversation, each once and none refused, is stored in the order of sending.
fn check_sender(model: &Model, user: UserId, rows: &[StoredRow]) -> Checked {
    let mut last: BTreeMap<_, SendNo> = BTreeMap::new();
    for number in rows.iter().filter_map(|row| model.by_body(&row.body)) {
        let send = &model.sends[number.0];
        if send.sender != user || send.attempts != 1 || send.was_refused {
            continue;
        }
        if let Some(before) = last.insert((send.session, send.to), number)
            && before > number
        {
            return violated!("I3: order: {user} sent {number:?} before {before:?}, and it is stored behind that");
        }
    }
    Ok(())
}

/// One order of all messages that every inbox agrees with: each one's place in it.
fn order(model: &Model, inboxes: &BTreeMap<UserId, Vec<StoredRow>>) -> Result<BTreeMap<SendNo, usize>, Violation> {
    let mut after: BTreeMap<SendNo, BTreeSet<SendNo>> = BTreeMap::new();
    let mut before: BTreeMap<SendNo, usize> = BTreeMap::new();
    for rows in inboxes.values() {
        let numbers: Vec<SendNo> = rows.iter().filter_map(|row| model.by_body(&row.body)).collect();
        before.extend(
            numbers.iter().filter(|number| !before.contains_key(number)).map(|number| (*number, 0)).collect::<Vec<_>>(),
        );
        for pair in numbers.windows(2) {
            if after.entry(pair[0]).or_default().insert(pair[1]) {
                *before.entry(pair[1]).or_default() += 1;
            }
        }
    }
    // Of several that may be next the one that was numbered first.
    let number_of = |number: SendNo| (model.sends[number.0].msg_id, number);
    let mut next: BTreeSet<(Option<MsgId>, SendNo)> =
        before.iter().filter(|(_, count)| **count == 0).map(|(number, _)| number_of(*number)).collect();
    let mut order = BTreeMap::new();
    while let Some((_, number)) = next.pop_first() {
        order.insert(number, order.len());
        for later in after.remove(&number).unwrap_or_default() {
            let left = before.entry(later).or_default();
            *left -= 1;
            if *left == 0 {
                next.insert(number_of(later));
            }
        }
    }
    if order.len() < before.len() {
        let stuck: Vec<&SendNo> = before.keys().filter(|number| !order.contains_key(number)).take(6).collect();
        return violated!("order: inboxes have these in different orders: {stuck:?}");
    }
    Ok(order)
}

/// Assigns each message of the group, in the ledger's order, the lowest version that fits.
fn check_group(model: &Model, group: GroupId, recipients: &Recipients, order: &BTreeMap<SendNo, usize>) -> Checked {
    let versions = rosters(model, group)?;
    let mut messages: Vec<(MsgId, SendNo)> = model
        .sends
        .iter()
        .enumerate()
        .filter(|(at, s)| s.to == Conversation::Group(group) && !s.ephemeral && !model.is_thinned(SendNo(*at)))
        .filter_map(|(at, s)| s.msg_id.map(|msg_id| (msg_id, SendNo(at))))
        .collect();
    messages.sort_by_key(|(msg_id, number)| (order.get(number), *msg_id));
    let mut version = 1u32;
    for (msg_id, number) in messages {
        let send = &model.sends[number.0];
        let got = &recipients[&number];
        let from = version.max(send.version_known).max(1);
        let before = first_asked_after(model, group, send.seen_at.unwrap_or(u64::MAX));
        let fits = |v: &u32| versions.get(v).is_some_and(|facts| facts.fits(got));
        let end = before.min(model.newest_version(group) + 1);
        version = match (from..end).find(fits) {
            Some(found) => found,
            // The last ones may have left before anybody was told of the version.
            None if model.has_unseen_change(group)
                && versions.last_key_value().is_some_and(|(_, facts)| got.is_subset(&facts.maybe)) =>
            {
                version
            }
            None => {
                let near: Vec<_> = versions.range(from.saturating_sub(1)..end.clamp(from, from + 4)).collect();
                return violated!(
                    "I1/membership: {number:?} ({msg_id:?}, by {}) in group {group} reached {got:?}; it lies at a \
                     version from {from}, before {before}: {near:?}",
                    send.sender
                );
            }
        };
    }
    Ok(())
}

/// The lowest version that is known to be made by a change asked for after `seen_at`.
fn first_asked_after(model: &Model, group: GroupId, seen_at: u64) -> u32 {
    let made_after = |facts: &Version| {
        let Some((kind, actor, _)) = &facts.announced else { return false };
        let asked =
            |c: &&crate::model::Change| c.kind == *kind && c.actor == *actor && c.group.is_none_or(|g| g == group);
        model.changes.iter().filter(asked).map(|c| c.asked_at).min().is_some_and(|at| at > seen_at)
    };
    let versions = model.groups.get(&group);
    let first = versions.into_iter().flatten().find(|(_, facts)| made_after(facts));
    first.map_or(u32::MAX, |(version, _)| *version)
}

/// Who is in a group at one version, as far as it can be known.
#[derive(Clone, Debug)]
struct Possible {
    surely: BTreeSet<UserId>,
    maybe: BTreeSet<UserId>,
}

impl Possible {
    fn fits(&self, got: &BTreeSet<UserId>) -> bool {
        self.surely.is_subset(got) && got.is_subset(&self.maybe)
    }
}

/// Every version up to the newest known. One whose change nobody was told of (a crash came between) lies
/// somewhere between its neighbours.
fn rosters(model: &Model, group: GroupId) -> Result<BTreeMap<u32, Possible>, crate::model::Violation> {
    let nothing = Version::default();
    let Some(known) = model.groups.get(&group) else { return Ok(BTreeMap::new()) };
    let newest = model.newest_version(group);
    let facts = |version: u32| known.get(&version).unwrap_or(&nothing);
    let mut exact: BTreeMap<u32, BTreeSet<UserId>> = BTreeMap::new();
    for version in 1..=newest {
        let before = if version == 1 { Some(BTreeSet::new()) } else { exact.get(&(version - 1)).cloned() };
        let derived = before.and_then(|before| derive(model, group, version, facts(version), before));
        match (&facts(version).members, derived) {
            (Some(told), Some(derived)) if *told != derived => {
                return violated!("version {version} of {group} is {told:?}; by its changes it is {derived:?}");
            }
            (Some(told), _) => exact.insert(version, told.clone()),
            (None, Some(derived)) => exact.insert(version, derived),
            (None, None) => None,
        };
    }
    let unsure: BTreeSet<UserId> = model
        .changes
        .iter()
        .filter(|c| !c.refused && (c.group == Some(group) || c.group.is_none()))
        .flat_map(|c| c.users.iter().copied().chain([c.actor]))
        .collect();
    let possible = |version: u32| {
        if let Some(members) = exact.get(&version) {
            return Possible { surely: members.clone(), maybe: members.clone() };
        }
        let before = exact.range(..version).next_back().map(|(_, m)| m.clone()).unwrap_or_default();
        let after = exact.range(version..).next().map(|(_, m)| m.clone()).unwrap_or_default();
        let surely = before.intersection(&after).filter(|u| !unsure.contains(u)).copied().collect();
        let maybe = before.iter().chain(&after).chain(&unsure).copied().collect();
        Possible { surely, maybe }
    };
    Ok((1..=newest).map(|version| (version, possible(version))).collect())
}

/// The members at `version`, from those before it and the change that made it, if that is known.
fn derive(
    model: &Model,
    group: GroupId,
    version: u32,
    facts: &Version,
    before: BTreeSet<UserId>,
) -> Option<BTreeSet<UserId>> {
    let apply = |kind: GroupChangeKind, actor: UserId, users: &BTreeSet<UserId>| {
        let mut members = before.clone();
        match kind {
            GroupChangeKind::Created => members.extend(users.iter().copied().chain([actor])),
            GroupChangeKind::Added => members.extend(users),
            GroupChangeKind::Left => drop(members.remove(&actor)),
            _ => members.retain(|user| !users.contains(user)),
        }
        members
    };
    if let Some((kind, actor, users)) = &facts.announced {
        return Some(apply(*kind, *actor, users));
    }
    // Answered with this version: it made it, unless the version before was already as it wanted, or a change whose
    // answer nobody heard made it, and the answered one found it done.
    let unheard = |c: &crate::model::Change| c.group == Some(group) && c.answer.is_none() && !c.refused;
    if model.changes.iter().any(unheard) {
        return None;
    }
    let answered = model.changes.iter().filter(|c| c.answer == Some((group, version)));
    let answered = answered.filter(|c| (c.kind == GroupChangeKind::Created) == (version == 1));
    let mut made = answered.map(|c| apply(c.kind, c.actor, &c.users.iter().copied().collect()));
    made.find(|members| *members != before)
}
