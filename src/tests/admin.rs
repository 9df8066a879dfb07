//! The admin server: nobody who holds its connections open keeps `/healthz` from those who need it.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::gateway::{Gateway, PATIENCE, address};

/// More than the admin server serves at once, twice.
const HALF_SENT: usize = 130;

#[test]
fn half_sent_requests_do_not_block_healthz() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let admin = address(dir.path(), "admin").unwrap();
    let half_sent: Vec<TcpStream> = (0..HALF_SENT)
        .map(|_| {
            let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: ").unwrap();
            stream
        })
        .collect();
    // All of them are open. If the page had to wait for their end, it would come after the first of them was closed.
    for page in ["/healthz", "/readyz", "/metrics"] {
        let text = gateway.admin_page(page);
        assert!(text.starts_with("HTTP/1.1 200"), "{page}: {text}");
    }
    let newest = half_sent.last().unwrap();
    newest.set_nonblocking(true).unwrap();
    let mut byte = [0];
    let open = (&*newest).read(&mut byte).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(open, "the pages came while the newest of the half-sent requests was still waited for");
}
