#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use holdfast_proofs::CommpHasher;

use super::*;
use crate::deal::tests::{provider_key, signing_key};
use crate::deal::{
    AnswerBody, DEAL_SUITE, DEAL_VERSION, DealProposal, ReceiptBody, SignedAnswer, SignedReceipt,
};

const END: u64 = 2_000;
const SLOT_BYTES: usize = 300;

fn config() -> ProviderConfig {
    ProviderConfig { disk_reserve_bytes: 0, ..ProviderConfig::with_capacity(1 << 30) }
}

fn bytes(number: u8) -> Vec<u8> {
    vec![number; SLOT_BYTES]
}

fn proposal(number: u8) -> SignedProposal {
    let mut hasher = CommpHasher::new();
    hasher.update(&bytes(number));
    let proposal = DealProposal {
        version: DEAL_VERSION,
        suite: DEAL_SUITE,
        client: signing_key(1).verifying_key().to_bytes(),
        provider: provider_key(2).public().to_peer_id().to_bytes(),
        piece_cid: hasher.finish().to_cid().unwrap(),
        raw_len: SLOT_BYTES as u64,
        manifest: [3; 32],
        start: 1_000,
        end: END,
        price: vec![],
        settlement: 0,
        settlement_data: vec![],
        nonce: [number; 16],
    };
    proposal.sign(&signing_key(1)).unwrap()
}

fn take(store: &Store, number: u8) -> Outcome<DealId> {
    let proposal = proposal(number);
    let answer = AnswerBody {
        version: DEAL_VERSION,
        suite: DEAL_SUITE,
        deal: proposal.deal_id(),
        accepted_at: 1_000,
        push_until: END,
    };
    let answer = SignedAnswer::sign(answer, &provider_key(2)).unwrap().to_bytes();
    store.take(&config(), &proposal, b"manifest", answer, END).map(|_| proposal.deal_id())
}

/// A deal with its slot.
fn kept(store: &Arc<Store>, number: u8) -> DealId {
    let id = take(store, number).unwrap();
    let sign = |entry: &Entry| {
        let body = ReceiptBody {
            version: DEAL_VERSION,
            suite: DEAL_SUITE,
            deal: id,
            piece_cid: entry.piece.to_cid().unwrap(),
            raw_len: entry.raw_len,
            client: entry.client,
            provider: provider_key(2).public().to_peer_id().to_bytes(),
            stored_at: 1_000,
        };
        SignedReceipt::sign(body, &provider_key(2))
    };
    let Begin::Receive(mut incoming) = store.begin(&id, &sign).unwrap() else { panic!("stored already") };
    incoming.write(&bytes(number)).unwrap();
    incoming.finish(&sign).unwrap();
    id
}

#[test]
fn a_deal_that_cannot_be_freed_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), Steps::default()).unwrap());
    let deals: Vec<DealId> = (1..=4).map(|number| kept(&store, number)).collect();
    std::fs::write(store.deals.join(deals[1].to_string()), b"garbage").unwrap();
    assert_eq!(store.sweep(&config(), END + 1, 10), 0, "the grace begins");
    let later = 10 + config().limits.grace_seconds;
    assert_eq!(store.sweep(&config(), END + 1, later), 3);
    assert_eq!(store.usage().deals, 1);
    assert!(store.slots.join(deals[1].to_string()).exists(), "nothing is deleted on a damaged row's word");
    assert_eq!(store.sweep(&config(), END + 1, later), 0);
}

#[test]
fn a_full_disk_can_be_freed() {
    let dir = tempfile::tempdir().unwrap();
    let (ballast, full) = (dir.path().join("ballast"), Arc::new(AtomicBool::new(false)));
    let hook = {
        let (ballast, full) = (ballast.clone(), full.clone());
        move |step: &'static str| -> std::io::Result<()> {
            let refused = step == "row.write" && full.load(Ordering::SeqCst) && ballast.exists();
            if refused { Err(std::io::Error::from(ErrorKind::StorageFull)) } else { Ok(()) }
        }
    };
    let store = Arc::new(Store::open(dir.path(), Steps { hook: Some(Arc::new(hook)) }).unwrap());
    let id = kept(&store, 1);
    let slot = store.slots.join(id.to_string());
    assert!(ballast.exists() && slot.exists());
    full.store(true, Ordering::SeqCst);
    let refused = take(&store, 2).unwrap_err();
    assert_eq!(refused.code, ErrorCode::NoSpace.number());
    assert!(ballast.exists(), "it is for what frees room alone");
    store.release(&id).unwrap();
    assert!(!ballast.exists() && !slot.exists());
    full.store(false, Ordering::SeqCst);
    store.sweep(&config(), 0, 0);
    assert!(ballast.exists(), "it is there for the next time");
}

#[test]
fn what_lies_beside_the_slots_counts() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Steps::default()).unwrap();
    let config = ProviderConfig { disk_reserve_bytes: 0, ..ProviderConfig::with_capacity(1 << 20) };
    assert_eq!(store.room(&config), 1 << 20);
    store.beside.store(1 << 19, Ordering::Relaxed);
    assert_eq!(store.room(&config), 1 << 19);
    store.beside.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(store.room(&config), 0);
}

/// Whoever asks how things stand does not wait for a record's sync.
#[test]
fn a_put_under_way_holds_up_nobody_who_looks() {
    use crate::record::{NumberedRecords, RecordKey, RecordKind};
    use std::sync::mpsc;
    use std::time::Duration;
    let dir = tempfile::tempdir().unwrap();
    let (go_on, wait) = mpsc::channel::<()>();
    let (told, begun) = mpsc::channel::<()>();
    let (wait, told) = (Mutex::new(wait), Mutex::new(told));
    let hook = move |step: &'static str| -> std::io::Result<()> {
        if step == "record.before" {
            told.lock().send(()).unwrap();
            wait.lock().recv().unwrap();
        }
        Ok(())
    };
    let store = Arc::new(Store::open(dir.path(), Steps { hook: Some(Arc::new(hook)) }).unwrap());
    let putting = {
        let store = store.clone();
        std::thread::spawn(move || {
            let key = RecordKey::new(RecordKind::Head, [1; 16]);
            let bounds = RecordBounds::of(&config(), false);
            let value = 1u64.to_be_bytes().to_vec();
            store.records.put(&NumberedRecords, &bounds, &key, value, [1; 32]).unwrap()
        })
    };
    begun.recv_timeout(Duration::from_secs(20)).unwrap();
    let (looked, seen) = mpsc::channel();
    let looking = store.clone();
    std::thread::spawn(move || looked.send((looking.usage().records_bytes, looking.records.len())));
    assert_eq!(seen.recv_timeout(Duration::from_secs(20)), Ok((0, 0)));
    go_on.send(()).unwrap();
    assert_eq!(putting.join().unwrap(), None);
    assert_eq!(store.usage().records_bytes, 8);
}

#[test]
fn what_is_damaged_stays_so_over_a_restart_and_goes_with_its_deal() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Arc::new(Store::open(dir.path(), Steps::default()).unwrap());
    let store = open();
    let mut ids: Vec<DealId> = (1..=3).map(|number| kept(&store, number)).collect();
    ids.sort_unstable();
    let [first, second, third] = ids[..] else { panic!("three") };
    take(&store, 4).unwrap();
    assert_eq!(store.to_scrub(None), ids, "what is only promised is not there to be read");
    assert_eq!(store.to_scrub(Some(first)), [second, third]);
    assert!(store.mark(&second, true).unwrap() && !store.mark(&second, true).unwrap());
    assert!(store.mark(&third, true).unwrap() && store.mark(&third, false).unwrap());
    let mut progress = Progress::begin(77);
    progress.after = Some(first.0.into());
    store.set_progress(&progress).unwrap();
    drop(store);
    let store = open();
    assert_eq!(store.usage().slots_damaged, 1);
    assert!(store.entry(&second).unwrap().damaged && !store.entry(&third).unwrap().damaged);
    assert_eq!(store.progress(), Some(progress));
    store.release(&second).unwrap();
    assert_eq!(store.usage().slots_damaged, 0);
    assert!(!store.mark(&second, true).unwrap(), "nothing is said of what is not kept");
    assert_eq!(std::fs::read_dir(dir.path().join("damaged")).unwrap().count(), 0);
    // A mark that a crash left behind its deal.
    std::fs::write(dir.path().join("damaged").join(second.to_string()), b"").unwrap();
    std::fs::write(dir.path().join("scrub"), b"odd").unwrap();
    drop(store);
    let store = open();
    assert_eq!((store.usage().slots_damaged, store.progress()), (0, None));
    assert_eq!(std::fs::read_dir(dir.path().join("damaged")).unwrap().count(), 0);
}

#[test]
fn a_slot_is_read_to_its_last_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), Steps::default()).unwrap());
    let id = kept(&store, 1);
    let path = dir.path().join("slots").join(id.to_string());
    let read = || {
        let (mut reading, mut parts) = (store.begin_reading(&id)?, 0);
        loop {
            parts += 1;
            match reading.more(&mut [0; 128]) {
                Part::More(rest, bytes) => {
                    assert_eq!(bytes, 128);
                    reading = rest;
                }
                Part::Whole(right, _) => return Some((right, parts)),
                Part::Nothing => return None,
            }
        }
    };
    assert_eq!(read(), Some((true, 3)));
    let mut other = bytes(1);
    other[SLOT_BYTES - 1] ^= 1;
    std::fs::write(&path, &other).unwrap();
    assert_eq!(read(), Some((false, 3)));
    std::fs::write(&path, &bytes(1)[1..]).unwrap();
    assert_eq!(read(), Some((false, 3)), "a shorter one");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(read(), None, "one that is gone is refused as it is");
}
