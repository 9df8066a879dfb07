//! The judges judged: histories made by hand that the model and the audit must accept or refuse.
//!
//! Pure. What always holds: each claim has a history that breaks it, and one like it that does not.

use std::collections::{BTreeMap, BTreeSet};

use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, UserId};
use ringway_wire::request::Taken;
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

use crate::check::{StoredRow, audit};
use crate::model::{Checked, Model, SendKind, SendNo};

const A: UserId = UserId(1);
const B: UserId = UserId(2);
const C: UserId = UserId(3);
const GROUP: GroupId = GroupId(77);

/// A history: the model, and the inboxes as the gateway would have them.
#[derive(Default)]
struct History {
    model: Model,
    inboxes: BTreeMap<UserId, Vec<StoredRow>>,
    outcome: Option<String>,
}

impl History {
    fn check(&mut self, checked: Checked) {
        if let Err(violation) = checked {
            self.outcome.get_or_insert(violation.0);
        }
    }

    fn made(&mut self, sender: UserId, to: Conversation) -> SendNo {
        let at = self.model.sends.len();
        let name = ClientMsgId::from_parts(1, at as u128);
        let number = self.model.made(sender, to, name, format!("body {at}").into_bytes(), SendKind::Stored);
        self.sent(number, name);
        number
    }

    fn sent(&mut self, number: SendNo, name: ClientMsgId) {
        let checked = self.model.attempted(number, name, Default::default());
        self.check(checked);
    }

    fn acked(&mut self, number: SendNo, msg_id: u64, seq: u64) {
        let sent_at_ms = 1_704_067_200_000 + (msg_id >> 22);
        let checked = self.model.acked(number, MsgId(msg_id), seq, sent_at_ms, Taken::Now);
        self.check(checked);
    }

    /// The gateway has this row.
    fn has(&mut self, user: UserId, seq: u64, msg_id: u64, number: SendNo) {
        let send = &self.model.sends[number.0];
        self.inboxes.entry(user).or_default().push(StoredRow {
            seq,
            msg_id: MsgId(msg_id),
            sender: send.sender,
            to: send.to,
            sent_at_ms: 1_704_067_200_000 + (msg_id >> 22),
            body: send.body.clone(),
        });
    }

    fn change(&mut self, kind: GroupChangeKind, users: &[UserId], version: u32) {
        let group = (version > 1).then_some(GROUP);
        let number = self.model.asked(A, group, kind, users.to_vec());
        let checked = self.model.changed(number, GROUP, version);
        self.check(checked);
        let checked = self.model.announced(GROUP, version, kind, A, users.iter().copied().collect());
        self.check(checked);
    }

    fn end(mut self) -> Option<String> {
        let audited = audit(&mut self.model, &self.inboxes);
        self.check(audited);
        self.outcome
    }
}

/// Every claim, and whether it was borne out.
pub(crate) fn all() -> Vec<(&'static str, Result<(), String>)> {
    vec![
        ("an acked message in both inboxes is accepted", accepted(acked(&[A, B]))),
        ("an acked message that a recipient does not have is reported", refused(acked(&[A]), "I1")),
        ("a member who was removed and gets nothing is accepted", accepted(removed(&[A, B]))),
        ("a message to a removed member is reported", refused(removed(&[A, B, C]), "membership")),
        ("a member who is left out is reported", refused(left_out(), "membership")),
        ("one number for two messages is reported", refused(two_under_one_number(), "I2")),
        ("two numbers for one message are reported", refused(one_under_two_numbers(), "I4")),
        ("a hole in an inbox is reported", refused(hole(), "I3")),
        ("a repeat refused for want of membership is reported", refused(acked_and_refused(), "I4")),
        ("a refused message that is stored is reported", refused(refused_and_stored(), "refused")),
        ("rows against the order of the messages are reported", refused(out_of_order(), "order")),
        ("what a session sent first and is stored last is reported", refused(overtaken(), "I3")),
        (
            "a new name for what was found to be of the future is accepted",
            accepted(renamed(ErrorCode::ClientMsgIdAhead)),
        ),
        ("a new name for what may be stored is reported", refused(renamed(ErrorCode::RetryLater), "I4")),
    ]
}

fn accepted(outcome: Option<String>) -> Result<(), String> {
    outcome.map_or(Ok(()), Err)
}

fn refused(outcome: Option<String>, expected: &str) -> Result<(), String> {
    match outcome {
        Some(text) if text.contains(expected) => Ok(()),
        other => Err(format!("{other:?} does not speak of {expected}")),
    }
}

fn acked(receivers: &[UserId]) -> Option<String> {
    let mut history = History::default();
    let number = history.made(A, Conversation::User(B));
    history.acked(number, 1 << 22, 1);
    receivers.iter().for_each(|user| history.has(*user, 1, 1 << 22, number));
    history.end()
}

fn removed(receivers: &[UserId]) -> Option<String> {
    let mut history = History::default();
    history.change(GroupChangeKind::Created, &[B, C], 1);
    history.change(GroupChangeKind::Removed, &[C], 2);
    let number = history.made(A, Conversation::Group(GROUP));
    receivers.iter().for_each(|user| history.has(*user, 1, 5 << 22, number));
    history.end()
}

fn left_out() -> Option<String> {
    let mut history = History::default();
    let created = history.model.members(GROUP, 1, BTreeSet::from([A, B, C]));
    history.check(created);
    let number = history.made(A, Conversation::Group(GROUP));
    history.has(A, 1, 5 << 22, number);
    history.has(B, 1, 5 << 22, number);
    history.end()
}

fn two_under_one_number() -> Option<String> {
    let mut history = History::default();
    let first = history.made(A, Conversation::User(A));
    let second = history.made(A, Conversation::User(A));
    history.acked(first, 1 << 22, 1);
    history.acked(second, 2 << 22, 1);
    history.end()
}

fn one_under_two_numbers() -> Option<String> {
    let mut history = History::default();
    let number = history.made(A, Conversation::User(A));
    history.has(A, 1, 1 << 22, number);
    history.has(A, 2, 2 << 22, number);
    history.end()
}

fn hole() -> Option<String> {
    let mut history = History::default();
    let number = history.made(A, Conversation::User(A));
    history.has(A, 2, 1 << 22, number);
    history.end()
}

fn refused_and_stored() -> Option<String> {
    let mut history = History::default();
    let number = history.made(A, Conversation::User(A));
    let checked = history.model.refused(number, ErrorCode::StorageFull);
    history.check(checked);
    history.has(A, 1, 1 << 22, number);
    history.end()
}

fn acked_and_refused() -> Option<String> {
    let mut history = History::default();
    let number = history.made(A, Conversation::Group(GROUP));
    history.acked(number, 1 << 22, 1);
    let name = history.model.sends[number.0].name;
    history.sent(number, name);
    let checked = history.model.refused(number, ErrorCode::NotAMember);
    history.check(checked);
    history.has(A, 1, 1 << 22, number);
    history.end()
}

fn renamed(code: ErrorCode) -> Option<String> {
    let mut history = History::default();
    let number = history.made(A, Conversation::User(A));
    let checked = history.model.refused(number, code);
    history.check(checked);
    history.sent(number, ClientMsgId::from_parts(2, 0));
    history.acked(number, 1 << 22, 1);
    history.has(A, 1, 1 << 22, number);
    history.end()
}

fn overtaken() -> Option<String> {
    let mut history = History::default();
    let first = history.made(A, Conversation::User(A));
    let second = history.made(A, Conversation::User(A));
    history.has(A, 1, 1 << 22, second);
    history.has(A, 2, 2 << 22, first);
    history.end()
}

fn out_of_order() -> Option<String> {
    let mut history = History::default();
    let first = history.made(A, Conversation::User(A));
    let second = history.made(A, Conversation::User(A));
    history.has(A, 1, 2 << 22, first);
    history.has(A, 2, 1 << 22, second);
    history.end()
}
