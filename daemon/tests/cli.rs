//! The program as scripts see it: exit codes, `--json`, files and their modes, and providers as processes. Nothing here
//! mounts; what needs a mount is in tests/e2e.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        Machine { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(words)
            .env("HOLDFAST_HOME", self.path("home"))
            .env_remove("HOLDFAST_PASSPHRASE_FILE")
            .current_dir(self.dir.path())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs it and expects this exit code.
    fn expect(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{words:?}\n{out}{err}");
        if code == 0 { out.into_owned() } else { err.into_owned() }
    }

    fn json(&self, code: i32, words: &[&str]) -> Value {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn init(&self) -> Value {
        self.json(0, &["init", "--json", "--secrets", "secrets"])
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

const ADDRESS: &str = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

#[test]
fn a_new_drive_keeps_its_secrets_outside_of_its_home() {
    let m = Machine::new();
    let made = m.init();
    assert!(made["drive"].as_str().unwrap().starts_with("k51"));
    let secrets = fs::read_to_string(m.path("secrets")).unwrap();
    assert_eq!(mode(&m.path("secrets")), 0o600);
    assert_eq!(mode(&m.path("home")), 0o700);
    let field = |name: &str| secrets.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    let (words, passphrase) = (field("words:"), field("passphrase:"));
    assert_eq!(words.split(' ').count(), 24);
    for entry in fs::read_dir(m.path("home")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        let bytes = fs::read(&path).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(!holds(&words) && !holds(&passphrase), "{}", path.display());
    }
    let again = m.expect(5, &["init", "--secrets", "secrets2"]);
    assert!(again.contains("already") && !m.path("secrets2").exists());
    let status = m.json(4, &["status", "--json"]);
    assert_eq!((&status["state"], &status["drive"]), (&Value::from("unmounted"), &made["drive"]));
}

#[test]
fn init_refuses_what_would_expose_or_overwrite() {
    let m = Machine::new();
    fs::write(m.path("secrets"), "another drive's words").unwrap();
    m.expect(2, &["init", "--secrets", "secrets"]);
    m.expect(2, &["init", "--secrets", "home/secrets"]);
    m.expect(2, &["init", "--json"]);
    m.expect(3, &["init"]);
    fs::create_dir(m.path("home")).unwrap();
    fs::write(m.path("home/thesis.txt"), "mine").unwrap();
    m.expect(5, &["init", "--secrets", "new"]);
    assert!(!m.path("new").exists());
    assert_eq!(fs::read_to_string(m.path("secrets")).unwrap(), "another drive's words");
}

#[test]
fn commands_on_what_is_not_there_have_codes_of_their_own() {
    let m = Machine::new();
    let missing = m.expect(5, &["status"]);
    assert!(missing.contains("no drive in") && missing.contains("holdfast init"));
    m.init();
    for words in [&["sync"][..], &["sync", "--wait"], &["unmount"], &["unmount", "--force"]] {
        m.expect(4, words);
    }
    m.expect(0, &["unmount", "--help"]);
    m.expect(2, &["sync", "--timeout", "5"]);
    m.expect(2, &["no-such-command"]);
    let error = m.json(4, &["sync", "--json"]);
    assert_eq!(error["error"]["exit_code"], 4);
}

#[test]
fn restore_says_what_is_wrong_and_leaves_nothing_behind() {
    let m = Machine::new();
    fs::write(m.path("words"), "abandon ability able").unwrap();
    let count = m.expect(3, &["restore", "--words-file", "words", "--peer", ADDRESS, "--no-mount"]);
    assert!(count.contains("expected 24 words, found 3"), "{count}");
    fs::write(m.path("words"), ["abandon"; 24].join(" ")).unwrap();
    let checksum = m.expect(3, &["restore", "--words-file", "words", "--peer", ADDRESS, "--no-mount"]);
    assert!(checksum.contains("checksum"), "{checksum}");
    fs::write(m.path("passphrase"), "long enough").unwrap();
    let words = ["abandon"; 23].join(" ") + " art";
    fs::write(m.path("words"), words).unwrap();
    let words = [
        "restore",
        "--words-file",
        "words",
        "--passphrase-file",
        "passphrase",
        "--peer",
        ADDRESS,
        "--no-mount",
    ];
    m.expect(9, &words);
    assert!(!m.path("home").exists());
}

#[test]
fn providers_are_added_and_removed_while_the_drive_is_not_mounted() {
    let m = Machine::new();
    m.init();
    let list = m.json(0, &["provider", "add", ADDRESS, "--json"]);
    assert_eq!(list["configured"][0]["addrs"][0], "/ip4/127.0.0.1/tcp/9");
    m.expect(0, &["provider", "add", ADDRESS]);
    assert_eq!(m.json(0, &["provider", "list", "--json"])["configured"].as_array().unwrap().len(), 1);
    m.expect(2, &["provider", "add", "127.0.0.1:9"]);
    m.expect(2, &["provider", "remove", "12D3KooWx"]);
    m.expect(0, &["provider", "remove", "..c6iDEp"]);
    assert!(m.json(0, &["provider", "list", "--json"])["configured"].as_array().unwrap().is_empty());
}

#[test]
fn a_drive_has_no_more_providers_than_its_head_names() {
    let m = Machine::new();
    let address = |n: u16| {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        let public = holdfast_net::identity::keypair(key).unwrap().public();
        format!("/ip4/127.0.0.1/tcp/9/p2p/{}", public.to_peer_id())
    };
    let all: Vec<String> = (0..257).map(address).collect();
    let given: Vec<&str> = all.iter().flat_map(|a| ["--provider", a.as_str()]).collect();
    let refused = m.expect(2, &[&["init", "--secrets", "secrets"][..], &given].concat());
    assert!(refused.contains("at most 256 providers") && !m.path("secrets").exists(), "{refused}");
    m.json(0, &[&["init", "--json", "--secrets", "secrets"][..], &given[..512]].concat());
    m.expect(2, &["provider", "add", &all[256]]);
    m.expect(0, &["provider", "add", &all[3]]);
    let listed = m.json(0, &["provider", "list", "--json"]);
    assert_eq!(listed["configured"].as_array().unwrap().len(), 256);
}

/// Ends the network's processes also where a test fails.
struct Network<'a>(&'a Machine);
impl Drop for Network<'_> {
    fn drop(&mut self) {
        self.0.run(&["local-network", "stop", "--dir", "net"]);
    }
}

#[test]
fn a_local_network_is_started_once_and_stopped_whole() {
    let m = Machine::new();
    let _network = Network(&m);
    let start = ["local-network", "start", "--dir", "net", "--providers", "2", "--capacity", "1G", "--json"];
    let first = m.json(0, &start);
    let again = m.json(0, &start);
    assert_eq!(first, again, "the same processes");
    let providers = first["providers"].as_array().unwrap();
    assert_eq!(providers.len(), 2);
    assert!(providers.iter().all(|p| p["running"] == true));
    let address = providers[0]["address"].clone();
    m.expect(8, &["provide", "net/provider-1"]);
    let port = address["addrs"][0].as_str().unwrap();
    let taken = m.expect(8, &["provide", "other", "--listen", port]);
    assert!(taken.contains("in use"), "{taken}");

    m.expect(0, &["local-network", "stop", "--dir", "net", "--only", "1"]);
    let status = m.json(0, &["local-network", "status", "--dir", "net", "--json"]);
    assert_eq!(status["providers"][0]["running"], false);
    assert_eq!(status["providers"][1]["running"], true);
    let started = m.json(0, &start);
    assert_eq!(started["providers"][0]["address"], address, "identity and port stay");
    let stopped = m.json(0, &["local-network", "stop", "--dir", "net", "--json"]);
    assert_eq!(stopped["stopped"].as_array().unwrap().len(), 2);
    assert!(!m.path("net/provider-1/provider.pid").exists());
}

#[test]
fn a_folder_of_something_else_is_not_provided() {
    let m = Machine::new();
    fs::create_dir(m.path("photos")).unwrap();
    fs::write(m.path("photos/a.jpg"), "x").unwrap();
    m.expect(5, &["provide", "photos"]);
    fs::create_dir(m.path("newer")).unwrap();
    fs::write(m.path("newer/config"), r#"{"version":2,"capacity_bytes":1,"listen":[]}"#).unwrap();
    m.expect(14, &["provide", "newer"]);
    m.expect(2, &["provide", "p", "--listen", "0.0.0.0:4001"]);
    m.expect(2, &["provide", "p", "--capacity", "much"]);
}

#[test]
fn a_home_of_a_newer_version_is_refused_untouched() {
    let m = Machine::new();
    m.init();
    let path = m.path("home/config");
    let known: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut newer = known.clone();
    newer["version"] = (known["version"].as_u64().unwrap() + 1).into();
    let newer = newer.to_string();
    fs::write(&path, &newer).unwrap();
    m.expect(14, &["status"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn a_passphrase_is_changed_and_the_old_one_opens_nothing() {
    let m = Machine::new();
    m.init();
    fs::write(m.path("new"), "quite another one\n").unwrap();
    let change = |old: &str, new: &str| {
        m.run(&["passphrase", "--json", "--passphrase-file", old, "--new-passphrase-file", new]).status.code()
    };
    let verify = |file: &str| m.run(&["verify", "--passphrase-file", file]).status.code();
    assert_eq!(change("-", "-"), Some(2));
    assert_eq!(change("new", "secrets"), Some(3));
    assert_eq!(verify("secrets"), Some(0));
    assert_eq!(change("secrets", "new"), Some(0));
    assert_eq!((verify("secrets"), verify("new")), (Some(3), Some(0)));
    assert_eq!(mode(&m.path("home/keyfile")), 0o600);
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let m = Machine::new();
    let findings = |code: i32| -> Vec<(String, String)> {
        let report = m.json(code, &["doctor", "--json"]);
        assert_eq!((&report["schema"], &report["mounted"]), (&1.into(), &false.into()));
        let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
        let all = report["findings"].as_array().unwrap();
        assert!(all.iter().all(|f| !text(f, "means").is_empty() && !text(f, "todo").is_empty()), "{report}");
        all.iter().map(|f| (text(f, "check"), text(f, "level"))).collect()
    };
    let has = |findings: &[(String, String)], check: &str, level: &str| {
        assert!(findings.contains(&(check.into(), level.into())), "{check}: {findings:?}");
    };
    has(&findings(10), "home", "warning");
    m.init();
    m.expect(0, &["provider", "add", ADDRESS]);
    let new = findings(10);
    has(&new, "provider_count", "warning");
    has(&new, "silent", "warning");
    has(&new, "mount", "note");
    let keyfile = fs::read(m.path("home/keyfile")).unwrap();
    fs::write(m.path("home/keyfile"), b"").unwrap();
    has(&findings(11), "keyfile", "damage");
    fs::write(m.path("home/keyfile"), keyfile).unwrap();
    fs::write(m.path("home/config"), "{").unwrap();
    has(&findings(11), "home", "damage");
    // For people it is on standard output, whatever the exit code.
    let shown = m.run(&["doctor"]);
    assert_eq!(shown.status.code(), Some(11));
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with("There is damage."));
}

/// A repository file that the tests of a room below keep.
fn committed(name: &str) -> String {
    format!("{}/../proofs/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn proofs_are_made_and_checked_and_their_strength_is_said() {
    let machine = Machine::new();
    fs::write(machine.path("data"), vec![7; 100_000]).unwrap();
    let seed = "5a".repeat(32);
    let made = machine.json(0, &["proofs", "prove", "data", "--seed", &seed, "--out", "proof", "--json"]);
    assert_eq!(made["challenges"], 24);
    assert_eq!(mode(&machine.path("proof")), 0o644);
    let checked = machine.json(0, &["proofs", "verify", "proof", "--json"]);
    assert_eq!((&checked["kind"], &checked["production"]), (&"possession".into(), &true.into()));
    assert!(checked["shows"][0].as_str().unwrap().contains(made["piece"].as_str().unwrap()));
    let mut bytes = fs::read(machine.path("proof")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(machine.path("twin"), &bytes).unwrap();
    machine.expect(11, &["proofs", "verify", "twin"]);
    fs::write(machine.path("none"), "HFPROOF").unwrap();
    machine.expect(11, &["proofs", "verify", "none"]);
    bytes[7] = 9;
    fs::write(machine.path("newer"), &bytes).unwrap();
    machine.expect(14, &["proofs", "verify", "newer"]);
    machine.expect(2, &["proofs", "prove", "data", "--seed", "5a", "--out", "proof"]);

    let report = committed("vectors/compressed.report");
    let text = machine.expect(0, &["proofs", "verify", &report]);
    assert!(text.starts_with("TEST STRENGTH: "), "{text}");
    let checked = machine.json(0, &["proofs", "verify", &report, "--json"]);
    assert_eq!((&checked["kind"], &checked["production"]), (&"compressed-possession".into(), &false.into()));
    let mut bytes = fs::read(report).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(machine.path("twin"), bytes).unwrap();
    machine.expect(11, &["proofs", "verify", "twin"]);
    machine.expect(5, &["proofs", "status", "."]);
}

#[test]
fn what_rests_on_circuits_says_that_the_prover_is_missing() {
    let machine = Machine::new();
    // The same program, alone in a folder.
    let alone = machine.path("holdfast");
    fs::copy(env!("CARGO_BIN_EXE_holdfast"), &alone).unwrap();
    let run = |words: &[&str]| {
        let output =
            Command::new(&alone).args(words).env("PATH", machine.dir.path().join("empty")).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let sealed = committed("sectors/vectors/seal-2k.proof");
    for words in [&["proofs", "verify", &sealed][..], &["proofs", "params", "--profile", "test-2k"]] {
        let (code, said) = run(words);
        assert_eq!(code, Some(15), "{said}");
        assert!(said.contains("holdfast-prover is missing") && said.contains("cargo build"), "{said}");
    }
    // The others need none.
    let (code, said) = run(&["proofs", "verify", &committed("vectors/compressed.report")]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["provide", "p", "--seal", "test-3k"]);
    assert_eq!(code, Some(2), "{said}");
}
