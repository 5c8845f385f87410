#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Every shard of a stripe over pieces of these lengths.
fn shards(shape: &StripeShape) -> Vec<Vec<u8>> {
    let whole = usize::try_from(shape.shard_len()).unwrap();
    let mut all: Vec<Vec<u8>> = (0..shape.data())
        .map(|slot| {
            let mut shard = bytes(slot.into(), usize::try_from(shape.slot_len(slot)).unwrap());
            shard.resize(whole, 0);
            shard
        })
        .collect();
    all.extend(encode(&all, shape.parity()).unwrap());
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_k_slots_give_back_all_by_ranges_of_any_place(
        lens in proptest::collection::vec(1u64..1500, 1..9),
        parity in 1u16..6,
        order in proptest::collection::vec(any::<u32>(), 14),
        at in any::<u64>(), len in 1u64..700,
    ) {
        let shape = StripeShape::new(lens, parity).unwrap();
        let all = shards(&shape);
        let mut slots: Vec<u16> = (0..shape.slots()).collect();
        slots.sort_by_key(|slot| order[usize::from(*slot) % order.len()].wrapping_add(u32::from(*slot)));
        let (have, lost) = slots.split_at(shape.data().into());
        let offset = at % shape.shard_len();
        let (from, long) = shape.aligned(offset, len.min(shape.shard_len() - offset));
        prop_assert!(from <= offset && from + long >= offset + len.min(shape.shard_len() - offset));
        prop_assert!(from + long <= shape.shard_len());
        let range = usize::try_from(from).unwrap()..usize::try_from(from + long).unwrap();
        let given: Vec<(u16, &[u8])> =
            have.iter().map(|slot| (*slot, &all[usize::from(*slot)][range.clone()])).collect();
        let rebuilt = rebuild(shape.data(), parity, &given, lost).unwrap();
        for (slot, shard) in lost.iter().zip(rebuilt) {
            prop_assert_eq!(&shard[..], &all[usize::from(*slot)][range.clone()], "slot {}", slot);
        }
        let short = rebuild(shape.data(), parity, &given[1..], lost);
        prop_assert!(short.is_err() || lost.is_empty());
    }
}

#[test]
fn the_code_is_the_one_of_the_format() {
    // What other programs must make of the same pieces: 3+2 over 100, 128 and 65 bytes, and 2+3.
    let shape = StripeShape::new(vec![100, 128, 65], 2).unwrap();
    let parity = shards(&shape).split_off(3).concat();
    assert_eq!(blake3::hash(&parity).to_hex().as_str(), GOLDEN_3_2);
    let shape = StripeShape::new(vec![64, 64], 3).unwrap();
    let parity = shards(&shape).split_off(2).concat();
    assert_eq!(blake3::hash(&parity).to_hex().as_str(), GOLDEN_2_3);
}

const GOLDEN_3_2: &str = "c3e632e674c59d7cf4da1e07f47919be06569f75b1c8eec30e68db7de886371c";
const GOLDEN_2_3: &str = "1b73aadd2a10cee159c26254c5936f9effe5502cbd6d011aed1982cc8ee315e2";

#[test]
fn data_slots_end_where_their_pieces_do() {
    let shape = StripeShape::new(vec![100, 130, 65], 2).unwrap();
    assert_eq!((shape.shard_len(), shape.slots()), (192, 5));
    assert_eq!((0..5).map(|n| shape.slot_len(n)).collect::<Vec<_>>(), [100, 130, 65, 192, 192]);
    assert_eq!(shape.stored(0, 64, 64), 36);
    assert_eq!(shape.stored(2, 128, 64), 0);
    assert_eq!(shape.stored(4, 128, 64), 64);
}

#[test]
fn what_is_no_stripe_is_refused() {
    for (lens, parity) in [(vec![], 2), (vec![5], 0), (vec![5, 0], 2), (vec![1; 1020], 9)] {
        assert!(matches!(StripeShape::new(lens, parity), Err(StripeError::Shape { .. })));
    }
    assert_eq!(StripeShape::new(vec![u64::MAX], 1), Err(StripeError::TooLong(u64::MAX)));
    assert_eq!(encode(&[[0u8; 63]], 1), Err(StripeError::Lengths));
    assert_eq!(encode(&[vec![0u8; 64], vec![0u8; 128]], 1), Err(StripeError::Lengths));
    let shard = [0u8; 64];
    assert!(rebuild(2, 1, &[(0, &shard), (0, &shard)], &[1]).is_err(), "one shard given twice");
    assert!(rebuild(2, 1, &[(0, &shard), (9, &shard)], &[1]).is_err(), "a slot that is not there");
    assert!(rebuild(1, 1, &[(0, &shard)], &[2]).is_err(), "a wanted slot that is not there");
}
