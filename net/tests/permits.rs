//! What a permit lets its holder do at a provider, and what not.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Running, SOON, Slot, client, key, session};
use holdfast_net::client::{Priority, PutOutcome};
use holdfast_net::env::{Clock as _, SystemClock};
use holdfast_net::permit::{
    PERMIT_SUITE, PERMIT_VERSION, PERMIT_VERSION_RANGES, PermitBody, PermitDeal, Place, Revocations,
};
use holdfast_net::{
    ByteRange, DealProposal, ErrorCode, NetError, PeerId, Session, SignedPermit, SignedProposal, SigningKey,
};
use serde_bytes::{ByteArray, ByteBuf};

const OWNER: u8 = 1;
const WATCHER: u8 = 2;
const LEN: usize = 100_000;

fn public(seed: u8) -> [u8; 32] {
    key(seed).verifying_key().to_bytes()
}

fn body(place: Option<Place>) -> PermitBody {
    PermitBody {
        client: public(OWNER),
        deals: None,
        holder: public(WATCHER),
        place,
        provider: None,
        suite: PERMIT_SUITE,
        until: SystemClock::new().unix_seconds() + 1_000,
        v: PERMIT_VERSION,
    }
}

fn permit(place: Option<Place>) -> SignedPermit {
    body(place).sign(&key(OWNER)).unwrap()
}

const ROOM: Place = Place { bytes: 3 * LEN as u64, daily: 3 * LEN as u64, term: 90_000 };

/// A slot, proposed in the owner's name by the watcher.
fn proposed(slot: &Slot, permit: SignedPermit, by: &SigningKey) -> SignedProposal {
    let body = DealProposal { client: public(OWNER), ..slot.proposal.proposal().clone() };
    body.sign_by(permit, by).unwrap()
}

fn slot(seed: u8, provider: PeerId) -> Slot {
    Slot::new(LEN, seed, &key(WATCHER), provider)
}

fn code<T: std::fmt::Debug>(result: Result<T, NetError>) -> ErrorCode {
    result.unwrap_err().code().unwrap()
}

async fn read(session: &Session, slot: &Slot) -> Result<Vec<bytes::Bytes>, NetError> {
    let deal = slot.proposal.deal_id();
    session.read(deal, &[ByteRange::new(7, 100)], Priority::Interactive, SOON).await
}

#[tokio::test]
async fn its_holder_reads_and_proves_and_neither_deletes_nor_lists() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let net = client().await;
    let kept = Slot::new(LEN, 5, &key(OWNER), running.peer());
    let owner = session(&net, &running, &key(OWNER)).await;
    kept.store(&owner).await;

    let other = client().await;
    let watcher = session(&other, &running, &key(WATCHER)).await;
    assert_eq!(
        code(read(&watcher, &kept).await),
        ErrorCode::NotFound,
        "without a permit it is not even there"
    );
    let here = PermitBody { provider: Some(ByteBuf::from(running.peer().to_bytes())), ..body(None) };
    watcher.present(here.sign(&key(OWNER)).unwrap()).await.unwrap();
    assert_eq!(read(&watcher, &kept).await.unwrap()[0], kept.bytes.slice(7..107));
    watcher.audit(kept.proposal.deal_id(), &kept.audit(), SOON).await.unwrap();
    assert_eq!(code(watcher.release(kept.proposal.deal_id()).await), ErrorCode::NotFound);
    assert!(watcher.holdings(None).await.unwrap().holdings.is_empty());
    // A permit to read is none to place, also not with a permit that says so of another client.
    let new = slot(6, running.peer());
    let by = permit(Some(ROOM));
    let stolen = DealProposal { client: public(OWNER), ..new.proposal.proposal().clone() };
    assert!(stolen.clone().sign_by(permit(None), &key(WATCHER)).is_err());
    assert!(stolen.sign_by(by, &key(9)).is_err(), "signed by another than the holder");
    // The link breaks: it is shown again.
    watcher.close().await;
    read(&watcher, &kept).await.unwrap();
    drop(owner);
    running.stop().await;
}

#[tokio::test]
async fn permits_of_others_for_others_and_after_their_time_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let net = client().await;
    let kept = Slot::new(LEN, 5, &key(OWNER), running.peer());
    kept.store(&session(&net, &running, &key(OWNER)).await).await;
    let other = client().await;
    let watcher = session(&other, &running, &key(WATCHER)).await;
    let somewhere = holdfast_net::identity::keypair([9; 32]).unwrap().public().to_peer_id().to_bytes();
    let wrong = [
        PermitBody { provider: Some(ByteBuf::from(somewhere)), ..body(None) },
        PermitBody { holder: public(3), ..body(None) },
        PermitBody { until: 1_000, ..body(None) },
    ];
    for body in wrong {
        let refused = watcher.present(body.sign(&key(OWNER)).unwrap()).await;
        assert_eq!(code(refused), ErrorCode::Unauthorized);
    }
    // One that the watcher signed for itself is good for nobody's deals but its own.
    let own = PermitBody { client: public(3), ..body(None) };
    watcher.present(own.sign(&key(3)).unwrap()).await.unwrap();
    assert_eq!(code(read(&watcher, &kept).await), ErrorCode::NotFound);
    watcher.present(permit(None)).await.unwrap();
    read(&watcher, &kept).await.unwrap();
    running.clock.jump(2_000);
    assert_eq!(code(read(&watcher, &kept).await), ErrorCode::NotFound, "it ended in the middle of a session");
    running.stop().await;
}

#[tokio::test]
async fn deals_by_permit_are_the_clients_and_stay_within_their_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let net = client().await;
    let watcher = session(&net, &running, &key(WATCHER)).await;
    let by = permit(Some(ROOM));
    let place = async |slot: &Slot| {
        let signed = proposed(slot, by.clone(), &key(WATCHER));
        watcher.propose(&signed, slot.manifest.as_bytes()).await?;
        watcher.push(&signed, Arc::new(slot.bytes.clone()), |_| {}).await?;
        Ok::<_, NetError>(signed)
    };
    let first = slot(5, running.peer());
    let signed = proposed(&first, by.clone(), &key(WATCHER));
    watcher.propose(&signed, first.manifest.as_bytes()).await.unwrap();
    let pushed = watcher.push(&signed, Arc::new(first.bytes.clone()), |_| {}).await;
    assert_eq!(code(pushed), ErrorCode::NotFound, "a deal by permit is filled with the permit shown");
    watcher.present(by.clone()).await.unwrap();
    let signed = place(&first).await.unwrap();
    assert_eq!(
        code(watcher.release(signed.deal_id()).await),
        ErrorCode::NotFound,
        "it cannot take it away again"
    );

    // The same slot once more, by whoever: it is there already.
    let again = Slot::new(LEN, 5, &key(WATCHER), running.peer());
    let mut twice = again.proposal.proposal().clone();
    (twice.client, twice.nonce) = (public(OWNER), [99; 16]);
    let twice = twice.sign_by(by.clone(), &key(WATCHER)).unwrap();
    assert_eq!(code(watcher.propose(&twice, again.manifest.as_bytes()).await), ErrorCode::Busy);

    place(&slot(6, running.peer())).await.unwrap();
    let third = slot(7, running.peer());
    let kept = place(&third).await.unwrap().deal_id();
    assert_eq!(code(place(&slot(8, running.peer())).await), ErrorCode::Quota);
    // A longer deal than the permit allows is no proposal at all.
    let long = Slot::lasting(LEN, 9, &key(WATCHER), running.peer(), 100_000);
    let long = DealProposal { client: public(OWNER), ..long.proposal.proposal().clone() };
    assert!(long.sign_by(by.clone(), &key(WATCHER)).is_err());

    // The client owns them: it reads, gives up, and has the room again, but not within the same day.
    let other = client().await;
    let owner = session(&other, &running, &key(OWNER)).await;
    assert_eq!(owner.holdings(None).await.unwrap().holdings.len(), 3);
    owner.release(signed.deal_id()).await.unwrap();
    assert_eq!(code(place(&slot(8, running.peer())).await), ErrorCode::Quota);
    // Everything survives a restart of the provider.
    running.stop().await;
    let running = Running::start(dir.path()).await;
    let watcher = session(&client().await, &running, &key(WATCHER)).await;
    watcher.present(by).await.unwrap();
    watcher.audit(kept, &third.audit(), SOON).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn what_was_taken_back_counts_no_more_in_sessions_under_way_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let net = client().await;
    let kept = Slot::new(LEN, 5, &key(OWNER), running.peer());
    let owner = session(&net, &running, &key(OWNER)).await;
    kept.store(&owner).await;
    let other = client().await;
    let watcher = session(&other, &running, &key(WATCHER)).await;
    let by = permit(Some(ROOM));
    watcher.present(by.clone()).await.unwrap();
    read(&watcher, &kept).await.unwrap();

    // The rules of this provider's records order by the number in front: a list of this client's, as its owner would leave it.
    let list = Revocations::new(public(OWNER), [public(WATCHER)], 1).sign(&key(OWNER)).unwrap();
    let put = owner.put_record(&Revocations::key(&public(OWNER)), &list).await.unwrap();
    assert_eq!(put, PutOutcome::Stored);
    assert_eq!(code(read(&watcher, &kept).await), ErrorCode::NotFound);
    assert_eq!(code(watcher.present(by.clone()).await), ErrorCode::Unauthorized);
    let new = slot(6, running.peer());
    let signed = proposed(&new, by, &key(WATCHER));
    assert_eq!(code(watcher.propose(&signed, new.manifest.as_bytes()).await), ErrorCode::Unauthorized);
    // It still may do what is its own.
    let own = slot(7, running.peer());
    own.store(&watcher).await;
    running.stop().await;
}

#[tokio::test]
async fn a_permit_for_ranges_reads_these_and_does_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path()).await;
    let net = client().await;
    let owner = session(&net, &running, &key(OWNER)).await;
    let (named, other) = (slot_of(OWNER, 5, running.peer()), slot_of(OWNER, 6, running.peer()));
    named.store(&owner).await;
    other.store(&owner).await;
    let deal = named.proposal.deal_id();
    let ranges = vec![(100, 50), (LEN as u64 - 10, 10)];
    let some = |deal: [u8; 32], ranges: Vec<(u64, u64)>| PermitBody {
        deals: Some(vec![PermitDeal { deal: ByteArray::new(deal), ranges }]),
        v: PERMIT_VERSION_RANGES,
        ..body(None)
    };

    let strangers = client().await;
    let reader = session(&strangers, &running, &key(WATCHER)).await;
    reader.present(some(deal.0, ranges).sign(&key(OWNER)).unwrap()).await.unwrap();
    let read = async |slot: &Slot, ranges: &[(u64, u32)]| {
        let ranges: Vec<ByteRange> = ranges.iter().map(|(from, len)| ByteRange::new(*from, *len)).collect();
        reader.read(slot.proposal.deal_id(), &ranges, Priority::Interactive, SOON).await
    };
    let bytes = read(&named, &[(100, 50), (LEN as u64 - 10, 10)]).await.unwrap();
    assert_eq!((&bytes[0], &bytes[1]), (&named.bytes.slice(100..150), &named.bytes.slice(LEN - 10..)));
    for outside in [(99, 2), (149, 2), (0, 1), (100, 51)] {
        assert_eq!(code(read(&named, &[(100, 50), outside]).await), ErrorCode::Unauthorized, "{outside:?}");
    }
    assert_eq!(code(read(&other, &[(100, 50)]).await), ErrorCode::NotFound, "a deal that it does not name");
    assert_eq!(code(reader.audit(deal, &named.audit(), SOON).await), ErrorCode::NotFound);
    assert_eq!(code(reader.receipt(&named.proposal).await), ErrorCode::NotFound);
    assert_eq!(code(reader.release(deal).await), ErrorCode::NotFound);
    reader.present(some([7; 32], vec![(0, 10)]).sign(&key(OWNER)).unwrap()).await.unwrap();
    assert_eq!(code(read(&named, &[(100, 50)]).await), ErrorCode::NotFound, "a newer permit takes its place");
    // Taken back.
    reader.present(some(deal.0, vec![(0, 10)]).sign(&key(OWNER)).unwrap()).await.unwrap();
    read(&named, &[(0, 10)]).await.unwrap();
    let list = Revocations::new(public(OWNER), [public(WATCHER)], 1).sign(&key(OWNER)).unwrap();
    owner.put_record(&Revocations::key(&public(OWNER)), &list).await.unwrap();
    assert_eq!(code(read(&named, &[(0, 10)]).await), ErrorCode::NotFound);
    running.stop().await;
}

fn slot_of(owner: u8, seed: u8, provider: PeerId) -> Slot {
    Slot::new(LEN, seed, &key(owner), provider)
}
