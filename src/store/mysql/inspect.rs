//! Reading a MySQL database to compare it.

use std::fmt::Write;

use super::connection::{Connection, Patience};
use super::{MySqlStore, conversation};
use crate::store::check::Inspect;
use crate::store::{StoreError, StoredBody};
use ringway_wire::ids::{ClientMsgId, MsgId, Seq, UserId};

impl Inspect for MySqlStore {
    async fn rows(&mut self, user: UserId, from: Seq, to: Seq) -> Result<Vec<(Seq, MsgId)>, StoreError> {
        let text = format!(
            "SELECT seq, msg_id FROM inbox WHERE user_id = {} AND seq >= {} AND seq <= {} ORDER BY seq",
            user.0, from.0, to.0
        );
        let rows =
            self.read("reading rows", async |c: &mut Connection| c.rows::<(u64, u64)>(&*text, Patience::Write).await);
        Ok(rows.await?.into_iter().map(|(seq, msg_id)| (Seq(seq), MsgId(msg_id))).collect())
    }

    async fn bodies(&mut self, ids: &[MsgId]) -> Result<Vec<StoredBody>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut text = String::from(
            "SELECT msg_id, sender, conversation_kind, conversation_id, client_msg_id, sender_seq, digest, body \
             FROM messages WHERE msg_id IN (",
        );
        for (at, id) in ids.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            // A String takes whatever is written to it.
            write!(text, "{comma}{}", id.0).ok();
        }
        text.push(')');
        type Body = (u64, u64, u8, u64, Vec<u8>, u64, u64, Vec<u8>);
        let rows =
            self.read("reading messages", async |c: &mut Connection| c.rows::<Body>(&*text, Patience::Write).await);
        let rows = rows.await?.into_iter().map(|(msg_id, sender, kind, id, name, seq, digest, body)| StoredBody {
            msg_id: MsgId(msg_id),
            sender: UserId(sender),
            to: conversation(kind, id),
            // The column has 16 bytes.
            client_msg_id: ClientMsgId(name.try_into().unwrap_or_default()),
            sender_seq: Seq(seq),
            digest,
            body: body.into(),
        });
        Ok(rows.collect())
    }
}
