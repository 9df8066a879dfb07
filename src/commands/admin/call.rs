//! A call of the API over the gateway's socket: HTTP/1.1, one call for each connection.
//!
//! On the main thread, which waits for the answer. What always holds: nothing is asked for a key, since whoever may open the
//! socket is the gateway's user.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// How long the gateway may take: longer than it waits for its own threads.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer: a page of the largest size is well below it.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// No gateway listens there.
    #[error("no gateway can be spoken to at {0}: does it run, with this data directory, and as this user?")]
    Gateway(PathBuf, #[source] std::io::Error),
    /// It ended in between, most likely.
    #[error("the gateway has not answered")]
    Silent,
    /// It says why not.
    #[error("the gateway refuses: {code}: {detail}")]
    Refused {
        /// The problem's name.
        code: String,
        /// In words.
        detail: String,
    },
}

/// Calls, and returns what the gateway answers. `path`: below `/api/v1`.
pub(super) fn call(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Value, CallError> {
    let failed = |error| CallError::Gateway(socket.to_owned(), error);
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let body = body.map(Value::to_string);
    let kind = if body.is_some() { "Content-Type: application/json\r\n" } else { "" };
    let body = body.unwrap_or_default();
    let request = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(|_| CallError::Silent)?;
    let (status, json) = parse(&answer).ok_or(CallError::Silent)?;
    if (200..300).contains(&status) {
        return Ok(json);
    }
    let text = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Err(CallError::Refused { code: text("code"), detail: text("detail") })
}

/// The status and the body of an answer that is whole.
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(answer.get(..end)?).ok()?, answer.get(end + 4..)?);
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_slice(body).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_whole_is_none() {
        let whole = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\n\r\n{\"draining\":true}";
        assert_eq!(parse(whole), Some((202, serde_json::json!({"draining": true}))));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length} bytes");
        }
    }
}
