#![allow(clippy::unwrap_used)]

mod model;

use super::*;
use crate::deal::tests::{provider_key, signing_key};

pub(crate) fn peer(n: u8) -> Vec<u8> {
    provider_key(n).public().to_peer_id().to_bytes()
}

pub(crate) fn peers(numbers: impl IntoIterator<Item = u8>) -> Vec<Vec<u8>> {
    numbers.into_iter().map(peer).collect()
}

fn claim(term: u64, writer: u8) -> Claim {
    let public = |n: u8| signing_key(n).verifying_key().to_bytes();
    Claim::new(public(1), term, public(writer))
}

fn grants(claim: &Claim, anchors: impl IntoIterator<Item = u8>) -> Vec<Grant> {
    anchors.into_iter().map(|n| Grant::sign(claim, &provider_key(n)).unwrap()).collect()
}

fn anchors(now: impl IntoIterator<Item = u8>, former: impl IntoIterator<Item = u8>) -> Anchors {
    Anchors::new(peers(now), peers(former)).unwrap()
}

pub(crate) fn standing() -> Standing {
    let claim = claim(7, 2);
    let by = anchors([11, 12, 13], []);
    let certificate = Certificate::new(claim, by, &grants(&claim, [11, 13]), false).unwrap();
    Standing { certificate, anchors: anchors([11, 13, 14], [11, 12, 13]) }
}

#[test]
fn claims_are_by_both_keys_or_none() {
    let signed = SignedClaim::sign(7, &signing_key(1), &signing_key(2));
    assert_eq!(signed.claim(), &claim(7, 2));
    assert_eq!(SignedClaim::from_bytes(signed.bytes()).unwrap(), signed);
    for at in 0..signed.bytes().len() {
        let mut changed = signed.bytes().to_vec();
        changed[at] ^= 1;
        assert!(SignedClaim::from_bytes(&changed).is_err(), "byte {at}");
    }
    // Parts of two claims are none.
    let wire = |signed: &SignedClaim| codec::decode::<ClaimWire>(signed.bytes(), CLAIM_BYTES_MAX).unwrap();
    let other = wire(&SignedClaim::sign(7, &signing_key(1), &signing_key(3)));
    let mixed = ClaimWire { w: other.w, ..wire(&signed) };
    assert!(SignedClaim::from_bytes(&codec::encode(&mixed)).is_err());
}

#[test]
fn a_grant_is_for_one_claim_by_one_anchor() {
    let grant = Grant::sign(&claim(7, 2), &provider_key(11)).unwrap();
    assert_eq!(Grant::verify(grant.signature(), &claim(7, 2), &peer(11)).unwrap(), grant);
    for (claim, anchor) in
        [(claim(8, 2), peer(11)), (claim(7, 3), peer(11)), (claim(7, 2), peer(12)), (claim(7, 2), vec![1])]
    {
        assert!(Grant::verify(grant.signature(), &claim, &anchor).is_err());
    }
    assert!(Grant::verify(&[], &claim(7, 2), &peer(11)).is_err());
}

#[test]
fn a_standing_is_what_a_majority_granted() {
    let standing = standing();
    let bytes = standing.encode();
    assert_eq!(Standing::decode(&bytes).unwrap(), standing);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        // Who was asked, and who grants the next term, is under the head's signature only.
        if let Ok(other) = Standing::decode(&changed) {
            let (ours, theirs) = (&standing.certificate, &other.certificate);
            assert_eq!((&theirs.claim, &theirs.grants), (&ours.claim, &ours.grants), "byte {at}");
        }
    }
    let claim = claim(7, 2);
    let made = |by: &Anchors, granted: &[u8], forced| {
        Certificate::new(claim, by.clone(), &grants(&claim, granted.iter().copied()), forced).is_ok()
    };
    let four = anchors([11, 12, 13, 14], []);
    assert!(!made(&four, &[11, 12], false) && made(&four, &[11, 12, 14], false));
    assert!(made(&four, &[11], true) && !made(&four, &[], true));
    assert!(!made(&four, &[11, 12, 15], false), "a stranger's grant");
    let changing = anchors([11, 12, 13], [14, 15, 16]);
    assert!(!made(&changing, &[11, 12, 13], false), "the former anchors were not asked");
    assert!(made(&changing, &[11, 12, 14, 15], false));
    let nobody = Certificate::new(Claim::new(claim.name, 0, claim.writer), four, &[], true);
    assert!(nobody.is_err());
}

#[test]
fn an_anchor_grants_a_term_once() {
    use Decision::{Again, Grant, Passed, Taken};
    let head =
        |term, writer: u8| HeadTerm { term, writer: Some(signing_key(writer).verifying_key().to_bytes()) };
    let by = |granted: Option<Claim>, head: Option<HeadTerm>, asked: Claim| {
        decide(granted.as_ref(), head.as_ref(), &asked)
    };
    assert_eq!(by(None, None, claim(1, 2)), Grant);
    assert_eq!(by(Some(claim(1, 2)), None, claim(1, 2)), Again);
    assert_eq!(by(Some(claim(1, 2)), None, claim(1, 3)), Taken);
    assert_eq!(by(Some(claim(5, 2)), None, claim(4, 2)), Taken, "not even to the same one");
    assert_eq!(by(Some(claim(5, 2)), None, claim(6, 3)), Grant);
    assert_eq!(by(None, Some(head(3, 2)), claim(3, 3)), Passed);
    assert_eq!(by(None, Some(head(3, 2)), claim(4, 3)), Grant);
    assert_eq!(by(None, Some(head(3, 2)), claim(3, 2)), Grant, "a new anchor, by the head's own writer");
    assert_eq!(by(Some(claim(3, 2)), Some(head(3, 3)), claim(3, 2)), Passed);
    assert_eq!(by(None, Some(HeadTerm { term: 3, writer: None }), claim(3, 2)), Passed);

    let writer = signing_key(2).verifying_key().to_bytes();
    assert!(admits(None, 1, None) && admits(Some(&claim(3, 2)), 3, Some(&writer)));
    assert!(!admits(Some(&claim(3, 2)), 2, Some(&writer)) && !admits(Some(&claim(3, 2)), 3, None));
}

#[test]
fn a_rival_with_one_liar_beside_him_makes_a_term_doubtful() {
    // Of so many anchors: grants, grants to a rival; the others are silent.
    for (of, granted, rivals, held) in [
        (3, 2, 0, true),
        (3, 2, 1, false),
        (4, 3, 0, true),
        (4, 3, 1, true),
        (5, 3, 2, false),
        (5, 4, 1, true),
        (5, 3, 1, false),
        (6, 4, 2, true),
        (6, 4, 1, true),
        (6, 3, 0, false),
    ] {
        let claim = claim(7, 2);
        let mut round = Round::new(claim, anchors(11..11 + of, []));
        for grant in grants(&claim, 11..11 + granted) {
            round.granted(grant);
        }
        for n in 11 + granted..11 + granted + rivals {
            round.taken(&peer(n), &self::claim(7, 3));
        }
        let outcome = round.outcome();
        assert_eq!(matches!(outcome, Outcome::Held(_)), held, "{of} {granted} {rivals}: {outcome:?}");
        if !held {
            assert_eq!(outcome == Outcome::Next(8), rivals > 0);
        }
    }
    let mut round = Round::new(claim(7, 2), anchors([11], []));
    round.passed(&peer(11), 20);
    round.taken(&peer(99), &claim(90, 3));
    assert_eq!(round.outcome(), Outcome::Next(21), "whoever was not asked is not heard");
}

#[test]
fn who_granted_twice_is_shown_by_two_certificates() {
    let by = anchors([11, 12, 13], []);
    let of = |claim: Claim, granted: [u8; 2]| {
        Certificate::new(claim, by.clone(), &grants(&claim, granted), false).unwrap()
    };
    let (one, two) = (of(claim(7, 2), [11, 13]), of(claim(7, 3), [12, 13]));
    assert_eq!(one.granted_twice(&two), [peer(13)]);
    assert!(one.granted_twice(&one).is_empty() && one.granted_twice(&of(claim(8, 3), [12, 13])).is_empty());
}

#[test]
fn bytes_from_anybody_are_a_value_or_an_error() {
    assert!(Standing::decode(&vec![0; STANDING_BYTES_MAX + 1]).is_err());
    let out_of_order = |swap: fn(&mut StandingWire)| {
        let mut wire: StandingWire = codec::decode(&standing().encode(), STANDING_BYTES_MAX).unwrap();
        swap(&mut wire);
        Standing::decode(&codec::encode(&wire)).is_err()
    };
    assert!(out_of_order(|w| w.anchors.reverse()) && out_of_order(|w| w.grants.reverse()));
    assert!(out_of_order(|w| w.anchors.clear()) && out_of_order(|w| w.version = 2));
    assert!(out_of_order(|w| w.former = vec![ByteBuf::from(vec![1, 2])]));
    assert!(out_of_order(|w| w.grants.truncate(1)));
}
