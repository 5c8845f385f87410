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

/// A `holdfast` that mounts nothing: it makes homes and secrets as the real one does, and writes down what it was asked.
const PRETENDER: &str = r#"#!/bin/sh
home=
if [ "$1" = --home ]; then home=$2; shift 2; fi
printf '%s\n' "$*" >> "$(dirname "$0")/asked"
case $1 in
    status) exit 4 ;;
    init)
        [ ! -e "$3" ] || exit 2
        printf '# Holdfast drive k51new\nwords: x\n' > "$3"
        [ ! -e "$(dirname "$0")/dies" ] || kill -9 $PPID $$
        mkdir -p "$home"
        printf '{\n  "version": 2,\n  "drive": "k51new",\n}\n' > "$home/config" ;;
    unmount) grep -q drive "$home/config" && exit 4; exit 5 ;;
esac
"#;

struct Quickstart {
    dir: tempfile::TempDir,
}

impl Quickstart {
    /// `None` where the machine has no FUSE, without which it does not begin.
    fn new() -> Option<Quickstart> {
        let fuse = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let user = nix::unistd::geteuid().is_root() || Command::new("fusermount3").arg("-V").output().is_ok();
        if fuse.is_err() || !user {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("target/release")).unwrap();
        let program = dir.path().join("target/release/holdfast");
        fs::write(&program, PRETENDER).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Some(Quickstart { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        let home = self.path("h");
        let mut command = Command::new(packaging("quickstart"));
        command.args(["--no-install", "--home"]).arg(home).args(words).current_dir(self.dir.path());
        command.env("CARGO_TARGET_DIR", self.path("target")).env("HOME", self.dir.path());
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    fn runs(&self, words: &[&str]) -> String {
        let done = self.run(words);
        assert!(done.status.success(), "{words:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    fn asked(&self, what: &str) -> usize {
        let asked = fs::read_to_string(self.path("target/release/asked")).unwrap_or_default();
        asked.lines().filter(|line| line.contains(what)).count()
    }
}

#[test]
fn quickstart_knows_what_it_was_told_and_takes_away_what_it_made() {
    let Some(quick) = Quickstart::new() else { return };
    let words = quick.path("words").display().to_string();
    quick.runs(&["--mount", "m", "--secrets", &words, "--providers", "7"]);
    quick.runs(&["--stop"]);
    let told = quick.runs(&[]);
    assert!(told.contains("with 7 providers") && told.contains(&words), "{told}");
    assert!(told.trim_end().ends_with("/m"), "{told}");
    assert_eq!((quick.asked("init"), quick.asked("--providers 7")), (1, 2));
    // Another file for once is neither remembered nor deleted.
    fs::write(quick.path("other"), "# Holdfast drive k51other\n").unwrap();
    quick.runs(&["--secrets", &quick.path("other").display().to_string()]);
    // Nor is one in the place of the drive's own.
    let own = fs::read(&words).unwrap();
    fs::write(&words, "# Holdfast drive k51else\n").unwrap();
    let told = quick.runs(&["--stop", "--remove"]);
    assert!(told.contains("left ") && quick.path("words").exists() && quick.path("other").exists(), "{told}");
    assert!(!quick.path("h").exists() && !quick.path("h-providers").exists());
    fs::remove_file(&words).unwrap();
    quick.runs(&["--mount", "m", "--secrets", &words]);
    assert_eq!(fs::read(&words).unwrap(), own);
    quick.runs(&["--stop", "--remove"]);
    assert!(!quick.path("words").exists());
}

#[test]
fn quickstart_goes_on_where_it_was_cut_short() {
    let Some(quick) = Quickstart::new() else { return };
    fs::write(quick.path("h-secrets"), "mine").unwrap();
    let refused = quick.run(&["--mount", "m"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!((quick.asked("local-network start"), quick.asked("init")), (0, 0), "before anything is begun");
    fs::remove_file(quick.path("h-secrets")).unwrap();
    // Killed between the words and the drive: providers run, and --stop knows it.
    fs::write(quick.path("target/release/dies"), "").unwrap();
    assert!(!quick.run(&["--mount", "m"]).status.success());
    quick.runs(&["--stop"]);
    assert_eq!(quick.asked("local-network stop"), 1);
    fs::remove_file(quick.path("target/release/dies")).unwrap();
    let told = quick.runs(&[]);
    assert!(told.contains("unfinished-1") && quick.path("h-secrets.unfinished-1").exists(), "{told}");
    // Damage of the home keeps nothing running, and the program is found again wherever this one is built.
    fs::write(quick.path("h/config"), "{").unwrap();
    let mut command = Command::new(packaging("quickstart"));
    command.arg("--stop").arg("--home").arg(quick.path("h")).env("CARGO_TARGET_DIR", quick.path("elsewhere"));
    let done = command.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(quick.asked("local-network stop"), 2);
}
