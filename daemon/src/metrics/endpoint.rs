//! The page over HTTP: `GET /metrics`, one request for each connection, a few at once.
//!
//! Hand-written, since this is all of HTTP that is asked for: a head of bounded length is read within a bounded time, and one
//! answer is given. Where it listens on a loopback address it answers only requests that were sent to an address or to
//! `localhost`: a page in a browser that calls itself by another name of this machine's (DNS rebinding) reads nothing.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

/// Requests that are answered at once; others wait.
const CONNECTIONS_MAX: usize = 8;
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// For all of one request.
const REQUEST_SECONDS_MAX: u64 = 10;
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Makes the page anew for each request; none where nothing can be said now.
pub type Page = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + Send + Sync>;

#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be offered at {address}: {source}")]
pub struct MetricsError {
    pub address: SocketAddr,
    pub source: io::Error,
}

impl MetricsError {
    pub fn in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// `9464` is that port of this machine only; any other address is written in full: `192.0.2.7:9464`, `[::]:9464`.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| format!("`{text}` is not an address; one looks like 9464 or 127.0.0.1:9464"))
}

/// Listens until it is dropped.
pub struct Endpoint {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Endpoint {
    /// Takes the address, so that one that is in use is told before anything else begins.
    pub async fn bind(address: SocketAddr) -> Result<TcpListener, MetricsError> {
        TcpListener::bind(address).await.map_err(|source| MetricsError { address, source })
    }

    /// Offers the page.
    pub fn serve(listener: TcpListener, page: Page) -> Result<Endpoint, MetricsError> {
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let address = listener.local_addr().map_err(|source| MetricsError { address: unknown, source })?;
        if !address.ip().is_loopback() {
            tracing::warn!("the metrics are readable for whoever reaches {address}");
        }
        Ok(Endpoint { address, task: tokio::spawn(accept(listener, address.ip(), page)) })
    }

    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, ip: IpAddr, page: Page) {
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(turn) = turns.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let page = page.clone();
                tokio::spawn(async move {
                    let _turn = turn;
                    let patience = Duration::from_secs(REQUEST_SECONDS_MAX);
                    // Who is too slow, or leaves, gets nothing: it asks again.
                    let _ = tokio::time::timeout(patience, answer(stream, ip, page)).await;
                });
            }
            Err(error) => {
                tracing::warn!("the metrics' socket cannot accept: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, ip: IpAddr, page: Page) -> io::Result<()> {
    let mut head = Vec::new();
    let status = loop {
        if ends(&head) {
            break judge(&head, ip);
        }
        if head.len() >= HEAD_BYTES_MAX {
            break Status::TooLong;
        }
        let room = (HEAD_BYTES_MAX - head.len()) as u64;
        if (&mut stream).take(room).read_buf(&mut head).await? == 0 {
            break Status::Bad;
        }
    };
    let page = match status {
        Status::Page { .. } => page().await,
        _ => None,
    };
    let status =
        if page.is_none() && matches!(status, Status::Page { .. }) { Status::Silent } else { status };
    let body = page.unwrap_or_else(|| format!("{}\n", status.line()));
    let allow = if status == Status::Method { "Allow: GET, HEAD\r\n" } else { "" };
    let answer = format!(
        "HTTP/1.1 {}\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\nConnection: close\r\n\r\n{}",
        status.line(),
        body.len(),
        if status == (Status::Page { with_body: false }) { "" } else { &body }
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // What is still on its way in would make the system reset the connection under the answer.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// What a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Page { with_body: bool },
    Bad,
    Forbidden,
    NotFound,
    Method,
    TooLong,
    Silent,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Page { .. } => "200 OK",
            Status::Bad => "400 Bad Request",
            Status::Forbidden => "403 Forbidden",
            Status::NotFound => "404 Not Found",
            Status::Method => "405 Method Not Allowed",
            Status::TooLong => "431 Request Header Fields Too Large",
            Status::Silent => "503 Service Unavailable",
        }
    }
}

fn ends(head: &[u8]) -> bool {
    head.ends_with(b"\r\n\r\n") || head.windows(4).any(|four| four == b"\r\n\r\n")
}

/// From the head of a request that came to `ip`.
fn judge(head: &[u8], ip: IpAddr) -> Status {
    let Ok(text) = std::str::from_utf8(head) else { return Status::Bad };
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Status::Bad;
    };
    if !version.starts_with("HTTP/1.") {
        return Status::Bad;
    }
    let host = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    });
    if ip.is_loopback() && host.is_some_and(|host| !names_this_machine(host)) {
        return Status::Forbidden;
    }
    if !["GET", "HEAD"].contains(&method) {
        return Status::Method;
    }
    match target.split('?').next() {
        Some("/metrics") => Status::Page { with_body: method == "GET" },
        _ => Status::NotFound,
    }
}

/// For the fuzzer: any head, to an address of this machine.
pub(crate) fn judge_any(head: &[u8]) {
    let _ = (ends(head), judge(head, Ipv4Addr::LOCALHOST.into()));
}

fn names_this_machine(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = without_port.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ask(head: &str) -> Status {
        judge(head.as_bytes(), Ipv4Addr::LOCALHOST.into())
    }

    #[test]
    fn only_the_page_is_answered_and_only_to_this_machine() {
        let page = Status::Page { with_body: true };
        for good in [
            "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9464\r\n\r\n",
            "GET /metrics?a=b HTTP/1.0\r\n\r\n",
            "GET /metrics HTTP/1.1\r\naccept: x\r\nhOsT: [::1]:1\r\n\r\n",
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ] {
            assert_eq!(ask(good), page, "{good}");
        }
        assert_eq!(ask("HEAD /metrics HTTP/1.1\r\n\r\n"), Status::Page { with_body: false });
        assert_eq!(ask("GET /metrics HTTP/1.1\r\nHost: evil.example:9464\r\n\r\n"), Status::Forbidden);
        assert_eq!(ask("POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"), Status::Method);
        assert_eq!(ask("GET / HTTP/1.1\r\n\r\n"), Status::NotFound);
        for bad in [
            "",
            "\r\n\r\n",
            "GET\r\n\r\n",
            "GET /metrics\r\n\r\n",
            "GET /metrics HTTP/2\r\n\r\n",
            "a b c d\r\n\r\n",
        ] {
            assert_eq!(ask(bad), Status::Bad, "{bad:?}");
        }
        assert_eq!(
            judge(b"GET /metrics HTTP/1.1\r\nx: \xff\r\n\r\n", Ipv4Addr::LOCALHOST.into()),
            Status::Bad
        );
        // Whoever opened it to others gave it names that we do not know.
        let open = judge(b"GET /metrics HTTP/1.1\r\nHost: nas.example\r\n\r\n", Ipv4Addr::UNSPECIFIED.into());
        assert_eq!(open, page);
    }

    #[test]
    fn a_port_alone_is_this_machine_only() {
        assert_eq!(parse_address("9464").unwrap(), "127.0.0.1:9464".parse().unwrap());
        assert_eq!(parse_address("[::]:1").unwrap(), "[::]:1".parse().unwrap());
        for bad in ["", "65536", "localhost:1", "0.0.0.0", ":1", "x"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_listens_answers_and_bears_strangers() {
        let listener = Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let page: Page = Arc::new(|| Box::pin(async { Some("a 1\n".to_owned()) }));
        let endpoint = Endpoint::serve(listener, page).unwrap();
        let address = endpoint.address;
        let taken = Endpoint::bind(address).await.unwrap_err();
        assert!(taken.in_use() && taken.to_string().contains(&address.to_string()));
        // Half a request holds up nobody else.
        let _silent = TcpStream::connect(address).await.unwrap();
        let ask = |bytes: Vec<u8>| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // It may hang up before all of it is written.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            answer
        };
        let good = ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()).await;
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("\r\n\r\na 1\n"), "{good}");
        assert!(good.contains("Content-Length: 4\r\n"), "{good}");
        let head = ask(b"HEAD /metrics HTTP/1.1\r\n\r\n".to_vec()).await;
        assert!(head.ends_with("\r\n\r\n") && head.contains("Content-Length: 4\r\n"), "{head}");
        assert!(ask(vec![b'x'; 1 << 20]).await.starts_with("HTTP/1.1 431 "));
        assert!(ask(Vec::new()).await.starts_with("HTTP/1.1 400 "));
        assert!(ask(b"PUT /metrics HTTP/1.1\r\n\r\n".to_vec()).await.contains("Allow: GET, HEAD"));
        drop(endpoint);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
