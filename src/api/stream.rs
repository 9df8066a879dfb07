//! `GET /users/{user}/stream`: a user's inbox as server-sent events, from a row on and then as it grows.
//!
//! What always holds: rows come in their order, each once and none left out; what is no longer kept is said (`gap`); whoever
//! comes back with `Last-Event-ID` goes on behind it. A reader that is slow holds one page of rows here and no more: the next
//! is read when it has taken that one. Nobody is notified of a new row: one task asks the ledger for the newest rows of all
//! streams at once, every [`LOOK_EVERY`], and only while there are streams.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use ringway_wire::ids::{Seq, UserId};
use ringway_wire::limits::PAGE_ROWS_MAX;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use utoipa::IntoParams;

use super::Api;
use super::dispatch::{Answer, Dispatcher, Question};
use super::ids::{self, Id};
use super::keys::Scope;
use super::openapi::ReadProblems;
use super::problem::Problem;
use super::users::{InboxRow, id_in_path};
use crate::contract::store::Page;
use crate::limits::{API_STREAM_LOOK_MS, API_STREAM_SILENCE_MS, API_STREAMS_MAX};

/// How often the newest rows are asked for: what a row may be late.
const LOOK_EVERY: Duration = Duration::from_millis(API_STREAM_LOOK_MS);
/// A stream that has nothing to say says so this often: the connection lives, and so does the reader.
const SILENCE_MAX: Duration = Duration::from_millis(API_STREAM_SILENCE_MS);
/// Between two tries to read rows that are there and do not come: the store follows the journal a moment later.
const TRY_AGAIN: Duration = Duration::from_millis(API_STREAM_LOOK_MS);
/// So long it is tried before the reader is told that the stream lives.
const TRIES: u32 = 20;
/// Said first: when a client that was cut off comes back.
const HELLO: &str = "retry: 1000\n\n";
/// Said in silence; clients pass over it.
const COMMENT: &str = ":\n\n";

/// Where a stream begins.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Beginning {
    /// The rows above this one; without it, those that come from now on. `Last-Event-ID` goes before it.
    #[param(value_type = Option<Id>)]
    after: Option<String>,
}

/// A stream that wants to know of new rows.
#[derive(Debug)]
struct Follower {
    user: UserId,
    newest: watch::Sender<Seq>,
    /// Dropped: there are as many as may be.
    taken: Option<oneshot::Sender<()>>,
}

/// Where streams are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Followers(mpsc::Sender<Follower>);

impl Followers {
    /// Starts the task that asks for all of them.
    pub(crate) fn start(dispatcher: Dispatcher) -> Followers {
        let (followers, receive_followers) = mpsc::channel(API_STREAMS_MAX);
        tokio::spawn(follow(dispatcher, receive_followers));
        Followers(followers)
    }
}

/// Asks for the newest rows of all streams, until the gateway stops.
async fn follow(dispatcher: Dispatcher, mut come: mpsc::Receiver<Follower>) {
    let mut all: Vec<Follower> = Vec::new();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            follower = come.recv() => match follower {
                Some(mut follower) => {
                    all.retain(|other| !other.newest.is_closed());
                    if let Some(taken) = follower.taken.take().filter(|_| all.len() < API_STREAMS_MAX) {
                        // Who is gone is found so at the next look.
                        taken.send(()).ok();
                        all.push(follower);
                    }
                    continue;
                }
                None => return,
            },
            _ = look.tick(), if !all.is_empty() => {}
        }
        all.retain(|follower| !follower.newest.is_closed());
        let questions: Vec<Question> = all.iter().map(|follower| Question::Newest(follower.user)).collect();
        if questions.is_empty() {
            continue;
        }
        match dispatcher.ask(questions).await {
            Ok(answers) => {
                for (follower, answer) in all.iter().zip(answers) {
                    if let Answer::Newest(newest) = answer {
                        follower.newest.send_if_modified(|known| std::mem::replace(known, newest) != newest);
                    }
                }
            }
            // Streams end with their senders.
            Err(problem) if problem == Problem::not_serving() => return,
            Err(_) => {}
        }
    }
}

/// A user's inbox as server-sent events, from a row on and live behind it.
///
/// Each row is an event `message`, with its number as id and what the inbox has of it as JSON. An event `gap` says that rows up to
/// its id are no longer kept. A stream that ends is gone on with: `Last-Event-ID`, or `after`.
#[utoipa::path(get, path = "/users/{user}/stream", operation_id = "stream_inbox", tag = "users",
    params(("user" = Id, Path, description = "The user's number."), Beginning,
        ("Last-Event-ID" = Option<Id>, Header, description = "The last event that was received.")),
    responses((status = 200, description = "Events, without an end.", body = String, content_type = "text/event-stream"),
        ReadProblems))]
pub(super) async fn open(
    State(api): State<Api>,
    headers: HeaderMap,
    user: Result<Path<String>, PathRejection>,
    from: Result<Query<Beginning>, QueryRejection>,
) -> Result<Response, Problem> {
    api.keys.allow(&headers, Scope::Read)?;
    let user = UserId(id_in_path(user)?);
    let after = match headers.get("last-event-id") {
        Some(last) => Some(last.to_str().map_err(|_| not_a_row("Last-Event-ID"))?.to_owned()),
        None => from?.0.after,
    };
    let after = match after {
        Some(text) => Some(Seq(ids::parse(&text).ok_or_else(|| not_a_row("Last-Event-ID, or after,"))?)),
        None => None,
    };
    let Answer::Newest(newest) = api.dispatcher.ask_one(Question::Newest(user)).await? else {
        return Err(Problem::no_answer());
    };
    let (tell, told) = watch::channel(newest);
    let (taken, is_taken) = oneshot::channel();
    let follower = Follower { user, newest: tell, taken: Some(taken) };
    api.followers.0.try_send(follower).map_err(|_| Problem::too_many())?;
    is_taken.await.map_err(|_| Problem::too_many())?;
    let stream =
        Stream { dispatcher: api.dispatcher, user, sent: after.unwrap_or(newest), newest: told, said: Said::Nothing };
    let body = Body::from_stream(futures_lite::stream::unfold(stream, Stream::next));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

fn not_a_row(what: &str) -> Problem {
    Problem::bad_request(format!("{what} is no number of up to 64 bits"))
}

/// What a stream has said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Nothing,
    Something,
}

/// One stream, between two pieces of it.
struct Stream {
    dispatcher: Dispatcher,
    user: UserId,
    /// Everything up to here was sent.
    sent: Seq,
    newest: watch::Receiver<Seq>,
    said: Said,
}

impl Stream {
    /// The next piece; `None`: the gateway stops.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Stream)> {
        if std::mem::replace(&mut self.said, Said::Something) == Said::Nothing {
            return Some((Ok(Bytes::from_static(HELLO.as_bytes())), self));
        }
        let mut tries = 0;
        while tries < TRIES {
            let newest = *self.newest.borrow_and_update();
            let mut patience = SILENCE_MAX;
            if newest > self.sent {
                match self.page().await {
                    Ok(page) => {
                        let text = self.take(&page);
                        if !text.is_empty() {
                            return Some((Ok(Bytes::from(text)), self));
                        }
                    }
                    Err(problem) if problem == Problem::not_serving() => return None,
                    // The database does not answer: it is asked again.
                    Err(_) => {}
                }
                tries += 1;
                patience = TRY_AGAIN;
            }
            match timeout(patience, self.newest.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) if patience == SILENCE_MAX => break,
                Err(_) => {}
            }
        }
        Some((Ok(Bytes::from_static(COMMENT.as_bytes())), self))
    }

    async fn page(&self) -> Result<Page, Problem> {
        let rows_max = PAGE_ROWS_MAX as u16;
        let question = Question::Page { user: self.user, after: self.sent, rows_max };
        match self.dispatcher.ask_one(question).await? {
            Answer::Page(page) => Ok(page),
            _ => Err(Problem::no_answer()),
        }
    }

    /// The page as events; what it has counts as sent.
    fn take(&mut self, page: &Page) -> String {
        let mut text = String::new();
        if let Some(to) = page.gap_to.filter(|to| *to > self.sent) {
            text.push_str(&format!("id: {to}\nevent: gap\ndata: {{\"gap_to\":\"{to}\"}}\n\n"));
            self.sent = to;
        }
        for (seq, message) in &page.rows {
            // Strings and numbers, without a line's end: nothing that JSON has not.
            let row = serde_json::to_string(&InboxRow::of(*seq, message)).unwrap_or_default();
            text.push_str(&format!("id: {seq}\nevent: message\ndata: {row}\n\n"));
            self.sent = *seq;
        }
        text
    }
}
