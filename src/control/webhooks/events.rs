//! What an endpoint is told: events as JSON, and requests of several.
//!
//! Pure functions of what the journal has. What always holds: an event's id follows from the message (or the change) and the
//! user alone, and a request's id from those of its events, so that the same thing has the same id however often it is told; a
//! request has events of one kind, in the journal's order.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringway_wire::ids::{Conversation, Seq, UserId};
use ringway_wire::schema::GroupChangeKind;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::endpoints::EventKind;
use super::feed::{FedChange, FedMessage};
use crate::api::ids::Id;
use crate::contract::position::JournalPosition;
use crate::limits::{WEBHOOK_BYTES_FULL, WEBHOOK_EVENTS_MAX};

/// How far an endpoint is: behind this many recipients of the record there; all before it were told, or need not be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct ToldUpTo {
    /// A record, or where the next one will be.
    pub(super) at: JournalPosition,
    /// Recipients of it that are done with.
    pub(super) recipients: usize,
}

/// Events that are told together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct EventBatch {
    /// What they are.
    pub(super) kind: EventKind,
    /// Their ids, in their order.
    pub(super) ids: Vec<String>,
    /// As they are told, parallel to the ids.
    pub(super) events: Vec<Value>,
    bytes: usize,
    /// How far the endpoint is once they are told.
    pub(super) to: ToldUpTo,
    /// When they were put together, Unix milliseconds.
    pub(super) cut_ms: u64,
}

impl EventBatch {
    /// Without events yet.
    pub(super) fn new(kind: EventKind, cut_ms: u64) -> EventBatch {
        EventBatch { kind, ids: Vec::new(), events: Vec::new(), bytes: 0, to: ToldUpTo::default(), cut_ms }
    }

    /// It takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.ids.len() >= WEBHOOK_EVENTS_MAX || self.bytes >= WEBHOOK_BYTES_FULL
    }

    /// Adds an event, about as long as `bytes`.
    pub(super) fn push(&mut self, id: String, event: Value, bytes: usize) {
        self.ids.push(id);
        self.events.push(event);
        self.bytes += bytes;
    }

    /// `webhook-id`.
    pub(super) fn id(&self) -> String {
        let digest = Sha256::digest(format!("{}:{}", self.kind.name(), self.ids.join(",")));
        digest.iter().take(16).fold("evt_".to_owned(), |id, byte| format!("{id}{byte:02x}"))
    }

    /// The body of the request.
    pub(super) fn payload(&self) -> Vec<u8> {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(self.cut_ms);
        let timestamp = humantime::format_rfc3339_millis(at).to_string();
        let name = match self.kind {
            EventKind::MessageOffline | EventKind::MessageSent => "messages",
            EventKind::GroupChanged => "changes",
        };
        // Strings and numbers: nothing that JSON has not.
        let payload = json!({"type": self.kind.name(), "timestamp": timestamp, "data": {name: self.events}});
        serde_json::to_vec(&payload).unwrap_or_default()
    }
}

/// The id of what is told of a message for one user.
pub(super) fn id_of_message(message: &FedMessage, user: UserId) -> String {
    format!("{}-{user}", message.msg_id)
}

/// What is told of a message for one user who is offline, and how long it is, about.
pub(super) fn of_message(message: &FedMessage, user: UserId, seq: Seq, bodies: bool) -> (Value, usize) {
    let (mut event, bytes) = of_sent(message, bodies);
    event["id"] = id_of_message(message, user).into();
    event["user"] = json!(Id(user.0));
    event["seq"] = json!(Id(seq.0));
    (event, bytes)
}

/// The id of what is told of a message as such.
pub(super) fn id_of_sent(message: &FedMessage) -> String {
    message.msg_id.to_string()
}

/// What is told of a message as such, and how long it is, about.
pub(super) fn of_sent(message: &FedMessage, bodies: bool) -> (Value, usize) {
    let to = match message.to {
        Conversation::User(user) => json!({"user": Id(user.0)}),
        Conversation::Group(group) => json!({"group": Id(group.0)}),
    };
    let mut event = json!({
        "id": id_of_sent(message),
        "msg_id": Id(message.msg_id.0),
        "from": Id(message.sender.0),
        "to": to,
        "sent_at_ms": message.msg_id.sent_at_ms(),
    });
    if bodies {
        event["body"] = STANDARD.encode(&message.body).into();
        if let Ok(text) = std::str::from_utf8(&message.body) {
            event["text"] = text.into();
        }
    }
    (event, if bodies { 250 + message.body.len() * 7 / 3 } else { 250 })
}

/// The id of what is told of a change.
pub(super) fn id_of_change(change: &FedChange) -> String {
    format!("{}", change.msg_id)
}

/// What is told of a change of a group, and how long it is, about.
pub(super) fn of_change(change: &FedChange) -> (Value, usize) {
    let what = match change.kind {
        GroupChangeKind::Created => "created",
        GroupChangeKind::Added => "added",
        GroupChangeKind::Removed => "removed",
        _ => "left",
    };
    let users: Vec<Id> = change.users.iter().map(|user| Id(user.0)).collect();
    let bytes = 200 + users.len() * 23;
    let mut event = json!({
        "id": id_of_change(change),
        "group": Id(change.group.0),
        "version": change.version.0,
        "change": what,
        "by": Id(change.actor.0),
        "users": users,
        "changed_at_ms": change.msg_id.sent_at_ms(),
    });
    if let Some(owner) = change.new_owner {
        event["owner"] = json!(Id(owner.0));
    }
    (event, bytes)
}
