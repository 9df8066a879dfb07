//! Messages whose names are taken: see [`crate::store::names`].
//!
//! Inside a transaction, on the writing connection. What always holds: a statement that was refused has left nothing
//! behind, and the transaction goes on; what is stored in it under a substitute is named in `names_taken`.

use std::collections::HashMap;

use super::connection::{Connection, Patience};
use super::fault::Fault;
use super::insert::{MessagesInsert, NameWritten, put_hex};
use crate::store::names::{NameTaken, substitute};
use ringway_wire::ids::{ClientMsgId, MsgId, UserId};

/// Inserts messages; those whose names are taken under a substitute, and they are added to `names_taken`.
pub(super) async fn insert_messages(
    connection: &mut Connection,
    insert: &MessagesInsert,
    names_taken: &mut Vec<NameTaken>,
) -> Result<(), Fault> {
    let refused = match connection.run(insert.text.as_slice(), Patience::Write).await {
        Err(fault) if fault.is_duplicate() => fault,
        done => return done,
    };
    let taken = find_taken(connection, &insert.names).await?;
    if taken.is_empty() {
        // A number was given twice, and nobody here can say which message it is.
        return Err(refused);
    }
    let mut renamed = MessagesInsert { text: insert.text.clone(), names: Vec::new() };
    for (name, _) in &taken {
        renamed.rename(name, substitute(name.msg_id));
    }
    connection.run(renamed.text, Patience::Write).await?;
    for (NameWritten { msg_id, sender, client_msg_id, .. }, first) in taken {
        let mut text = format!(
            "INSERT INTO names_taken (msg_id, sender, first_msg_id, client_msg_id) VALUES ({}, {}, {}, x'",
            msg_id.0, sender.0, first.0
        )
        .into_bytes();
        put_hex(&mut text, &client_msg_id.0);
        text.extend_from_slice(b"')");
        connection.run(text, Patience::Write).await?;
        names_taken.push(NameTaken { msg_id, sender, client_msg_id, first });
    }
    Ok(())
}

/// Those that another message has, in the database or before them in the same statement; and which one.
async fn find_taken(connection: &mut Connection, names: &[NameWritten]) -> Result<Vec<(NameWritten, MsgId)>, Fault> {
    let mut text = b"SELECT sender, client_msg_id, msg_id FROM messages WHERE ".to_vec();
    for (at, name) in names.iter().enumerate() {
        let or = if at > 0 { " OR " } else { "" };
        text.extend_from_slice(format!("{or}(sender = {} AND client_msg_id = x'", name.sender.0).as_bytes());
        put_hex(&mut text, &name.client_msg_id.0);
        text.extend_from_slice(b"')");
    }
    let rows = connection.rows::<(u64, Vec<u8>, u64)>(text, Patience::Write).await?;
    let mut having: HashMap<(UserId, ClientMsgId), MsgId> = rows
        .into_iter()
        .filter_map(|(sender, name, msg_id)| {
            Some(((UserId(sender), ClientMsgId(name.try_into().ok()?)), MsgId(msg_id)))
        })
        .collect();
    let mut taken = Vec::new();
    for name in names {
        match having.get(&(name.sender, name.client_msg_id)) {
            Some(first) => taken.push((*name, *first)),
            None => {
                having.insert((name.sender, name.client_msg_id), name.msg_id);
            }
        }
    }
    Ok(taken)
}
