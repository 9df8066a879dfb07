//! One request to an endpoint over HTTP/1.1, with TLS where its URL says so.
//!
//! On the webhooks' thread. What always holds: a connection goes to an address that was looked at, and to no other: the name is
//! resolved here, and no redirection is followed; a request ends within [`WEBHOOK_ANSWER_MS`], whatever the other end does, and
//! no more of an answer is read than [`WEBHOOK_ANSWER_BYTES_MAX`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::address::is_public;
use super::endpoints::Endpoint;
use crate::limits::{WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_ANSWER_MS, WEBHOOK_RETRY_AFTER_S_MAX};

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// The certificates of `ca_file` cannot be used.
    #[error("ca_file cannot be used: {0}")]
    Certificates(String),
    /// Its name has no address.
    #[error("its host is not found: {0}")]
    Unresolved(#[source] io::Error),
    /// It has none that is allowed.
    #[error("its host has no public address, and private_addresses is not set")]
    Private,
    /// There is no connection.
    #[error("it cannot be connected to: {0}")]
    Connect(#[source] io::Error),
    /// The connection ended, or what came is no HTTP.
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
    /// The URL or a header is none.
    #[error("the request cannot be made: {0}")]
    Request(#[from] axum::http::Error),
    /// It took too long.
    #[error("there was no answer within {} s", WEBHOOK_ANSWER_MS / 1_000)]
    TimedOut,
}

/// What an endpoint has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answered {
    /// Its status.
    pub(super) status: StatusCode,
    /// When it wants to be asked again, seconds.
    pub(super) retry_after_s: Option<u64>,
}

/// What is sent.
pub(super) struct Sent {
    /// `webhook-id`.
    pub(super) id: String,
    /// `webhook-timestamp`, Unix seconds.
    pub(super) timestamp_s: u64,
    /// JSON.
    pub(super) payload: Bytes,
}

/// Sends to one endpoint, over one connection as long as that lives.
pub(super) struct Poster {
    url: Uri,
    private_addresses: bool,
    tls: Option<Arc<ClientConfig>>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Poster {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Poster, PostError> {
        let is_https = endpoint.url.scheme_str() == Some("https");
        let tls = if is_https { Some(trusting(endpoint)?) } else { None };
        let (url, private_addresses) = (endpoint.url.clone(), endpoint.private_addresses);
        Ok(Poster { url, private_addresses, tls, connection: None })
    }

    /// Sends it, signed by `endpoint`.
    pub(super) async fn post(&mut self, endpoint: &Endpoint, sent: &Sent) -> Result<Answered, PostError> {
        let answer = timeout(Duration::from_millis(WEBHOOK_ANSWER_MS), self.exchange(endpoint, sent)).await;
        match answer {
            Ok(answered) => answered,
            Err(_) => {
                self.connection = None;
                Err(PostError::TimedOut)
            }
        }
    }

    async fn exchange(&mut self, endpoint: &Endpoint, sent: &Sent) -> Result<Answered, PostError> {
        // The other end may have closed a connection that has rested: then it has read nothing, or sees the same id again.
        if let Some(mut connection) = self.connection.take()
            && connection.ready().await.is_ok()
            && let Ok(response) = connection.send_request(self.request(endpoint, sent)?).await
        {
            return Ok(self.read(connection, response).await);
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(self.request(endpoint, sent)?).await?;
        Ok(self.read(connection, response).await)
    }

    fn request(&self, endpoint: &Endpoint, sent: &Sent) -> Result<Request<Full<Bytes>>, PostError> {
        let path = self.url.path_and_query().map_or("/", |it| it.as_str());
        let host = self.url.authority().map_or("", |it| it.as_str());
        let request = Request::post(path)
            .header(header::HOST, host)
            .header(header::USER_AGENT, concat!("ringway/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &sent.id)
            .header("webhook-timestamp", sent.timestamp_s)
            .header("webhook-signature", endpoint.signature(&sent.id, sent.timestamp_s, &sent.payload));
        Ok(request.body(Full::new(sent.payload.clone()))?)
    }

    /// Reads the answer, and keeps the connection if all of it was read.
    async fn read(
        &mut self,
        connection: SendRequest<Full<Bytes>>,
        response: axum::http::Response<Incoming>,
    ) -> Answered {
        let answered = Answered { status: response.status(), retry_after_s: retry_after(response.headers()) };
        let mut body = response.into_body();
        let mut read = 0;
        loop {
            match body.frame().await {
                None => {
                    self.connection = Some(connection);
                    return answered;
                }
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                // The status was whole.
                Some(Err(_)) => return answered,
            }
            if read > WEBHOOK_ANSWER_BYTES_MAX {
                return answered;
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, PostError> {
        let host = self.url.host().unwrap_or_default();
        // An address of IPv6 stands in brackets.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(PostError::Unresolved)?.collect();
        let allowed = |address: &&SocketAddr| self.private_addresses || is_public(address.ip());
        let mut failed = PostError::Private;
        for address in found.iter().filter(allowed) {
            let stream = match TcpStream::connect(address).await {
                Ok(stream) => stream,
                Err(error) => {
                    failed = PostError::Connect(error);
                    continue;
                }
            };
            stream.set_nodelay(true).map_err(PostError::Connect)?;
            let Some(tls) = &self.tls else { return begin(stream).await };
            let name =
                ServerName::try_from(host.to_owned()).map_err(|error| PostError::Connect(io::Error::other(error)))?;
            let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(PostError::Connect)?;
            return begin(stream).await;
        }
        Err(failed)
    }
}

async fn begin<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, PostError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with its sender; what goes wrong with it, the sender is told.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

/// Seconds; a date, which it may be too, is not followed.
fn retry_after(headers: &HeaderMap<HeaderValue>) -> Option<u64> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(seconds.min(WEBHOOK_RETRY_AFTER_S_MAX))
}

fn trusting(endpoint: &Endpoint) -> Result<Arc<ClientConfig>, PostError> {
    let failed = |error: &dyn std::fmt::Display| PostError::Certificates(error.to_string());
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &endpoint.ca_file {
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
            roots.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
