//! Origins and refusals without any proof: files are planted, stamps forged, digests compared.

use super::*;
use crate::profile::TEST_STRENGTH;

fn store() -> (tempfile::TempDir, ParameterStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ParameterStore::new(dir.path());
    (dir, store)
}

#[test]
fn every_circuit_of_every_profile_is_in_the_published_manifest() {
    let (_dir, store) = store();
    for profile in Profile::ALL {
        for circuit in Circuit::ALL {
            for path in [store.params_path(profile, circuit), store.key_path(profile, circuit)] {
                let name = path.file_name().unwrap().to_str().unwrap();
                let digest = published_digest(name).unwrap_or_else(|| panic!("{profile} {circuit}: {name}"));
                assert_eq!(digest.len(), MANIFEST_DIGITS);
                assert_eq!(PARAMETERS[name].sector_size, profile.sector_bytes(), "{name}");
            }
        }
    }
}

#[test]
fn production_says_what_is_missing() {
    let (_dir, store) = store();
    let error = store.check(Profile::Production32g, Circuit::Porep).unwrap_err();
    let ParamsError::Missing { expected, .. } = &error else { panic!("{error}") };
    assert_eq!(expected, "6a388072a518cf46ebd661f5cc46900a");
    assert!(error.is_permanent());
    let report = store.report(Profile::Production32g);
    assert!(!report.ready());
    assert!(report.files.iter().all(|file| matches!(file.state, FileState::Missing { .. })));
    assert!(!report.to_string().contains(TEST_STRENGTH));
}

#[test]
fn production_refuses_a_wrong_hash() {
    let (_dir, store) = store();
    fs::write(store.params_path(Profile::Production64g, Circuit::WinningPost), b"mine").unwrap();
    fs::write(store.key_path(Profile::Production64g, Circuit::WinningPost), b"mine").unwrap();
    let error = store.check(Profile::Production64g, Circuit::WinningPost).unwrap_err();
    assert!(matches!(error, ParamsError::WrongHash { .. }), "{error}");
}

#[test]
fn production_refuses_local_parameters_and_makes_none() {
    let (_dir, store) = store();
    let (profile, circuit) = (Profile::Production32g, Circuit::WindowPost);
    let (params, key) = (store.params_path(profile, circuit), store.key_path(profile, circuit));
    fs::write(&params, b"local").unwrap();
    fs::write(&key, b"local").unwrap();
    Stamp::of(profile, circuit, &params, &key).unwrap().write(&store.stamp_path(profile, circuit)).unwrap();
    let error = store.check(profile, circuit).unwrap_err();
    assert!(matches!(error, ParamsError::LocallyMade { .. }), "{error}");
    let error = store.generate(profile, circuit, &mut crate::SystemRng, &mut |_| {}).unwrap_err();
    assert!(matches!(error, ParamsError::NeverLocal(_)), "{error}");
}

#[test]
fn a_file_without_stamp_or_published_hash_is_of_unknown_origin() {
    let (_dir, store) = store();
    let (profile, circuit) = (Profile::Test2k, Circuit::WindowPost);
    assert!(matches!(store.check(profile, circuit), Err(ParamsError::NotGenerated { .. })));
    fs::write(store.params_path(profile, circuit), b"whose").unwrap();
    fs::write(store.key_path(profile, circuit), b"whose").unwrap();
    assert!(matches!(store.check(profile, circuit), Err(ParamsError::UnknownOrigin { .. })));
}

#[test]
fn a_stamped_pair_is_held_to_its_stamp() {
    let (_dir, store) = store();
    let (profile, circuit) = (Profile::Test2k, Circuit::Porep);
    let (params, key) = (store.params_path(profile, circuit), store.key_path(profile, circuit));
    let stamp_path = store.stamp_path(profile, circuit);
    fs::write(&params, b"abcdef").unwrap();
    fs::write(&key, b"ghi").unwrap();
    Stamp::of(profile, circuit, &params, &key).unwrap().write(&stamp_path).unwrap();
    assert_eq!(store.check(profile, circuit).unwrap().origin(), Origin::Local);
    assert!(fs::read_to_string(&stamp_path).unwrap().contains(TEST_STRENGTH));
    for (path, good, bad) in [
        (&params, b"abcdef".as_slice(), b"abcdeg".as_slice()),
        (&params, b"abcdef", b"abcde"),
        (&key, b"ghi", b"ghj"),
    ] {
        fs::write(path, bad).unwrap();
        assert!(matches!(store.check(profile, circuit), Err(ParamsError::Damaged { .. })));
        fs::write(path, good).unwrap();
    }
    fs::write(&stamp_path, b"{}").unwrap();
    assert!(matches!(store.check(profile, circuit), Err(ParamsError::Stamp { .. })));
    fs::remove_file(&key).unwrap();
    assert!(store.check(profile, circuit).is_err());
}

#[test]
fn keys_of_wrong_length_or_shape_are_refused_before_they_are_used() {
    for circuit in Circuit::ALL {
        let len = 868 + 96 * (circuit.inputs(Profile::Test2k) + 1);
        let short = Key::parse(Profile::Test2k, circuit, vec![0; len - 1]).unwrap_err();
        assert!(matches!(short, KeyError::Length { .. }), "{short}");
        assert!(Key::parse(Profile::Test2k, circuit, vec![0; len]).is_err());
        assert!(Key::parse(Profile::Test2k, circuit, vec![0xff; len]).is_err());
    }
    let longest = 868 + 96 * (Circuit::WindowPost.inputs(Profile::Production32g) + 1);
    assert!(longest <= KEY_BYTES_MAX);
}
