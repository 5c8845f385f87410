//! `holdfast-prover` as people and scripts see it: exit codes, `--json`, and test strength said loudly.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn run(words: &[&str], parameters: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast-prover"))
        .args(words)
        .env("HOLDFAST_PARAMETERS", parameters)
        .output()
        .unwrap()
}

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn committed_proofs_hold_and_their_twins_do_not() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["seal-2k.proof", "seal-2k-synthetic.proof", "window-2k.proof", "winning-2k.proof"] {
        let file = vector(name);
        let output = run(&["verify", file.to_str().unwrap()], dir.path());
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert!(text(&output.stdout).starts_with("TEST STRENGTH: "), "{name}");
        let output = run(&["verify", "--json", file.to_str().unwrap()], dir.path());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["valid"], &report["production"]), (&true.into(), &false.into()));
        assert_eq!(
            (&report["strength"], &report["key_trust"]),
            (&"test strength".into(), &"from-file".into())
        );
        assert!(report["warning"].as_str().unwrap().starts_with("TEST STRENGTH"));

        let bytes = fs::read(&file).unwrap();
        let twin = dir.path().join("twin");
        for at in (8..bytes.len()).step_by(bytes.len() / 16) {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            fs::write(&twin, bad).unwrap();
            let output = run(&["verify", "--json", twin.to_str().unwrap()], dir.path());
            assert_eq!(output.status.code(), Some(11), "{name}, byte {at}: {}", text(&output.stderr));
            let error: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(error["error"]["exit_code"], 11);
        }
        let mut newer = bytes.clone();
        newer[7] = 9;
        fs::write(&twin, newer).unwrap();
        assert_eq!(run(&["verify", twin.to_str().unwrap()], dir.path()).status.code(), Some(14));
    }
    assert_eq!(run(&["verify", "/nowhere"], dir.path()).status.code(), Some(1));
    let output = run(&["verify", "--json"], dir.path());
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["error"]["exit_code"], 2);
}

#[test]
fn what_is_no_proof_is_refused_and_read_no_further_than_one() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let good = fs::read(vector("window-2k.proof")).unwrap();
    let sparse = put("sparse", &good);
    fs::File::options().write(true).open(&sparse).unwrap().set_len(1 << 40).unwrap();
    let refused = [
        put("empty", b""),
        put("text", b"a proof, trust me"),
        put("name", b"HFPROOF"),
        put("version", b"HFPROOF\x01"),
        put("deep", &[b"HFPROOF\x01".as_slice(), &[0x81; 1 << 20]].concat()),
        put("claims", b"HFPROOF\x01\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
        put("half", &good[..good.len() / 2]),
        put("more", &[good.as_slice(), b"\0"].concat()),
        put("twice", &[good.as_slice(), &good].concat()),
        sparse,
        PathBuf::from("/dev/zero"),
        PathBuf::from("/dev/null"),
    ];
    for path in refused {
        let output = run(&["verify", path.to_str().unwrap()], dir.path());
        assert_eq!(output.status.code(), Some(11), "{}: {}", path.display(), text(&output.stderr));
        assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
    }
    let output = run(&["verify", dir.path().to_str().unwrap()], dir.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("directory"), "{}", text(&output.stderr));

    let stdin = |bytes: &[u8]| {
        let file = fs::File::open(put("stdin", bytes)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-prover"));
        command.args(["verify", "-"]).env("HOLDFAST_PARAMETERS", dir.path());
        command.stdin(file).output().unwrap().status.code()
    };
    assert_eq!((stdin(&good), stdin(&good[1..])), (Some(0), Some(11)));
}

#[test]
fn parameters_are_made_kept_and_refused_for_production() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["params", "--json", "--profile", "test-2k", "--circuit", "window-post"];
    let output = run(&words, dir.path());
    assert_eq!(output.status.code(), Some(15));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["parameters"]["files"][0]["state"], "missing");

    let making = [&words[..], &["--make"]].concat();
    let output = run(&making, dir.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("computing"));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["parameters"]["files"][0]["origin"], "local");
    assert_eq!(report["strength"], "test strength");
    // What is there is hashed and kept.
    let again = run(&making, dir.path());
    assert_eq!(again.status.code(), Some(0));
    assert!(!text(&again.stderr).contains("computing"), "{}", text(&again.stderr));
    let plain = run(&words[2..], dir.path());
    assert_eq!(plain.status.code(), Some(2), "no command");

    let output = run(&["params", "--profile", "production-32g", "--make"], dir.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("never made locally"), "{}", text(&output.stderr));
    let output = run(&["params", "--profile", "production-32g"], dir.path());
    assert_eq!(output.status.code(), Some(15));
    for lack in ["is missing (published digest", "it lacks", "parameters"] {
        assert!(text(&output.stdout).contains(lack), "{}", text(&output.stdout));
    }
}
