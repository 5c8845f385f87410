use std::fs;
use std::sync::Arc;

use bellperson::groth16::generate_parameters;
use sha2::{Digest, Sha256};

use super::*;
use crate::circuit::AuditCircuit;
use crate::testing::{parameters, proven, rng, small};
use crate::verify::verify;

impl LocalParameters {
    /// For the prover's tests.
    pub(crate) fn with_a_wrong_point(&self) -> Self {
        let mut damaged = self.clone();
        let h = Arc::make_mut(&mut damaged.groth.h);
        h[7] = h[8];
        damaged
    }
}

/// The library's own generator, given the same secrets, makes the same parameters.
#[test]
fn parameters_are_bellpersons() {
    let secrets = Secrets::new(&mut rng(5));
    let setup = Setup::new(|| AuditCircuit::blank(small()), &secrets, 2).unwrap();
    let ours = setup.parameters(&mut |_| ControlFlow::Continue(())).unwrap();
    let Secrets { g1, g2, alpha, beta, gamma, delta, tau } = secrets;
    let circuit = AuditCircuit::blank(small());
    let theirs = generate_parameters::<Bls12, _>(circuit, g1, g2, alpha, beta, gamma, delta, tau).unwrap();
    assert!(ours == theirs);
}

#[test]
fn progress_rises_to_its_end_and_can_break_off() {
    let mut seen = Vec::new();
    let secrets = Secrets::new(&mut rng(5));
    let setup = Setup::new(|| AuditCircuit::blank(small()), &secrets, 1).unwrap();
    let result = setup.parameters(&mut |progress| {
        seen.push(progress);
        if seen.len() == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(SetupError::Cancelled)));
    assert!(seen.windows(2).all(|pair| pair[0].done < pair[1].done && pair[1].done < pair[1].total));
}

#[test]
fn files_are_marked_named_by_their_hash_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(LocalParameters::find(folder.path(), small()).unwrap(), None);
    let path = parameters().store(folder.path()).unwrap();
    assert_eq!(LocalParameters::find(folder.path(), small()).unwrap().as_ref(), Some(&path));
    assert_eq!(LocalParameters::find(folder.path(), Shape::V1).unwrap(), None);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let name = path.file_name().unwrap().to_str().unwrap();
    let bytes = fs::read(&path).unwrap();
    let hash = Sha256::digest(&bytes[..bytes.len() - 32]);
    let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(name, format!("holdfast-compressed-v1-d2-c1-LOCAL-{hash}.params"));
    let mark = String::from_utf8_lossy(&bytes[32..96]).into_owned();
    assert!(mark.contains("MADE LOCALLY") && mark.contains("NO MONEY"));
    let loaded = LocalParameters::load(&path, small()).unwrap();
    assert!(loaded.groth == parameters().groth);
    let other = Shape::new(2, 2).unwrap();
    assert!(matches!(LocalParameters::load(&path, other), Err(ParamsError::OtherCircuit)));
    let renamed = folder.path().join("trusted.params");
    fs::rename(&path, &renamed).unwrap();
    assert!(matches!(LocalParameters::load(&renamed, small()), Err(ParamsError::Name(_))));
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = parameters().store(folder.path()).unwrap();
    let bytes = fs::read(&path).unwrap();
    let load = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        LocalParameters::load(&path, small()).map(|_| ()).unwrap_err()
    };
    for at in (0..96).chain((96..bytes.len()).step_by(bytes.len() / 40)).chain(bytes.len() - 32..bytes.len())
    {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        load(&bytes);
    }
    for len in [0, 31, 95, 96, 127, 5_000, bytes.len() - 1] {
        load(&bytes[..len]);
    }
    let mut newer = bytes.clone();
    newer[0] = 2;
    assert!(matches!(load(&newer), ParamsError::Newer { version: 2, suite: 1 }));
    assert!(matches!(load(&[0; 4_000]), ParamsError::Header));
}

/// Lists that are too long or too short, in a file that is consistent in itself: never the prover's
/// panic.
#[test]
fn files_of_another_circuit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let changes: [fn(&mut Parameters<Bls12>); 4] = [
        |p| Arc::make_mut(&mut p.h).truncate(1_000),
        |p| Arc::make_mut(&mut p.l).truncate(1_000),
        |p| Arc::make_mut(&mut p.b_g2).truncate(1_000),
        |p| {
            let first = p.a[0];
            Arc::make_mut(&mut p.a).push(first);
        },
    ];
    for change in changes {
        let mut other = parameters().clone();
        change(&mut other.groth);
        let path = other.store(folder.path()).unwrap();
        assert!(matches!(LocalParameters::load(&path, small()), Err(ParamsError::OtherCircuit)));
    }
}

#[test]
fn keys_have_one_spelling_and_their_points_are_checked() {
    let (audit, proof) = proven();
    let key = parameters().verifying_key();
    let bytes = key.encode();
    assert_eq!(bytes.len(), VERIFYING_KEY_LEN);
    let read = LocalVerifyingKey::decode(&bytes).unwrap();
    assert_eq!((read.digest(), read.shape()), (key.digest(), small()));
    assert!(verify(&read, audit, proof).is_ok());
    // One bit of each byte: no key, or one that refuses. Beta and delta of the first group are the
    // prover's; a wrong one is another key with another name.
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        if let Ok(twin) = LocalVerifyingKey::decode(&bytes) {
            assert_ne!(twin.digest(), key.digest());
            assert!(verify(&twin, audit, proof).is_err(), "byte {at}");
        }
    }
    for len in [0, 31, 32, bytes.len() - 1] {
        assert!(LocalVerifyingKey::decode(&bytes[..len]).is_err());
    }
}
