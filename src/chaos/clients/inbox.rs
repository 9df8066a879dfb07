//! When all is over: every inbox, from its first row to its last, through each gateway.

use std::collections::BTreeMap;
use std::time::Duration;

use ringway_client::{ClientCore, Incoming};
use tokio::time::sleep;

use super::socket::{Ended, Socket, device};
use super::{Crowd, PATIENCE};
use crate::clock;
use crate::error::Failure;
use crate::history::{Line, Row};

/// The first number of the devices that read; each node has one.
const READER: u64 = 101;
/// Attempts at one inbox.
const ATTEMPTS: usize = 10;

/// An inbox through a node.
struct Inbox {
    rows: Vec<Row>,
    last_seq: u64,
}

/// Reads all of them into the history; gives each user's newest row.
pub(super) async fn read_all(crowd: &Crowd, tokens: &[String]) -> Result<BTreeMap<u64, u64>, Failure> {
    let mut newest = BTreeMap::new();
    for (user, token) in (1..).zip(tokens) {
        for node in 0..crowd.gateways.len() {
            let Inbox { rows, last_seq } = read(crowd, token, node).await?;
            for row in rows {
                crowd.recorder.record(&Line::Inbox { user, node, row })?;
            }
            crowd.recorder.record(&Line::InboxRead { user, node, last_seq })?;
            let known = newest.entry(user).or_insert(last_seq);
            *known = last_seq.max(*known);
        }
    }
    Ok(newest)
}

async fn read(crowd: &Crowd, token: &str, node: usize) -> Result<Inbox, Failure> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match try_read(crowd, token, node).await {
            Ok(inbox) => return Ok(inbox),
            Err(Ended::Failed(failure)) => return Err(failure),
            Err(ended) => last = ended.to_string(),
        }
        sleep(Duration::from_secs(1)).await;
    }
    Err(Failure::Clients(format!("an inbox could not be read through gateway {}: {last}", node + 1)))
}

async fn try_read(crowd: &Crowd, token: &str, node: usize) -> Result<Inbox, Ended> {
    let Some(address) = crowd.gateways.get(node).copied() else { return Err(Ended::Lost("no gateway".to_owned())) };
    let mut core = ClientCore::new(device(READER + node as u64, Some(0)));
    let mut socket = Socket::connect(address, &mut core, token).await?;
    let (mut rows, mut last_seq) = (Vec::new(), None);
    let end_ms = clock::now().mono_ms + PATIENCE.as_millis() as u64;
    while last_seq.is_none_or(|last| core.session().cursor().0 < last) {
        let taken = |incoming: Incoming<'_>| {
            match incoming {
                Incoming::LoggedIn(info) => last_seq = Some(info.last_seq.0),
                Incoming::Row(push) => rows.push(Row::from(&push)),
                _ => {}
            }
            Ok(())
        };
        socket.exchange(&mut core, end_ms, taken).await?;
        if clock::now().mono_ms >= end_ms {
            return Err(Ended::Lost("not read in time".to_owned()));
        }
    }
    // What came behind the newest row of that moment is not there: nobody sends any more.
    let last_seq = core.session().cursor().0;
    Ok(Inbox { rows, last_seq })
}
