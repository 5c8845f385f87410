//! What strangers, a damaged disk and a closing node may cause.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Running, Slot, client, config, key, loopback, session};
use holdfast_net::client::PutOutcome;
use holdfast_net::provider::Gate;
use holdfast_net::record::{RecordKey, RecordKind};
use holdfast_net::wire::CONTROL_PROTOCOL;
use holdfast_net::{ErrorCode, ProviderConfig};

fn record(number: u64, len: usize) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(len, 7);
    value
}

fn head(name: u8) -> RecordKey {
    RecordKey::new(RecordKind::Head, [name; 16])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_records_take_a_share_and_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = ProviderConfig::with_capacity(16 << 20);
    small.disk_reserve_bytes = 0;
    assert_eq!(small.records_bytes_max(), 1 << 20);
    let running = Running::with(dir.path(), 7, loopback(), small, Arc::default()).await;
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    let free = session.info().await.unwrap().free;

    // A quarter of what records may take, however many keys share it.
    assert_eq!(session.put_record(&head(1), &record(1, 200 << 10)).await.unwrap(), PutOutcome::Stored);
    let more = session.put_record(&head(2), &record(1, 100 << 10)).await.unwrap_err();
    assert_eq!(more.code(), Some(ErrorCode::Quota), "{more}");
    assert_eq!(session.info().await.unwrap().free, free - (200 << 10));

    // Who has a deal is no stranger; a newer value takes the old one's place.
    let slot = Slot::new(1_000, 1, &key(1), running.peer());
    slot.store(&session).await;
    assert_eq!(session.put_record(&head(2), &record(1, 300 << 10)).await.unwrap(), PutOutcome::Stored);
    assert_eq!(session.put_record(&head(2), &record(2, 400 << 10)).await.unwrap(), PutOutcome::Stored);
    assert_eq!(running.provider.status().store.records_bytes, 600 << 10);
    assert_eq!(session.put_record(&head(3), &record(1, 420 << 10)).await.unwrap(), PutOutcome::Stored);
    let full = session.put_record(&head(4), &record(1, 8 << 10)).await.unwrap_err();
    assert_eq!(full.code(), Some(ErrorCode::Quota), "{full}");
    // What does not grow is taken.
    assert_eq!(session.put_record(&head(2), &record(3, 400 << 10)).await.unwrap(), PutOutcome::Stored);
    running.stop().await;

    let running = Running::with(dir.path(), 7, loopback(), config(), Arc::default()).await;
    assert_eq!(running.provider.status().store.records_bytes, 1020 << 10);
    running.stop().await;
}

/// Back-pressure from what is done with slots: a new deal is refused as busy, with the reason; one that was promised before is
/// answered as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_gate_refuses_new_deals_only() {
    let dir = tempfile::tempdir().unwrap();
    let closed = Arc::new(AtomicBool::new(false));
    let mut gated = config();
    let is_closed = closed.clone();
    gated.gate = Gate::new(move |len| {
        (len <= 2_032 && is_closed.load(Ordering::SeqCst)).then(|| "sealing is behind".to_owned())
    });
    let running = Running::with(dir.path(), 7, loopback(), gated, Arc::default()).await;
    let client = client().await;
    let session = session(&client, &running, &key(1)).await;
    let [before, after] = [1, 2].map(|n| Slot::new(1_000, n, &key(1), running.peer()));
    session.propose(&before.proposal, before.manifest.as_bytes()).await.unwrap();
    closed.store(true, Ordering::SeqCst);
    let refused = session.propose(&after.proposal, after.manifest.as_bytes()).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Busy));
    assert!(refused.to_string().contains("sealing is behind"), "{refused}");
    before.store(&session).await;
    // What is not sealed is taken all the same, and the gate opens again.
    Slot::new(3_000, 3, &key(1), running.peer()).store(&session).await;
    closed.store(false, Ordering::SeqCst);
    after.store(&session).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_cannot_be_read_hide_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let client = client().await;
    let live = session(&client, &running, &key(1)).await;
    let mut deals = BTreeSet::new();
    for n in 0..200u8 {
        let slot = Slot::new(200, n, &key(1), running.peer());
        live.propose(&slot.proposal, slot.manifest.as_bytes()).await.unwrap();
        deals.insert(slot.proposal.deal_id());
    }
    // More of them than a page has, in one run; one of another kind each.
    let damaged: Vec<_> = deals.iter().copied().take(140).collect();
    for (n, id) in damaged.iter().enumerate() {
        let path = dir.path().join("deals").join(id.to_string());
        match n % 3 {
            0 => std::fs::write(&path, b"garbage").unwrap(),
            1 => std::fs::write(&path, vec![0; 8 << 20]).unwrap(),
            _ => {
                std::fs::remove_file(&path).unwrap();
                std::fs::create_dir(&path).unwrap();
            }
        }
    }
    let readable: Vec<_> = deals.iter().copied().skip(140).collect();
    let listed = async |session: &holdfast_net::Session| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = session.holdings(after).await.unwrap();
            found.extend(page.holdings.iter().map(|h| h.proposal.deal_id()));
            match page.next {
                Some(next) => after = Some(next),
                None => return found,
            }
        }
    };
    assert_eq!(listed(&live).await, readable);
    running.stop().await;

    // It starts all the same, says how many, and proves what it can.
    let running = Running::start(dir.path()).await;
    assert_eq!(running.provider.status().store.damaged_rows, damaged.len());
    let again = session(&client, &running, &key(1)).await;
    assert_eq!(listed(&again).await, readable);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closing_provider_is_never_taken_for_none() {
    let client = client().await;
    for round in 0..8u8 {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::with(dir.path(), round, loopback(), config(), Arc::default()).await;
        let (peer, addr) = (running.peer(), running.addr());
        client.connect(peer, vec![addr]).await.unwrap().info().await.unwrap();
        let mut streams = client.node().unwrap().streams();
        let knocking = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                match streams.open_stream(peer, CONTROL_PROTOCOL).await {
                    Ok(stream) => held.push(stream),
                    Err(libp2p_stream::OpenStreamError::UnsupportedProtocol(_)) => return Err(held.len()),
                    Err(_) => return Ok(()),
                }
            }
        });
        running.stop().await;
        assert_eq!(knocking.await.unwrap(), Ok(()), "told that there is no such protocol");
    }
}

/// Long requests and replies wait for each other's room, and none of them for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_requests_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let mut narrow = config();
    narrow.limits.requests_bytes_max = 1;
    narrow.limits.replies_bytes_max = 1;
    narrow.limits.proofs_bytes_max = 1;
    let running = Running::with(dir.path(), 7, loopback(), narrow, Arc::default()).await;
    let clients = [client().await, client().await];
    let mut sessions = Vec::new();
    for client in &clients {
        sessions.push(session(client, &running, &key(1)).await);
    }
    let slot = Slot::new(100_000, 1, &key(1), running.peer());
    slot.store(&sessions[0]).await;
    let deal = slot.proposal.deal_id();
    let work = (0..16u8).map(|n| {
        let (session, slot) = (&sessions[usize::from(n % 2)], &slot);
        async move {
            let value = record(1, 500 << 10);
            assert_eq!(session.put_record(&head(n), &value).await.unwrap(), PutOutcome::Stored);
            assert_eq!(session.get_record(&head(n)).await.unwrap().unwrap(), value);
            assert_eq!(session.holdings(None).await.unwrap().holdings.len(), 1);
            session.audit(deal, &slot.audit(), common::SOON).await.unwrap();
        }
    });
    futures::future::join_all(work.collect::<Vec<_>>()).await;
    running.stop().await;
}

/// A control stream on which nothing is said lives as long as the session's data streams move, and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_while_its_data_streams_move() {
    use futures::AsyncWriteExt;
    use holdfast_net::wire::message::{decode, frame_of};
    use holdfast_net::wire::{
        DATA_PROTOCOL, DataRequest, FrameKind, Lane, Reply, Request, WIRE_VERSION, read_frame, write_frame,
    };
    use holdfast_net::{ByteRange, DealId};
    use std::time::Duration;
    let dir = tempfile::tempdir().unwrap();
    let mut hasty = config();
    hasty.limits.idle_seconds = 1;
    let running = Running::with(dir.path(), 7, loopback(), hasty, Arc::default()).await;
    let client = client().await;
    client.node().unwrap().dial(running.peer(), &[running.addr()], common::SOON).await.unwrap();
    let mut streams = client.node().unwrap().streams();
    let mut control = streams.open_stream(running.peer(), CONTROL_PROTOCOL).await.unwrap();
    let hello = Request::Hello { agent: "test".into(), v: WIRE_VERSION };
    write_frame(&mut control, &frame_of(FrameKind::Request, 0, &hello)).await.unwrap();
    control.flush().await.unwrap();
    let said = decode::<Reply>(&read_frame(&mut control).await.unwrap().payload()).unwrap();
    let Reply::Hello { ticket, .. } = said else { panic!("{said:?}") };
    let mut data = streams.open_stream(running.peer(), DATA_PROTOCOL).await.unwrap();
    let attach = DataRequest::Attach { lane: Lane::Bulk, ticket };
    write_frame(&mut data, &frame_of(FrameKind::Request, 0, &attach)).await.unwrap();
    data.flush().await.unwrap();
    assert_eq!(read_frame(&mut data).await.unwrap().kind(), FrameKind::Reply);
    // Three times as long as it may be idle.
    for n in 1..=10 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let read = DataRequest::Read { deal: DealId([1; 32]), ranges: vec![ByteRange::new(0, 1)] };
        write_frame(&mut data, &frame_of(FrameKind::Request, n, &read)).await.unwrap();
        data.flush().await.unwrap();
        assert_eq!(read_frame(&mut data).await.unwrap().kind(), FrameKind::Error, "there is no such deal");
    }
    write_frame(&mut control, &frame_of(FrameKind::Request, 1, &Request::Tags {})).await.unwrap();
    control.flush().await.unwrap();
    assert_eq!(read_frame(&mut control).await.unwrap().kind(), FrameKind::Reply);
    let end = tokio::time::timeout(common::SOON, read_frame(&mut control)).await;
    assert!(end.unwrap().is_err(), "nothing moves any more");
    running.stop().await;
}
