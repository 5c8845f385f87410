//! Ways to a peer, and finding one that is not where it was.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Running, SOON, Slot, TestClock, config, key, loopback, rand32};
use holdfast_net::addresses::{Way, way};
use holdfast_net::client::Priority;
use holdfast_net::identity::keypair;
use holdfast_net::record::{RecordKey, RecordKind};
use holdfast_net::{
    ByteRange, Client, ClientConfig, DhtKey, DhtRole, Discovery, Env, Finder, Multiaddr, Node, NodeConfig,
    PeerAddrs, Session,
};
use tokio::time::Instant;

fn quic() -> Multiaddr {
    "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()
}

/// Hangs up on whoever comes, and knows how many did.
struct Door {
    at: SocketAddr,
    seen: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Door {
    fn open() -> Door {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<SocketAddr>>>::default());
        let noted = seen.clone();
        std::thread::spawn(move || {
            while let Ok((_, who)) = listener.accept() {
                noted.lock().unwrap().push(who);
            }
        });
        Door { at, seen }
    }

    fn addr(&self) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{}", self.at.port()).parse().unwrap()
    }

    /// Those who came until now: they stand in the queue before this one, which takes itself out again.
    fn knocks(&self) -> usize {
        let last = std::net::TcpStream::connect(self.at).unwrap().local_addr().unwrap();
        loop {
            let mut seen = self.seen.lock().unwrap();
            if let Some(at) = seen.iter().position(|who| *who == last) {
                seen.remove(at);
                return seen.len();
            }
            drop(seen);
            std::thread::yield_now();
        }
    }
}

/// A port where nobody listens.
fn nowhere() -> Multiaddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("/ip4/127.0.0.1/tcp/{}", socket.local_addr().unwrap().port()).parse().unwrap()
}

fn member(bootstrap: &[&Running]) -> Discovery {
    Discovery {
        dht: DhtRole::Server,
        bootstrap: bootstrap.iter().map(|other| other.whereabouts()).collect(),
        ..Discovery::default()
    }
}

async fn provider(dir: &tempfile::TempDir, seed: u8, bootstrap: &[&Running]) -> Running {
    let listen = vec![loopback(), quic()];
    Running::finding(dir.path(), seed, listen, member(bootstrap), config(), Arc::<TestClock>::default()).await
}

async fn client(bootstrap: Vec<PeerAddrs>) -> Client {
    let node = Node::start(NodeConfig::client(keypair(rand32()).unwrap())).await.unwrap();
    let finder = Finder::new(Env::system(), bootstrap, false);
    Client::with_finder(node, Env::system(), ClientConfig::default(), finder)
}

async fn first_bytes(session: &Session, slot: &Slot) -> bool {
    let deal = slot.proposal.deal_id();
    match session.read(deal, &[ByteRange::new(0, 64)], Priority::Interactive, SOON).await {
        Ok(read) => read[0] == slot.bytes[..64],
        Err(_) => false,
    }
}

/// Asks again and again; a test's own patience ends it.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_over_quic_alone() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::with(dir.path(), 1, quic(), config(), Arc::default()).await;
    let client = common::client().await;
    let session = common::session(&client, &running, &key(1)).await;
    let slot = Slot::new(3 << 20, 1, &key(1), running.peer());
    slot.store(&session).await;
    let mut read = 0;
    session
        .fetch(slot.proposal.deal_id(), 0, slot.bytes.len() as u64, SOON, |offset, bytes| {
            assert_eq!(bytes, slot.bytes[offset as usize..][..bytes.len()]);
            read += bytes.len();
            std::future::ready(Ok(()))
        })
        .await
        .unwrap();
    assert_eq!(read, slot.bytes.len());
    session.audit(slot.proposal.deal_id(), &slot.audit(), SOON).await.unwrap();
    let at = client.node().unwrap().dialled_at(running.peer()).await.unwrap().unwrap();
    assert_eq!(way(&at), Some(Way::Quic));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_is_taken_where_it_answers_and_quic_where_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let running = provider(&dir, 1, &[]).await;
    let mut addrs = running.whereabouts().addrs;
    addrs.reverse();
    assert_eq!(addrs.iter().map(|addr| way(addr).unwrap()).collect::<Vec<_>>(), [Way::Quic, Way::Tcp]);
    let both = common::client().await;
    both.connect(running.peer(), addrs.clone()).await.unwrap().info().await.unwrap();
    let at = both.node().unwrap().dialled_at(running.peer()).await.unwrap().unwrap();
    assert_eq!(way(&at), Some(Way::Tcp), "though it was named last");

    // A refused connection costs no head start; one that is swallowed costs that, and not the whole timeout.
    let swallowed: Multiaddr = "/ip4/192.0.2.1/tcp/9".parse().unwrap();
    for dead in [nowhere(), swallowed] {
        let client = common::client().await;
        let start = Instant::now();
        client
            .connect(running.peer(), vec![dead.clone(), addrs[0].clone()])
            .await
            .unwrap()
            .info()
            .await
            .unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{dead}: {:?}", start.elapsed());
        let at = client.node().unwrap().dialled_at(running.peer()).await.unwrap().unwrap();
        assert_eq!(way(&at), Some(Way::Quic));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_nowhere_is_told_with_what_each_address_said() {
    let client = common::client().await;
    let peer = keypair([9; 32]).unwrap().public().to_peer_id();
    let said = client.connect(peer, vec![nowhere()]).await.unwrap_err().to_string();
    assert!(said.contains("/tcp/") && said.contains("refused"), "{said}");
    let said = client.connect(peer, vec!["/memory/1".parse().unwrap()]).await.unwrap_err().to_string();
    assert!(said.contains("no address that can be dialled"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_moves_is_found_again_and_its_session_goes_on() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let first = provider(&dirs[0], 1, &[]).await;
    let second = provider(&dirs[1], 2, &[&first]).await;
    let mover = provider(&dirs[2], 3, &[&first, &second]).await;
    // The client knows only the second one, and where the provider itself was.
    let client = client(vec![second.whereabouts(), mover.whereabouts()]).await;
    let session = common::session(&client, &mover, &key(1)).await;
    let slot = Slot::new(100_000, 1, &key(1), mover.peer());
    slot.store(&session).await;
    let before = mover.addr();
    mover.stop().await;
    assert!(!first_bytes(&session, &slot).await, "a provider that is gone answers");

    let mover = provider(&dirs[2], 3, &[&first]).await;
    assert_ne!(mover.addr(), before);
    until("the session goes on", async || first_bytes(&session, &slot).await).await;
    let at = session.addrs().remove(0);
    assert_eq!(mover.whereabouts().addrs[0], at, "it is dialled where it is, and by TCP");
    mover.stop().await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_keeps_a_record_is_found_by_its_name_and_strangers_records_are_not_announced() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let first = provider(&dirs[0], 1, &[]).await;
    let second = provider(&dirs[1], 2, &[&first]).await;
    let keeper = provider(&dirs[2], 3, &[&first]).await;
    let known = client(Vec::new()).await;
    let [mine, strange] = [1, 2].map(|name| RecordKey::new(RecordKind::Keyring, [name; 32]));

    let stranger = common::session(&known, &keeper, &key(9)).await;
    stranger.put_record(&strange, &[0; 20]).await.unwrap();
    let other = client(Vec::new()).await;
    let owner = common::session(&other, &keeper, &key(1)).await;
    Slot::new(1_000, 1, &key(1), keeper.peer()).store(&owner).await;
    owner.put_record(&mine, &[0; 20]).await.unwrap();

    let finder = Finder::new(Env::system(), vec![second.whereabouts()], false);
    // In which order a peer's addresses come is nobody's promise.
    let sorted = |mut known: PeerAddrs| {
        known.addrs.sort_by_key(ToString::to_string);
        known
    };
    let found = async |record: &RecordKey| -> Vec<PeerAddrs> {
        finder.holders(DhtKey::of_record(record)).await.unwrap().into_iter().map(sorted).collect()
    };
    until("the keeper is found", async || !found(&mine).await.is_empty()).await;
    assert_eq!(found(&mine).await, [sorted(keeper.whereabouts())]);
    assert!(found(&strange).await.is_empty(), "a stranger's record was announced");
    assert_ne!(DhtKey::of_record(&mine).0, [1; 32], "the key shows the name");

    // Who has restarted tells it again.
    keeper.stop().await;
    let keeper = provider(&dirs[2], 3, &[&second]).await;
    until("the keeper is found where it is now", async || {
        found(&mine).await == [sorted(keeper.whereabouts())]
    })
    .await;
    keeper.stop().await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_ends_where_nobody_answers() {
    let peer = keypair([9; 32]).unwrap().public().to_peer_id();
    let alone = Finder::new(Env::system(), Vec::new(), false);
    assert!(!alone.can_ask() && alone.locate(peer).await.unwrap().is_empty());
    assert!(alone.holders(DhtKey([1; 32])).await.unwrap().is_empty());
    let door = Door::open();
    let dead = PeerAddrs::new(keypair([8; 32]).unwrap().public().to_peer_id(), [door.addr()]);
    let lost = Finder::new(Env::system(), vec![dead], false);
    let start = Instant::now();
    assert!(lost.locate(peer).await.unwrap().is_empty());
    assert!(lost.holders(DhtKey([1; 32])).await.unwrap().is_empty());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let knocked = door.knocks();
    assert!(knocked > 0, "nobody was asked");
    // Moments later it is not asked again.
    assert!(lost.locate(peer).await.unwrap().is_empty());
    assert_eq!(door.knocks(), knocked);
}
