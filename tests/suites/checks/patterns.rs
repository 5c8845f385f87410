//! How programs make sure of their data.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::kit::{same, skip};

pub fn atomic_save(dir: &Path) -> Result<()> {
    let (name, new) = (dir.join("document"), dir.join(".document.new"));
    for version in 0..50u32 {
        let mut file = File::create(&new)?;
        file.write_all(&vec![version as u8; 1_000 * version as usize + 1])?;
        file.sync_all()?;
        fs::rename(&new, &name)?;
        File::open(dir)?.sync_all().context("fsync of the folder")?;
        let bytes = fs::read(&name)?;
        ensure!(
            bytes.len() == 1_000 * version as usize + 1 && bytes.iter().all(|b| *b == version as u8),
            "torn"
        );
    }
    Ok(())
}

pub fn fsync(dir: &Path) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("f"))?;
    file.sync_all().context("of an empty file")?;
    // A journal: preallocated, overwritten in place, fdatasync'd, as databases do it.
    super::kit::allocate(&file, 0, 0, 1 << 20)?;
    for block in 0..64u64 {
        file.write_all_at(&[block as u8; 8_192], block * 8_192)?;
        file.sync_data().context("fdatasync")?;
    }
    File::open(dir.join("f"))?.sync_all().context("through a descriptor for reading")?;
    File::open(dir)?.sync_all().context("of a folder")?;
    fs::rename(dir.join("f"), dir.join("g"))?;
    file.sync_all().context("of a renamed file")?;
    fs::remove_file(dir.join("g"))?;
    file.sync_all().context("of a file without a name")?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 8_192 * 63)?;
    same("the last block", byte[0], 63)
}

fn sql(dir: &Path, text: &str) -> Result<String> {
    let done = Command::new("sqlite3").args(["-batch", "data.db", text]).current_dir(dir).output()?;
    ensure!(done.status.success(), "sqlite3: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

pub fn sqlite(dir: &Path) -> Result<()> {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        return skip("sqlite3 is not installed");
    }
    for mode in ["delete", "truncate", "persist", "wal"] {
        sql(
            dir,
            &format!("pragma journal_mode = {mode}; create table if not exists t (n integer, b blob);"),
        )?;
        let mut script = String::from("pragma synchronous = full;");
        for n in 0..50 {
            script.push_str(&format!("insert into t values ({n}, randomblob(2000));"));
        }
        sql(dir, &script)?;
        // Two at once: the locks hold.
        std::thread::scope(|scope| {
            let insert = "pragma busy_timeout = 20000; insert into t select n, b from t limit 20;";
            let second = scope.spawn(|| sql(dir, insert));
            let first = sql(dir, insert);
            second.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?.and(first)
        })?;
        same("the check of the tables", sql(dir, "pragma integrity_check;")?, "ok".to_owned())?;
    }
    same("rows", sql(dir, "select count(*) from t;")?, (4 * 90).to_string())
}

pub fn git(dir: &Path) -> Result<()> {
    if Command::new("git").arg("--version").output().is_err() {
        return skip("git is not installed");
    }
    let git = |words: &[&str]| -> Result<String> {
        let done = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*"])
            .args(words)
            .current_dir(dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()?;
        ensure!(done.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    git(&["init", "-q"])?;
    for commit in 0..5 {
        for n in 0..60 {
            fs::create_dir_all(dir.join(format!("d{}", n % 7)))?;
            fs::write(dir.join(format!("d{}/f{n}", n % 7)), format!("{commit} {n} ").repeat(200))?;
        }
        git(&["add", "-A"])?;
        git(&["commit", "-q", "-m", "more"])?;
    }
    same("status", git(&["status", "--porcelain"])?, String::new())?;
    git(&["gc", "-q"])?;
    git(&["fsck", "--full", "--strict"])?;
    same("status", git(&["status", "--porcelain"])?, String::new())
}
