//! Terms over the wire: granted once, kept over restarts, refused with what shows why.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Running, client, config, key, loopback, session};
use holdfast_net::client::{PutOutcome, Said};
use holdfast_net::record::{RecordKey, RecordKind};
use holdfast_net::term::{Anchors, Certificate, Outcome, Round, SignedClaim, Standing};
use holdfast_net::wire::message::record_digest;
use holdfast_net::{ErrorCode, SigningKey};

fn head_name(head: &SigningKey) -> RecordKey {
    RecordKey::new(RecordKind::Head, head.verifying_key().to_bytes())
}

/// As the rules of these tests have it.
fn head(term: u64, sequence: u32, writer: &SigningKey) -> Vec<u8> {
    let mut bytes = (term << 32 | u64::from(sequence)).to_be_bytes().to_vec();
    bytes.extend_from_slice(writer.verifying_key().as_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_is_granted_once_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let (drive, ours, theirs) = (key(21), key(22), key(23));
    let claim = |term, writer: &SigningKey| SignedClaim::sign(term, &drive, writer);
    let running = Running::start(dir.path()).await;
    let client_one = client().await;
    let mine = session(&client_one, &running, &key(1)).await;
    let first = mine.claim(&claim(1, &ours), None).await.unwrap();
    let Said::Granted(grant) = &first.said else { panic!("{first:?}") };
    assert_eq!((grant.anchor(), &first.head), (&running.peer().to_bytes()[..], &None));
    // The same machine may ask again; another one is shown who has it.
    assert_eq!(mine.claim(&claim(1, &ours), None).await.unwrap(), first);
    let refused = mine.claim(&claim(1, &theirs), None).await.unwrap();
    assert_eq!(refused.said, Said::Taken(*claim(1, &ours).claim()));

    // The provider restarts; what it said stands.
    let (addr, peer) = (running.addr(), running.peer());
    running.stop().await;
    let running = Running::with(dir.path(), 7, addr, config(), Arc::default()).await;
    assert_eq!(running.peer(), peer);
    let client_two = client().await;
    let mine = session(&client_two, &running, &key(1)).await;
    assert_eq!(mine.claim(&claim(1, &theirs), None).await.unwrap().said, refused.said);
    assert_eq!(mine.claim(&claim(1, &ours), None).await.unwrap(), first);

    // With a head the answer shows it, unless it is known.
    let kept = head(1, 5, &ours);
    assert_eq!(mine.put_record(&head_name(&drive), &kept).await.unwrap(), PutOutcome::Stored);
    let next = mine.claim(&claim(2, &theirs), None).await.unwrap();
    assert!(matches!(next.said, Said::Granted(_)));
    assert_eq!(next.head.as_deref(), Some(&kept[..]));
    let known = mine.claim(&claim(2, &theirs), Some(record_digest(&kept))).await.unwrap();
    assert_eq!((known.said, known.head), (next.said, None));

    // Who granted a term takes no head of a lower one, whatever its sequence.
    let late = mine.put_record(&head_name(&drive), &head(1, 6, &ours)).await.unwrap_err();
    assert_eq!(late.code(), Some(ErrorCode::Overtaken));
    let theirs_now = head(2, 1, &theirs);
    assert_eq!(mine.put_record(&head_name(&drive), &theirs_now).await.unwrap(), PutOutcome::Stored);
    let passed = mine.claim(&claim(2, &ours), None).await.unwrap();
    assert!(matches!(passed.said, Said::Taken(other) if other == *claim(2, &theirs).claim()));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_claims_but_who_has_the_drives_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mut limits = config();
    limits.limits.records_per_key_max = 2;
    let running = Running::with(dir.path(), 7, loopback(), limits, Arc::default()).await;
    let client = client().await;
    let stranger = client.connect(running.peer(), vec![running.addr()]).await.unwrap();
    let claim = SignedClaim::sign(u64::MAX, &key(21), &key(22));
    // Without a proven key nothing is written.
    let error = stranger.claim(&claim, None).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Unauthorized));
    let mine = session(&client, &running, &key(1)).await;
    // A claim is no record that may be put, neither whole nor damaged.
    let name = RecordKey::new(RecordKind::Claim, key(21).verifying_key().to_bytes());
    for value in [claim.bytes(), b"anything"] {
        let error = mine.put_record(&name, value).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::BadRecord));
    }
    // The bounds of records hold for claims.
    for drive in [31, 32] {
        let said = mine.claim(&SignedClaim::sign(1, &key(drive), &key(22)), None).await.unwrap().said;
        assert!(matches!(said, Said::Granted(_)));
    }
    let error = mine.claim(&SignedClaim::sign(1, &key(33), &key(22)), None).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Quota));
    // Anybody may read what was granted.
    let name = RecordKey::new(RecordKind::Claim, key(31).verifying_key().to_bytes());
    let read = stranger.get_record(&name).await.unwrap().unwrap();
    assert_eq!(SignedClaim::from_bytes(&read).unwrap().claim().term, 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_claim_grants_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let client = client().await;
    let mine = session(&client, &running, &key(1)).await;
    mine.claim(&SignedClaim::sign(4, &key(21), &key(22)), None).await.unwrap();
    let file = std::fs::read_dir(dir.path().join("records")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() - 20;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    for (term, writer) in [(4, 22), (5, 23)] {
        let error = mine.claim(&SignedClaim::sign(term, &key(21), &key(writer)), None).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Storage), "it may have granted this one");
    }
    let error = mine.put_record(&head_name(&key(21)), &head(4, 1, &key(22))).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Storage));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_of_a_majority_are_a_standing_that_anybody_can_check() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut all = Vec::new();
    for (dir, seed) in dirs.iter().zip(7..) {
        all.push(Running::with(dir.path(), seed, loopback(), config(), Arc::default()).await);
    }
    let client = client().await;
    let anchors = Anchors::new(all.iter().map(|r| r.peer().to_bytes()), []).unwrap();
    let claim = SignedClaim::sign(1, &key(21), &key(22));
    let mut round = Round::new(*claim.claim(), anchors.clone());
    for running in &all[..2] {
        assert_eq!(round.outcome(), Outcome::TooFew);
        let said = session(&client, running, &key(1)).await.claim(&claim, None).await.unwrap().said;
        let Said::Granted(grant) = said else { panic!("{said:?}") };
        round.granted(grant);
    }
    let Outcome::Held(certificate) = round.outcome() else { panic!("{:?}", round.outcome()) };
    let standing = Standing { certificate, anchors };
    let decoded = Standing::decode(&standing.encode()).unwrap();
    assert_eq!(decoded, standing);
    let again: &Certificate = &decoded.certificate;
    assert_eq!((again.claim(), again.granted_by().count()), (claim.claim(), 2));
    for running in all {
        running.stop().await;
    }
}
