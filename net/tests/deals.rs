//! A deal's life between two nodes: taken, pushed, signed for, read, audited, found again, given up.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Running, SOON, Slot, TestClock, client, config, key, loopback, noise, session};
use holdfast_net::client::{Priority, PutOutcome};
use holdfast_net::deal::PieceSource;
use holdfast_net::record::{RecordKey, RecordKind};
use holdfast_net::{ByteRange, DealId, ErrorCode, NetError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deal_from_end_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    let slot = Slot::new(3_000_001, 1, &key(1), running.peer());
    let deal = slot.proposal.deal_id();

    let info = session.info().await.unwrap();
    assert!(info.accepting && info.free >= 1 << 20 && info.settlement == 0);

    let answer = session.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap();
    let again = session.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap();
    assert_eq!(answer, again);
    assert_eq!(session.receipt(&slot.proposal).await.unwrap(), None);
    let early = session.read(deal, &[ByteRange::new(0, 1)], Priority::Bulk, SOON).await.unwrap_err();
    assert_eq!(early.code(), Some(ErrorCode::NotStored));

    let furthest = AtomicU64::new(0);
    let source = Arc::new(slot.bytes.clone());
    let receipt = session
        .push(&slot.proposal, source.clone(), |at| furthest.store(at, Ordering::SeqCst))
        .await
        .unwrap();
    assert_eq!(furthest.load(Ordering::SeqCst), slot.bytes.len() as u64);
    // Idempotent, all of it.
    assert_eq!(session.push(&slot.proposal, source, |_| {}).await.unwrap(), receipt);
    assert_eq!(session.receipt(&slot.proposal).await.unwrap(), Some(receipt.clone()));
    assert_eq!(session.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap(), answer);

    // The slot is a plain file.
    let path = dir.path().join("slots").join(deal.to_string());
    assert_eq!(std::fs::read(&path).unwrap(), slot.bytes);

    let ranges = [ByteRange::new(2_999_000, 1_001), ByteRange::new(0, 5), ByteRange::new(3, 600_000)];
    for priority in [Priority::Interactive, Priority::Bulk] {
        let got = session.read(deal, &ranges, priority, SOON).await.unwrap();
        for (range, bytes) in ranges.iter().zip(got) {
            let from = range.offset as usize;
            assert_eq!(bytes, slot.bytes[from..from + range.len as usize]);
        }
    }
    let audit = session.audit(deal, &slot.audit(), SOON).await.unwrap();
    assert_eq!(audit.verdict.piece(), &slot.piece);

    let page = session.holdings(None).await.unwrap();
    assert_eq!(page.holdings.len(), 1);
    assert_eq!(page.holdings[0].manifest, slot.manifest);
    assert_eq!(page.holdings[0].receipt, Some(receipt));
    assert_eq!(page.next, None);

    let status = running.provider.status();
    assert_eq!((status.store.deals_stored, status.store.stored_bytes), (1, slot.bytes.len() as u64));
    session.release(deal).await.unwrap();
    session.release(deal).await.unwrap();
    assert!(!path.exists());
    assert_eq!(running.provider.status().store.committed_bytes, 0);
    let gone = session.read(deal, &[ByteRange::new(0, 1)], Priority::Bulk, SOON).await.unwrap_err();
    assert_eq!(gone.code(), Some(ErrorCode::Ended));
    assert!(session.holdings(None).await.unwrap().holdings.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_learns_of_a_deal() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let owner = client().await;
    let slot = Slot::new(10_000, 1, &key(1), running.peer());
    slot.store(&session(&owner, &running, &key(1)).await).await;
    let deal = slot.proposal.deal_id();

    let stranger = client().await;
    let theirs = session(&stranger, &running, &key(2)).await;
    let unknown = DealId([9; 32]);
    for id in [deal, unknown] {
        let read = theirs.read(id, &[ByteRange::new(0, 1)], Priority::Interactive, SOON).await.unwrap_err();
        let audit = theirs.audit(id, &slot.audit(), SOON).await.unwrap_err();
        let release = theirs.release(id).await.unwrap_err();
        for error in [read, audit, release] {
            assert_eq!(error.code(), Some(ErrorCode::NotFound), "{error}");
        }
    }
    assert!(theirs.holdings(None).await.unwrap().holdings.is_empty());
    // A proposal signed by a key that was not proven here.
    let other = Slot::new(10_000, 3, &key(1), running.peer());
    let refused = theirs.propose(&other.proposal, other.manifest.as_bytes()).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Unauthorized));
    // The owner from another machine: a fresh peer id, the same key.
    let fresh = owner.connect_fresh(running.peer(), vec![running.addr()]).await.unwrap();
    assert!(fresh.read(deal, &[ByteRange::new(0, 1)], Priority::Interactive, SOON).await.is_err());
    fresh.authenticate(key(1)).await.unwrap();
    let got = fresh.read(deal, &[ByteRange::new(1, 9)], Priority::Interactive, SOON).await.unwrap();
    assert_eq!(got[0], slot.bytes[1..10]);
    fresh.audit(deal, &slot.audit(), SOON).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_provider_restarts_between_all_steps() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path()).await;
    let listen: holdfast_net::Multiaddr = running.addr();
    let listen: holdfast_net::Multiaddr = listen.iter().take(2).collect();
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    let slot = Slot::new(2_000_000, 1, &key(1), running.peer());
    let deal = slot.proposal.deal_id();
    let clock: Arc<TestClock> = Arc::default();
    macro_rules! restart {
        () => {
            running.stop().await;
            running = Running::with(dir.path(), 7, listen.clone(), config(), clock.clone()).await;
        };
    }
    let answer = session.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap();
    restart!();
    assert_eq!(session.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap(), answer);
    let receipt = session.push(&slot.proposal, Arc::new(slot.bytes.clone()), |_| {}).await.unwrap();
    restart!();
    assert_eq!(session.receipt(&slot.proposal).await.unwrap(), Some(receipt.clone()));
    let got = session.read(deal, &[ByteRange::new(5, 100)], Priority::Interactive, SOON).await.unwrap();
    assert_eq!(got[0], slot.bytes[5..105]);
    session.audit(deal, &slot.audit(), SOON).await.unwrap();
    // Without its cache an audit is answered from the slot alone.
    std::fs::remove_file(dir.path().join("trees").join(deal.to_string())).unwrap();
    session.audit(deal, &slot.audit(), SOON).await.unwrap();
    std::fs::write(dir.path().join("trees").join(deal.to_string()), b"garbage").unwrap();
    session.audit(deal, &slot.audit(), SOON).await.unwrap();
    restart!();
    session.release(deal).await.unwrap();
    restart!();
    assert_eq!(
        session.receipt(&slot.proposal).await.unwrap_err().code(),
        Some(ErrorCode::Ended),
        "a release is remembered"
    );
    running.stop().await;
}

/// A source that fails at some place, as a client that is killed there.
struct Breaks {
    bytes: Bytes,
    at: u64,
}

impl PieceSource for Breaks {
    fn len(&self) -> u64 {
        PieceSource::len(&self.bytes)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        if offset + buf.len() as u64 > self.at {
            std::thread::sleep(Duration::from_millis(200));
            return Err(std::io::Error::other("broken off"));
        }
        self.bytes.read_at(offset, buf)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_push_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let first = client().await;
    let slot = Slot::new(8 << 20, 1, &key(1), running.peer());
    let session_one = session(&first, &running, &key(1)).await;
    session_one.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap();
    let breaks = Arc::new(Breaks { bytes: slot.bytes.clone(), at: 5 << 20 });
    assert!(matches!(session_one.push(&slot.proposal, breaks, |_| {}).await, Err(NetError::Local(_))));
    first.node().unwrap().shutdown().await;

    let second = client().await;
    let session_two = session(&second, &running, &key(1)).await;
    let begun = AtomicU64::new(u64::MAX);
    let note = |at: u64| {
        begun.fetch_min(at, Ordering::SeqCst);
    };
    session_two.push(&slot.proposal, Arc::new(slot.bytes.clone()), note).await.unwrap();
    let begun = begun.load(Ordering::SeqCst);
    assert!((4 << 20..=5 << 20).contains(&begun), "went on at {begun}");
    session_two.audit(slot.proposal.deal_id(), &slot.audit(), SOON).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_survives_a_restart_in_its_middle() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let listen: holdfast_net::Multiaddr = running.addr().iter().take(2).collect();
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    let slot = Slot::new(24 << 20, 1, &key(1), running.peer());
    session.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap();
    let (half, reached) = tokio::sync::oneshot::channel();
    let half = parking_lot::Mutex::new(Some(half));
    let pusher = {
        let (session, proposal, bytes) = (session.clone(), slot.proposal.clone(), slot.bytes.clone());
        tokio::spawn(async move {
            let note = |at| {
                if at > 8 << 20
                    && let Some(half) = half.lock().take()
                {
                    let _ = half.send(());
                }
            };
            session.push(&proposal, Arc::new(bytes), note).await
        })
    };
    reached.await.unwrap();
    running.stop().await;
    let running = Running::with(dir.path(), 7, listen, config(), Arc::default()).await;
    pusher.await.unwrap().unwrap();
    session.audit(slot.proposal.deal_id(), &slot.audit(), SOON).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_refused_and_the_push_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    let slot = Slot::new(1 << 20, 1, &key(1), running.peer());
    session.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap();
    let wrong = Arc::new(noise(1 << 20, 99));
    let refused = session.push(&slot.proposal, wrong, |_| {}).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::PieceMismatch));
    assert_eq!(session.receipt(&slot.proposal).await.unwrap(), None);
    // What a power cut may leave: the length is there, the bytes are not.
    let incoming = dir.path().join("incoming").join(slot.proposal.deal_id().to_string());
    std::fs::write(&incoming, vec![0; 500_000]).unwrap();
    session.push(&slot.proposal, Arc::new(slot.bytes.clone()), |_| {}).await.unwrap();
    session.audit(slot.proposal.deal_id(), &slot.audit(), SOON).await.unwrap();
    running.stop().await;
}

/// Somebody who has no bytes to send.
struct Nothing(u64);

impl PieceSource for Nothing {
    fn len(&self) -> u64 {
        self.0
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
        Err(std::io::Error::other("there is nothing here"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deal_is_renewed_without_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let client = client().await;
    let owner = session(&client, &running, &key(1)).await;
    let slot = Slot::new(1_000_001, 1, &key(1), running.peer());
    slot.store(&owner).await;
    let renewed =
        |seed, key: &_| Slot::named(slot.bytes.clone(), slot.piece, seed, key, running.peer(), 2 * 86_400);

    let second = renewed(2, &key(1));
    owner.propose(&second.proposal, second.manifest.as_bytes()).await.unwrap();
    let nothing = Arc::new(Nothing(slot.bytes.len() as u64));
    owner.push(&second.proposal, nothing.clone(), |_| {}).await.unwrap();
    owner.release(slot.proposal.deal_id()).await.unwrap();
    owner.audit(second.proposal.deal_id(), &second.audit(), SOON).await.unwrap();
    let range = [ByteRange::new(999_000, 1_001)];
    let read = owner.read(second.proposal.deal_id(), &range, Priority::Bulk, SOON).await.unwrap();
    assert_eq!(read[0], slot.bytes[999_000..]);

    // Somebody else learns nothing of what is here by naming it.
    let stranger = session(&client, &running, &key(2)).await;
    let theirs = renewed(3, &key(2));
    stranger.propose(&theirs.proposal, theirs.manifest.as_bytes()).await.unwrap();
    assert!(stranger.push(&theirs.proposal, nothing.clone(), |_| {}).await.is_err());

    // What was damaged is not renewed: its bytes are asked for.
    let path = dir.path().join("slots").join(second.proposal.deal_id().to_string());
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[500_000] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    let third = renewed(4, &key(1));
    owner.propose(&third.proposal, third.manifest.as_bytes()).await.unwrap();
    assert!(owner.push(&third.proposal, nothing, |_| {}).await.is_err());
    owner.push(&third.proposal, Arc::new(slot.bytes.clone()), |_| {}).await.unwrap();
    owner.audit(third.proposal.deal_id(), &third.audit(), SOON).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_by_audits_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    let slot = Slot::new(100_000, 1, &key(1), running.peer());
    slot.store(&session).await;
    let deal = slot.proposal.deal_id();
    let path = dir.path().join("slots").join(deal.to_string());
    let mut every = slot.bytes.to_vec();
    every.iter_mut().step_by(31).for_each(|b| *b ^= 4);
    std::fs::write(&path, &every).unwrap();
    let error = session.audit(deal, &slot.audit(), SOON).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Corrupt));
    assert!(error.is_fault_of_provider());
    std::fs::write(&path, &slot.bytes[..50_000]).unwrap();
    let error =
        session.read(deal, &[ByteRange::new(40_000, 20_000)], Priority::Bulk, SOON).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Corrupt));
    std::fs::remove_file(&path).unwrap();
    assert!(session.audit(deal, &slot.audit(), SOON).await.unwrap_err().is_fault_of_provider());
    assert_eq!(running.provider.status().audits_failed, 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_terms_and_prices_are_typed() {
    let dir = tempfile::tempdir().unwrap();
    let mut limited = config();
    limited.capacity_bytes = 1_000_000;
    limited.limits.key_bytes_max = 600_000;
    limited.limits.slot_bytes_max = 500_000;
    limited.limits.term_seconds_max = 100_000;
    limited.limits.pending_per_key_max = 2;
    let running = Running::with(dir.path(), 7, loopback(), limited.clone(), Arc::default()).await;
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    session.authenticate(key(2)).await.unwrap();
    let propose = async |slot: &Slot| {
        session.propose(&slot.proposal, slot.manifest.as_bytes()).await.map_err(|e| e.code().unwrap())
    };
    let peer = running.peer();
    assert_eq!(propose(&Slot::new(500_001, 1, &key(1), peer)).await.unwrap_err(), ErrorCode::Terms);
    assert_eq!(propose(&Slot::lasting(100, 1, &key(1), peer, 100_500)).await.unwrap_err(), ErrorCode::Terms);
    assert_eq!(propose(&Slot::lasting(100, 1, &key(1), peer, 0)).await.unwrap_err(), ErrorCode::Terms);
    propose(&Slot::new(400_000, 1, &key(1), peer)).await.unwrap();
    assert_eq!(propose(&Slot::new(400_000, 2, &key(1), peer)).await.unwrap_err(), ErrorCode::Quota);
    propose(&Slot::new(100_000, 2, &key(1), peer)).await.unwrap();
    assert_eq!(propose(&Slot::new(1_000, 3, &key(1), peer)).await.unwrap_err(), ErrorCode::Busy);
    propose(&Slot::new(400_000, 4, &key(2), peer)).await.unwrap();
    assert_eq!(propose(&Slot::new(150_000, 5, &key(2), peer)).await.unwrap_err(), ErrorCode::NoSpace);
    let elsewhere = Slot::new(1_000, 6, &key(2), client.node().unwrap().peer_id());
    assert!(propose(&elsewhere).await.is_err());
    running.stop().await;

    limited.price = vec![1, 0];
    let friends = holdfast_net::PeerSet::of_peers([client.node().unwrap().peer_id()]);
    limited.allow = holdfast_net::provider::Allow::Listed(Arc::new(friends));
    let other = tempfile::tempdir().unwrap();
    let running = Running::with(other.path(), 8, loopback(), limited, Arc::default()).await;
    let session = common::session(&client, &running, &key(1)).await;
    let slot = Slot::new(1_000, 1, &key(1), running.peer());
    let refused = session.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Price));
    let stranger = common::client().await;
    let session = common::session(&stranger, &running, &key(1)).await;
    let refused = session.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::NotAllowed));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deals_end_after_their_grace_and_no_clock_hurries_it() {
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<TestClock> = Arc::default();
    let mut short = config();
    short.limits.grace_seconds = 1_000;
    let running = Running::with(dir.path(), 7, loopback(), short.clone(), clock.clone()).await;
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    let slot = Slot::lasting(50_000, 1, &key(1), running.peer(), 10_000);
    slot.store(&session).await;
    let awaited = Slot::lasting(50_000, 2, &key(1), running.peer(), 10_000);
    session.propose(&awaited.proposal, awaited.manifest.as_bytes()).await.unwrap();
    let path = dir.path().join("slots").join(slot.proposal.deal_id().to_string());

    // A year ahead and back: what was only promised is let go, what is stored is not.
    clock.jump(365 * 86_400);
    assert_eq!(running.provider.sweep().await.unwrap(), 1);
    clock.jump_back(365 * 86_400);
    assert_eq!(running.provider.sweep().await.unwrap(), 0);
    assert!(path.exists());
    // The end comes; the grace is counted in time that the provider is up, over a restart too.
    clock.advance(10_001);
    assert_eq!(running.provider.sweep().await.unwrap(), 0);
    clock.advance(600);
    assert_eq!(running.provider.sweep().await.unwrap(), 0);
    running.stop().await;
    let running = Running::with(dir.path(), 7, loopback(), short, clock.clone()).await;
    clock.jump(365 * 86_400);
    assert_eq!(running.provider.sweep().await.unwrap(), 0);
    assert!(path.exists());
    clock.advance(600);
    assert_eq!(running.provider.sweep().await.unwrap(), 1);
    assert!(!path.exists());
    assert_eq!(running.provider.status().store.deals, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_keep_the_highest_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let client = client().await;
    let stranger = client.connect(running.peer(), vec![running.addr()]).await.unwrap();
    let name = RecordKey::new(RecordKind::Head, [5; 32]);
    let record = |n: u64, text: &str| [&n.to_be_bytes()[..], text.as_bytes()].concat();
    let refused = stranger.put_record(&name, &record(1, "a")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Unauthorized));
    assert_eq!(stranger.get_record(&name).await.unwrap(), None);

    let session = session(&client, &running, &key(1)).await;
    assert_eq!(session.put_record(&name, &record(2, "b")).await.unwrap(), PutOutcome::Stored);
    for (n, text) in [(1, "old"), (2, "same")] {
        let outcome = session.put_record(&name, &record(n, text)).await.unwrap();
        assert_eq!(outcome, PutOutcome::Superseded(Bytes::from(record(2, "b"))));
    }
    let bad = session.put_record(&name, b"short").await.unwrap_err();
    assert_eq!(bad.code(), Some(ErrorCode::BadRecord));
    let big = record(3, &"x".repeat(500 << 10));
    assert_eq!(session.put_record(&name, &big).await.unwrap(), PutOutcome::Stored);
    let keyring = RecordKey::new(RecordKind::Keyring, [5; 32]);
    assert_eq!(session.get_record(&keyring).await.unwrap(), None);
    assert!(session.put_record(&RecordKey::new(RecordKind::Head, vec![]), &record(1, "")).await.is_err());
    // A quota for each key.
    for n in 0..=255u8 {
        let other = RecordKey::new(RecordKind::Head, [n; 16]);
        match session.put_record(&other, &record(1, "")).await {
            Ok(_) => assert!(n < 255),
            Err(e) => assert!(n == 255 && e.code() == Some(ErrorCode::Quota)),
        }
    }
    // An audit countersigns the head.
    let slot = Slot::new(1_000, 1, &key(1), running.peer());
    slot.store(&session).await;
    let mut spec = slot.audit();
    spec.record = Some(name.clone());
    let audit = session.audit(slot.proposal.deal_id(), &spec, SOON).await.unwrap();
    assert_eq!(audit.record, Some(holdfast_net::wire::message::record_digest(&big)));
    running.stop().await;

    let running = Running::start(dir.path()).await;
    let stranger = client.connect_fresh(running.peer(), vec![running.addr()]).await.unwrap();
    assert_eq!(stranger.get_record(&name).await.unwrap(), Some(Bytes::from(big)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_holdings_come_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let mut many = config();
    many.limits.pending_per_key_max = 1000;
    let running = Running::with(dir.path(), 7, loopback(), many, Arc::default()).await;
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    session.authenticate(key(2)).await.unwrap();
    let mut expected = std::collections::BTreeSet::new();
    for n in 0..150u8 {
        let slot = Slot::new(200, n, &key(1 + n % 2), running.peer());
        session.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap();
        expected.insert(slot.proposal.deal_id());
    }
    for n in 0..150u8 {
        let slot = Slot::lasting(200, n, &key(1), running.peer(), 5_000);
        session.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap();
        expected.insert(slot.proposal.deal_id());
    }
    let mut found = Vec::new();
    let mut after = None;
    let mut pages = 0;
    loop {
        let page = session.holdings(after).await.unwrap();
        found.extend(page.holdings.iter().map(|h| h.proposal.deal_id()));
        pages += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    assert!(pages > 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_reads_and_fetches_are_cut_and_joined() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    let slot = Slot::new(40 << 20, 1, &key(1), running.peer());
    slot.store(&session).await;
    let deal = slot.proposal.deal_id();
    let whole = [ByteRange::new(0, 40 << 20)];
    let got = session.read(deal, &whole, Priority::Bulk, SOON).await.unwrap();
    assert_eq!(got[0], slot.bytes);
    let many: Vec<ByteRange> = (0..3000u32).map(|i| ByteRange::new(u64::from(i) * 1111, 7)).collect();
    let got = session.read(deal, &many, Priority::Interactive, SOON).await.unwrap();
    for (range, bytes) in many.iter().zip(got) {
        let from = range.offset as usize;
        assert_eq!(bytes, slot.bytes[from..from + 7]);
    }
    let fetched = parking_lot::Mutex::new(Vec::new());
    let sink = async |at: u64, bytes: Bytes| {
        let mut fetched = fetched.lock();
        assert_eq!(at, 1_000 + fetched.len() as u64);
        fetched.extend_from_slice(&bytes);
        Ok(())
    };
    session.fetch(deal, 1_000, 30 << 20, SOON, sink).await.unwrap();
    assert_eq!(*fetched.lock(), slot.bytes[1_000..1_000 + (30 << 20)]);
    let outside = session.read(deal, &[ByteRange::new(40 << 20, 1)], Priority::Bulk, SOON).await.unwrap_err();
    assert_eq!(outside.code(), Some(ErrorCode::OutOfRange));
    let empty = session.read(deal, &[ByteRange::new(0, 0)], Priority::Bulk, SOON).await.unwrap_err();
    assert!(matches!(empty, NetError::Invalid(_)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_reads_leave_the_lane_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    let slot = Slot::new(16 << 20, 1, &key(1), running.peer());
    slot.store(&session).await;
    let deal = slot.proposal.deal_id();
    for round in 0..40u64 {
        let tiny = Duration::from_millis(round % 7);
        let _ = tokio::time::timeout(
            tiny,
            session.read(deal, &[ByteRange::new(0, 16 << 20)], Priority::Bulk, SOON),
        )
        .await;
        let got = session.read(deal, &[ByteRange::new(round, 10)], Priority::Bulk, SOON).await.unwrap();
        let from = round as usize;
        assert_eq!(got[0], slot.bytes[from..from + 10]);
    }
    running.stop().await;
}
