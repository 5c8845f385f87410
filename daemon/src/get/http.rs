//! Raw blocks from a trustless gateway, over HTTP/1.1 connections that are kept.

use bytes::Bytes;
use cid::Cid;
use holdfast_content::block::BLOCK_BYTES_MAX;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

/// Connections that are kept.
const KEPT_MAX: usize = 8;

/// A gateway at a URL.
pub struct HttpGateway {
    /// Host and port, as the connection and the header want them.
    authority: String,
    /// What stands before `/ipfs/`.
    prefix: String,
    kept: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

impl HttpGateway {
    /// From `http://HOST[:PORT][/prefix]`.
    pub fn new(url: &str) -> Option<HttpGateway> {
        let rest = url.strip_prefix("http://")?;
        let (host, prefix) = rest.split_once('/').map_or((rest, ""), |(host, prefix)| (host, prefix));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:[]".contains(c);
        let prefix = prefix.trim_end_matches('/');
        let sound = !host.is_empty() && host.chars().all(plain);
        if !sound || !prefix.chars().all(|c| plain(c) || c == '/') {
            return None;
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { host.to_owned() } else { format!("{host}:80") };
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        Some(HttpGateway { authority, prefix, kept: Mutex::default() })
    }

    /// A block's bytes as they came; nothing for 404.
    pub async fn fetch(&self, cid: &Cid) -> Result<Option<Bytes>, String> {
        let kept = self.kept.lock().pop().filter(|sender| !sender.is_closed());
        if let Some(sender) = kept {
            // The gateway may just be closing it: then a new one is asked.
            if let Ok(fetched) = self.ask(sender, cid).await {
                return Ok(fetched);
            }
        }
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a gateway ended");
            }
        });
        self.ask(sender, cid).await
    }

    async fn ask(&self, mut sender: SendRequest<Empty<Bytes>>, cid: &Cid) -> Result<Option<Bytes>, String> {
        let request = Request::get(format!("{}/ipfs/{cid}?format=raw", self.prefix))
            .header(HOST, &self.authority)
            .header(ACCEPT, "application/vnd.ipld.raw")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        sender.ready().await.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if status != StatusCode::OK {
            return Err(format!("it answers {status}"));
        }
        let body = Limited::new(response.into_body(), BLOCK_BYTES_MAX);
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        let mut kept = self.kept.lock();
        if kept.len() < KEPT_MAX {
            kept.push(sender);
        }
        Ok(Some(body))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls() {
        let parts = |url| HttpGateway::new(url).map(|g| (g.authority, g.prefix));
        assert_eq!(parts("http://127.0.0.1:8080"), Some(("127.0.0.1:8080".into(), String::new())));
        assert_eq!(parts("http://[::1]:80/"), Some(("[::1]:80".into(), String::new())));
        assert_eq!(parts("http://example.org/a/b/"), Some(("example.org:80".into(), "/a/b".into())));
        for bad in ["", "https://x", "ftp://x", "http://", "http:///x", "http://a b", "http://x/?a\r\n"] {
            assert!(HttpGateway::new(bad).is_none(), "{bad}");
        }
    }
}
