#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 41 + i / 249) as u8).collect()
}

fn whole(bytes: &[u8], level: Option<TreeLevel>) -> (crate::PieceCid, Vec<u8>) {
    let mut hasher = level.map_or_else(CommpHasher::new, CommpHasher::with_cache);
    hasher.update(bytes);
    hasher.finish_with_cache()
}

#[test]
fn damage_is_refused() {
    let mut hasher = CommpHasher::with_cache(TreeLevel::MIN);
    hasher.update(&payload(200_000));
    let state = hasher.checkpoint().state;
    assert!(CommpHasher::resume(&state).is_ok());
    for at in (0..state.len()).step_by(7).chain(0..20) {
        let mut state = state.clone();
        state[at] ^= 0x10;
        assert!(CommpHasher::resume(&state).is_err(), "{at}");
    }
    for cut in [0, 1, 31, 32, 48, state.len() - 1] {
        assert_eq!(CommpHasher::resume(&state[..cut]).err(), Some(CheckpointError::Damaged));
    }
    let mut newer = state;
    newer[0] = 9;
    assert_eq!(CommpHasher::resume(&newer).err(), Some(CheckpointError::Newer { version: 9, suite: 1 }));
}

/// A valid checksum over nonsense: lengths that do not fit, a level that is none.
#[test]
fn nonsense_is_refused() {
    for (level, len, extra) in
        [(0, 1_u64, 0), (0, u64::MAX, 0), (4, 0, 0), (17, 0, 0), (5, u64::MAX, 64), (0, 0, 5)]
    {
        let mut state = HEAD.to_vec();
        state.extend_from_slice(&[level, 0]);
        state.extend_from_slice(&len.to_le_bytes());
        state.resize(state.len() + extra, 7);
        let check = Sha256::digest(&state);
        state.extend_from_slice(&check);
        assert_eq!(CommpHasher::resume(&state).err(), Some(CheckpointError::Damaged));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Interrupted anywhere, any number of times: the same name and the same cache file.
    #[test]
    fn goes_on(len in 0..BATCH_BYTES * 30, cuts in proptest::collection::vec(0..BATCH_BYTES * 12, 0..5),
               level in proptest::option::of(5_u8..=16)) {
        let bytes = payload(len);
        let level = level.map(|level| TreeLevel::new(level).unwrap());
        let (piece, cache) = whole(&bytes, level);
        let mut hasher = level.map_or_else(CommpHasher::new, CommpHasher::with_cache);
        let (mut rest, mut file) = (bytes.as_slice(), Vec::new());
        for cut in cuts {
            let (part, tail) = rest.split_at(cut.min(rest.len()));
            hasher.update(part);
            rest = tail;
            let checkpoint = hasher.checkpoint();
            file.extend(checkpoint.cache);
            prop_assert_eq!(file.len() as u64, checkpoint.cache_len);
            let (resumed, cache_len) = CommpHasher::resume(&checkpoint.state).unwrap();
            prop_assert_eq!(cache_len, checkpoint.cache_len);
            prop_assert_eq!(resumed.payload_len(), (len - rest.len()) as u64);
            hasher = resumed;
        }
        hasher.update(rest);
        let (again, end) = hasher.finish_with_cache();
        file.extend(end);
        prop_assert_eq!(again, piece);
        prop_assert_eq!(file, cache);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(CommpHasher::resume(&bytes).is_err());
    }
}
