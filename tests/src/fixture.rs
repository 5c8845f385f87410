//! Home folders that older programs made, as the tree keeps them.
//!
//! `tests/fixtures/home-of-format-N.tar.zst` is a home folder of format N, made by a program of that time: some files sealed
//! into a piece, some only in the log, a small payload beside a record and a large one in a data segment, an index that is
//! up to date. Its passphrase is [`PASSPHRASE`]; it never had a provider. A fixture is never made anew: what cannot
//! read it cannot read people's drives.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Unlocks each of them.
pub const PASSPHRASE: &str = "first format";

/// Unpacks the home folder of `format` below `into`, beside a file with its passphrase. Returns both.
pub fn unpack(format: u32, into: &Path) -> Result<(PathBuf, PathBuf)> {
    let name = format!("home-of-format-{format}.tar.zst");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    let packed = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let tar = zstd::decode_all(packed.as_slice())?;
    std::fs::create_dir_all(into)?;
    let mut child = Command::new("tar")
        .arg("-x")
        .arg("--no-same-owner")
        .current_dir(into)
        .stdin(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no pipe to tar")?.write_all(&tar)?;
    ensure!(child.wait()?.success(), "tar cannot unpack {}", path.display());
    let passphrase = into.join("passphrase");
    std::fs::write(&passphrase, format!("{PASSPHRASE}\n"))?;
    std::fs::set_permissions(&passphrase, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok((into.join("home"), passphrase))
}
