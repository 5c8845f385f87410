//! What goes wrong on people's machines: each has a clear message and a documented exit code, and nothing is lost by it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::fixture;
use holdfast_tests::harness::{Context, Drive, Finished, InitOptions, kill_pid, run, run_ok};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

const LIMIT: Duration = Duration::from_secs(60);
const LOG: &str = "log/log-0000000000000001";
const DATA: &str = "log/data-0000000000000002";
const PIECE: &str = "pieces/b61d231af0057745397073b8defd09e1.car";

enum Harm {
    Flip(&'static str, u64),
    Cut(&'static str, u64),
    Remove(&'static str),
    Write(&'static str, &'static [u8]),
}

/// What `verify --deep` has to say of it: its exit code, and words of its message.
struct Case {
    harm: Harm,
    exit: i32,
    says: &'static str,
}

const fn case(harm: Harm, exit: i32, says: &'static str) -> Case {
    Case { harm, exit, says }
}

const CASES: &[Case] = &[
    case(Harm::Flip("keyfile", 200), 3, "passphrase is wrong, or"),
    case(Harm::Cut("keyfile", 100), 3, "passphrase is wrong, or"),
    case(Harm::Cut("keyfile", 0), 5, "keyfile is damaged"),
    case(Harm::Remove("keyfile"), 5, "no drive in"),
    case(Harm::Flip("keyfile", 4), 14, "newer"),
    case(Harm::Cut("config", 50), 5, "config is damaged"),
    case(Harm::Write("config", b"{\"version\": 9}"), 14, "newer"),
    case(Harm::Flip(LOG, 40), 5, "no log segment has a readable header"),
    case(Harm::Cut(LOG, 0), 5, "no log segment has a readable header"),
    case(Harm::Remove(LOG), 5, "no log segment has a readable header"),
    case(Harm::Remove("log"), 5, "the log is missing"),
    case(Harm::Write("log", b"a file"), 5, "log"),
    case(Harm::Flip(LOG, 4), 14, "format"),
    case(Harm::Cut(LOG, 6000), 11, "problems"),
    case(Harm::Flip(DATA, 30_000), 11, "problems"),
    case(Harm::Flip(DATA, 10), 11, "problems"),
    case(Harm::Cut(DATA, 9000), 11, "problems"),
    case(Harm::Remove(DATA), 11, "problems"),
    // The log reaches back to the first record: whatever of the index does not open is made again.
    case(Harm::Remove("index"), 0, "No damage"),
    case(Harm::Remove("index/CURRENT"), 0, "No damage"),
    case(Harm::Write("index/CURRENT", b"junk"), 0, "No damage"),
    case(Harm::Remove("index/MANIFEST-000005"), 0, "No damage"),
    case(Harm::Flip("index/MANIFEST-000005", 100), 0, "No damage"),
    case(Harm::Remove("index/000009.sst"), 0, "No damage"),
    case(Harm::Cut("index/000009.sst", 3000), 0, "No damage"),
    case(Harm::Remove("index/OPTIONS-000007"), 0, "No damage"),
    // A block in the middle of it shows only when it is read.
    case(Harm::Flip("index/000009.sst", 2000), 5, "Rename the folder `index`"),
    case(Harm::Flip(PIECE, 5000), 11, "problems"),
    case(Harm::Cut(PIECE, 1000), 11, "bytes instead of"),
    case(Harm::Remove(PIECE), 11, "problems"),
];

impl Harm {
    fn file(&self) -> &'static str {
        match self {
            Harm::Flip(file, _) | Harm::Cut(file, _) | Harm::Remove(file) | Harm::Write(file, _) => file,
        }
    }

    fn name(&self) -> String {
        match self {
            Harm::Flip(file, at) => format!("{file} with another byte {at}"),
            Harm::Cut(file, len) => format!("{file} cut to {len} bytes"),
            Harm::Remove(file) => format!("{file} removed"),
            Harm::Write(file, bytes) => format!("{file} of {} other bytes", bytes.len()),
        }
    }

    fn apply(&self, home: &Path) -> Result<()> {
        let path = home.join(self.file());
        let open = || OpenOptions::new().read(true).write(true).open(&path);
        match self {
            Harm::Flip(_, at) => {
                let (file, mut byte) = (open()?, [0]);
                file.read_exact_at(&mut byte, *at)?;
                // Of a version: one that nobody knows yet.
                file.write_all_at(&[byte[0] ^ 0x55], *at)?;
            }
            Harm::Cut(_, len) => open()?.set_len(*len)?,
            Harm::Remove(_) => remove(&path)?,
            Harm::Write(_, bytes) => {
                remove(&path)?;
                std::fs::write(&path, bytes)?;
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    if path.is_dir() {
        std::fs::remove_dir_all(path)?
    } else {
        std::fs::remove_file(path)?
    }
    Ok(())
}

fn verify(ctx: &Context, home: &Path, passphrase: &Path) -> Result<Finished> {
    let mut command = Command::new(ctx.bin("holdfast")?);
    command.arg("--home").arg(home).args(["verify", "--deep", "--passphrase-file"]).arg(passphrase);
    run(&mut command, LIMIT)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run_ok(Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to), LIMIT)?;
    Ok(())
}

/// A damaged or missing file of each kind. Where the drive is refused, putting the file back gives the drive back.
pub fn damaged_files(ctx: &Context) -> Result<()> {
    let (pristine, passphrase) = fixture::unpack(1, &ctx.dir.join("pristine"))?;
    let mut wrong = Vec::new();
    for case in CASES {
        let (name, home) = (case.harm.name(), ctx.dir.join("home"));
        copy(&pristine, &home)?;
        case.harm.apply(&home).context(name.clone())?;
        let said = verify(ctx, &home, &passphrase)?;
        let text = format!("{}{}", said.stdout, said.stderr);
        if said.status.code() != Some(case.exit) || !text.contains(case.says) || text.contains("panicked") {
            wrong.push(format!(
                "{name}: expected {} and `{}`, got {}: {text}",
                case.exit, case.says, said.status
            ));
        } else if ![0, 11].contains(&case.exit) {
            let file = case.harm.file();
            if home.join(file).exists() {
                remove(&home.join(file))?;
            }
            copy(&pristine.join(file), &home.join(file))?;
            let again = verify(ctx, &home, &passphrase)?;
            if !again.status.success() {
                wrong.push(format!("{name}: with the file put back: {}{}", again.stdout, again.stderr));
            }
        }
        std::fs::remove_dir_all(&home)?;
    }
    ctx.note(format!("{} kinds of damage", CASES.len()));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A log that lost what it had promised is mounted read-only, and says so; nothing in it is changed.
pub fn damage_is_mounted_read_only(ctx: &Context) -> Result<()> {
    let (home, passphrase) = fixture::unpack(1, &ctx.dir.join("one"))?;
    Harm::Remove(DATA).apply(&home)?;
    let drive = Drive::existing(ctx, "drive", home, passphrase);
    drive.mount()?;
    let status = drive.status()?;
    ensure!(status["state"] == "read_only", "{status:#}");
    let reason = status["state_reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("missing"), "the reason: {reason}");
    ensure!(std::fs::read_to_string(drive.mountpoint.join("late"))? == "only in the log\n");
    ensure!(std::fs::write(drive.mountpoint.join("new"), "x").is_err(), "a damaged drive took a write");
    ensure!(std::fs::read(drive.mountpoint.join("late-large")).is_err(), "bytes that are lost were read");
    drive.unmount()?;
    Ok(())
}

fn expect(what: &str, said: &Finished, exit: i32, says: &str) -> Result<()> {
    let text = format!("{}{}", said.stdout, said.stderr);
    ensure!(
        said.status.code() == Some(exit) && said.stderr.contains(says) && !text.contains("panicked"),
        "{what}: expected {exit} and `{says}`, got {}: {text}",
        said.status
    );
    Ok(())
}

/// Mountpoints, secrets and homes that cannot be.
pub fn refused_mounts(ctx: &Context) -> Result<()> {
    let drive = Drive::init(ctx, "drive", &InitOptions::default())?;
    let secrets = drive.secrets.display().to_string();
    let mount = |at: &Path| {
        let at = at.display().to_string();
        drive.command_with(&["mount", &at, "--background", "--passphrase-file", &secrets])
    };
    let full = ctx.folder("full")?;
    std::fs::write(full.join("thesis"), "mine")?;
    expect("not empty", &mount(&full)?, 6, "is not empty")?;
    expect("a file", &mount(&full.join("thesis"))?, 6, "is not a folder")?;
    expect("in the home", &mount(&drive.home.join("m"))?, 6, "home folder")?;
    expect("around the home", &mount(&ctx.dir)?, 6, "cannot hold its own storage")?;
    let wrong = ctx.dir.join("wrong");
    std::fs::write(&wrong, "not the passphrase\n")?;
    let wrong = wrong.display().to_string();
    let at = drive.mountpoint.display().to_string();
    let said = drive.command_with(&["mount", &at, "--background", "--passphrase-file", &wrong])?;
    expect("wrong passphrase", &said, 3, "passphrase is wrong")?;
    ensure!(!drive.mountpoint.exists(), "a mountpoint was made for nothing");
    std::fs::create_dir(&drive.mountpoint)?;
    drive.command_with(&["mount", &at, "--background", "--passphrase-file", &wrong])?;
    std::fs::write(drive.mountpoint.join("x"), "an ordinary folder")?;
    std::fs::remove_file(drive.mountpoint.join("x"))?;
    let said = drive.command_with(&["mount", &at, "--background", "--passphrase-file", "/nowhere"])?;
    ensure!(said.status.code().is_some_and(|code| code != 0) && said.stderr.contains("/nowhere"));
    let said = drive.command_with(&[
        "mount",
        &at,
        "-o",
        "frobnicate",
        "--background",
        "--passphrase-file",
        &secrets,
    ])?;
    expect("an unknown option", &said, 2, "frobnicate")?;

    drive.mount()?;
    std::fs::write(drive.mountpoint.join("note"), "kept")?;
    expect("mounted twice", &mount(&ctx.dir.join("other"))?, 8, "in use")?;
    let second = Drive::init(ctx, "second", &InitOptions::default())?;
    let other = second.secrets.display().to_string();
    let said = second.command_with(&["mount", &at, "--background", "--passphrase-file", &other])?;
    expect("mounted on already", &said, 6, "mounted on")?;
    ensure!(std::fs::read(full.join("thesis"))? == b"mine");
    ensure!(std::fs::read(drive.mountpoint.join("note"))? == b"kept");
    // A daemon that is gone cannot be waited for; its dead mount goes all the same.
    kill_pid(drive.pid()?)?;
    let said = drive.command_with(&["unmount", "--wait"])?;
    expect("a dead mount", &said, 10, "no daemon to wait for")?;
    ensure!(std::fs::read_dir(&drive.mountpoint)?.next().is_none(), "the dead mount is still there");
    expect("nothing", &drive.command_with(&["unmount", "--wait"])?, 4, "not mounted")?;
    Ok(())
}

/// Runs a shell line in a mount namespace of its own, in which it may take things away. Root only.
fn without(ctx: &Context, drive: &Drive, take_away: &str, user: Option<&str>) -> Result<Finished> {
    let bin = ctx.bin("holdfast")?;
    let mount = format!(
        "{} --home {} mount {} --background --passphrase-file {}",
        bin.display(),
        drive.home.display(),
        drive.mountpoint.display(),
        drive.secrets.display()
    );
    let mount = match user {
        Some(user) => format!("setpriv --reuid {user} --regid {user} --clear-groups {mount}"),
        None => mount,
    };
    run(Command::new("unshare").args(["-m", "sh", "-c"]).arg(format!("{take_away} && exec {mount}")), LIMIT)
}

/// A machine without FUSE, without fusermount3, and a home that belongs to somebody else.
pub fn machine_cannot_mount(ctx: &Context) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        ctx.note("not root: nothing can be taken away from this machine");
        return Ok(());
    }
    let drive = Drive::init(ctx, "drive", &InitOptions::default())?;
    // The device is a node that no driver has: opening it fails like that where the module is missing.
    let no_device = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3";
    expect("no /dev/fuse", &without(ctx, &drive, no_device, None)?, 7, "/dev/fuse")?;
    expect("another's home", &without(ctx, &drive, "true", Some("65534"))?, 13, "permission")?;
    let own = |path: &Path| std::os::unix::fs::chown(path, Some(65534), Some(65534));
    for entry in [drive.home.clone(), drive.secrets.clone()] {
        own(&entry)?;
    }
    for entry in std::fs::read_dir(&drive.home)? {
        own(&entry?.path())?;
    }
    // The test's folders let nobody but root through.
    let there = PathBuf::from("/tmp").join(format!("holdfast-test-{}", std::process::id()));
    copy(&drive.home, &there)?;
    let secrets = there.with_extension("secrets");
    copy(&drive.secrets, &secrets)?;
    let bin = there.with_extension("bin");
    copy(&ctx.bin("holdfast")?, &bin)?;
    // A device of the test's own: not every machine gives everybody the right to its /dev/fuse.
    let as_nobody = |mode: &str, more: &str| {
        let line = format!(
            "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m {mode} /dev/fuse c 10 229 && {more} \
             exec setpriv --reuid 65534 --regid 65534 --clear-groups {} --home {} mount {} --background --passphrase-file {}",
            bin.display(),
            there.display(),
            there.with_extension("mount").display(),
            secrets.display()
        );
        run(Command::new("unshare").args(["-m", "sh", "-c"]).arg(line), LIMIT)
    };
    let forbidden = as_nobody("600", "");
    let said =
        as_nobody("666", "for f in $(which -a fusermount3 fusermount); do mount --bind /dev/null $f; done;");
    for path in [&there, &secrets, &bin] {
        remove(path)?;
    }
    let _ = std::fs::remove_dir(there.with_extension("mount"));
    expect("a /dev/fuse of root's alone", &forbidden?, 7, "chmod 666 /dev/fuse")?;
    expect("no fusermount3", &said?, 7, "fusermount3")
}

/// A disk without room: at `init`, at the mount, and while writing. What was acknowledged is there afterwards.
pub fn no_space(ctx: &Context) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        ctx.note("not root: no small disk can be made");
        return Ok(());
    }
    let disk = ctx.folder("disk")?;
    ctx.registry.mount(&disk)?;
    let tmpfs = |size: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o"]).arg(format!("size={size}")).arg("none").arg(&disk);
        run_ok(&mut command, LIMIT)
    };
    tmpfs("64k")?;
    let filler = disk.join("filler");
    let _ = std::fs::write(&filler, vec![1; 1 << 20]);
    let bin = ctx.bin("holdfast")?;
    let secrets = ctx.dir.join("secrets");
    let mut init = Command::new(&bin);
    init.arg("--home").arg(disk.join("home")).args(["init", "--secrets"]).arg(&secrets);
    expect("init on a full disk", &run(&mut init, LIMIT)?, 12, "full")?;
    nix::mount::umount(&disk)?;

    tmpfs("2m")?;
    let _ = std::fs::remove_file(&secrets);
    let drive = Drive::init_at(ctx, "small", disk.join("home"), &InitOptions::default())?;
    let (at, secrets) = (drive.mountpoint.display().to_string(), drive.secrets.display().to_string());
    let said = drive.command_with(&["mount", &at, "--background", "--passphrase-file", &secrets])?;
    expect("mount on a full disk", &said, 12, "space")?;
    run_ok(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&disk), LIMIT)?;
    drive.mount()?;
    std::fs::write(drive.mountpoint.join("kept"), vec![5; 1 << 20])?;
    std::fs::File::open(drive.mountpoint.join("kept"))?.sync_all()?;
    // Bytes that neither compression nor the same chunk elsewhere makes smaller.
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut bytes = vec![0; 1 << 20];
    let full = (0..200u32).find_map(|n| {
        rng.fill_bytes(&mut bytes);
        // A write alone ends in the kernel's cache: what the disk has to say comes with fsync.
        let written =
            std::fs::File::create(drive.mountpoint.join(format!("fill-{n}"))).and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            });
        written.err()
    });
    let full = full.context("64 MiB took 200 MiB")?;
    ensure!(full.raw_os_error() == Some(libc::ENOSPC), "a full disk is {full}");
    drive.unmount()?;
    // A start takes a log segment of 4 MiB, which this disk may not have left any more.
    run_ok(Command::new("mount").args(["-o", "remount,size=80m"]).arg(&disk), LIMIT)?;
    drive.mount()?;
    ensure!(std::fs::read(drive.mountpoint.join("kept"))? == vec![5; 1 << 20]);
    drive.unmount()?;
    nix::mount::umount(&disk)?;
    Ok(())
}
