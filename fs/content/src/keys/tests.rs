#![allow(clippy::unwrap_used)]

use super::*;
use crate::dagcbor::FormatError;
use crate::rng::SeededRng;
use proptest::prelude::*;

const ABANDON: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                       abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art";

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[test]
fn words_are_bip39() {
    // The standard's own vector: all-zero entropy.
    assert_eq!(
        Mnemonic::from_entropy([0; 32]).phrase().as_str(),
        ABANDON.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    let mnemonic = Mnemonic::generate(&SeededRng::new(1)).unwrap();
    let typed = mnemonic.phrase().to_uppercase().replace(' ', "  \n");
    assert_eq!(*Mnemonic::parse(&typed).unwrap().phrase(), *mnemonic.phrase());
    assert_eq!(mnemonic.phrase().split(' ').count(), WORD_COUNT);
}

#[test]
fn wrong_words_say_what_is_wrong() {
    assert!(matches!(Mnemonic::parse("abandon art"), Err(WordsError::Count(2))));
    let unknown = ABANDON.replacen("abandon", "holdfast", 1);
    assert!(matches!(Mnemonic::parse(&unknown), Err(WordsError::UnknownWord(1))));
    let swapped = ABANDON.replace("art", "arm");
    assert!(matches!(Mnemonic::parse(&swapped), Err(WordsError::Checksum)));
}

#[test]
fn golden_derivation() {
    let root = Mnemonic::parse(ABANDON).unwrap().root_key();
    let generation = root.generation(1);
    let keys = generation.keys();
    let tree = keys.tree(TreeDomain::Namespace);
    let found = [
        root.drive_name().to_string(),
        hex(generation.secret().as_bytes()),
        hex(keys.convergence.as_bytes()),
        hex(keys.dedup.as_bytes()),
        hex(keys.name_tag.as_bytes()),
        hex(keys.mask.as_bytes()),
        hex(keys.head_body.as_bytes()),
        hex(keys.commit.as_bytes()),
        hex(keys.commit_wrap.as_bytes()),
        hex(tree.node.as_bytes()),
        hex(tree.boundary.as_bytes()),
        hex(keys.head_signing().verifying_key().as_bytes()),
        hex(keys.placement_signing().verifying_key().as_bytes()),
        hex(keys.provider_auth(b"peer").verifying_key().as_bytes()),
    ];
    crate::golden::check("keys", &found.join("\n"));
    let different: std::collections::HashSet<_> = found.iter().collect();
    assert_eq!(different.len(), found.len(), "no two purposes share a key");
}

#[test]
fn every_tree_generation_and_provider_has_its_own_keys() {
    let root = Mnemonic::parse(ABANDON).unwrap().root_key();
    let keys = root.generation(1).keys();
    let nodes =
        [TreeDomain::Namespace, TreeDomain::Location, TreeDomain::Placement].map(|d| keys.tree(d).node);
    assert!(nodes[0] != nodes[1] && nodes[1] != nodes[2] && nodes[0] != nodes[2]);
    assert_ne!(root.generation(1), root.generation(2));
    let of = |peer: &[u8]| keys.provider_auth(peer).verifying_key();
    assert_ne!(of(b"a"), of(b"b"));
}

#[test]
fn secrets_do_not_print() {
    let root = Mnemonic::parse(ABANDON).unwrap().root_key();
    let generation = root.generation(1);
    let text = format!(
        "{:?} {:?} {:?} {:?}",
        Mnemonic::parse(ABANDON).unwrap(),
        root,
        generation,
        generation.keys()
    );
    assert_eq!(text, "Mnemonic(..) RootKey(..) Generation(1, ..) DriveKeys(generation 1, ..)");
    assert_eq!(format!("{:?}", generation.keys().mask), "MaskKey(SecretKey32(..))");
}

#[test]
fn names_are_ipns_names() {
    let name = Mnemonic::parse(ABANDON).unwrap().root_key().drive_name();
    assert!(name.to_string().starts_with("k51qzi5uqu5d"), "{name}");
    assert_eq!(name.to_string().parse::<DriveName>().unwrap(), name);
    assert!("bafkqaaa".parse::<DriveName>().is_err());
    assert!("nonsense".parse::<DriveName>().is_err());
    // A published pair of another implementation (micro-key-producer's test).
    let public = data_encoding::HEXLOWER
        .decode(b"12c8299ec2c51dffbbcb4f9fccadcee1424cb237e9b30d3cd72d47c18103689d")
        .unwrap();
    let other = DriveName::from_bytes(public.try_into().unwrap());
    assert_eq!(other.to_string(), "k51qzi5uqu5dgnfwbc46une4upw1vc9hxznymyeykmg6rev1513yrnbyrwmmql");
}

#[test]
fn keyrings_are_believed_under_their_name_only() {
    let root = Mnemonic::parse(ABANDON).unwrap().root_key();
    let mut keyring = Keyring::first(&root, 1_800_000_000);
    let bytes = keyring.sign(&root).unwrap();
    crate::golden::check("keyring", &hex(&bytes));
    let name = root.drive_name();
    assert_eq!(Keyring::verify(&bytes, &name).unwrap(), keyring);
    let stranger = Mnemonic::from_entropy([9; 32]).root_key();
    assert!(matches!(Keyring::verify(&bytes, &stranger.drive_name()), Err(FormatError::NotAuthentic { .. })));
    assert!(keyring.sign(&stranger).is_err());

    let head = keyring.current().unwrap().head_key;
    assert_eq!(head, root.generation(1).keys().head_signing().verifying_key().to_bytes());
    assert_eq!(keyring.accepts_head(&head, u64::MAX), Some(1));
    assert_eq!(keyring.accepts_head(&[0; 32], 1), None);
    keyring.retired.push(RetiredHead { generation: 1, last_sequence: 10 });
    keyring.sequence += 1;
    assert_eq!(keyring.accepts_head(&head, 10), Some(1));
    assert_eq!(keyring.accepts_head(&head, 11), None);
    let newer = Keyring::verify(&keyring.sign(&root).unwrap(), &name).unwrap();
    assert!(newer.sequence > 1);
}

#[test]
fn every_changed_byte_of_a_keyring_is_an_error() {
    let root = Mnemonic::parse(ABANDON).unwrap().root_key();
    let bytes = Keyring::first(&root, 1).sign(&root).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Keyring::verify(&changed, &root.drive_name()).is_err(), "byte {at}");
    }
}

proptest! {
    #[test]
    fn keyring_verification_is_total(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let name = DriveName::from_bytes([1; 32]);
        prop_assert!(Keyring::verify(&bytes, &name).is_err());
    }

    #[test]
    fn parsing_words_is_total(text in "\\PC{0,300}") {
        let _ = Mnemonic::parse(&text);
    }
}
