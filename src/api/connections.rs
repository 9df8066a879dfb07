//! The connections of this node, page by page.
//!
//! What always holds: a page is put together from many small answers of the shards, none of which takes one longer than
//! `LOOK_SLOTS_MAX` places do; a connection that is there from the first page to the last is on one of them, once.

use std::net::IpAddr;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringway_wire::ids::UserId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::dispatch::{Answer, Question};
use super::ids::{self, Id};
use super::keys::Scope;
use super::openapi::ReadProblems;
use super::problem::Problem;
use super::sessions::Connection;
use crate::contract::ids::ShardId;
use crate::contract::look::{ConnectionSeen, ConnectionState, ConnectionsSeen, Look, Wanted};
use crate::limits::{API_CONNECTIONS_MAX, API_LOOKS_MAX};

/// Which connections.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// This user's.
    #[param(value_type = Option<Id>)]
    user: Option<String>,
    /// Those from this address.
    address: Option<String>,
    /// `unauthenticated`, `logging_in`, `live`, `behind` or `closing`.
    state: Option<String>,
    /// Those that were not sent so many rows yet, or more.
    behind: Option<u64>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// Some of them.
#[derive(Serialize, ToSchema)]
pub(super) struct Connections {
    connections: Vec<Listed>,
    /// What to ask for next, as `cursor`; absent: that was all. A page with it may be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A connection, and whose it is.
#[derive(Serialize, ToSchema)]
struct Listed {
    /// Absent: it has not logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Id>,
    /// When its session began, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
    connection: Connection,
}

/// Where a list goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct At {
    shard: u16,
    slot: u32,
}

impl At {
    fn read(text: &str) -> Option<At> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (shard, slot) = bytes.split_first_chunk()?;
        Some(At { shard: u16::from_be_bytes(*shard), slot: u32::from_be_bytes(slot.try_into().ok()?) })
    }

    fn text(self) -> String {
        URL_SAFE_NO_PAD.encode([&self.shard.to_be_bytes()[..], &self.slot.to_be_bytes()].concat())
    }
}

/// The connections of this node, by page.
#[utoipa::path(get, path = "/connections", operation_id = "list_connections", tag = "gateway", params(Which),
    responses((status = 200, description = "Some of them.", body = Connections), ReadProblems))]
pub(super) async fn list(
    State(api): State<Api>,
    headers: HeaderMap,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Connections>, Problem> {
    api.keys.allow(&headers, Scope::Operate)?;
    let Query(Which { user, address, state, behind, limit, cursor }) = which?;
    let limit = limit.unwrap_or(100);
    if limit == 0 || limit > API_CONNECTIONS_MAX {
        return Err(Problem::bad_request(format!("limit is 1 to {API_CONNECTIONS_MAX}")));
    }
    let wanted = wanted(address.as_deref(), state.as_deref(), behind)?;
    if let Some(user) = user {
        let user = ids::parse(&user).ok_or_else(|| Problem::bad_request("user is no number of up to 64 bits"))?;
        return of_user(&api, UserId(user), wanted).await;
    }
    let mut at = match cursor {
        Some(text) => At::read(&text).ok_or_else(|| Problem::bad_request("cursor is none that a page has given"))?,
        None => At { shard: 0, slot: 0 },
    };
    let mut connections = Vec::new();
    for _ in 0..API_LOOKS_MAX {
        if at.shard >= api.dispatcher.shards() || connections.len() >= limit {
            break;
        }
        let look = Look::Connections { from: at.slot, wanted, rows_max: limit - connections.len() };
        let answer = api.dispatcher.ask_one(Question::Look(ShardId(at.shard), look)).await?;
        let Answer::Connections(ConnectionsSeen { connections: seen, next }) = answer else {
            return Err(Problem::no_answer());
        };
        connections.extend(seen.iter().map(|seen| Listed::of(ShardId(at.shard), seen)));
        at = match next {
            Some(slot) => At { slot, ..at },
            None => At { shard: at.shard + 1, slot: 0 },
        };
    }
    let next = (at.shard < api.dispatcher.shards()).then(|| at.text());
    Ok(Json(Connections { connections, next }))
}

async fn of_user(api: &Api, user: UserId, wanted: Wanted) -> Result<Json<Connections>, Problem> {
    let home = ShardId::of_user(user, api.dispatcher.shards());
    let Answer::Sessions(seen) = api.dispatcher.ask_one(Question::Look(home, Look::Sessions(user))).await? else {
        return Err(Problem::no_answer());
    };
    let fits = |seen: &&ConnectionSeen| {
        wanted.state.is_none_or(|state| state == seen.state)
            && seen.owner.map_or(0, |owner| owner.rows_behind) >= wanted.behind_min
            && wanted.address.is_none_or(|address| seen.peer.is_some_and(|peer| peer.ip() == address))
    };
    let connections = seen.here.iter().filter(fits).map(|seen| Listed::of(home, seen)).collect();
    Ok(Json(Connections { connections, next: None }))
}

fn wanted(address: Option<&str>, state: Option<&str>, behind: Option<u64>) -> Result<Wanted, Problem> {
    let address: Option<IpAddr> = match address {
        Some(text) => Some(text.parse().map_err(|_| Problem::bad_request("address is no IPv4 or IPv6 address"))?),
        None => None,
    };
    let state = match state {
        Some(text) => {
            let known = ConnectionState::NAMES.iter().find(|(name, _)| *name == text);
            let names = || ConnectionState::NAMES.map(|(name, _)| name).join(", ");
            Some(known.ok_or_else(|| Problem::bad_request(format!("state is none of {}", names())))?.1)
        }
        None => None,
    };
    let address = address.map(|address| address.to_canonical());
    Ok(Wanted { state, address, behind_min: behind.unwrap_or_default() })
}

impl Listed {
    fn of(shard: ShardId, seen: &ConnectionSeen) -> Listed {
        Listed {
            user: seen.owner.map(|owner| Id(owner.user.0)),
            device: seen.owner.map(|owner| Id(owner.device.0)),
            since_ms: seen.owner.map(|owner| owner.since_ms).filter(|since_ms| *since_ms > 0),
            connection: Connection::of(shard, seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::At;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let at = At { shard: 65_535, slot: 4_000_000_000 };
        assert_eq!(At::read(&at.text()), Some(at));
        for wrong in ["", "AAAA", "AAAAAAA", "AAAAAAAAAA", "!!!!!!!!", "AAAAAAAA="] {
            assert_eq!(At::read(wrong), None, "{wrong}");
        }
    }
}
