//! Reading pages of inboxes from a MySQL database, several at once.
//!
//! On the store's thread. What always holds: as many pages are read at once as the pool has connections to read on,
//! one on each; and a page that cannot be read harms no other.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Write;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use mysql_async::Opts;

use super::connection::{Connection, Patience, Readers};
use super::conversation;
use super::fault::Fault;
use crate::contract::internal::{OrCount, Place};
use crate::contract::message::Message;
use crate::contract::store::Page;
use crate::store::PageWanted;
use crate::store::messages::Messages;
use crate::store::page::Assembly;
use ringway_wire::ids::{ClientMsgId, MsgId, Seq, UserId};

/// Bodies read in one query of a page.
const PAGE_BODIES: usize = 64;

/// Reads all pages; parallel to `wanted`.
pub(super) async fn read(
    readers: &mut Readers,
    wanted: &[PageWanted],
    messages: &mut Messages,
) -> Vec<Result<Page, Fault>> {
    let mut pages: Vec<Option<Result<Page, Fault>>> = wanted.iter().map(|_| None).collect();
    match readers.take_some(wanted.len()).await {
        Ok(connections) => {
            let opts = readers.opts().clone();
            let reading = Reading {
                wanted,
                opts: &opts,
                next: Cell::new(0),
                messages: RefCell::new(messages),
                pages: RefCell::new(&mut pages),
            };
            let left = all(connections.into_iter().map(|connection| reading.lane(connection))).await;
            left.into_iter().flatten().for_each(|connection| readers.give_back(connection));
        }
        Err(fault) => {
            if let Some(first) = pages.first_mut() {
                *first = Some(Err(fault));
            }
        }
    }
    pages.into_iter().map(|page| page.unwrap_or(Err(Fault::NotAsked))).collect()
}

/// What those who read share.
struct Reading<'a> {
    wanted: &'a [PageWanted],
    opts: &'a Opts,
    /// The next page that nobody has begun with.
    next: Cell<usize>,
    messages: RefCell<&'a mut Messages>,
    pages: RefCell<&'a mut [Option<Result<Page, Fault>>]>,
}

impl Reading<'_> {
    /// Reads one page after another on a connection, which is given back if it may be used again; one that was idle and
    /// is found dead is replaced once.
    async fn lane(&self, mut connection: Connection) -> Option<Connection> {
        let mut was_idle = true;
        loop {
            let at = self.next.get();
            let Some(wanted) = self.wanted.get(at) else { return Some(connection) };
            self.next.set(at + 1);
            let mut page = self.page(&mut connection, wanted).await;
            if was_idle && page.as_ref().is_err_and(Fault::is_lost_connection) {
                page = match Connection::open(self.opts).await {
                    Ok(fresh) => {
                        connection = fresh;
                        self.page(&mut connection, wanted).await
                    }
                    Err(fault) => Err(fault),
                };
            }
            was_idle = false;
            let usable = page.as_ref().map_or_else(Fault::spares_connection, |_| true);
            if let Some(place) = self.pages.borrow_mut().get_mut(at).or_count(Place::Store) {
                *place = Some(page);
            }
            if !usable {
                return None;
            }
        }
    }

    async fn page(&self, connection: &mut Connection, wanted: &PageWanted) -> Result<Page, Fault> {
        let PageWanted { user, after, rows_max, bytes_max } = *wanted;
        let statement = format!(
            "SELECT seq, msg_id FROM inbox WHERE user_id = {} AND seq > {} ORDER BY seq LIMIT {rows_max}",
            user.0, after.0
        );
        let rows = connection.rows::<(u64, u64)>(statement, Patience::Read).await?;
        let mut assembly = Assembly::new(after, rows_max, bytes_max);
        let mut kept_from = None;
        for rows in rows.chunks(PAGE_BODIES) {
            let mut read = self.messages(connection, rows).await?;
            for (seq, msg_id) in rows {
                let (seq, msg_id) = (Seq(*seq), MsgId(*msg_id));
                if !assembly.wants(seq) {
                    return Ok(assembly.finish());
                }
                if let Some(message) = read.remove(&msg_id) {
                    assembly.push(seq, message);
                    continue;
                }
                let kept_from = match kept_from {
                    Some(known) => known,
                    None => *kept_from.insert(read_kept_from(connection).await?),
                };
                if msg_id >= kept_from {
                    return Err(Fault::MessageMissing(msg_id));
                }
                if !assembly.skip(seq) {
                    return Ok(assembly.finish());
                }
            }
        }
        Ok(assembly.finish())
    }

    /// The messages of some rows, as far as they are there.
    async fn messages(
        &self,
        connection: &mut Connection,
        rows: &[(u64, u64)],
    ) -> Result<HashMap<MsgId, Arc<Message>>, Fault> {
        let ids = rows.iter().map(|(_, id)| MsgId(*id));
        // Held here: what is read now makes room for itself, perhaps in place of these.
        let mut read: HashMap<MsgId, Arc<Message>> = {
            let messages = self.messages.borrow();
            ids.clone().filter_map(|id| Some((id, messages.find(id).cloned()?))).collect()
        };
        let mut text = String::new();
        for id in ids.filter(|id| !read.contains_key(id)) {
            let comma = if text.is_empty() { "" } else { "," };
            // A String takes whatever is written to it.
            write!(text, "{comma}{}", id.0).ok();
        }
        if text.is_empty() {
            return Ok(read);
        }
        let statement = format!(
            "SELECT msg_id, sender, conversation_kind, conversation_id, client_msg_id, body FROM messages \
             WHERE msg_id IN ({text})"
        );
        type Body = (u64, u64, u8, u64, Vec<u8>, Vec<u8>);
        let found = connection.rows::<Body>(statement, Patience::Read).await?;
        let mut messages = self.messages.borrow_mut();
        read.extend(found.into_iter().filter_map(|(msg_id, sender, kind, id, name, body)| {
            let (msg_id, to) = (MsgId(msg_id), conversation(kind, id));
            let name = ClientMsgId(name.try_into().ok()?);
            Some((msg_id, messages.keep(msg_id, UserId(sender), to, name, &body)))
        }));
        Ok(read)
    }
}

/// From where on messages are kept.
pub(super) async fn read_kept_from(connection: &mut Connection) -> Result<MsgId, Fault> {
    let statement = "SELECT kept_from FROM retention WHERE id = 1";
    Ok(MsgId(connection.first::<u64>(statement, Patience::Read).await?.unwrap_or(0)))
}

/// Waits for all of them.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut done = Vec::with_capacity(waiting.len());
    poll_fn(move |cx| {
        waiting.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Ready(output) => {
                done.push(output);
                false
            }
            Poll::Pending => true,
        });
        match waiting.is_empty() {
            true => Poll::Ready(std::mem::take(&mut done)),
            false => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests;
