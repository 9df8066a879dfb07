//! A transaction as the statements that a MySQL server is sent.
//!
//! Pure functions on the store's thread, so that the next transaction can be made while the server has the last.
//! What always holds: no statement is longer than the server takes, and none has a value that was not written by
//! this file: numbers in decimal, bytes in hexadecimal. So no setting of the server changes what they mean.
//!
//! They are text: the server parses a row of three numbers in about a microsecond, and one statement of 500 rows
//! needs no preparation that would be lost with the connection.

use crate::contract::internal::{self, OrCount};
use crate::contract::position::{AppliedPosition, StreamDigest};
use crate::contract::store::CursorRow;
use crate::store::{GroupWrite, InboxRow, StoredBody, Transaction};
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, RosterVersion, UserId};
use ringway_wire::limits::BODY_BYTES_MAX;
use ringway_wire::schema::ConversationKind;

/// What one message needs at most: its body in hexadecimal, and numbers.
pub(crate) const STATEMENT_BYTES_MIN: usize = 2 * BODY_BYTES_MAX + 1024;
/// Longest value list of numbers only.
const NUMBERS_BYTES_MAX: usize = 128;

/// How long statements may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Rows of one statement.
    pub(crate) rows_max: usize,
    /// Bytes of one statement; at least `STATEMENT_BYTES_MIN`.
    pub(crate) bytes_max: usize,
}

/// A transaction, encoded.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    /// No statement is longer.
    pub(crate) bytes_max: usize,
    /// Messages.
    pub(crate) messages: Vec<MessagesInsert>,
    /// Their rows.
    pub(crate) rows: Vec<Vec<u8>>,
    /// Changes of groups: each is written only if the stored version is lower.
    pub(crate) groups: Vec<EncodedGroup>,
    /// As in [`Transaction`].
    pub(crate) applied: AppliedPosition,
    /// What the stream's entries are up to there.
    pub(crate) digest: StreamDigest,
    /// As in [`Transaction`].
    pub(crate) msg_id_max: MsgId,
}

/// A statement that inserts messages.
#[derive(Debug)]
pub(crate) struct MessagesInsert {
    /// It.
    pub(crate) text: Vec<u8>,
    /// The names in it, in order.
    pub(crate) names: Vec<NameWritten>,
}

/// A message's name in the text of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameWritten {
    /// The message.
    pub(crate) msg_id: MsgId,
    /// Who sent it.
    pub(crate) sender: UserId,
    /// Its name.
    pub(crate) client_msg_id: ClientMsgId,
    /// Where the name's hexadecimal digits begin.
    at: usize,
}

impl MessagesInsert {
    /// Puts a substitute in the place of a name.
    pub(crate) fn rename(&mut self, name: &NameWritten, substitute: ClientMsgId) {
        let mut digits = Vec::new();
        put_hex(&mut digits, &substitute.0);
        if let Some(written) = self.text.get_mut(name.at..name.at + digits.len()).or_count(internal::Place::Store) {
            written.copy_from_slice(&digits);
        }
    }
}

/// One change of a group.
#[derive(Debug)]
pub(crate) struct EncodedGroup {
    /// The group whose roster it is.
    pub(crate) group: GroupId,
    /// The version after it.
    pub(crate) version: RosterVersion,
    /// What writes it.
    pub(crate) statements: Vec<Vec<u8>>,
}

/// Encodes a transaction.
pub(crate) fn encode(transaction: &Transaction, bounds: Bounds) -> Encoded {
    let groups = transaction.groups.iter().map(|write| EncodedGroup {
        group: write.group,
        version: write.version,
        statements: group_statements(write, bounds),
    });
    Encoded {
        bytes_max: bounds.bytes_max,
        messages: insert_messages(&transaction.messages, bounds),
        rows: insert_rows(&transaction.rows, bounds),
        groups: groups.collect(),
        applied: transaction.applied,
        digest: transaction.digest,
        msg_id_max: transaction.msg_id_max,
    }
}

/// Encodes cursors; one that is lower than what is kept changes nothing.
pub(crate) fn cursors(rows: &[CursorRow], bounds: Bounds) -> Vec<Vec<u8>> {
    let mut list = ValueLists::new(
        "INSERT INTO cursors (user_id, device_id, seq) VALUES ",
        " ON DUPLICATE KEY UPDATE seq = GREATEST(seq, VALUES(seq))",
        bounds,
    );
    for row in rows {
        list.numbers(&[row.user.0, row.device.0, row.seq.0]);
    }
    list.finish()
}

fn insert_messages(messages: &[StoredBody], bounds: Bounds) -> Vec<MessagesInsert> {
    let mut names: Vec<Vec<NameWritten>> = Vec::new();
    let mut list = ValueLists::new(
        "INSERT INTO messages (msg_id, sender, conversation_kind, conversation_id, sent_at, digest, sender_seq, \
         client_msg_id, body) VALUES ",
        "",
        bounds,
    );
    for message in messages {
        let (kind, id) = match message.to {
            Conversation::User(user) => (ConversationKind::User, user.0),
            Conversation::Group(group) => (ConversationKind::Group, group.0),
        };
        let numbers = [
            message.msg_id.0,
            message.sender.0,
            u64::from(kind.0),
            id,
            message.msg_id.sent_at_ms(),
            message.digest,
            message.sender_seq.0,
        ];
        let Place { statement, at } = list.numbers_and_bytes(&numbers, &[&message.client_msg_id.0, &message.body]);
        let StoredBody { msg_id, sender, client_msg_id, .. } = *message;
        names.resize_with(statement + 1, Vec::new);
        if let Some(names) = names.last_mut() {
            names.push(NameWritten { msg_id, sender, client_msg_id, at });
        }
    }
    std::iter::zip(list.finish(), names).map(|(text, names)| MessagesInsert { text, names }).collect()
}

fn insert_rows(rows: &[InboxRow], bounds: Bounds) -> Vec<Vec<u8>> {
    let mut list = ValueLists::new("INSERT INTO inbox (user_id, seq, msg_id) VALUES ", "", bounds);
    for row in rows {
        list.numbers(&[row.user.0, row.seq.0, row.msg_id.0]);
    }
    list.finish()
}

/// A group whose last member left is deleted, and kept in mind: its number is never given out again.
fn group_statements(write: &GroupWrite, bounds: Bounds) -> Vec<Vec<u8>> {
    let group = write.group.0;
    let mut head = ValueLists::new(
        "INSERT INTO chat_groups (group_id, version) VALUES ",
        " ON DUPLICATE KEY UPDATE version = VALUES(version)",
        bounds,
    );
    head.numbers(&[group, u64::from(write.version.0)]);
    let mut statements = head.finish();
    let mut gone =
        ValueLists::new(format!("DELETE FROM group_members WHERE group_id = {group} AND user_id IN ("), ")", bounds);
    for user in &write.delete {
        gone.numbers(&[user.0]);
    }
    statements.append(&mut gone.finish());
    let mut put = ValueLists::new(
        "INSERT INTO group_members (group_id, user_id, role) VALUES ",
        " ON DUPLICATE KEY UPDATE role = VALUES(role)",
        bounds,
    );
    for (user, role) in &write.put {
        put.numbers(&[group, user.0, u64::from(role.0)]);
    }
    statements.append(&mut put.finish());
    let mut maker = ValueLists::new(
        "INSERT INTO group_makers (group_id, user_id) VALUES ",
        " ON DUPLICATE KEY UPDATE user_id = VALUES(user_id)",
        bounds,
    );
    if let Some(user) = write.maker {
        maker.numbers(&[group, user.0]);
    }
    statements.append(&mut maker.finish());
    if !write.delete.is_empty() {
        let left = format!(
            "INSERT IGNORE INTO groups_left (group_id) SELECT {group} FROM DUAL \
             WHERE NOT EXISTS (SELECT 1 FROM group_members WHERE group_id = {group})"
        );
        statements.push(left.into_bytes());
        for table in ["chat_groups", "group_makers"] {
            let text = format!(
                "DELETE FROM {table} WHERE group_id = {group} \
                 AND NOT EXISTS (SELECT 1 FROM group_members WHERE group_id = {group})"
            );
            statements.push(text.into_bytes());
        }
    }
    statements
}

/// Where the first bytes of a value stand.
struct Place {
    /// In which statement.
    statement: usize,
    /// Where in it their digits begin.
    at: usize,
}

/// Statements that end in a list of values, cut where one would get too long.
struct ValueLists {
    head: String,
    foot: &'static str,
    bounds: Bounds,
    done: Vec<Vec<u8>>,
    text: Vec<u8>,
    rows: usize,
}

impl ValueLists {
    fn new(head: impl Into<String>, foot: &'static str, bounds: Bounds) -> Self {
        ValueLists { head: head.into(), foot, bounds, done: Vec::new(), text: Vec::new(), rows: 0 }
    }

    fn numbers(&mut self, values: &[u64]) {
        self.make_room(NUMBERS_BYTES_MAX);
        self.put_numbers(values);
        self.text.push(b')');
    }

    fn numbers_and_bytes(&mut self, values: &[u64], texts: &[&[u8]]) -> Place {
        let bytes: usize = texts.iter().map(|text| 2 * text.len() + 4).sum();
        self.make_room(2 * NUMBERS_BYTES_MAX + bytes);
        self.put_numbers(values);
        let place = Place { statement: self.done.len(), at: self.text.len() + b",x'".len() };
        for text in texts {
            self.text.extend_from_slice(b",x'");
            put_hex(&mut self.text, text);
            self.text.push(b'\'');
        }
        self.text.push(b')');
        place
    }

    fn put_numbers(&mut self, values: &[u64]) {
        let mut digits = itoa::Buffer::new();
        for (at, value) in values.iter().enumerate() {
            self.text.push(if at == 0 { b'(' } else { b',' });
            self.text.extend_from_slice(digits.format(*value).as_bytes());
        }
    }

    /// Begins the next value of at most so many bytes.
    fn make_room(&mut self, bytes: usize) {
        let full =
            self.rows == self.bounds.rows_max || self.text.len() + bytes + 1 + self.foot.len() > self.bounds.bytes_max;
        if self.rows > 0 && full {
            self.end();
        }
        if self.rows == 0 {
            self.text.extend_from_slice(self.head.as_bytes());
        } else {
            self.text.push(b',');
        }
        self.rows += 1;
    }

    fn end(&mut self) {
        self.text.extend_from_slice(self.foot.as_bytes());
        let capacity = self.text.len();
        self.done.push(std::mem::replace(&mut self.text, Vec::with_capacity(capacity)));
        self.rows = 0;
    }

    fn finish(mut self) -> Vec<Vec<u8>> {
        if self.rows > 0 {
            self.end();
        }
        self.done
    }
}

/// Appends bytes in hexadecimal.
pub(crate) fn put_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.reserve(2 * bytes.len());
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
}
