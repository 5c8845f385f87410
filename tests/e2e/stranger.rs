//! A stranger with all folders finds nothing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_tests::harness::{Context, Drive, InitOptions, Network};
use holdfast_tests::search::{Needle, search};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

const SYNC: Duration = Duration::from_secs(120);
const SECRET_BYTES: usize = 48;

/// Random letters, so that they are a file's name as well as text.
fn word(rng: &mut ChaCha8Rng) -> String {
    (0..24).map(|_| char::from(b'a' + (rng.next_u32() % 26) as u8)).collect()
}

pub fn finds_nothing(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 3)?;
    let drive = Drive::init(
        ctx,
        "drive",
        &InitOptions { providers: network.addresses.clone(), ..Default::default() },
    )?;
    drive.mount()?;
    let mut needles = plant(&drive)?;
    let secrets = std::fs::read_to_string(&drive.secrets)?;
    for line in
        secrets.lines().filter_map(|line| line.split_once(": ")).filter(|(key, _)| !key.starts_with('#'))
    {
        needles.extend(Needle::all_spellings(line.0, line.1.trim().as_bytes()));
        // Four of the words in a row would be as telling as all.
        let words: Vec<&str> = line.1.split_whitespace().collect();
        if words.len() == 24 {
            needles.extend(Needle::all_spellings("four of the words", words[10..14].join(" ").as_bytes()));
        }
    }
    let mut folders: Vec<PathBuf> = vec![drive.home.clone(), network.dir.clone()];
    look(ctx, "while the data is in the log", &folders, &needles)?;
    drive.sync_wait(SYNC)?;
    look(ctx, "while it is Placed", &folders, &needles)?;
    drive.unmount()?;
    look(ctx, "after the unmount", &folders, &needles)?;

    // The same search of the mount itself finds all of it: the search is not blind.
    drive.mount()?;
    folders = vec![drive.mountpoint.clone()];
    let refs: Vec<_> = folders.iter().map(PathBuf::as_path).collect();
    let hits = search(&refs, &needles)?.hits;
    for what in ["a text", "random bytes", "a file's name", "a folder's name"] {
        ensure!(
            hits.iter().any(|hit| hit.starts_with(what)),
            "the search did not find {what} on the mounted drive"
        );
    }
    drive.unmount()?;
    Ok(())
}

fn look(ctx: &Context, when: &str, folders: &[PathBuf], needles: &[Needle]) -> Result<()> {
    let refs: Vec<_> = folders.iter().map(PathBuf::as_path).collect();
    let report = search(&refs, needles)?;
    crate::ensure_same(when, &report.hits)?;
    ensure!(report.files > 10 && report.bytes > 1 << 20, "there was hardly anything to search: {report:?}");
    ctx.note(format!(
        "{when}: {} files, {} MiB, {} streams decompressed, {} needles, nothing found",
        report.files,
        report.bytes >> 20,
        report.expanded,
        needles.len()
    ));
    Ok(())
}

/// Puts secrets wherever a drive keeps anything, and says what they are.
fn plant(drive: &Drive) -> Result<Vec<Needle>> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut needles = Vec::new();
    let mut plant = |what: &str, bytes: &[u8]| needles.extend(Needle::all_spellings(what, bytes));
    let (folder, name, target, attribute, value) =
        (word(&mut rng), word(&mut rng), word(&mut rng), word(&mut rng), word(&mut rng));
    let mut secret = [0; SECRET_BYTES];
    rng.fill_bytes(&mut secret);
    let text = word(&mut rng);

    let dir = drive.mountpoint.join(&folder);
    std::fs::create_dir(&dir)?;
    // Text that compresses well, random bytes alone and within zeros, small and large files.
    std::fs::write(dir.join(&name), format!("{text} and again ").repeat(40_000))?;
    std::fs::write(dir.join("small"), &text)?;
    std::fs::write(dir.join("random"), secret)?;
    let mut large = vec![0; 3 << 20];
    large[1_000_000..1_000_000 + SECRET_BYTES].copy_from_slice(&secret);
    std::fs::write(dir.join("large"), large)?;
    std::os::unix::fs::symlink(&target, dir.join("link"))?;
    let path = std::ffi::CString::new(dir.join(&name).as_os_str().as_encoded_bytes())?;
    let key = std::ffi::CString::new(format!("user.{attribute}"))?;
    // SAFETY: both strings end with a zero, the value is valid for its length.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), key.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    ensure!(result == 0, "setxattr: {}", std::io::Error::last_os_error());

    plant("a folder's name", folder.as_bytes());
    plant("a file's name", name.as_bytes());
    plant("a link's target", target.as_bytes());
    plant("an attribute's name", attribute.as_bytes());
    plant("an attribute's value", value.as_bytes());
    plant("a text", text.as_bytes());
    plant("random bytes", &secret);
    Ok(needles)
}
