use ff::Field;
use neptune::poseidon::{HashMode, Poseidon};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;

/// Against the plain, slow definition of the permutation, not the one that shares its constants.
#[test]
fn hashes_are_neptunes() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    for _ in 0..20 {
        let of16: [Fr; 16] = std::array::from_fn(|_| Fr::random(&mut rng));
        let of8: [Fr; 8] = of16[..8].try_into().unwrap();
        let of2 = [of16[3], of16[9]];
        let plain = |hash: Fr, expected: Fr| assert_eq!(hash, expected);
        plain(hash8(&of8), Poseidon::new_with_preimage(&of8, constants8()).hash_in_mode(HashMode::Correct));
        plain(
            hash16(&of16),
            Poseidon::new_with_preimage(&of16, constants16()).hash_in_mode(HashMode::Correct),
        );
        plain(hash2(&of2), Poseidon::new_with_preimage(&of2, constants2()).hash_in_mode(HashMode::Correct));
    }
}

#[test]
fn an_element_has_one_spelling() {
    let largest = to_node(&-Fr::ONE);
    assert_eq!(from_node(&largest), Some(-Fr::ONE));
    // The modulus itself, and all ones.
    let mut modulus = largest;
    modulus[0] += 1;
    assert_eq!(from_node(&modulus), None);
    assert_eq!(from_node(&[0xff; 32]), None);
    // Every leaf of 254 bits is one.
    let mut leaf = [0xff; 32];
    leaf[31] = 0x3f;
    assert_eq!(to_node(&from_node(&leaf).unwrap()), leaf);
}
