#![allow(clippy::unwrap_used)]

use super::*;
use crate::commit::tests::{commit, keys, reference};
use crate::keys::{Mnemonic, SecretKey32};
use crate::placement::{PlacementAction, PlacementFacts};
use crate::{Block, BlockAt};
use proptest::prelude::*;
use std::cmp::Ordering;

const NOW: u64 = 1_800_000_000;
const UNTIL: u64 = NOW + 10 * 365 * 86_400;

pub(crate) fn body() -> HeadBody {
    let keys = keys();
    let place = |byte: u8| {
        let block = Block::raw(vec![byte; 10]).unwrap();
        let at = BlockAt { cid: *block.cid(), piece: [byte; 16], offset: 99, len: 10 };
        PhysicalRef { at, key: SecretKey32::from_bytes([byte; 32]) }
    };
    let facts = PlacementFacts {
        action: PlacementAction::Add,
        piece: [1; 16],
        raw_len: 1000,
        slot: 2,
        holder: vec![1; 38],
        slot_cid: vec![2; 39],
        deal: vec![3; 32],
        receipt: vec![4; 300],
        time: NOW,
    };
    let entry = PlacementEntry::sign(facts, &ChainEnd::default(), keys.placement_signing()).unwrap();
    let encoded = commit(None).encode(&keys).unwrap();
    HeadBody {
        sequence: 7,
        term: 1,
        device: [2; 16],
        time: NOW,
        commit: reference(&encoded),
        complete: Some(reference(&encoded)),
        location: place(4),
        checkpoint: Some(place(5)),
        checkpoint_chains: [([9; 32], ChainEnd { length: 3, last: [8; 32] })].into(),
        tail: vec![entry],
        providers: vec![ProviderAddresses {
            peer: ByteBuf::from(vec![1; 38]),
            addresses: vec!["/ip4/127.0.0.1/tcp/4001".to_owned()],
            tags: BTreeMap::new(),
        }],
        keyring: [6; 32],
    }
}

#[test]
fn bodies_open_under_their_generation_only() {
    let sealed = body().seal(&keys()).unwrap();
    assert_eq!(HeadBody::open(sealed.bytes(), &keys()).unwrap(), body());
    crate::golden::check("head", &data_encoding::HEXLOWER.encode(sealed.bytes()));
    assert_eq!(HeadBody::generation(sealed.bytes()).unwrap(), 1);
    let later = Mnemonic::from_entropy([1; 32]).root_key().generation(2).keys();
    assert!(matches!(
        HeadBody::open(sealed.bytes(), &later),
        Err(HeadError::Generation { found: 1, known: 2 })
    ));
    let other = Mnemonic::from_entropy([2; 32]).root_key().generation(1).keys();
    assert!(HeadBody::open(sealed.bytes(), &other).is_err());
    for at in 0..sealed.bytes().len() {
        let mut changed = sealed.bytes().to_vec();
        changed[at] ^= 1;
        assert!(HeadBody::open(&changed, &keys()).is_err(), "byte {at}");
    }
    let tagged = |operator: &str| {
        let mut tagged = body();
        tagged.providers[0].tags.insert("operator".to_owned(), operator.to_owned());
        tagged
    };
    let with_tags = tagged("acme").seal(&keys()).unwrap();
    assert_eq!(HeadBody::open(with_tags.bytes(), &keys()).unwrap(), tagged("acme"));
    assert!(tagged(&"x".repeat(65)).seal(&keys()).is_err());
    let mut long = body();
    long.tail = vec![long.tail[0].clone(); TAIL_ENTRIES_MAX + 1];
    assert!(long.seal(&keys()).is_err());
    long.tail.pop();
    let full = long.seal(&keys()).unwrap();
    assert_eq!(HeadBody::open(full.bytes(), &keys()).unwrap(), long);
}

#[test]
fn records_round_trip() {
    let sealed = body().seal(&keys()).unwrap();
    let keys = keys();
    let name = keys.head_signing().verifying_key().to_bytes();
    let record = HeadRecord::sign(sealed.cid(), 7, 1, None, UNTIL, keys.head_signing()).unwrap();
    assert_eq!(HeadRecord::verify(record.bytes(), &name, NOW).unwrap(), record);
    assert!(record.names(sealed.bytes()) && !record.names(b"other"));
    let hex = data_encoding::HEXLOWER.encode(record.bytes());
    crate::golden::check("record", &format!("{}\n{hex}", crate::keys::ipns_name(&name)));
    assert!(matches!(HeadRecord::verify(record.bytes(), &name, UNTIL + 1), Err(RecordError::Expired(_))));
    assert_eq!(HeadRecord::verify(record.bytes(), &[7; 32], NOW), Err(RecordError::NotAuthentic));
    for at in 0..record.bytes().len() {
        let mut changed = record.bytes().to_vec();
        changed[at] ^= 1;
        assert!(HeadRecord::verify(&changed, &name, NOW).is_err(), "byte {at}");
    }
    let of = |sequence, term| {
        HeadRecord::sign(sealed.cid(), sequence, term, None, UNTIL, keys.head_signing()).unwrap()
    };
    assert_eq!(of(9, 1).compare(&of(8, 2)), Ordering::Less, "the term comes first");
    assert_eq!(of(9, 1).compare(&of(8, 1)), Ordering::Greater);
    assert_eq!(record.standing(), None);
    let with = HeadRecord::sign(sealed.cid(), 7, 1, Some([9; 32]), UNTIL, keys.head_signing()).unwrap();
    let verified = HeadRecord::verify(with.bytes(), &name, NOW).unwrap();
    assert_eq!((verified.standing(), &verified), (Some(&[9; 32]), &with));
    crate::golden::check("record-standing", &data_encoding::HEXLOWER.encode(with.bytes()));
}

#[derive(serde::Serialize)]
struct Raw {
    #[serde(rename = "TTL")]
    ttl: u64,
    #[serde(rename = "Value")]
    value: ByteBuf,
    #[serde(rename = "Sequence")]
    sequence: u64,
    #[serde(rename = "Validity")]
    validity: ByteBuf,
    #[serde(rename = "ValidityType")]
    validity_type: u64,
    #[serde(rename = "_holdfast-term")]
    term: u64,
    #[serde(rename = "_holdfast-version")]
    version: u64,
    #[serde(rename = "_holdfast-standing", skip_serializing_if = "Option::is_none")]
    standing: Option<ByteBuf>,
}

/// The version says whether there is a standing; a record that says otherwise is none.
#[test]
fn a_record_has_the_standing_of_its_version() {
    let keys = keys();
    let name = keys.head_signing().verifying_key().to_bytes();
    for (version, standing, good) in
        [(1, None, true), (2, Some(32), true), (1, Some(32), false), (2, None, false), (2, Some(31), false)]
    {
        let raw = Raw {
            ttl: 1,
            value: ByteBuf::from(format!("/ipfs/{}", sealed_cid(b"x")).into_bytes()),
            sequence: 1,
            validity: ByteBuf::from(format_rfc3339(UNTIL).into_bytes()),
            validity_type: 0,
            term: 1,
            version,
            standing: standing.map(|len| ByteBuf::from(vec![1; len])),
        };
        let bytes = sign_data(&crate::dagcbor::encode("record", &raw).unwrap(), keys.head_signing());
        assert_eq!(HeadRecord::verify(&bytes, &name, NOW).is_ok(), good, "version {version}, {standing:?}");
    }
    let newer = Raw {
        ttl: 1,
        value: ByteBuf::from(b"/ipfs/x".to_vec()),
        sequence: 1,
        validity: ByteBuf::from(format_rfc3339(UNTIL).into_bytes()),
        validity_type: 0,
        term: 1,
        version: 3,
        standing: None,
    };
    let bytes = sign_data(&crate::dagcbor::encode("record", &newer).unwrap(), keys.head_signing());
    assert_eq!(HeadRecord::verify(&bytes, &name, NOW), Err(RecordError::Newer(3)));
}

/// Records of other implementations, laid into a folder by whoever runs this: `<name>_<kind>.ipns-record`, as in the
/// IPFS gateway conformance suite. Kinds that are to be refused have "broken" in their name or are of version 1 alone; a
/// broken signature of version 1 is none of our business.
#[test]
#[allow(clippy::disallowed_methods)]
fn published_records() {
    let Ok(folder) = std::env::var("HOLDFAST_IPNS_VECTORS") else { return };
    let mut met = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (name, kind) = stem.split_once('_').unwrap();
        let name: crate::keys::DriveName = name.parse().unwrap();
        let refused = kind == "v1" || (kind.contains("broken") && !kind.contains("broken-signature-v1"));
        let result = IpnsRecord::verify(&std::fs::read(&path).unwrap(), name.as_bytes(), NOW);
        assert_eq!(result.is_err(), refused, "{stem}: {result:?}");
        if let Ok(record) = result {
            assert!(record.value().starts_with(b"/ipfs/bafkqa"));
            assert!(record.valid_until().unwrap() > NOW);
        }
        met += 1;
    }
    assert!(met >= 6, "the suite has at least six records");
}

#[test]
fn times() {
    for (unix, text) in [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (951_782_399, "2000-02-28T23:59:59.000000000Z"),
        (951_868_799, "2000-02-29T23:59:59.000000000Z"),
        (1_800_000_000, "2027-01-15T08:00:00.000000000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
    ] {
        assert_eq!(format_rfc3339(unix), text);
        assert_eq!(parse_rfc3339(text), Some(unix));
    }
    assert_eq!(parse_rfc3339("2123-08-14T12:17:03.694052Z"), Some(4_847_689_023));
    assert_eq!(parse_rfc3339("1970-01-01T00:00:01Z"), Some(1));
    assert_eq!(format_rfc3339(u64::MAX), "9999-12-31T23:59:59.000000000Z");
    for bad in [
        "",
        "Z",
        "1970-01-01",
        "1970-13-01T00:00:00Z",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00:00+01:00",
        "+970-01-01T00:00:00Z",
    ] {
        assert_eq!(parse_rfc3339(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn times_round_trip(unix in 0u64..=253_402_300_799) {
        prop_assert_eq!(parse_rfc3339(&format_rfc3339(unix)), Some(unix));
    }

    #[test]
    fn parsing_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,40}") {
        prop_assert!(IpnsRecord::verify(&bytes, &[1; 32], 0).is_err());
        prop_assert!(HeadBody::open(&bytes, &keys()).is_err());
        let _ = parse_rfc3339(&text);
    }
}
