#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::*;

const DESCRIPTION: &str = "<root><device><serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1\
</serviceType><controlURL>/no</controlURL></service></serviceList><device><service>\
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/ctl/IP</controlURL></service>\
</device></device></root>";

/// A router on this machine: answers a search and keeps what it was asked.
async fn router(answer: impl Fn(&str) -> String + Send + 'static) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let search = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, seen) = (http.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let ask = search.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((_, from)) = search.recv_from(&mut buffer).await {
            let said =
                format!("HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLOCATION: http://{at}/desc.xml\r\n\r\n");
            search.send_to(said.as_bytes(), from).await.unwrap();
        }
    });
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = http.accept().await {
            let mut buffer = vec![0; 8192];
            let len = stream.read(&mut buffer).await.unwrap();
            let request = String::from_utf8_lossy(&buffer[..len]).into_owned();
            let said = if request.starts_with("GET /desc.xml") {
                format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{DESCRIPTION}\r\n0\r\n\r\n",
                    DESCRIPTION.len()
                )
            } else {
                answer(&request)
            };
            kept.lock().push(request);
            let _ = stream.write_all(said.as_bytes()).await;
        }
    });
    (ask, seen)
}

fn ok(inside: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n<s:Body>{inside}</s:Body>")
}

#[tokio::test]
async fn a_router_is_found_and_asked_for_a_port() {
    let (ask, seen) = router(|request| {
        let asks_address = request.contains("#GetExternalIPAddress");
        ok(if asks_address { "<NewExternalIPAddress>198.51.100.7</NewExternalIPAddress>" } else { "" })
    })
    .await;
    let router = Router::find(ask).await.unwrap();
    assert_eq!(router.external_ip().await.unwrap(), Ipv4Addr::new(198, 51, 100, 7));
    router.map(Kind::Udp, 4001, 3600).await.unwrap();
    router.unmap(Kind::Tcp, 4001).await.unwrap();
    let seen = seen.lock();
    assert!(seen[2].starts_with("POST /ctl/IP HTTP/1.1\r\n"), "{}", seen[2]);
    for part in [
        "<NewExternalPort>4001</NewExternalPort>",
        "<NewProtocol>UDP</NewProtocol>",
        "<NewInternalClient>127.0.0.1</NewInternalClient>",
        "<NewLeaseDuration>3600</NewLeaseDuration>",
    ] {
        assert!(seen[2].contains(part), "{part} in {}", seen[2]);
    }
    assert!(seen[3].contains("#DeletePortMapping") && seen[3].contains("TCP"));
}

#[tokio::test]
async fn what_a_router_refuses_is_told() {
    let (ask, _) = router(|_| {
        "HTTP/1.1 500 Internal Server Error\r\n\r\n<errorDescription>ConflictInMappingEntry</errorDescription>".into()
    })
    .await;
    let refused = Router::find(ask).await.unwrap().map(Kind::Tcp, 1, 1).await.unwrap_err().to_string();
    assert!(refused.contains("500 ConflictInMappingEntry"), "{refused}");
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(Router::find(nobody).await.is_err());
}

#[test]
fn only_what_a_router_stands_before_is_asked_for() {
    let addrs = [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/8.8.8.8/tcp/2",
        "/ip4/192.168.1.5/tcp/3",
        "/ip4/192.168.1.5/udp/4/quic-v1",
        "/ip6/fe80::1/tcp/5",
    ];
    let addrs = addrs.map(|addr| addr.parse().unwrap());
    assert_eq!(behind_router(&addrs).into_iter().collect::<Vec<_>>(), [(Kind::Tcp, 3), (Kind::Udp, 4)]);
    assert_eq!(external(Ipv4Addr::new(8, 8, 8, 8), Kind::Udp, 4).to_string(), "/ip4/8.8.8.8/udp/4/quic-v1");
}

#[test]
fn an_answer_leads_nowhere_else_and_any_bytes_are_answered() {
    assert_eq!(
        location("HTTP/1.1 200 OK\r\nlocation: http://10.0.0.1:5000/a/b.xml\r\n").unwrap().1,
        "/a/b.xml"
    );
    for bad in ["https://10.0.0.1/", "http://router.example/", "http://10.0.0.1/a b", "ftp://10.0.0.1/", ""] {
        assert_eq!(location(&format!("LOCATION: {bad}\r\n")), None, "{bad}");
    }
    assert_eq!(control(DESCRIPTION), Some((SERVICES[1], "/ctl/IP".into())));
    assert_eq!(
        control("<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>"),
        None
    );
    for bad in [
        &b""[..],
        b"HTTP/1.1",
        b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        &[0xff; 40],
    ] {
        assert!(body_of(bad).is_err());
    }
    // A length that ends within a letter.
    let split = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\u{e9}\r\n0\r\n\r\n";
    assert!(body_of(split.as_bytes()).is_err());
}
