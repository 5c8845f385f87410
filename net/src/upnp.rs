//! Asking the router for a port: the part of UPnP's Internet Gateway Device that this takes.
//!
//! ```text
//!   M-SEARCH, UDP multicast ──► LOCATION of the router's description
//!   GET description ──────────► the control URL of its WAN connection
//!   POST GetExternalIPAddress, AddPortMapping, DeletePortMapping
//! ```
//!
//! Whoever is on the local network can answer, and is believed as little as possible: the description and the control URL
//! must be at the address that answered, every answer is bounded and has its time, and what it says of the outside is a
//! candidate that others have to confirm. Asked are only our own listening ports; a lease runs out by itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::addresses::{Reach, ip_of, reach};
use crate::node::Node;

/// Where routers listen for searches.
pub const SEARCH_AT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);
/// A router that has not answered by then does not speak it.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(3);
/// One question to it.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 256 << 10;
/// Devices that answer a search and are no router.
const ANSWERS_MAX: usize = 16;

/// Kinds of connection, the newest first.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];
const SEARCH: &str = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\n\
                      ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub enum UpnpError {
    /// Nobody answered.
    #[error("no router that speaks UPnP")]
    NoRouter,
    /// It did not answer in time.
    #[error("the router did not answer in time")]
    Silent,
    /// It answered something else.
    #[error("the router's answer makes no sense: {0}")]
    Malformed(&'static str),
    /// It said no.
    #[error("the router refuses: {0}")]
    Refused(String),
    /// The system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// TCP.
    Tcp,
    /// UDP, for QUIC.
    Udp,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Tcp => "TCP",
            Kind::Udp => "UDP",
        }
    }
}

/// A router that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    at: SocketAddr,
    path: String,
    service: &'static str,
    /// This machine, as the router sees it.
    local: IpAddr,
}

impl Router {
    /// Searches for one; `ask` is [`SEARCH_AT`].
    pub async fn find(ask: SocketAddr) -> Result<Router, UpnpError> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.send_to(SEARCH.as_bytes(), ask).await?;
        let searching = async {
            let mut buffer = [0; 2048];
            for _ in 0..ANSWERS_MAX {
                let (len, from) = socket.recv_from(&mut buffer).await?;
                let answer = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default());
                let Some((at, path)) = location(&answer).filter(|(at, _)| at.ip() == from.ip()) else {
                    continue;
                };
                match Router::describe(at, &path).await {
                    Ok(router) => return Ok(router),
                    Err(e) => tracing::debug!("{from} is no router for us: {e}"),
                }
            }
            Err(UpnpError::NoRouter)
        };
        tokio::time::timeout(SEARCH_TIMEOUT, searching).await.unwrap_or(Err(UpnpError::NoRouter))
    }

    async fn describe(at: SocketAddr, path: &str) -> Result<Router, UpnpError> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
        let (body, local) = call(at, &request).await?;
        let (service, url) = control(&body).ok_or(UpnpError::Malformed("it describes no WAN connection"))?;
        let (at, path) = match url.strip_prefix("http://") {
            None if url.starts_with('/') => (at, url),
            None => (at, format!("/{url}")),
            Some(_) => parse_url(&url)
                .filter(|(there, _)| there.ip() == at.ip())
                .ok_or(UpnpError::Malformed("its control is elsewhere"))?,
        };
        Ok(Router { at, path, service, local })
    }

    /// Its address on the internet.
    pub async fn external_ip(&self) -> Result<Ipv4Addr, UpnpError> {
        let body = self.act("GetExternalIPAddress", "").await?;
        let ip = element(&body, "NewExternalIPAddress").and_then(|ip| ip.trim().parse().ok());
        ip.ok_or(UpnpError::Malformed("no external address"))
    }

    /// Lets what comes to its port come to ours of the same number, for so many seconds.
    pub async fn map(&self, kind: Kind, port: u16, seconds: u32) -> Result<(), UpnpError> {
        let arguments = format!(
            "<NewRemoteHost></NewRemoteHost><NewExternalPort>{port}</NewExternalPort><NewProtocol>{}</NewProtocol>\
             <NewInternalPort>{port}</NewInternalPort><NewInternalClient>{}</NewInternalClient>\
             <NewEnabled>1</NewEnabled><NewPortMappingDescription>holdfast</NewPortMappingDescription>\
             <NewLeaseDuration>{seconds}</NewLeaseDuration>",
            kind.word(),
            self.local
        );
        self.act("AddPortMapping", &arguments).await.map(drop)
    }

    /// Ends that.
    pub async fn unmap(&self, kind: Kind, port: u16) -> Result<(), UpnpError> {
        let arguments = format!(
            "<NewRemoteHost></NewRemoteHost><NewExternalPort>{port}</NewExternalPort><NewProtocol>{}</NewProtocol>",
            kind.word()
        );
        self.act("DeletePortMapping", &arguments).await.map(drop)
    }

    async fn act(&self, action: &str, arguments: &str) -> Result<String, UpnpError> {
        let service = self.service;
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{action} xmlns:u=\"{service}\">{arguments}</u:{action}></s:Body></s:Envelope>\r\n"
        );
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/xml; charset=\"utf-8\"\r\nContent-Length: {}\r\n\
             SOAPAction: \"{service}#{action}\"\r\nConnection: close\r\n\r\n{body}",
            self.path,
            self.at,
            body.len()
        );
        call(self.at, &request).await.map(|(body, _)| body)
    }
}

/// One exchange; the answer's body, and our own address towards the router.
async fn call(at: SocketAddr, request: &str) -> Result<(String, IpAddr), UpnpError> {
    let exchange = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(request.as_bytes()).await?;
        let local = stream.local_addr()?.ip();
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        std::io::Result::Ok((answer, local))
    };
    let (answer, local) =
        tokio::time::timeout(CALL_TIMEOUT, exchange).await.map_err(|_| UpnpError::Silent)??;
    body_of(&answer).map(|body| (body, local))
}

/// The body of an answer, if it says that all is well.
pub(crate) fn body_of(answer: &[u8]) -> Result<String, UpnpError> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(UpnpError::Malformed("no HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok());
    let chunked = header(head, "transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked"));
    let body = if chunked { unchunked(body)? } else { body.to_owned() };
    match status {
        Some(200) => Ok(body),
        Some(status) => {
            let what = element(&body, "errorDescription").unwrap_or_default();
            Err(UpnpError::Refused(crate::codec::shorten(&format!("{status} {what}"))))
        }
        None => Err(UpnpError::Malformed("no HTTP status")),
    }
}

fn unchunked(mut text: &str) -> Result<String, UpnpError> {
    let malformed = || UpnpError::Malformed("bad chunks");
    let mut body = String::new();
    loop {
        let (len, rest) = text.split_once("\r\n").ok_or_else(malformed)?;
        let len = len.split(';').next().unwrap_or_default().trim();
        let len = usize::from_str_radix(len, 16).map_err(|_| malformed())?;
        if len == 0 {
            return Ok(body);
        }
        body.push_str(rest.get(..len).ok_or_else(malformed)?);
        text = rest.get(len..).and_then(|rest| rest.strip_prefix("\r\n")).ok_or_else(malformed)?;
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// Where a search's answer says that the description is.
pub(crate) fn location(answer: &str) -> Option<(SocketAddr, String)> {
    parse_url(header(answer, "location")?)
}

/// An address and a path; names are not looked up.
fn parse_url(url: &str) -> Option<(SocketAddr, String)> {
    let rest = url.trim().strip_prefix("http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let at = host.parse().ok().or_else(|| Some(SocketAddr::new(host.parse().ok()?, 80)))?;
    let clean = !path.contains(|c: char| c.is_control() || c == ' ');
    clean.then(|| (at, format!("/{path}")))
}

/// What stands between `<name>` and `</name>`.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

/// The best kind of connection that a description has, and where it is controlled.
pub(crate) fn control(description: &str) -> Option<(&'static str, String)> {
    let of = |wanted: &'static str| {
        let mut services = description.split("<service>").skip(1);
        let service = services.find(|s| element(s, "serviceType").is_some_and(|t| t.trim() == wanted))?;
        let url = element(service, "controlURL")?.trim();
        let clean = !url.is_empty() && !url.contains(|c: char| c.is_control() || c == ' ');
        clean.then(|| (wanted, url.to_owned()))
    };
    SERVICES.into_iter().find_map(of)
}

/// A mapping is asked for anew long before it runs out.
const LEASE_SECONDS: u32 = 3600;
const RENEW: Duration = Duration::from_secs(1200);
/// Where there is no router, or it refuses.
const AGAIN: Duration = Duration::from_secs(600);

/// What the node listens at that a router has to forward.
fn behind_router(listeners: &[Multiaddr]) -> BTreeSet<(Kind, u16)> {
    let wanted = listeners
        .iter()
        .filter(|addr| reach(addr) == Some(Reach::Network) && ip_of(addr).is_some_and(|ip| ip.is_ipv4()));
    let port = |addr: &Multiaddr| {
        addr.iter().find_map(|part| match part {
            Protocol::Tcp(port) => Some((Kind::Tcp, port)),
            Protocol::Udp(port) => Some((Kind::Udp, port)),
            _ => None,
        })
    };
    wanted.filter_map(port).collect()
}

fn external(ip: Ipv4Addr, kind: Kind, port: u16) -> Multiaddr {
    let addr = Multiaddr::from(ip);
    match kind {
        Kind::Tcp => addr.with(Protocol::Tcp(port)),
        Kind::Udp => addr.with(Protocol::Udp(port)).with(Protocol::QuicV1),
    }
}

/// Asks for all of it; returns who was asked and for what.
async fn renew(node: &Node) -> Result<(Router, Vec<(Kind, u16, Multiaddr)>), UpnpError> {
    let ports = behind_router(&node.listeners());
    if ports.is_empty() {
        return Err(UpnpError::NoRouter);
    }
    let router = Router::find(SEARCH_AT).await?;
    let ip = router.external_ip().await?;
    if reach(&Multiaddr::from(ip)) != Some(Reach::World) {
        return Err(UpnpError::Malformed("it is behind a NAT itself"));
    }
    let mut mapped = Vec::new();
    for (kind, port) in ports {
        match router.map(kind, port, LEASE_SECONDS).await {
            Ok(()) => mapped.push((kind, port, external(ip, kind, port))),
            Err(e) => tracing::info!("no {} port {port} from the router: {e}", kind.word()),
        }
    }
    Ok((router, mapped))
}

/// Keeps the router forwarding to this node's ports, where there is one that does, until `stop`; then it ends that.
pub async fn keep(node: Node, stop: CancellationToken) {
    let mut held: Option<(Router, Vec<(Kind, u16, Multiaddr)>)> = None;
    loop {
        let Some(asked) = stop.run_until_cancelled(renew(&node)).await else { break };
        let now = asked.inspect_err(|e| tracing::debug!("no port from a router: {e}")).ok();
        let addrs = |held: &Option<(Router, Vec<(Kind, u16, Multiaddr)>)>| -> BTreeSet<Multiaddr> {
            held.iter().flat_map(|(_, mapped)| mapped.iter().map(|(_, _, addr)| addr.clone())).collect()
        };
        let (before, after) = (addrs(&held), addrs(&now));
        for gone in before.difference(&after) {
            let _ = node.set_external(gone.clone(), false).await;
        }
        for new in after.difference(&before) {
            tracing::info!(at = %new, "the router forwards to this node");
            let _ = node.set_external(new.clone(), true).await;
        }
        let pause = if after.is_empty() { AGAIN } else { RENEW };
        held = now;
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            break;
        }
    }
    if let Some((router, mapped)) = held {
        for (kind, port, _) in mapped {
            let _ = router.unmap(kind, port).await;
        }
    }
}

#[cfg(test)]
mod tests;
