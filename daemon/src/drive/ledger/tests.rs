#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::memory::MemoryRows as Memory;
use super::*;

fn link(chain: &ChainEnd) -> Result<(Vec<u8>, ChainEnd), String> {
    Ok((chain.length.to_be_bytes().to_vec(), ChainEnd { length: chain.length + 1, last: [1; 32] }))
}

const PIECE_A: PieceId = [7; 16];

fn holder(provider: &[u8]) -> Holder {
    Holder {
        provider: provider.to_vec(),
        deal: vec![1; 32],
        entry: 0,
        confirmed_at: 10,
        proven_at: 10,
        ends_at: 1000,
        failed: None,
    }
}

fn ledger(rows: &Arc<Memory>) -> Ledger {
    let ledger = Ledger::open(rows.clone()).unwrap();
    for p in [b"a", b"b", b"c"] {
        ledger.add_provider(p.to_vec(), vec!["/ip4/127.0.0.1/tcp/1".into()], 1).unwrap();
    }
    ledger.add_piece(PIECE_A, 100, 3).unwrap();
    ledger
}

#[test]
fn a_copy_counts_only_once_the_published_head_names_it() {
    let rows = Arc::new(Memory::default());
    let l = ledger(&rows);
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    assert_eq!(l.live_copies(&PIECE_A), 1);
    assert_eq!(l.counting(&PIECE_A), (0, None));
    l.set_published(1, BTreeSet::from([b"a".to_vec()]));
    assert_eq!(l.counting(&PIECE_A), (1, Some(10)));
    assert_eq!(l.head_copies(), 1);
}

#[test]
fn a_provider_that_stops_answering_stops_counting_at_once_and_comes_back() {
    let l = ledger(&Arc::new(Memory::default()));
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    l.set_published(1, BTreeSet::new());
    l.update_provider(&b"a".to_vec(), |p| p.state = ProviderState::Suspect { since: 5 }).unwrap();
    assert_eq!(l.counting(&PIECE_A).0, 0);
    l.update_provider(&b"a".to_vec(), |p| p.state = ProviderState::Active).unwrap();
    assert_eq!(l.counting(&PIECE_A).0, 1);
}

#[test]
fn one_provider_never_keeps_two_slots_of_a_piece() {
    let l = ledger(&Arc::new(Memory::default()));
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    let again = l.set_holder(PIECE_A, 1, holder(b"a"), link);
    assert!(matches!(again, Err(LedgerError::SameProvider(_))));
    let intent = Intent { provider: b"a".to_vec(), proposal: vec![], since: 1 };
    assert!(matches!(l.set_intent(PIECE_A, 2, Some(intent)), Err(LedgerError::SameProvider(_))));
}

#[test]
fn everything_is_there_after_a_restart() {
    let rows = Arc::new(Memory::default());
    let before = ledger(&rows);
    before.set_slot_cids(PIECE_A, vec![vec![1], vec![2], vec![3]]).unwrap();
    before.set_holder(PIECE_A, 1, holder(b"b"), link).unwrap();
    let after = Ledger::open(rows).unwrap();
    assert_eq!(after.pieces(), before.pieces());
    assert_eq!(after.providers(), before.providers());
    assert_eq!(after.chain().length, 1);
    assert_eq!(after.log_from(0).unwrap(), vec![(0, 0u64.to_be_bytes().to_vec())]);
}

#[test]
fn a_refused_row_changes_nothing_in_memory() {
    let rows = Arc::new(Memory::default());
    let l = ledger(&rows);
    rows.refuse(true);
    assert!(l.set_holder(PIECE_A, 0, holder(b"a"), link).is_err());
    assert_eq!(l.live_copies(&PIECE_A), 0);
    assert_eq!(l.chain().length, 0);
}

#[test]
fn a_verdict_about_an_older_deal_is_passed_over() {
    let l = ledger(&Arc::new(Memory::default()));
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    let verdict = |deal: u8, fault: Option<&str>| Verdict {
        piece: PIECE_A,
        slot: 0,
        deal: vec![deal; 32],
        at: 99,
        fault: fault.map(str::to_owned),
    };
    l.record_verdicts(&[verdict(2, Some("wrong bytes"))]).unwrap();
    assert_eq!(l.live_copies(&PIECE_A), 1);
    l.record_verdicts(&[verdict(1, None)]).unwrap();
    assert_eq!(l.piece(&PIECE_A).unwrap().slots[0].holder.as_ref().unwrap().proven_at, 99);
    l.record_verdicts(&[verdict(1, Some("wrong bytes"))]).unwrap();
    assert_eq!(l.live_copies(&PIECE_A), 0);
}

#[test]
fn a_damaged_row_is_an_error_and_no_panic() {
    let rows = Arc::new(Memory::default());
    drop(ledger(&rows));
    rows.commit(vec![([PIECE, &PIECE_A].concat(), Some(vec![0xff, 1, 2]))]).unwrap();
    assert!(matches!(Ledger::open(rows), Err(LedgerError::BadRow(..))));
}

#[test]
fn a_row_of_a_newer_version_is_refused_by_name() {
    let rows = Arc::new(Memory::default());
    drop(ledger(&rows));
    let newer = encode(&PieceRow { v: 2, ..PieceRow::new(10, 1) });
    rows.commit(vec![([PIECE, &PIECE_A].concat(), Some(newer))]).unwrap();
    assert!(matches!(Ledger::open(rows), Err(LedgerError::Newer { found: 2, known: 1, .. })));
}

#[test]
fn what_is_given_up_is_told_once_a_head_says_so_and_does_not_come_back() {
    let rows = Arc::new(Memory::default());
    let l = ledger(&rows);
    l.set_holder(PIECE_A, 0, holder(b"a"), link).unwrap();
    l.set_holder(PIECE_A, 1, Holder { deal: vec![2; 32], ..holder(b"b") }, link).unwrap();
    l.give_up(PIECE_A, |_, _, _, chain| link(chain)).unwrap();
    l.give_up(PIECE_A, |_, _, _, chain| link(chain)).unwrap();
    assert_eq!((l.piece(&PIECE_A), l.chain().length), (None, 4));
    // Somebody had listed the drive's pieces before.
    l.add_piece(PIECE_A, 100, 3).unwrap();
    assert_eq!(l.piece(&PIECE_A), None);
    let l = Ledger::open(rows).unwrap();
    assert_eq!((l.piece(&PIECE_A), l.releases_all().unwrap().len()), (None, 2));
    assert!(l.releases().unwrap().is_empty(), "no head says that they do not count");
    l.set_published(3, BTreeSet::new());
    let due = l.releases().unwrap();
    assert_eq!((due.len(), due[0].provider.as_slice()), (1, &b"a"[..]));
    l.released(&due[0].deal).unwrap();
    l.set_published(4, BTreeSet::new());
    assert_eq!(l.releases().unwrap().iter().map(|r| r.deal[0]).collect::<Vec<_>>(), [2]);
}
