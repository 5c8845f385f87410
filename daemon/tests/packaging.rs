//! What packaging/ installs: the mount helper, as mount(8) calls it, and the units, as systemd reads them.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

/// A `holdfast` that writes down what it was called with, and ends with the code that it was told.
fn recorder(dir: &Path, exit: i32) -> PathBuf {
    let program = dir.join("holdfast");
    let script = format!(
        "#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done > {0}/words\ncat > {0}/stdin\necho talk\nexit {exit}\n",
        dir.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

fn mount(dir: &Path, words: &[&str]) -> Output {
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(packaging("mount.holdfast"));
    command.args(words).env("PATH", path).stdin(std::process::Stdio::null()).output().unwrap()
}

fn words(dir: &Path) -> Vec<String> {
    fs::read_to_string(dir.join("words")).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_line_of_fstab_becomes_a_mount() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    recorder(dir, 0);
    let secret = dir.join("pass word");
    fs::write(&secret, "the secret\n").unwrap();
    let options =
        format!("rw,noauto,_netdev,x-a=b,passphrase_file={},noatime,plain_mountpoint", secret.display());
    let done = mount(dir, &["/srv/my home", "/mnt/my drive", "-n", "-o", &options]);
    assert!(done.status.success(), "{done:?}");
    assert!(done.stdout.is_empty(), "mount(8) prints nothing");
    // What root mounts for itself has setuid bits and devices, as with other file systems.
    let with_root = |options: &str| match nix::unistd::geteuid().is_root() {
        true => format!("suid,dev,{options}"),
        false => options.to_owned(),
    };
    let expected = [
        "--home",
        "/srv/my home",
        "mount",
        "/mnt/my drive",
        "--background",
        "-o",
        &with_root("rw,noauto,_netdev,x-a=b,noatime"),
        "--plain-mountpoint",
        "--passphrase-file",
        "-",
    ];
    assert_eq!(words(dir), expected);
    assert_eq!(fs::read_to_string(dir.join("stdin")).unwrap(), "the secret\n");

    let done = mount(dir, &["holdfast", "/mnt/d", "-o", "home=/srv/h", "-o", "ro", "-sv"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(words(dir), ["--home", "/srv/h", "mount", "/mnt/d", "--background", "-o", &with_root("ro")]);
}

#[test]
fn what_is_wrong_has_the_codes_of_mount() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (holdfast, helper) in [(0, 0), (2, 1), (13, 1), (7, 2), (3, 32), (6, 32), (5, 32)] {
        recorder(dir, holdfast);
        assert_eq!(mount(dir, &["/h", "/m"]).status.code(), Some(helper), "holdfast's {holdfast}");
    }
    fs::remove_file(dir.join("words")).unwrap();
    for wrong in [
        &["/h"][..],
        &["holdfast", "/m"],
        &["/h", "/m", "-o", "passphrase_file=/nowhere"],
        &["/h", "/m", "-o", "as=no-such-user"],
        &["/h", "/m", "-x"],
        &["/h", "/m", "more"],
    ] {
        let done = mount(dir, wrong);
        assert_eq!(done.status.code(), Some(1), "{wrong:?}: {done:?}");
        assert!(!done.stderr.is_empty(), "{wrong:?}");
    }
    assert!(mount(dir, &["/h", "/m", "-f"]).status.success(), "a fake mount does nothing");
    assert!(!dir.join("words").exists());
}

/// Unknown settings and wrong values are found by systemd's own reader, where the machine has it.
#[test]
fn systemd_understands_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for unit in ["holdfast.service", "holdfast@.service", "holdfast-provider.service"] {
        // The program of an installation is not here: a shell stands in for it.
        let text = fs::read_to_string(packaging("systemd").join(unit)).unwrap();
        let text = text.replace("/usr/local/bin/holdfast", "/bin/sh");
        let path = dir.path().join(unit.replace('@', "@ann"));
        fs::write(&path, text.replace("User=%i", "User=root")).unwrap();
        let said = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&said.stderr);
        let name = path.file_name().unwrap().to_str().unwrap();
        let about: Vec<&str> = text.lines().filter(|line| line.contains(name)).collect();
        let accepted = |line: &&str| line.contains("Failed to") || line.contains("does not exist");
        let wrong: Vec<&&str> = about.iter().filter(|line| !accepted(line)).collect();
        assert!(wrong.is_empty(), "{unit}: {wrong:#?}");
    }
}
