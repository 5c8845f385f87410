//! Where suites run: a file system of ours mounted for them, or a directory that somebody names.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use holdfast_tests::harness::{Context, Process, run_ok, wait_until};

/// Of the image that the store lies on. Suites fill disks and truncate to a petabyte.
const IMAGE_BYTES: u64 = 6 << 30;
/// What the file system says it has.
const ROOM_BYTES: u64 = 3 << 30;
const LIMIT: Duration = Duration::from_secs(60);

/// A directory to run in.
pub struct Ground {
    /// Names it in the output.
    pub label: String,
    pub dir: PathBuf,
    /// The ext4 beside it, for what fails there too. `None` where nothing can be mounted.
    pub native: Option<PathBuf>,
    /// Everything runs here; elsewhere, what depends on the kind of mount.
    pub whole: bool,
    ours: Option<Ours>,
}

/// A mount of our own.
struct Ours {
    store: PathBuf,
    mountpoint: PathBuf,
    options: String,
    process: RefCell<Process>,
}

impl Ground {
    /// Below a directory of somebody else.
    pub fn given(dir: PathBuf) -> Result<Ground> {
        let below = dir.join(format!("suites-{}", std::process::id()));
        std::fs::create_dir(&below).with_context(|| format!("{}", below.display()))?;
        open_to_all(&below)?;
        Ok(Ground { label: "given".to_owned(), dir: below, native: None, whole: true, ours: None })
    }

    /// Takes away what [`Ground::given`] made.
    pub fn clear(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.dir).context("taking away what the suites left")
    }

    /// Mounts a new file system below `places`.
    pub fn mount(ctx: &Context, places: &Path, options: &str, whole: bool) -> Result<Ground> {
        let disk = disk(ctx, &places.join("disk"))?;
        let store = disk.join(format!("store-{options}"));
        let mountpoint = places.join(options);
        std::fs::create_dir_all(&mountpoint)?;
        let root = nix::unistd::geteuid().is_root();
        let all = if root { format!("allow_other,suid,dev,{options}") } else { options.to_owned() };
        let native = disk.join("native");
        std::fs::create_dir_all(&native)?;
        open_to_all(&native)?;
        let process = RefCell::new(start(ctx, &store, &mountpoint, &all)?);
        open_to_all(&mountpoint)?;
        let ours = Ours { store, mountpoint: mountpoint.clone(), options: all, process };
        let (label, native) = (options.to_owned(), root.then_some(native));
        Ok(Ground { label, dir: mountpoint, native, whole, ours: Some(ours) })
    }

    /// An empty folder for one test, in which everybody may write.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir(&path)?;
        open_to_all(&path)?;
        Ok(path)
    }

    /// Writes a tree of everything, mounts anew, and compares.
    pub fn remount(&self, ctx: &Context) -> Result<()> {
        let Some(ours) = &self.ours else { return Ok(()) };
        let tree = self.folder("remount")?;
        plant(&tree)?;
        let before = survey(&tree)?;
        unmount(ours)?;
        *ours.process.borrow_mut() = start(ctx, &ours.store, &ours.mountpoint, &ours.options)?;
        let after = survey(&tree)?;
        for (path, seen) in &before {
            let now = after.get(path).with_context(|| format!("{} is gone", path.display()))?;
            if now != seen {
                bail!("{}: was {seen}, is {now}", path.display());
            }
        }
        if before.len() != after.len() {
            bail!("{} files became {}", before.len(), after.len());
        }
        Ok(())
    }

    pub fn end(self) -> Result<()> {
        self.ours.as_ref().map_or(Ok(()), unmount)
    }
}

fn open_to_all(dir: &Path) -> Result<()> {
    Ok(std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))?)
}

/// A folder on a disk of its own as root, else just a folder.
fn disk(ctx: &Context, dir: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    if !nix::unistd::geteuid().is_root() || is_mountpoint(dir)? {
        return Ok(dir.to_owned());
    }
    let image = ctx.dir.join("disk.img");
    std::fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
    run_ok(Command::new("mkfs.ext4").arg("-q").arg(&image), LIMIT)?;
    ctx.registry.mount(dir)?;
    run_ok(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir), LIMIT)?;
    open_to_all(dir)?;
    Ok(dir.to_owned())
}

fn is_mountpoint(dir: &Path) -> Result<bool> {
    let parent = dir.parent().context("no parent")?;
    Ok(dir.metadata()?.dev() != parent.metadata()?.dev())
}

fn start(ctx: &Context, store: &Path, mountpoint: &Path, options: &str) -> Result<Process> {
    std::fs::create_dir_all(store)?;
    let program = ctx.bin("examples/mount_plain").context("cargo builds it with --example mount_plain")?;
    ctx.registry.mount(mountpoint)?;
    let mut command = Command::new(program);
    command.arg(store).arg(mountpoint).args(["-o", options, "--room", &ROOM_BYTES.to_string()]);
    let mut process = Process::start(&mut command, &ctx.dir.join("mount.log"), &ctx.registry)?;
    wait_until("the mount", LIMIT, || {
        if !process.running() {
            bail!("mount_plain ended: {}", process.output());
        }
        is_mountpoint(mountpoint)
    })?;
    Ok(process)
}

fn unmount(ours: &Ours) -> Result<()> {
    let mut command = Command::new(if nix::unistd::geteuid().is_root() { "umount" } else { "fusermount3" });
    if !nix::unistd::geteuid().is_root() {
        command.arg("-u");
    }
    run_ok(command.arg(&ours.mountpoint), LIMIT)?;
    wait_until("the end of mount_plain", LIMIT, || Ok(!ours.process.borrow_mut().running())).map(drop)
}

/// One of everything that is kept.
fn plant(dir: &Path) -> Result<()> {
    use std::os::unix::fs::symlink;
    std::fs::write(dir.join("small"), b"hello")?;
    std::fs::write(dir.join("large"), (0..3_000_000u32).map(|n| n as u8).collect::<Vec<_>>())?;
    let sparse = std::fs::File::create(dir.join("sparse"))?;
    sparse.set_len(1 << 40)?;
    symlink("small", dir.join("link"))?;
    std::fs::hard_link(dir.join("small"), dir.join("second"))?;
    std::fs::create_dir_all(dir.join("a/b/c"))?;
    std::fs::write(dir.join("a/b/empty"), b"")?;
    std::fs::set_permissions(dir.join("a"), std::fs::Permissions::from_mode(0o2750))?;
    let old = std::fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH - Duration::new(1_000, 250_000_000))
        .set_accessed(std::time::UNIX_EPOCH + Duration::new(5_000_000_000, 7));
    std::fs::File::options().write(true).open(dir.join("large"))?.set_times(old)?;
    // A file that was changed after its cache was written out.
    let file = std::fs::File::options().append(true).open(dir.join("small"))?;
    file.sync_all()?;
    std::io::Write::write_all(&mut &file, b", world")?;
    Ok(())
}

/// What stat and read show of everything below.
fn survey(dir: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata()?;
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        }
        let content = match meta.is_file() && meta.len() < 1 << 30 {
            true => blake3::hash(&std::fs::read(&path)?).to_hex().to_string(),
            false => String::new(),
        };
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        let rest = (meta.ino(), meta.mode(), meta.nlink(), meta.uid(), meta.gid(), meta.len());
        found.insert(path, format!("{rest:?} {times:?} {content}"));
    }
    Ok(found)
}
