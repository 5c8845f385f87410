//! Claims to real providers in this process: honest ones, one with two faces, some that are gone.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use holdfast_content::head::{HeadRecord, ProviderAddresses};
use holdfast_net::client::PutOutcome;
use holdfast_net::term::Standing;

use serde_bytes::ByteBuf;

use super::*;
use crate::drive::term::base_of;
use crate::records::head_key;
use crate::restore::tests::keeper::Keeper;
use crate::restore::tests::{empty_head, keys};

const UNTIL: u64 = 4_000_000_000;
const SHORT: Duration = Duration::from_secs(5);

fn writer(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn peer(keeper: &Keeper) -> Peer {
    keeper.node.peer_id().to_bytes()
}

fn anchors(now: &[&Keeper], former: &[&Keeper]) -> Anchors {
    Anchors::new(now.iter().map(|k| peer(k)), former.iter().map(|k| peer(k))).unwrap()
}

/// Claims by `writer`, who reaches only `reach`.
async fn claim(writer: &SigningKey, base: &Base, reach: &[&Keeper]) -> Claimed {
    claim_as(writer, base, reach, false).await
}

async fn claim_as(writer: &SigningKey, base: &Base, reach: &[&Keeper], force: bool) -> Claimed {
    let (keys, env) = (keys(), Env::system());
    let mut sessions = BTreeMap::new();
    for keeper in reach {
        sessions.insert(peer(keeper), keeper.session().await);
    }
    let claimant = Claimant { keys: &keys, writer, env: &env, patience: SHORT, force };
    let session = |peer: Peer| {
        let session = sessions.get(&peer).cloned();
        async move { session.ok_or_else(|| NetError::Unreachable("out of reach".into())) }
    };
    claimant.claim(base, session).await
}

fn held(claimed: Claimed) -> Certificate {
    match claimed {
        Claimed::Held(certificate) => certificate,
        other => panic!("{other:?}"),
    }
}

fn head(sequence: u64, standing: &Standing, writer: &SigningKey) -> HeadValue {
    let mut body = empty_head();
    body.sequence = sequence;
    let sealed = body.seal(&keys()).unwrap();
    let term = standing.certificate.claim().term;
    let digest = Some(Standing::digest(&standing.encode()));
    let record =
        HeadRecord::sign(sealed.cid(), sequence, term, digest, UNTIL, keys().head_signing()).unwrap();
    HeadValue::sign(record, standing, writer, sealed.bytes().to_vec()).unwrap()
}

async fn put(keeper: &Keeper, head: &HeadValue) -> Result<PutOutcome, NetError> {
    let name = head_key(&keys().head_signing().verifying_key().to_bytes());
    keeper.session().await.put_record(&name, &head.encode().unwrap()).await
}

async fn start(count: usize) -> Vec<Keeper> {
    let mut keepers = Vec::new();
    for _ in 0..count {
        keepers.push(Keeper::start(true, &[]).await);
    }
    keepers
}

async fn stop(keepers: Vec<Keeper>) {
    for keeper in keepers {
        keeper.stop().await;
    }
}

fn fresh(all: &[&Keeper]) -> Base {
    Base { head: None, term: 0, anchors: anchors(all, &[]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_at_once_get_two_terms() {
    let keepers = start(4).await;
    let all: Vec<&Keeper> = keepers.iter().collect();
    let base = fresh(&all);
    let (ours, theirs) = (writer(1), writer(2));
    let (one, two) = tokio::join!(claim(&ours, &base, &all), claim(&theirs, &base, &all));
    let (one, two) = (held(one), held(two));
    assert_ne!(one.claim().term, two.claim().term);
    let (low, high) = if one.claim().term < two.claim().term { (one, two) } else { (two, one) };
    let by = |certificate: &Certificate| {
        if certificate.claim().writer == ours.verifying_key().to_bytes() {
            ours.clone()
        } else {
            theirs.clone()
        }
    };
    let of = |certificate: Certificate| {
        let writer = by(&certificate);
        let standing = Standing { certificate, anchors: base.anchors.clone() };
        (head(1, &standing, &writer), writer)
    };
    // The lower one is told of the higher before that has written a byte.
    let (lower, writer) = of(low);
    let error = put(all[0], &lower).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Overtaken));
    let again = SignedClaim::sign(lower.record().term(), keys().head_signing(), &writer);
    let said = all[0].session().await.claim(&again, None).await.unwrap().said;
    assert!(matches!(said, Said::Taken(other) if other == *high.claim()), "{said:?}");
    let (higher, _) = of(high);
    assert_eq!(put(all[0], &higher).await.unwrap(), PutOutcome::Stored);
    stop(keepers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_claims_is_shown_what_a_majority_keeps() {
    let keepers = start(5).await;
    let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|n| &keepers[n]);
    let old = writer(1);
    let first = held(claim(&old, &fresh(&[a, b, c]), &[a, b, c]).await);
    let before = Standing { certificate: first.clone(), anchors: anchors(&[a, b, c], &[]) };
    let known = head(1, &before, &old);
    // The anchors were changed since; c has missed it, and a has retired.
    let changing = Standing { anchors: anchors(&[c, d, e], &[a, b, c]), ..before.clone() };
    let changed = Standing { anchors: anchors(&[c, d, e], &[]), ..before };
    let (second, third) = (head(2, &changing, &old), head(3, &changed, &old));
    for keeper in [a, b, d, e] {
        assert_eq!(put(keeper, &second).await.unwrap(), PutOutcome::Stored);
    }
    for keeper in [d, e] {
        assert_eq!(put(keeper, &third).await.unwrap(), PutOutcome::Stored);
    }
    let base = |head: &HeadValue| Base {
        head: Some(head.encode().unwrap()),
        term: head.record().term(),
        anchors: head.standing().unwrap().anchors.clone(),
    };
    let new = writer(2);
    let Claimed::Newer(shown) = claim(&new, &base(&known), &[a, b, c]).await else { panic!("not shown") };
    assert_eq!(*shown, second);
    let Claimed::Newer(shown) = claim(&new, &base(&shown), &[a, b, c, d]).await else { panic!("not shown") };
    assert_eq!(*shown, third);
    // Retired ones have no vote.
    let few = claim(&new, &base(&third), &[a, b, c]).await;
    assert!(matches!(&few, Claimed::TooFew(few) if (few.granted, few.of) == (1, 3)), "{few:?}");
    let certificate = held(claim(&new, &base(&third), &[c, d]).await);
    assert!(certificate.claim().term > first.claim().term && !certificate.is_forced());
    // From here on the old one writes no more, with whomever it is.
    for keeper in [c, d] {
        let error = put(keeper, &head(4, &changed, &old)).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Overtaken));
    }
    stop(keepers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_names_no_anchors_is_followed_by_a_term() {
    let keepers = start(3).await;
    let all: Vec<&Keeper> = keepers.iter().collect();
    let mut body = empty_head();
    body.providers = all
        .iter()
        .map(|k| ProviderAddresses {
            peer: ByteBuf::from(peer(k)),
            addresses: k.address().addrs,
            tags: Default::default(),
        })
        .collect();
    let sealed = body.seal(&keys()).unwrap();
    let old = |sequence| {
        let key = keys();
        let record = HeadRecord::sign(sealed.cid(), sequence, 4, None, UNTIL, key.head_signing()).unwrap();
        HeadValue::new(record, sealed.bytes().to_vec()).unwrap()
    };
    for keeper in &all {
        assert_eq!(put(keeper, &old(9)).await.unwrap(), PutOutcome::Stored);
    }
    let base = base_of(old(9).encode().unwrap(), &old(9), Some(&body)).unwrap();
    assert_eq!((base.term, &base.anchors), (4, &anchors(&all, &[])));
    let certificate = held(claim(&writer(1), &base, &all).await);
    assert_eq!(certificate.claim().term, 5);
    // The program that knows no terms goes on where nobody has asked, and nowhere else.
    let error = put(all[0], &old(10)).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Overtaken));
    let ours = head(10, &Standing { certificate, anchors: base.anchors }, &writer(1));
    assert_eq!(put(all[0], &ours).await.unwrap(), PutOutcome::Stored);
    assert!(matches!(put(all[0], &old(99)).await.unwrap(), PutOutcome::Superseded(_)));
    stop(keepers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_anchor_with_two_faces() {
    let keepers = start(4).await;
    let [a, b, c, liar] = [0, 1, 2, 3].map(|n| &keepers[n]);
    let other_face = liar.other_face().await;
    let (ours, theirs) = (writer(1), writer(2));

    // Four anchors: a lie is not enough.
    let base = fresh(&[a, b, c, liar]);
    let one = held(claim(&ours, &base, &[a, b, liar]).await);
    let cut_off = claim(&theirs, &base, &[c, &other_face]).await;
    assert!(matches!(cut_off, Claimed::TooFew(_)), "{cut_off:?}");
    let two = held(claim(&theirs, &base, &[b, c, &other_face]).await);
    assert!(two.claim().term > one.claim().term);

    // Three, and each machine is cut off from the other's honest one: it is found out at the first that both reach.
    let few = start(2).await;
    let (d, e) = (&few[0], &few[1]);
    let (face, other_face) = (Keeper::start(true, &[]).await, other_face);
    let second_face = face.other_face().await;
    let base = fresh(&[d, e, &face]);
    let one = held(claim(&ours, &base, &[d, &face]).await);
    let two = held(claim(&theirs, &base, &[e, &second_face]).await);
    assert_eq!(one.claim().term, two.claim().term);
    assert_eq!(one.granted_twice(&two), [peer(&face)]);
    let stand = |certificate: &Certificate| Standing {
        certificate: certificate.clone(),
        anchors: base.anchors.clone(),
    };
    let (first, rival) = (head(1, &stand(&one), &ours), head(9, &stand(&two), &theirs));
    assert_eq!(put(d, &first).await.unwrap(), PutOutcome::Stored);
    let shown = put(d, &rival).await.unwrap();
    let PutOutcome::Superseded(shown) = shown else { panic!("{shown:?}") };
    let name = keys().head_signing().verifying_key().to_bytes();
    let shown = HeadValue::verify(&shown, &name).unwrap();
    assert!(shown.rivals(&rival) && shown == first);

    for keeper in [other_face, face, second_face] {
        keeper.stop().await;
    }
    stop(few).await;
    stop(keepers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_is_enough_only_by_the_owners_word() {
    let keepers = start(3).await;
    let [a, b, c] = [0, 1, 2].map(|n| &keepers[n]);
    let base = fresh(&[a, b, c]);
    let Claimed::TooFew(few) = claim(&writer(1), &base, &[a]).await else { panic!("enough") };
    assert_eq!(few.to_string(), "1 of the 3 providers that decide who writes the drive have agreed");
    let forced = held(claim_as(&writer(1), &base, &[a], true).await);
    assert!(forced.is_forced() && forced.claim().term > FORCED_ABOVE);
    let standing = Standing { anchors: anchors(&[a], &[]), certificate: forced };
    let ours = head(1, &standing, &writer(1));
    assert_eq!(put(a, &ours).await.unwrap(), PutOutcome::Stored);
    // The others are there after all: whoever reaches the one that is left as well is shown it, and who does not gets a lower term.
    let claimed = claim(&writer(2), &base, &[a, b, c]).await;
    assert!(matches!(&claimed, Claimed::Newer(head) if **head == ours), "{claimed:?}");
    let lower = held(claim(&writer(2), &base, &[b, c]).await);
    assert!(lower.claim().term < ours.record().term());
    assert!(matches!(claim_as(&writer(3), &base, &[], true).await, Claimed::TooFew(_)));
    stop(keepers).await;
}
