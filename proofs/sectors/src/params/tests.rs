//! Origins and refusals without any proof: files are planted, stamps forged, digests compared.

use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bellpepper_core::Circuit as Constraints;
use bellperson::groth16::generate_parameters;
use filecoin_proofs::SectorShapeBase;
use holdfast_setup::{Fr, Secrets};

use super::generate::{lay_out, porep, post};
use super::*;
use crate::entropy::{Adapter, SystemRng};
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

/// The library's own generator, given the same secrets, makes the same parameters.
fn are_bellpersons(profile: Profile, circuit: Circuit) {
    let secrets = Secrets::new(&mut Adapter(&mut SystemRng));
    let ours = lay_out::<SectorShapeBase>(profile, circuit, &secrets).unwrap();
    let theirs = |blank: &dyn Fn(&Secrets) -> groth16::Parameters<Bls12>| blank(&secrets);
    let theirs = match circuit {
        Circuit::Porep => theirs(&|secrets| library(porep::<SectorShapeBase>(profile).unwrap(), secrets)),
        _ => theirs(&|secrets| library(post::<SectorShapeBase>(profile, circuit).unwrap(), secrets)),
    };
    let mut at = 0;
    let mut bytes = Vec::new();
    theirs.write(&mut bytes).unwrap();
    drop(theirs);
    for portion in 0..ours.portions() {
        let ours = ours.bytes(portion).unwrap().unwrap();
        assert!(bytes[at..].starts_with(&ours), "{circuit}, {profile}: portion {portion}");
        at += ours.len();
    }
    assert_eq!(at, bytes.len(), "{circuit}, {profile}");
}

fn library(blank: impl Constraints<Fr>, secrets: &Secrets) -> groth16::Parameters<Bls12> {
    let Secrets { g1, g2, alpha, beta, gamma, delta, tau } = secrets.clone();
    generate_parameters(blank, g1, g2, alpha, beta, gamma, delta, tau).unwrap()
}

#[test]
fn window_parameters_are_bellpersons() {
    are_bellpersons(Profile::Test2k, Circuit::WindowPost);
}

#[test]
#[ignore = "minutes of bellperson's generator"]
fn parameters_of_every_post_are_bellpersons() {
    are_bellpersons(Profile::Test2k, Circuit::WinningPost);
    are_bellpersons(Profile::Test8m, Circuit::WindowPost);
    are_bellpersons(Profile::Test8m, Circuit::WinningPost);
}

#[test]
#[ignore = "a quarter of an hour or more of bellperson's generator, and 8 GiB of memory"]
fn seal_parameters_are_bellpersons() {
    are_bellpersons(Profile::Test2k, Circuit::Porep);
}

#[test]
fn an_interrupted_making_goes_on_with_its_secrets_and_forgets_them() {
    let (_dir, store) = store();
    let (profile, circuit) = (Profile::Test2k, Circuit::WindowPost);
    let (params, stamp) = (store.params_path(profile, circuit), store.stamp_path(profile, circuit));
    let (points, journal) = (params.with_extension("making"), params.with_extension("making.json"));
    // What it says of points, until `stop`, where it dies.
    let run = |stop: &(dyn Fn(&GenerateProgress) -> bool + Sync)| {
        let mut said = Vec::new();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            store.generate(profile, circuit, &mut SystemRng, &mut |progress| {
                if progress.stage == GenerateStage::Computing {
                    said.push((progress.points, progress.points_total));
                }
                assert!(!stop(&progress), "the power fails");
            })
        }));
        (said, ended)
    };
    let near_the_end = |progress: &GenerateProgress| progress.points * 10 > progress.points_total * 7;
    let (said, ended) = run(&near_the_end);
    assert!(ended.is_err() && said[0].0 == 0, "{said:?}");
    assert_eq!(fs::metadata(&journal).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!params.exists() && !stamp.exists());
    assert!(matches!(store.check(profile, circuit), Err(ParamsError::NotGenerated { .. })));
    let text: serde_json::Value = serde_json::from_slice(&fs::read(&journal).unwrap()).unwrap();
    let secrets = text["secrets"].as_str().unwrap().to_owned();
    assert!(text["portions"].as_u64().unwrap() > 0, "{text}");

    // Points that rotted meanwhile are made again; those beyond what was counted do not count.
    let mut rotten = fs::read(&points).unwrap();
    rotten[5_000] ^= 1;
    rotten.extend([7; 99]);
    fs::write(&points, &rotten).unwrap();
    let (said, ended) = run(&near_the_end);
    assert!(ended.is_err() && said[0].0 == 0, "{said:?}");

    // It dies again when all points are there and named, but not stamped.
    let (said, ended) = run(&|progress| progress.stage == GenerateStage::Stamping);
    assert!(ended.is_err() && said[0].0 > 0, "nothing was gone on with: {said:?}");
    assert!(params.exists() && journal.exists() && !stamp.exists());
    let (said, ended) = run(&|_| false);
    assert!(said.iter().all(|(done, total)| done == total), "points were made again: {said:?}");
    assert_eq!(ended.unwrap().unwrap().origin(), Origin::Local);
    for gone in [&points, &journal] {
        assert!(!gone.exists(), "{}", gone.display());
    }

    // The same file as of a making that nobody disturbed.
    let secrets: Vec<u8> = (0..secrets.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&secrets[at..at + 2], 16).unwrap())
        .collect();
    let secrets = Secrets::from_bytes(&secrets).unwrap();
    let setup = lay_out::<SectorShapeBase>(profile, circuit, &secrets).unwrap();
    let whole: Vec<u8> =
        (0..setup.portions()).flat_map(|portion| setup.bytes(portion).unwrap().unwrap()).collect();
    assert!(fs::read(&params).unwrap() == whole);
    // A journal that is none, or of another circuit, is no reason to fail.
    fs::remove_file(&stamp).unwrap();
    fs::write(&journal, b"{}").unwrap();
    let (said, ended) = run(&near_the_end);
    assert!(ended.is_err() && said[0].0 == 0);
}
