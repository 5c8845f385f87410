//! Living with a machine: an old home under a new program, fstab, another passphrase.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::fixture;
use holdfast_tests::harness::{Context, Drive, InitOptions, run, run_ok};

const LIMIT: Duration = Duration::from_secs(60);

/// A home folder that a program of the first format made is mounted, holds what it held, and goes on.
pub fn first_format(ctx: &Context) -> Result<()> {
    let (home, passphrase) = fixture::unpack(1, &ctx.dir.join("one"))?;
    let drive = Drive::existing(ctx, "drive", home, passphrase);
    let version = || -> Result<serde_json::Value> {
        let config: serde_json::Value = serde_json::from_slice(&std::fs::read(drive.home.join("config"))?)?;
        Ok(config["version"].clone())
    };
    ensure!(version()? == 1, "the fixture is of the first format");
    drive.verify(true)?;
    drive.mount()?;
    ensure!(version()? == 2, "an older program would not know what is written now");
    let at = drive.mountpoint.clone();
    check_first_format(&at)?;
    // What the first format's program left unsealed goes into a commit.
    ensure!(drive.command_with(&["snapshot"])?.status.success());
    check_first_format(&at)?;
    std::fs::write(at.join("new"), "by today's program")?;
    std::fs::write(at.join("folder/hello.txt"), "changed")?;
    drive.unmount()?;
    drive.verify(true)?;
    drive.mount()?;
    ensure!(drive.command_with(&["snapshot"])?.status.success());
    ensure!(std::fs::read_to_string(at.join("new"))? == "by today's program");
    ensure!(std::fs::read_to_string(at.join("folder/inner/second"))? == "changed");
    drive.unmount()?;
    drive.verify(true)?;
    Ok(())
}

fn check_first_format(at: &Path) -> Result<()> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let text = |name: &str| std::fs::read_to_string(at.join(name)).with_context(|| name.to_owned());
    ensure!(text("folder/hello.txt")? == "hello from the first format\n");
    ensure!(text("link")? == "hello from the first format\n");
    ensure!(text("late")? == "only in the log\n");
    ensure!(text("renamed")? == "x".repeat(2000));
    ensure!(text("late-large")? == "L".repeat(66_000));
    let random = std::fs::read(at.join("random.bin"))?;
    ensure!(random.len() == 5000 && random[100..105] == *b"PATCH");
    ensure!(sha256(&random) == RANDOM_SHA256);
    let sparse = std::fs::read(at.join("sparse"))?;
    ensure!(sparse.len() == (5 << 20) + 3 && sparse.ends_with(b"\0end"));
    let hello = std::fs::metadata(at.join("folder/hello.txt"))?;
    ensure!((hello.nlink(), hello.mtime()) == (2, 1_700_000_001));
    ensure!(hello.ino() == std::fs::metadata(at.join("folder/inner/second"))?.ino());
    ensure!(std::fs::metadata(at.join("random.bin"))?.mode() & 0o7777 == 0o640);
    ensure!(std::fs::read(at.join(OsStr::from_bytes(b"not \xff utf-8")))? == b"odd");
    ensure!(!at.join("gone").exists() && !at.join("folder/big").exists());
    let said = run_ok(
        Command::new("getfattr").args(["--only-values", "-n", "user.note"]).arg(at.join("link")),
        LIMIT,
    )?;
    ensure!(said.stdout == "kept", "the attribute is `{}`", said.stdout);
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of random.bin, as it was when the fixture was made.
const RANDOM_SHA256: &str = "9dce10bc26694b9af9442f11db660e2a62068b1f4f8249e304c9a1b01a1e4626";

/// What mount(8) calls for a line of /etc/fstab; umount(8) ends it.
pub fn fstab(ctx: &Context) -> Result<()> {
    let drive = Drive::init(ctx, "drive", &InitOptions::default())?;
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/mount.holdfast");
    let passphrase = ctx.dir.join("passphrase file");
    let secrets = std::fs::read_to_string(&drive.secrets)?;
    let line = secrets.lines().find_map(|line| line.strip_prefix("passphrase:")).context("no passphrase")?;
    std::fs::write(&passphrase, format!("{}\n", line.trim()))?;
    ctx.registry.pidfile(&drive.home.join("daemon.pid"))?;
    ctx.registry.mount(&drive.mountpoint)?;
    let options = |more: &str| {
        let bin = ctx.bin("holdfast")?;
        anyhow::Ok(format!("rw,noatime,_netdev,x-systemd.automount,program={},{more}", bin.display()))
    };
    let mount = |options: &str| {
        let mut command = Command::new(&helper);
        run(command.arg(&drive.home).arg(&drive.mountpoint).args(["-n", "-o", options]), LIMIT)
    };
    let wrong = mount(&options("passphrase_file=/nowhere")?)?;
    ensure!(wrong.status.code() == Some(1) && wrong.stderr.contains("/nowhere"), "{}", wrong.stderr);
    let wrong = mount(&options(&format!("passphrase_file={}", helper.display()))?)?;
    ensure!(
        wrong.status.code() == Some(32) && wrong.stderr.contains("passphrase is wrong"),
        "{}",
        wrong.stderr
    );
    let done = mount(&options(&format!("passphrase_file={},plain_mountpoint", passphrase.display()))?)?;
    ensure!(done.status.success(), "{}{}", done.stdout, done.stderr);
    std::fs::write(drive.mountpoint.join("note"), "by mount(8)")?;
    if nix::unistd::geteuid().is_root() {
        // umount(8) returns before the daemon has ended; whoever mounts again at once waits for it.
        for round in 0..5 {
            std::fs::write(drive.mountpoint.join("round"), round.to_string())?;
            run_ok(Command::new("umount").arg(&drive.mountpoint), LIMIT)?;
            let done =
                mount(&options(&format!("passphrase_file={},plain_mountpoint", passphrase.display()))?)?;
            ensure!(done.status.success(), "mounted again at once: {}{}", done.stdout, done.stderr);
            ensure!(std::fs::read_to_string(drive.mountpoint.join("round"))? == round.to_string());
        }
        for (flag, refused) in [("ro", Some(libc::EROFS)), ("rw", None)] {
            let done = mount(&options(&format!("remount,{flag}"))?)?;
            ensure!(done.status.success(), "remount,{flag}: {}{}", done.stdout, done.stderr);
            let written = std::fs::write(drive.mountpoint.join("remounted"), flag);
            ensure!(written.err().and_then(|e| e.raw_os_error()) == refused, "remounted {flag}");
        }
        let said = mount(&options(&format!("passphrase_file={}", passphrase.display()))?)?;
        ensure!(said.status.code() == Some(32) && said.stderr.contains("in use"), "twice: {}", said.stderr);
    }
    drive.unmount()?;
    drive.mount()?;
    ensure!(std::fs::read_to_string(drive.mountpoint.join("note"))? == "by mount(8)");
    drive.unmount()?;
    Ok(())
}

/// Another passphrase, while the drive is mounted; then a program at another place (an upgrade) mounts it.
pub fn passphrase_and_upgrade(ctx: &Context) -> Result<()> {
    let mut drive = Drive::init(ctx, "drive", &InitOptions::default())?;
    drive.mount()?;
    std::fs::write(drive.mountpoint.join("note"), "kept")?;
    let new = ctx.dir.join("new");
    std::fs::write(&new, "another passphrase\n")?;
    let (old, new_name) = (drive.secrets.display().to_string(), new.display().to_string());
    let wrong =
        ["passphrase", "--passphrase-file", new_name.as_str(), "--new-passphrase-file", new_name.as_str()];
    ensure!(drive.command_with(&wrong)?.status.code() == Some(3), "a wrong passphrase was taken");
    let right = ["passphrase", "--passphrase-file", old.as_str(), "--new-passphrase-file", new_name.as_str()];
    let said = drive.command_with(&right)?;
    ensure!(said.status.success(), "{}", said.stderr);
    ensure!(std::fs::read_to_string(drive.mountpoint.join("note"))? == "kept", "the mounted drive goes on");
    drive.unmount()?;
    let at = drive.mountpoint.display().to_string();
    let said = drive.command_with(&["mount", &at, "--background", "--passphrase-file", &old])?;
    ensure!(said.status.code() == Some(3), "the old passphrase opens it: {}", said.stderr);
    drive.secrets = new;

    let upgraded = ctx.dir.join("holdfast-of-tomorrow");
    std::fs::copy(ctx.bin("holdfast")?, &upgraded)?;
    ctx.registry.pidfile(&drive.home.join("daemon.pid"))?;
    ctx.registry.mount(&drive.mountpoint)?;
    let mut command = Command::new(&upgraded);
    command.arg("--home").arg(&drive.home).arg("mount").arg("--background");
    run_ok(command.arg("--passphrase-file").arg(&drive.secrets), LIMIT)?;
    let runs = std::fs::read_link(format!("/proc/{}/exe", drive.pid()?)).unwrap_or_default();
    ctx.note(format!("mounted again, where it was, by {}", runs.display()));
    ensure!(std::fs::read_to_string(drive.mountpoint.join("note"))? == "kept");
    drive.unmount()?;
    Ok(())
}
