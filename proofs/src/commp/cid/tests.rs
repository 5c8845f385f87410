//! Golden names are FRC-0069's own test cases, also those of `test/multihash.spec.js` of
//! storacha/data-segment.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::commp::zero_node;

fn root_of(text: &str) -> [u8; 32] {
    let bytes = Cid::from_str(text).unwrap().to_bytes();
    bytes[bytes.len() - 32..].try_into().unwrap()
}

#[test]
fn specification_names() {
    let four = root_of("baga6ea4seaqes3nobte6ezpp4wqan2age2s5yxcatzotcvobhgcmv5wi2xh5mbi");
    let eight = root_of("baga6ea4seaqn42av3szurbbscwuu3zjssvfwbpsvbjf6y3tukvlgl2nf5rha6pa");
    for (len, root, name) in [
        (508, four, "bafkzcibcaaces3nobte6ezpp4wqan2age2s5yxcatzotcvobhgcmv5wi2xh5mbi"),
        (1016, eight, "bafkzcibcaac542av3szurbbscwuu3zjssvfwbpsvbjf6y3tukvlgl2nf5rha6pa"),
        (0, zero_node(2), "bafkzcibcp4bdomn3tgwgrh3g532zopskstnbrd2n3sxfqbze7rxt7vqn7veigmy"),
        (127, zero_node(2), "bafkzcibcaabdomn3tgwgrh3g532zopskstnbrd2n3sxfqbze7rxt7vqn7veigmy"),
        (128, zero_node(3), "bafkzcibcpybwiktap34inmaex4wbs6cghlq5i2j2yd2bb2zndn5ep7ralzphkdy"),
        (
            (32 << 30) / 128 * 127,
            zero_node(30),
            "bafkzcibcaapao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y6x2mpq",
        ),
        (
            (64 << 30) / 128 * 127,
            zero_node(31),
            "bafkzcibcaap6mqafu276g53zko4k23xzh4h4uecjwicbmvhsuqi7o4bhthhm4aq",
        ),
    ] {
        let piece = PieceCid::new(len, root).unwrap();
        assert_eq!(piece.to_string(), name);
        assert_eq!(name.parse::<PieceCid>().unwrap(), piece);
        assert_eq!(piece.payload_len(), len);
    }
    let piece: PieceCid = "bafkzcibcaaces3nobte6ezpp4wqan2age2s5yxcatzotcvobhgcmv5wi2xh5mbi".parse().unwrap();
    let hex: String = piece.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "01559120220004496dae0cc9e265efe5a006e80626a5dc5c409e5d3155c13984caf6c8d5cfd605");
}

#[test]
fn other_kinds_are_refused() {
    for text in [
        // A v1 piece CID, a plain file, nothing.
        "baga6ea4seaqes3nobte6ezpp4wqan2age2s5yxcatzotcvobhgcmv5wi2xh5mbi",
        "bafkreiby3whddkpaz2a5u5xd72xvybynvpizu4bwcjomobkmuzrstv666m",
    ] {
        assert!(matches!(text.parse::<PieceCid>(), Err(PieceCidError::WrongKind { .. })), "{text}");
    }
    assert!(matches!("".parse::<PieceCid>(), Err(PieceCidError::NotACid(_))));
    assert!(matches!(PieceCid::from_bytes(&[]), Err(PieceCidError::NotACid(_))));
}

#[test]
fn only_the_smallest_tree_is_a_name() {
    let piece = |padding, height| PieceCid::from_parts(padding, height, [0; 32]);
    assert!(piece(127, 2).is_ok());
    assert_eq!(piece(128, 2), Err(PieceCidError::Padding { padding: 128, height: 2 }));
    assert!(piece(126, 3).is_ok());
    assert_eq!(piece(127, 3), Err(PieceCidError::Padding { padding: 127, height: 3 }));
    assert_eq!(piece(0, 1), Err(PieceCidError::Height(1)));
    assert!(piece(0, HEIGHT_MAX).is_ok());
    assert_eq!(piece(0, HEIGHT_MAX + 1), Err(PieceCidError::Height(HEIGHT_MAX + 1)));
    let mut root = [0; 32];
    root[31] = 0x40;
    assert_eq!(PieceCid::from_parts(0, 2, root), Err(PieceCidError::Root));
    assert!(matches!(PieceCid::new(u64::MAX, [0; 32]), Err(PieceCidError::TooLong(_))));
    assert!(matches!(PieceCid::new((127 << 55) + 1, [0; 32]), Err(PieceCidError::TooLong(_))));
}

#[test]
fn a_longer_spelling_is_refused() {
    let bytes = PieceCid::new(127, [0; 32]).unwrap().to_bytes();
    // The padding 0 as the two-byte varint 0x80 0x00, and a byte too many.
    let long = [&[0x01, 0x55, 0x91, 0x20, 35, 0x80, 0x00], &bytes[6..]].concat();
    assert!(PieceCid::from_bytes(&long).is_err());
    assert!(PieceCid::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn serde_is_a_link_or_text() {
    let piece = PieceCid::new(1016, [7; 32]).unwrap();
    let json = serde_json::to_string(&piece).unwrap();
    assert_eq!(json, format!("\"{piece}\""));
    assert_eq!(serde_json::from_str::<PieceCid>(&json).unwrap(), piece);
    let cbor = serde_ipld_dagcbor::to_vec(&piece).unwrap();
    assert_eq!(cbor[..2], [0xd8, 0x2a]);
    assert_eq!(serde_ipld_dagcbor::from_slice::<PieceCid>(&cbor).unwrap(), piece);
    let file: Cid = "bafkreiby3whddkpaz2a5u5xd72xvybynvpizu4bwcjomobkmuzrstv666m".parse().unwrap();
    let other = serde_ipld_dagcbor::to_vec(&file).unwrap();
    assert!(serde_ipld_dagcbor::from_slice::<PieceCid>(&other).is_err());
}

proptest! {
    #[test]
    fn round_trip(len in 0_u64..=127 << 55, root: [u8; 32]) {
        let mut root = root;
        root[31] &= 0x3f;
        let piece = PieceCid::new(len, root).unwrap();
        prop_assert_eq!(piece.payload_len(), len);
        prop_assert!(piece.leaf_count() <= 1 << piece.height());
        prop_assert!(piece.height() == 2 || piece.leaf_count() > 1 << (piece.height() - 1));
        prop_assert_eq!(PieceCid::from_bytes(&piece.to_bytes()).unwrap(), piece);
        prop_assert_eq!(PieceCid::try_from(piece.to_cid().unwrap()).unwrap(), piece);
    }

    /// Whatever is accepted is spelled as it would be written.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64), fix in any::<bool>()) {
        let mut bytes = bytes;
        if fix && bytes.len() > 6 {
            bytes.splice(..5, [0x01, 0x55, 0x91, 0x20, (bytes.len() - 5) as u8]);
        }
        if let Ok(piece) = PieceCid::from_bytes(&bytes) {
            prop_assert_eq!(piece.to_bytes(), bytes);
        }
    }
}
