//! Plain HTTP/1.1, for the tests of the API: one connection, one request after another.
//!
//! What always holds: each answer of the API is compared with what its own document declares.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::gateway::{PATIENCE, address, pause};
use crate::openapi::Document;

/// What the API says of itself.
const DOCUMENT: &str = "/api/v1/openapi.json";

/// To the API of the gateway with this data directory, at the admin address, without a key.
pub(crate) fn api(dir: &Path) -> Http {
    Http::connect(address(dir, "admin").unwrap(), None).unwrap()
}

/// Asks until the answer is as it should be.
pub(crate) fn until(http: &mut Http, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..PATIENCE.as_millis() / 20 {
        let answer = http.get(path).unwrap();
        if answer.status == 200 && is_so(&answer.json) {
            return answer.json;
        }
        pause(Duration::from_millis(20));
    }
    panic!("{path} is never so: {:?}", http.get(path).unwrap());
}

/// Has a group made; returns its number.
pub(crate) fn created(http: &mut Http, owner: &str, members: Value) -> String {
    let made = http.send("POST", "/api/v1/groups", &json!({"owner": owner, "members": members})).unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    made.json["group"].as_str().unwrap().to_owned()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, names in small letters.
    pub headers: Vec<(String, String)>,
    /// Its body; `Null` if that is not JSON.
    pub json: Value,
}

impl Answer {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// What a problem's `code` says.
    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }
}

/// A connection.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
    key: Option<String>,
    /// Asked for with the first call of the API.
    document: Option<Document>,
}

impl Http {
    /// Connects. `key`: sent with each request.
    pub(crate) fn connect(address: SocketAddr, key: Option<&str>) -> std::io::Result<Http> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Http { stream: BufReader::new(stream), key: key.map(str::to_owned), document: None })
    }

    /// Sends JSON, and reads the answer.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &Value) -> std::io::Result<Answer> {
        let body = body.to_string();
        self.send_raw(method, path, "Content-Type: application/json\r\n", body.as_bytes())
    }

    /// Asks without a body.
    pub(crate) fn get(&mut self, path: &str) -> std::io::Result<Answer> {
        self.send_raw("GET", path, "", b"")
    }

    /// Sends bytes with headers of one's own, and reads the answer.
    pub(crate) fn send_raw(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> std::io::Result<Answer> {
        if !path.starts_with("/api/v1/") || path == DOCUMENT {
            return self.exchange(method, path, headers, body);
        }
        let document = match self.document.take() {
            Some(document) => document,
            None => Document::new(self.exchange("GET", DOCUMENT, "", b"")?.json),
        };
        let answer = self.exchange(method, path, headers, body)?;
        document.check(method, path, &answer);
        self.document = Some(document);
        Ok(answer)
    }

    fn exchange(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> std::io::Result<Answer> {
        let key = self.key.as_ref().map_or_else(String::new, |key| format!("Authorization: Bearer {key}\r\n"));
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{key}{headers}Content-Length: {length}\r\n\r\n");
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        self.answer()
    }

    fn answer(&mut self) -> std::io::Result<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, json: Value::Null };
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        answer.json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(answer)
    }
}
