#![allow(clippy::unwrap_used)]

use super::*;
use crate::keys::Mnemonic;
use proptest::prelude::*;

pub(crate) fn keys() -> DriveKeys {
    Mnemonic::from_entropy([1; 32]).root_key().generation(1).keys()
}

pub(crate) fn commit(previous: Option<CommitRef>) -> Commit {
    let body = Block::raw(vec![1; 100]).unwrap();
    let (directory, link) = Directory { body: Link::to_leaf(&body), links: Vec::new() }.encode().unwrap();
    let key = SecretKey32::from_bytes([6; 32]);
    Commit {
        sequence: 5,
        namespace: NodeRef { root: *directory.cid(), tsize: link.tsize, body: *body.cid(), key },
        previous,
        device: [2; 16],
        term: 1,
        lsn: 12345,
        time_ms: 1_800_000_000_123,
        pending_files: 2,
        pending: vec![17, 18],
        stats: DriveStats { inodes: 10, bytes: 20, blocks_bytes: 30 },
    }
}

pub(crate) fn reference(encoded: &EncodedCommit) -> CommitRef {
    let at = BlockAt { cid: *encoded.body.cid(), piece: [3; 16], offset: 1 << 40, len: encoded.body.len() };
    encoded.reference(at)
}

#[test]
fn round_trip_and_golden() {
    let first = commit(None).encode(&keys()).unwrap();
    let commit = commit(Some(reference(&first)));
    let encoded = commit.encode(&keys()).unwrap();
    assert_eq!(Commit::decode(&encoded.body, &encoded.key, &keys()).unwrap(), commit);
    let directory = Directory::decode(encoded.directory.bytes()).unwrap();
    assert_eq!(directory.body.cid, *encoded.body.cid());
    assert_eq!(directory.links.first().map(|link| link.cid), Some(commit.namespace.root));
    let body = data_encoding::HEXLOWER.encode(encoded.body.bytes());
    crate::golden::check("commit", &format!("{}\n{}\n{body}", encoded.directory.cid(), encoded.body.cid()));
}

#[test]
fn wrong_keys_and_damage_are_errors() {
    let encoded = commit(None).encode(&keys()).unwrap();
    let wrong = SecretKey32::from_bytes([0; 32]);
    assert!(matches!(Commit::decode(&encoded.body, &wrong, &keys()), Err(CommitError::Open(_))));
    let other = Mnemonic::from_entropy([2; 32]).root_key().generation(1).keys();
    assert!(matches!(Commit::decode(&encoded.body, &encoded.key, &other), Err(CommitError::Open(_))));
    let later = Mnemonic::from_entropy([1; 32]).root_key().generation(2).keys();
    assert!(matches!(Commit::decode(&encoded.body, &encoded.key, &later), Err(CommitError::Format(_))));
    let mut changed = encoded.body.bytes().to_vec();
    changed[9] ^= 1;
    assert!(Commit::decode(&Block::raw(changed).unwrap(), &encoded.key, &keys()).is_err());
    let mut many = commit(None);
    many.pending = vec![7; PENDING_LISTED_MAX + 10];
    let encoded = many.encode(&keys()).unwrap();
    assert_eq!(
        Commit::decode(&encoded.body, &encoded.key, &keys()).unwrap().pending.len(),
        PENDING_LISTED_MAX
    );
}

proptest! {
    #[test]
    fn decoding_is_total(plain in prop::collection::vec(any::<u8>(), 0..300)) {
        let key = SecretKey32::from_bytes([1; 32]);
        let mut buffer = plain;
        aead::seal_once(key.as_bytes(), &mut buffer);
        prop_assert!(Commit::decode(&Block::raw(buffer).unwrap(), &key, &keys()).is_err());
    }
}
