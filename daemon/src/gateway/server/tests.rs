#![allow(clippy::unwrap_used)]

use super::super::index::tests::slot;
use super::*;
use holdfast_content::block::Block;
use holdfast_content::plain::Profile;
use holdfast_content::plain::add::{Added, FileAdder, directory};
use holdfast_content::plain::car::CarReader;
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Site {
    address: SocketAddr,
    root: Added,
    file: Added,
    sub: Added,
    blocks: Vec<Block>,
    bytes: Vec<u8>,
    _dir: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

/// A folder `{big, sub: {small}}` at a gateway.
async fn site(limits: GatewayLimits) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let mut blocks = Vec::new();
    let mut sink = |block: Block| {
        blocks.push(block);
        Ok(())
    };
    let bytes: Vec<u8> = (0..1_000_000u32).map(|i| (i ^ (i >> 9) ^ (i >> 17)) as u8).collect();
    let mut adder = FileAdder::new(Profile::V0);
    adder.push(&bytes, &mut sink).unwrap();
    let file = adder.finish(&mut sink).unwrap();
    let mut adder = FileAdder::new(Profile::V0);
    adder.push(b"small", &mut sink).unwrap();
    let small = adder.finish(&mut sink).unwrap();
    let sub = directory(Profile::V0, &[("small".into(), small)], &mut sink).unwrap();
    let root = directory(Profile::V0, &[("big".into(), file), ("sub".into(), sub)], &mut sink).unwrap();
    let index = PublicIndex::open(dir.path()).unwrap();
    let stop = CancellationToken::new();
    index.sync(&[slot(dir.path(), 1, &blocks)], &stop);
    let gateway = Gateway::bind("127.0.0.1:0".parse().unwrap(), index, limits).await.unwrap();
    let address = gateway.address().unwrap();
    tokio::spawn(gateway.run(stop.clone()));
    Site { address, root, file, sub, blocks, bytes, _dir: dir, _stop: stop.drop_guard() }
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// One request on a connection of its own.
async fn ask(site: &Site, method: &str, url: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let request = format!("{method} {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let pair =
        |line: &str| line.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())).unwrap();
    let headers: BTreeMap<_, _> = lines.map(pair).collect();
    let mut body = bytes[end + 4..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
        body = unchunk(&body);
    }
    Answer { status, headers, body }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if len == 0 {
            break;
        }
        out.extend_from_slice(&rest[end + 2..end + 2 + len]);
        rest = &rest[end + 4 + len..];
    }
    out
}

fn sections(car: &[u8]) -> Vec<cid::Cid> {
    let mut reader = CarReader::new(car).unwrap();
    let mut out = Vec::new();
    while let Some(section) = reader.next_section().unwrap() {
        assert!(section.block.is_some());
        out.push(section.cid);
    }
    out
}

#[tokio::test]
async fn raw_blocks_whole_in_part_and_not_again() {
    let site = site(GatewayLimits::default()).await;
    let leaf = &site.blocks[0];
    let url = format!("/ipfs/{}?format=raw", leaf.cid());
    let whole = ask(&site, "GET", &url, "").await;
    assert_eq!((whole.status, whole.body.as_slice()), (200, &leaf.bytes()[..]));
    assert_eq!(whole.headers["content-type"], "application/vnd.ipld.raw");
    assert_eq!(whole.headers["content-length"], leaf.len().to_string());
    assert!(whole.headers["cache-control"].contains("immutable"));
    // CIDv0 and CIDv1 name the same block.
    let v0 =
        ask(&site, "GET", &format!("/ipfs/{}", site.root.cid), "Accept: application/vnd.ipld.raw\r\n").await;
    assert_eq!(v0.body.as_slice(), &site.blocks.last().unwrap().bytes()[..]);
    let head = ask(&site, "HEAD", &url, "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.headers["content-length"], leaf.len().to_string());
    let etag = &whole.headers["etag"];
    let known = ask(&site, "GET", &url, &format!("If-None-Match: W/\"x\", {etag}\r\n")).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(ask(&site, "GET", &url, "If-None-Match: *\r\n").await.status, 304);
    assert_eq!(ask(&site, "GET", &url, "If-None-Match: \"other\"\r\n").await.status, 200);
    let part = ask(&site, "GET", &url, "Range: bytes=10-19\r\n").await;
    assert_eq!((part.status, part.body.as_slice()), (206, &leaf.bytes()[10..20]));
    assert_eq!(part.headers["content-range"], format!("bytes 10-19/{}", leaf.len()));
    assert_eq!(ask(&site, "GET", &url, "Range: bytes=999999999-\r\n").await.status, 416);
    // What a gateway's health is probed with: the CID that holds nothing, itself.
    let probe = ask(&site, "GET", "/ipfs/bafkqaaa?format=raw", "").await;
    assert_eq!((probe.status, probe.body.len()), (200, 0));
}

#[tokio::test]
async fn what_is_not_here_or_not_understood() {
    let site = site(GatewayLimits::default()).await;
    let other = holdfast_content::block::cid_of(0x55, b"elsewhere");
    for (method, url, status) in [
        ("GET", format!("/ipfs/{other}?format=raw"), 404),
        ("GET", format!("/ipfs/{other}?format=car"), 404),
        ("HEAD", format!("/ipfs/{other}?format=raw"), 404),
        ("GET", format!("/ipfs/{}/none?format=car", site.root.cid), 404),
        ("GET", format!("/ipfs/{}/big/x?format=car", site.root.cid), 404),
        ("GET", format!("/ipfs/{}", site.root.cid), 406),
        ("GET", "/ipfs/x?format=raw".to_owned(), 400),
        ("GET", "/../../etc/passwd".to_owned(), 404),
        ("GET", format!("/ipfs/{}/../../etc/passwd?format=car", site.root.cid), 400),
        ("POST", format!("/ipfs/{}?format=raw", site.root.cid), 405),
        ("DELETE", "/".to_owned(), 405),
    ] {
        assert_eq!(ask(&site, method, &url, "").await.status, status, "{method} {url}");
    }
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.write_all(b"\x16\x03\x01 no HTTP\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 400"));
}

#[tokio::test]
async fn cars_of_every_scope() {
    let site = site(GatewayLimits::default()).await;
    let car = async |rest: &str| {
        let answer = ask(&site, "GET", &format!("/ipfs/{}{rest}", site.root.cid), "").await;
        assert_eq!(answer.status, 200, "{rest}");
        assert!(answer.headers["content-type"].starts_with("application/vnd.ipld.car; version=1"));
        answer.body
    };
    let all = sections(&car("?format=car").await);
    assert_eq!((all.len(), all[0]), (site.blocks.len(), site.root.cid), "depth first, each once");
    let reader =
        CarReader::new(&car("/sub?format=car").await[..]).map(|reader| reader.roots().to_vec()).unwrap();
    assert_eq!(reader, [site.sub.cid]);
    assert_eq!(
        sections(&car("/sub?format=car").await)[..2],
        [site.root.cid, site.sub.cid],
        "the way there comes first"
    );
    assert_eq!(sections(&car("?format=car&dag-scope=block").await), [site.root.cid]);
    assert_eq!(sections(&car("?format=car&dag-scope=entity").await), [site.root.cid]);
    // A file of four chunks: its root and all of them, or only those that the bytes are in.
    assert_eq!(sections(&car("/big?format=car&dag-scope=entity").await).len(), 1 + 1 + 4);
    let part = car("/big?format=car&dag-scope=entity&entity-bytes=262140:262150").await;
    let found = sections(&part);
    assert_eq!((found.len(), found[1]), (1 + 1 + 2, site.file.cid));
    assert_eq!(sections(&car("/big?format=car&entity-bytes=-1:*").await).len(), 1 + 1 + 1);
    assert_eq!(sections(&car("/big?format=car&entity-bytes=5000000:*").await).len(), 2, "beyond its end");
    let url = format!("/ipfs/{}?format=car", site.root.cid);
    let head = ask(&site, "HEAD", &url, "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let etag = format!("If-None-Match: {}\r\n", head.headers["etag"]);
    assert_eq!(ask(&site, "GET", &url, &etag).await.status, 304);
    let block = format!("{url}&dag-scope=block");
    assert_eq!(ask(&site, "GET", &block, &etag).await.status, 200, "another scope is another CAR");
    assert!(!site.bytes.is_empty());
}

#[tokio::test]
async fn connections_are_bounded_in_number_and_time() {
    let limits = GatewayLimits {
        connections_per_address_max: 2,
        headers_timeout: Duration::from_millis(300),
        ..GatewayLimits::default()
    };
    let site = site(limits).await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        stream.write_all(b"GET /ipfs/").await.unwrap();
        idle.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut third = TcpStream::connect(site.address).await.unwrap();
    let _ = third.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    let mut bytes = Vec::new();
    let _ = third.read_to_end(&mut bytes).await;
    assert!(bytes.is_empty(), "one too many");
    for mut stream in idle {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await;
        assert!(read.is_ok(), "who does not finish its request is let go");
    }
    assert_eq!(ask(&site, "GET", "/ipfs/bafkqaaa?format=raw", "").await.status, 200);
}
