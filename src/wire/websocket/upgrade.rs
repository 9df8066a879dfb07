//! The upgrade to WebSocket: an HTTP request's head, and what it is answered.
//!
//! Sans-I/O. What always holds: what is accepted every reader of RFC 9112 reads as we do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

use crate::limits::HTTP_HEAD_BYTES_MAX;

/// Header lines of an upgrade; a browser sends about fifteen.
pub(super) const HTTP_HEADERS_MAX: usize = 64;
/// What RFC 6455 appends to the client's key before it is hashed.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What came of an HTTP head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Upgrade {
    /// The head is incomplete: call again with all of it and more.
    NeedMore,
    /// Write `response`, drop `head_bytes` from the input, and go on with [`super::Messages`].
    Accept {
        /// Length of the request's head.
        head_bytes: usize,
        /// The 101 response.
        response: Vec<u8>,
    },
    /// HTTP, but no WebSocket upgrade: write `response` and close.
    Refuse {
        /// A response with a text that says what this port is.
        response: Vec<u8>,
    },
}

/// Reads a request's head from all that has arrived of the connection.
pub fn upgrade(input: &[u8]) -> Upgrade {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(&input[..input.len().min(HTTP_HEAD_BYTES_MAX)]) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if input.len() < HTTP_HEAD_BYTES_MAX => return Upgrade::NeedMore,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return refuse("431 Request Header Fields Too Large", "", "The request's head is too large.");
        }
        Err(_) => return bad("This is not HTTP/1.1."),
    };
    if has_bare_line_end(&input[..head_bytes]) {
        return bad("A line of the head does not end in CR LF.");
    }
    match accept_key(&request) {
        Ok(accept) => Upgrade::Accept {
            head_bytes,
            response: format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            )
            .into_bytes(),
        },
        Err(refusal) => refusal,
    }
}

/// A line that another reader of the same head might not take for one, or take for two.
fn has_bare_line_end(head: &[u8]) -> bool {
    let is_pair = |at: usize| head.get(at..at + 2) == Some(b"\r\n");
    head.iter().enumerate().any(|(at, byte)| match byte {
        b'\r' => !is_pair(at),
        b'\n' => at == 0 || !is_pair(at - 1),
        _ => false,
    })
}

/// The answer to the client's key, if the request is an upgrade in all its parts, and one that every proxy on the way
/// has read as we do: what it says twice, or says of a body, is refused.
fn accept_key(request: &httparse::Request<'_, '_>) -> Result<String, Upgrade> {
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(bad("Only GET with HTTP/1.1 can be upgraded to WebSocket."));
    }
    if !request.path.is_some_and(is_target) {
        return Err(bad("The request's target must be a path or an absolute URI."));
    }
    if !only(request, "host")?.is_some_and(is_host) {
        return Err(bad("The request must have one valid Host."));
    }
    if header(request, "content-length").or(header(request, "transfer-encoding")).is_some() {
        return Err(bad("An upgrade has no body."));
    }
    only(request, "upgrade")?;
    if !has_token(request, "upgrade", "websocket") || !has_token(request, "connection", "upgrade") {
        return Err(bad("The request asks for no upgrade to WebSocket."));
    }
    if only(request, "sec-websocket-version")?.is_none_or(|version| version.trim_ascii() != b"13") {
        let version = "Sec-WebSocket-Version: 13\r\n";
        return Err(refuse("426 Upgrade Required", version, "Only version 13 of WebSocket is spoken here."));
    }
    let key = only(request, "sec-websocket-key")?.unwrap_or_default().trim_ascii();
    if !BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        return Err(bad("Sec-WebSocket-Key must be 16 bytes in base64."));
    }
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    Ok(BASE64.encode(digest))
}

/// The forms of RFC 9112, 3.2, in which a resource is asked for.
fn is_target(target: &str) -> bool {
    const SCHEMES: [&str; 4] = ["http://", "https://", "ws://", "wss://"];
    let begins_with = |scheme: &str| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            && target.len() > scheme.len()
    };
    target.starts_with('/') || SCHEMES.into_iter().any(begins_with)
}

/// `uri-host [ ":" port ]` (RFC 9110, 7.2), by its characters; empty where the target has no authority.
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:[]".contains(byte))
}

/// The value of a header that a request has at most once.
fn only<'b>(request: &httparse::Request<'_, 'b>, name: &str) -> Result<Option<&'b [u8]>, Upgrade> {
    if request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).count() > 1 {
        return Err(bad("A header comes twice that may come once."));
    }
    Ok(header(request, name))
}

fn header<'b>(request: &httparse::Request<'_, 'b>, name: &str) -> Option<&'b [u8]> {
    request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Is `token` one of the comma-separated values of the headers called `name`?
fn has_token(request: &httparse::Request<'_, '_>, name: &str, token: &str) -> bool {
    let mut values = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    values.any(|h| h.value.split(|b| *b == b',').any(|v| v.trim_ascii().eq_ignore_ascii_case(token.as_bytes())))
}

fn bad(what: &str) -> Upgrade {
    refuse("400 Bad Request", "", what)
}

fn refuse(status: &str, extra_header: &str, what: &str) -> Upgrade {
    Upgrade::Refuse { response: response(status, extra_header, what) }
}

/// An answer to a peer that speaks HTTP and cannot be let in now: why, and after how many seconds it may come again.
pub fn unavailable(what: &str, retry_after_s: u32) -> Vec<u8> {
    response("503 Service Unavailable", &format!("Retry-After: {retry_after_s}\r\n"), what)
}

fn response(status: &str, extra_header: &str, what: &str) -> Vec<u8> {
    let text = format!(
        "{what}\nThis port carries Ringway's message protocol, over plain TCP or over WebSocket \
         (binary messages).\nConnect with a Ringway client; health and metrics are on the admin address.\n"
    );
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         {extra_header}Connection: close\r\n\r\n{text}",
        text.len()
    );
    response.into_bytes()
}
