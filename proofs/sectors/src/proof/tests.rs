//! Committed proofs of test strength: each is accepted, and no twin of it that differs in a bit.

use holdfast_proofs::{Challenge, CommpHasher, TreeCache, TreeLevel, prove};
use proptest::prelude::*;

use super::*;
use crate::packing::PieceRoot;
use crate::profile::TEST_STRENGTH;

const SEALS: [&str; 2] = ["seal-2k.proof", "seal-2k-synthetic.proof"];
const WINDOW: &str = "window-2k.proof";
const WINNING: &str = "winning-2k.proof";
const COMMITTED: [&str; 4] = ["seal-2k.proof", "seal-2k-synthetic.proof", WINDOW, WINNING];

fn committed(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name)).unwrap()
}

fn decoded(name: &str) -> ProofFile {
    ProofFile::decode(&committed(name)).unwrap()
}

fn possession() -> Vec<u8> {
    let payload: Vec<u8> = (0..20_000_u32).map(|i| (i % 247) as u8).collect();
    let mut hasher = CommpHasher::with_cache(TreeLevel::DEFAULT);
    hasher.update(&payload);
    let (piece, cache) = hasher.finish_with_cache();
    let challenge = Challenge::new([7; 32], 24).unwrap();
    let cache = TreeCache::open(cache, &piece).unwrap();
    let proof = prove(&payload, &cache, &challenge).unwrap();
    ProofFile::possession(&piece, [7; 32], 24, &proof).unwrap().encode().unwrap()
}

#[test]
fn possession_files_are_those_of_whoever_has_no_circuits() {
    use holdfast_proofs::file;
    let bytes = possession();
    let file::ProofFile::Possession(theirs) = file::ProofFile::decode(&bytes).unwrap() else { panic!() };
    assert_eq!(theirs.encode().unwrap(), bytes);
    assert_eq!(theirs.verify().unwrap().leaves_checked(), 24);
}

fn check(bytes: &[u8]) -> Result<VerifyReport, ProofFileError> {
    ProofFile::decode(bytes)?.verify(&NoKeys)
}

/// A verifier that has parsed a file's key once: its own parsing is tested with the others.
struct Verifier {
    original: ProofFile,
    key: Option<Key>,
}

impl Verifier {
    fn of(bytes: &[u8]) -> Self {
        let original = ProofFile::decode(bytes).unwrap();
        let key = original.statement.circuit().map(|(profile, circuit)| {
            let bytes = original.key.as_ref().unwrap().bytes.as_ref().unwrap().to_vec();
            Key::parse(profile, circuit, bytes).unwrap()
        });
        Self { original, key }
    }

    fn check(&self, twin: &ProofFile) -> Result<(), ProofFileError> {
        let same_circuit = twin.statement.circuit() == self.original.statement.circuit();
        match &self.key {
            Some(key) if twin.key == self.original.key && same_circuit => twin.verify_with(key),
            _ => twin.verify(&NoKeys).map(drop),
        }
    }
}

#[test]
fn committed_proofs_are_accepted_and_say_their_strength() {
    for bytes in COMMITTED.map(committed) {
        let report = check(&bytes).unwrap();
        assert_eq!(report.key_trust, Some(KeyTrust::FromFile));
        assert!(!report.is_production());
        assert!(report.to_string().contains(TEST_STRENGTH));
        assert!(serde_json::to_string(&report).unwrap().contains(TEST_STRENGTH));
        assert!(bytes.windows(TEST_STRENGTH.len()).any(|window| window == TEST_STRENGTH.as_bytes()));
    }
    let report = check(&possession()).unwrap();
    assert!(report.is_production() && report.profile.is_none());
    assert!(report.shows[0].contains("24 drawn leaves"));
}

#[test]
fn no_flipped_bit_is_accepted_anywhere_in_a_file() {
    for bytes in COMMITTED.into_iter().map(committed).chain([possession()]) {
        let key_bytes = ProofFile::decode(&bytes)
            .unwrap()
            .key
            .and_then(|key| key.bytes)
            .map_or(Vec::new(), |bytes| bytes.into_vec());
        let key_at = bytes.windows(key_bytes.len().max(1)).position(|window| window == key_bytes);
        let verifier = Verifier::of(&bytes);
        for at in 0..bytes.len() {
            // The key is bound by its hash as a whole: a few places of it stand for all.
            let in_key = key_at.is_some_and(|from| (from..from + key_bytes.len()).contains(&at));
            if in_key && at % 97 != 0 {
                continue;
            }
            let mut twin = bytes.clone();
            twin[at] ^= 1 << (at % 8);
            let answer = ProofFile::decode(&twin).and_then(|twin| verifier.check(&twin));
            assert!(answer.is_err(), "byte {at} of {}", bytes.len());
        }
    }
}

/// Every bit of every input of every statement, flipped as a value: not the encoding refuses these, but the equation.
#[test]
fn no_changed_input_is_accepted() {
    let flip = |bytes: &mut Bytes32, bit: usize| bytes.0[bit / 8] ^= 1 << (bit % 8);
    let mut rejected = 0;
    let mut refused = |verifier: &Verifier, statement: Statement| {
        let twin = ProofFile { statement, ..verifier.original.clone() };
        let answer = verifier.check(&twin);
        assert!(answer.is_err(), "{:?}", twin.statement);
        rejected += usize::from(matches!(answer, Err(ProofFileError::Rejected)));
    };
    for name in SEALS {
        let file = Verifier::of(&committed(name));
        let Statement::Seal(seal) = file.original.statement.clone() else { panic!("not a seal") };
        for bit in 0..256 {
            for field in 0..4 + seal.pieces.len() {
                let mut twin = seal.clone();
                match field {
                    0 => flip(&mut twin.prover, bit),
                    1 => flip(&mut twin.ticket, bit),
                    2 => flip(&mut twin.seed, bit),
                    3 => flip(&mut twin.comm_r, bit),
                    _ => flip(&mut twin.pieces[field - 4].root, bit),
                }
                refused(&file, Statement::Seal(twin));
            }
        }
        for piece in 0..seal.pieces.len() {
            for height in (0..=u8::MAX).filter(|height| *height != seal.pieces[piece].height) {
                let mut twin = seal.clone();
                twin.pieces[piece].height = height;
                refused(&file, Statement::Seal(twin));
            }
        }
        for bit in 0..64 {
            refused(
                &file,
                Statement::Seal(SealStatement { number: seal.number ^ (1 << bit), ..seal.clone() }),
            );
        }
        let mut swapped = seal.clone();
        swapped.pieces.swap(0, 2);
        let mut fewer = seal.clone();
        fewer.pieces.pop();
        let mut more = seal.clone();
        more.pieces.insert(0, PieceRoot { root: Bytes32::default(), height: 2 });
        let mode = if seal.mode == crate::SealMode::Synthetic {
            crate::SealMode::Interactive
        } else {
            crate::SealMode::Synthetic
        };
        let other_mode = SealStatement { mode, ..seal.clone() };
        for twin in [swapped, fewer, more, other_mode] {
            refused(&file, Statement::Seal(twin));
        }
        for profile in Profile::ALL.into_iter().filter(|profile| *profile != Profile::Test2k) {
            refused(&file, Statement::Seal(SealStatement { profile, ..seal.clone() }));
        }
    }
    let file = Verifier::of(&committed(WINDOW));
    let Statement::WindowPost(window) = file.original.statement.clone() else { panic!("not a window") };
    for bit in 0..256 {
        for field in 0..2 + window.sectors.len() {
            let mut twin = window.clone();
            match field {
                0 => flip(&mut twin.prover, bit),
                1 => flip(&mut twin.beacon, bit),
                _ => flip(&mut twin.sectors[field - 2].comm_r, bit),
            }
            refused(&file, Statement::WindowPost(twin));
        }
    }
    for bit in 0..64 {
        refused(
            &file,
            Statement::WindowPost(WindowStatement { epoch: window.epoch ^ (1 << bit), ..window.clone() }),
        );
        for sector in 0..window.sectors.len() {
            let mut twin = window.clone();
            twin.sectors[sector].number ^= 1 << bit;
            refused(&file, Statement::WindowPost(twin));
        }
    }
    for drop in 0..3 {
        let mut twin = window.clone();
        twin.sectors.remove(drop);
        refused(&file, Statement::WindowPost(twin));
    }
    let file = Verifier::of(&committed(WINNING));
    let Statement::WinningPost(winning) = file.original.statement.clone() else { panic!("not a winning") };
    for bit in 0..256 {
        for field in 0..3 {
            let mut twin = winning.clone();
            match field {
                0 => flip(&mut twin.prover, bit),
                1 => flip(&mut twin.beacon, bit),
                _ => flip(&mut twin.sector.comm_r, bit),
            }
            refused(&file, Statement::WinningPost(twin));
        }
    }
    for bit in 0..64 {
        let mut twin = winning.clone();
        twin.epoch ^= 1 << bit;
        refused(&file, Statement::WinningPost(twin));
        let mut twin = winning.clone();
        twin.sector.number ^= 1 << bit;
        refused(&file, Statement::WinningPost(twin));
    }
    // Most were refused by the equation itself, not for their form.
    assert!(rejected > 5_000, "{rejected}");
}

#[test]
fn every_flipped_bit_of_a_proof_is_refused() {
    for name in COMMITTED {
        let verifier = Verifier::of(&committed(name));
        let file = &verifier.original;
        for bit in 0..file.proof.len() * 8 {
            let mut twin = file.clone();
            twin.proof[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(verifier.check(&twin), Err(ProofFileError::Rejected)), "bit {bit}");
        }
        for len in [0, 1, 191, 193, 384] {
            let mut twin = file.clone();
            twin.proof.resize(len, 0);
            if len != file.proof.len() {
                assert!(matches!(verifier.check(&twin), Err(ProofFileError::ProofLength { .. })));
            }
        }
    }
}

#[test]
fn a_proof_does_not_hold_under_another_key_or_circuit() {
    let window = decoded(WINDOW);
    let winning = decoded(WINNING);
    let mut twin = window.clone();
    twin.key = winning.key.clone();
    assert!(matches!(twin.verify(&NoKeys), Err(ProofFileError::Key(KeyError::Length { .. }))));
    // The right length, another pair's points: two interactive seals of other parameters would look like this.
    let mut twin = window;
    let key = twin.key.as_mut().unwrap();
    let bytes = key.bytes.as_mut().unwrap();
    let (from, to) = (868, 868 + 96);
    let first = bytes[from..to].to_vec();
    bytes.copy_within(to..to + 96, from);
    bytes[to..to + 96].copy_from_slice(&first);
    key.sha256 = Bytes32(Sha256::digest(bytes.as_slice()).into());
    assert!(matches!(twin.verify(&NoKeys), Err(ProofFileError::Rejected)));
}

#[test]
fn production_statements_need_published_keys() {
    // Winning PoSt has the same number of inputs at every size, so a local key fits the form.
    let mut file = decoded(WINNING);
    let Statement::WinningPost(winning) = &mut file.statement else { panic!("not a winning") };
    winning.profile = Profile::Production32g;
    file.strength = file.statement.strength().to_owned();
    assert!(matches!(file.verify(&NoKeys), Err(ProofFileError::KeyNotPublished(Profile::Production32g))));
}

#[test]
fn a_file_cannot_call_itself_stronger_than_it_is() {
    let mut file = decoded(WINDOW);
    file.strength = PRODUCTION_STRENGTH.to_owned();
    assert!(matches!(ProofFile::decode(&file.encode().unwrap()), Err(ProofFileError::Strength { .. })));
}

#[test]
fn forms_are_refused_by_name() {
    assert!(matches!(ProofFile::decode(b""), Err(ProofFileError::Magic)));
    assert!(matches!(ProofFile::decode(b"HFPROOF"), Err(ProofFileError::Magic)));
    assert!(matches!(ProofFile::decode(b"HFPROOF\x02"), Err(ProofFileError::Version(2))));
    assert!(matches!(ProofFile::decode(b"HFPROOF\x01"), Err(ProofFileError::Encoding(_))));
    let long = vec![0; PROOF_FILE_BYTES_MAX + 1];
    assert!(matches!(ProofFile::decode(&long), Err(ProofFileError::TooLong(_))));
    let mut longer = committed(WINDOW);
    longer.push(0);
    assert!(ProofFile::decode(&longer).is_err());
    let mut file = decoded(WINDOW);
    let Statement::WindowPost(window) = &mut file.statement else { panic!("not a window") };
    window.sectors.swap(0, 1);
    assert!(matches!(ProofFile::decode(&file.encode().unwrap()), Err(ProofFileError::Sectors)));
    let mut file = decoded(WINDOW);
    file.key = None;
    assert!(matches!(ProofFile::decode(&file.encode().unwrap()), Err(ProofFileError::KeyPresence)));
}

#[test]
fn sectors_are_drawn_evenly_and_by_every_input() {
    let (beacon, prover) = (Bytes32([1; 32]), Bytes32([2; 32]));
    assert_eq!(draw_sector(&beacon, 1, &prover, 0), None);
    assert_eq!(draw_sector(&beacon, 1, &prover, 1), Some(0));
    let mut hits = [0_u32; 10];
    for epoch in 0..10_000 {
        hits[draw_sector(&beacon, epoch, &prover, 10).unwrap() as usize] += 1;
    }
    // A thousand each; six deviations are 180.
    assert!(hits.iter().all(|hit| hit.abs_diff(1_000) < 180), "{hits:?}");
    let wide = draw_sector(&beacon, 1, &prover, u64::MAX);
    assert_ne!(wide, draw_sector(&Bytes32([3; 32]), 1, &prover, u64::MAX));
    assert_ne!(wide, draw_sector(&beacon, 1, &Bytes32([3; 32]), u64::MAX));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_are_no_proof(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(check(&bytes).is_err());
        let mut framed = b"HFPROOF\x01".to_vec();
        framed.extend(bytes);
        prop_assert!(check(&framed).is_err());
    }

    #[test]
    fn mangled_files_are_refused_without_a_panic(
        which in 0..4_usize,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let original = committed(COMMITTED[which]);
        let mut bytes = original.clone();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        // The same bytes again are the one thing that is accepted.
        prop_assert!(check(&bytes).is_err() || bytes == original);
    }
}
