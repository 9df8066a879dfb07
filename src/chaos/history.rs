//! The history: a line for everything that was sent, answered, delivered, stored and done to the cluster.
//!
//! Written by the process of the clients and by the driver, read by the checker. What always holds: a message's body is
//! `KEY:FILLER`, and no two messages have the same key; a message's line stands before every other one that names it.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use ringway_client::{Conversation, GroupId, UserId};
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// Where a message is addressed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum To {
    /// To one user.
    User(u64),
    /// To a group.
    Group(u64),
}

impl From<Conversation> for To {
    fn from(conversation: Conversation) -> To {
        match conversation {
            Conversation::User(user) => To::User(user.0),
            Conversation::Group(group) => To::Group(group.0),
        }
    }
}

impl From<To> for Conversation {
    fn from(to: To) -> Conversation {
        match to {
            To::User(user) => Conversation::User(UserId(user)),
            To::Group(group) => Conversation::Group(GroupId(group)),
        }
    }
}

/// A device of a user.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Device {
    /// The user who has it.
    pub(crate) user: u64,
    /// As it logs in; unique for this user.
    pub(crate) device: u64,
}

/// An inbox's row, as somebody had it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Its number in the inbox.
    pub(crate) seq: u64,
    /// The message's number.
    pub(crate) msg_id: u64,
    /// Who sent it.
    pub(crate) sender: u64,
    /// Where it was addressed.
    pub(crate) to: To,
    /// What was said.
    pub(crate) body: String,
}

/// What a fault may do to the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Harm {
    /// Nothing: what was acked is where it was.
    None,
    /// It may be made anew, with higher numbers, though Redis has all it had.
    MadeAnew,
    /// Redis may have lost what was acked.
    RedisLost,
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Line {
    /// A group was made.
    Group { group: u64, members: Vec<u64> },
    /// A device has logged in.
    LoggedIn { at_us: u64, who: Device, node: usize, connection: u32, from_seq: u64 },
    /// A device has lost its connection.
    Disconnected { at_us: u64, who: Device, connection: u32, cause: String },
    /// A message is given to the client's core.
    Sent { at_us: u64, who: Device, connection: u32, to: To, body: String },
    /// It was refused for now, and will be sent again.
    Delayed { at_us: u64, key: String, code: String },
    /// It was refused for good.
    Refused { at_us: u64, key: String, code: String },
    /// It is durable. `own_row`: this is also the next row of the device's inbox.
    Acked { at_us: u64, key: String, connection: u32, msg_id: u64, seq: u64, own_row: bool, repeat: bool },
    /// A row has come to a device.
    Delivered { at_us: u64, who: Device, row: Row },
    /// A device was told of rows that it cannot have.
    Gap { at_us: u64, who: Device, from: u64, to: u64 },
    /// A device was told or sent what the protocol does not allow, or was turned away.
    Broken { at_us: u64, who: Device, why: String },
    /// A row of an inbox, read through a node when all was over.
    Inbox { user: u64, node: usize, row: Row },
    /// An inbox was read to its end through a node.
    InboxRead { user: u64, node: usize, last_seq: u64 },
    /// A row of the database when all was over.
    Stored { user: u64, row: Row },
    /// Something was done to the cluster.
    Fault { at_us: u64, name: String, detail: String, harm: Harm },
    /// What the driver has seen go wrong.
    Observed { at_us: u64, what_is_wrong: String },
}

/// A message's key, which its body begins with.
pub(crate) fn key(body: &str) -> &str {
    body.split(':').next().unwrap_or_default()
}

/// A file that lines are written to.
pub(crate) struct Recorder(RefCell<BufWriter<File>>);

impl Recorder {
    /// Begins a file.
    pub(crate) fn create(path: &Path) -> Result<Recorder, Failure> {
        Ok(Recorder(RefCell::new(BufWriter::new(File::create(path).map_err(|error| Failure::io(path, error))?))))
    }

    /// Writes a line; a disk that takes none ends the run.
    pub(crate) fn record(&self, line: &Line) -> Result<(), Failure> {
        let mut file = self.0.borrow_mut();
        serde_json::to_writer(&mut *file, line).map_err(|error| Failure::History(error.to_string()))?;
        file.write_all(b"\n").map_err(|error| Failure::History(error.to_string()))
    }

    /// All of it is in the file.
    pub(crate) fn flush(&self) -> Result<(), Failure> {
        self.0.borrow_mut().flush().map_err(|error| Failure::History(error.to_string()))
    }
}

/// Hands each line of a file to `take`.
pub(crate) fn read(path: &Path, mut take: impl FnMut(Line)) -> Result<(), Failure> {
    let file = File::open(path).map_err(|error| Failure::io(path, error))?;
    for (at, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|error| Failure::io(path, error))?;
        let wrong = |error| Failure::History(format!("line {} of {}: {error}", at + 1, path.display()));
        take(serde_json::from_str(&line).map_err(wrong)?);
    }
    Ok(())
}
