//! What a disk damages is known before anybody asks for it.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Running, SOON, Slot, client, config, key, loopback, session};
use holdfast_net::client::Priority;
use holdfast_net::{ByteRange, DealId, ErrorCode};

const PATIENCE: Duration = Duration::from_secs(60);

async fn started(dir: &Path, scrub_seconds: u64) -> Running {
    let mut config = config();
    config.limits.scrub_seconds = scrub_seconds;
    Running::with(dir, 7, loopback(), config, Arc::default()).await
}

async fn damaged(running: &Running, count: usize) {
    let seen = async {
        while running.provider.status().store.slots_damaged != count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the scrub sees it");
}

fn turn_a_bit(dir: &Path, deal: &DealId) {
    let path = dir.join("slots").join(deal.to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2_000_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_turned_bit_is_found_told_and_remembered_until_it_is_right_again() {
    let dir = tempfile::tempdir().unwrap();
    let running = started(dir.path(), 1).await;
    let client = client().await;
    let owner = session(&client, &running, &key(1)).await;
    let slots = [1, 2].map(|seed| Slot::new(3_000_001, seed, &key(1), running.peer()));
    for slot in &slots {
        slot.store(&owner).await;
    }
    let [bad, good] = slots.each_ref().map(|slot| slot.proposal.deal_id());
    damaged(&running, 0).await;
    turn_a_bit(dir.path(), &bad);
    damaged(&running, 1).await;
    let refused = owner.audit(bad, &slots[0].audit(), SOON).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Corrupt));
    owner.audit(good, &slots[1].audit(), SOON).await.unwrap();
    let range = [ByteRange::new(2_500_000, 1_000)];
    let read = owner.read(bad, &range, Priority::Bulk, SOON).await.unwrap();
    assert_eq!(read[0], slots[0].bytes[2_500_000..2_501_000], "what is right may be the last there is");
    running.stop().await;

    let running = started(dir.path(), 0).await;
    let owner = session(&client, &running, &key(1)).await;
    let refused = owner.audit(bad, &slots[0].audit(), SOON).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Corrupt), "known without reading it again");
    running.stop().await;

    turn_a_bit(dir.path(), &bad);
    let running = started(dir.path(), 1).await;
    let owner = session(&client, &running, &key(1)).await;
    damaged(&running, 0).await;
    owner.audit(bad, &slots[0].audit(), SOON).await.unwrap();
    running.stop().await;
}
