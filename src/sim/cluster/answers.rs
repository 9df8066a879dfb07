//! What Redis's answers are read as: the news that the ledger is told.
//!
//! Pure. What always holds: what makes no sense ends the session.

use ringway::ledger::redis::link::{Age, Arrival, Extent, Found, Generation, News, Reply};
use ringway_wire::ids::Seq;

use super::redis::Value;
use super::session::{Ended, Said};

/// A heartbeat's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Beat {
    pub writes: bool,
    pub there: String,
    pub redis_ms: u64,
    pub count: u64,
    pub has_memory: bool,
}

fn texts(said: Said) -> Result<Vec<String>, Ended> {
    let Said::Value(Value::List(values)) = said else {
        return Err(if said_no_memory(&said) { Ended::NoMemory } else { Ended::Lost });
    };
    let text = |value| match value {
        Value::Text(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Value::Int(number) => Ok(number.to_string()),
        Value::List(_) | Value::NoMemory => Err(Ended::Lost),
    };
    values.into_iter().map(text).collect()
}

fn said_no_memory(said: &Said) -> bool {
    matches!(said, Said::Value(Value::NoMemory))
}

pub(super) fn beat_of(said: Said) -> Result<Beat, Ended> {
    let words = texts(said)?;
    let word = |at: usize| words.get(at).cloned().unwrap_or_default();
    let number = |at: usize| word(at).parse().map_err(|_| Ended::Lost);
    if word(0) != "OK" {
        return Err(Ended::Taken { renewed: number(1)? });
    }
    Ok(Beat {
        writes: word(1) == "1",
        there: word(2),
        redis_ms: number(5)?,
        count: number(6)?,
        has_memory: word(7) == "1",
    })
}

/// Which of the node's sessions it is.
pub(super) fn claim_of(said: Said) -> Result<String, Ended> {
    match texts(said)?.as_slice() {
        [word, number] if word == "SESSION" => Ok(number.clone()),
        _ => Err(Ended::Lost),
    }
}

pub(super) fn status_of(session: u64, said: Said) -> Result<News, Ended> {
    let words = texts(said)?;
    let number = |at: usize| words.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
    let highest = number(8);
    let Some(there) = words.first().and_then(|text| Generation::parse(text)) else {
        return Ok(News::Status { session, found: None, highest });
    };
    let found = Found {
        there,
        count: number(1),
        floor: Seq(number(2)),
        since_ms: (number(3) + 1) * 1_000,
        now_ms: number(10),
        age: if number(4) == 0 { Age::Settled } else { Age::Fresh },
        is_confirmed: number(9) == 1,
        extent: Extent::Whole,
    };
    Ok(News::Status { session, found: Some(found), highest })
}

/// One reply for each submission, and how many entries there were then.
pub(super) fn replies_of(said: Said, submissions: usize) -> Result<News, Ended> {
    let Said::Value(Value::List(mut values)) = said else {
        return match said_no_memory(&said) {
            true => Ok(News::Replies { replies: vec![Reply::NoMemory; submissions], count: 0 }),
            false => Err(Ended::OtherGeneration),
        };
    };
    let Some(Value::Text(count)) = values.pop() else { return Err(Ended::Lost) };
    let count = String::from_utf8_lossy(&count).parse().map_err(|_| Ended::Lost)?;
    let reply = |value| match value {
        Value::Text(bytes) => match bytes.split_first() {
            Some((b'A', _)) => Ok(Reply::Appended),
            Some((b'B', _)) => Ok(Reply::Bounced),
            Some((b'O', _)) => Ok(Reply::Forgotten),
            Some((b'F', _)) => Ok(Reply::Full),
            Some((b'R', claimed)) => Ok(Reply::Repeat(claimed.to_vec())),
            _ => Err(Ended::Lost),
        },
        Value::Int(_) | Value::List(_) | Value::NoMemory => Err(Ended::Lost),
    };
    let replies: Vec<Reply> = values.into_iter().map(reply).collect::<Result<_, _>>()?;
    if replies.len() == submissions { Ok(News::Replies { replies, count }) } else { Err(Ended::Lost) }
}

pub(super) fn arrivals(said: Said) -> Result<Vec<Arrival>, Ended> {
    let Said::Entries(entries) = said else { return Err(Ended::Lost) };
    Ok(entries.into_iter().map(|(count, entry)| Arrival { count, entry }).collect())
}

/// Whether any of these entries is there with another checksum.
pub(super) fn checksums_differ(said: &Said, known: &[(u64, u32)]) -> bool {
    let Said::Entries(entries) = said else { return false };
    let is_other = |(count, entry): &(u64, Vec<u8>)| {
        known.iter().any(|(of, checksum)| of == count && *checksum != crc32c::crc32c(entry))
    };
    entries.iter().any(is_other)
}

/// The generation that an entry belongs to.
pub(super) fn generation_number(entry: u64) -> u64 {
    entry >> 40
}
