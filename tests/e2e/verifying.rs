//! `holdfast proofs` as somebody meets it who was handed a file: what holds, what does not, and what is no proof at all.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_tests::harness::{Context, Finished, run, run_ok};
use serde_json::Value;

const SHORT: Duration = Duration::from_secs(60);
/// Making parameters, and a proof, on a busy machine.
const LONG: Duration = Duration::from_secs(600);
const REFUSED: i32 = 11;
const NEWER: i32 = 14;
const SEED: &str = "0101010101010101010101010101010101010101010101010101010101010101";
/// Bytes at which a proof is cut, turned and lengthened.
const PLACES: usize = 12;

fn vectors() -> Vec<PathBuf> {
    let proofs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proofs");
    let of = |folder: &str, names: &[&str]| {
        names.iter().map(|name| proofs.join(folder).join(name)).collect::<Vec<_>>()
    };
    let sealed = ["seal-2k.proof", "seal-2k-synthetic.proof", "window-2k.proof", "winning-2k.proof"];
    let ours = ["possession.proof", "possession-set.proof", "compressed.report"];
    [of("vectors", &ours), of("sectors/vectors", &sealed)].concat()
}

fn verify(ctx: &Context, file: &Path) -> Result<Finished> {
    run(Command::new(ctx.bin("holdfast")?).args(["proofs", "verify", "--json"]).arg(file), SHORT)
}

/// Refused, by an exit code of its own and in words; never by a crash.
fn refused(ctx: &Context, file: &Path, what: &str) -> Result<()> {
    let done = verify(ctx, file)?;
    let code = done.status.code();
    ensure!(
        [Some(REFUSED), Some(NEWER)].contains(&code),
        "{what}: {}\n{}{}",
        done.status,
        done.stdout,
        done.stderr
    );
    ensure!(!done.stderr.contains("panicked"), "{what}: {}", done.stderr);
    let said: Value =
        serde_json::from_str(&done.stdout).with_context(|| format!("{what}: {}", done.stdout))?;
    ensure!(said["error"]["message"].as_str().is_some_and(|text| text.len() > 8), "{what}: {said}");
    Ok(())
}

pub fn no_proof(ctx: &Context) -> Result<()> {
    let file = ctx.dir.join("file");
    let put = |bytes: &[u8]| std::fs::write(&file, bytes);
    let mut all = Vec::new();
    for vector in vectors() {
        let name = vector.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let done = verify(ctx, &vector)?;
        ensure!(done.status.success(), "{name}: {}{}", done.stdout, done.stderr);
        let good = std::fs::read(&vector)?;
        for place in (0..PLACES).map(|n| n * good.len() / PLACES) {
            put(&good[..place])?;
            refused(ctx, &file, &format!("{name} cut at {place}"))?;
            let mut turned = good.clone();
            turned[place] ^= 1 << (place % 8);
            put(&turned)?;
            refused(ctx, &file, &format!("{name} turned at {place}"))?;
        }
        for tail in [b"\0".as_slice(), &good] {
            put(&[&good, tail].concat())?;
            refused(ctx, &file, &format!("{name} with {} more bytes", tail.len()))?;
        }
        all.push(good);
    }
    // Mislabelled: the head of one on the body of another. Two of a kind begin alike.
    for (one, other) in all.iter().zip(all.iter().cycle().skip(1)) {
        let at = 40.min(one.len()).min(other.len());
        let mixed = [&one[..at], &other[at..]].concat();
        if !all.contains(&mixed) {
            put(&mixed)?;
            refused(ctx, &file, "a head on another body")?;
        }
    }
    for len in [0, 1, 7, 8, 100, 1 << 20, (16 << 20) + 2] {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
        for head in [b"".as_slice(), b"HFPROOF\x01", b"\x86\x01", b"\x87\x66HFOPEN\x01", b"\x9b\xff\xff"] {
            put(&[head, &bytes].concat())?;
            refused(ctx, &file, &format!("{len} bytes of noise behind {head:?}"))?;
        }
    }
    std::fs::File::create(&file)?.set_len(1 << 40)?;
    refused(ctx, &file, "a terabyte of holes")?;
    refused(ctx, Path::new("/dev/zero"), "a device without end")?;
    for (path, code) in [(ctx.dir.clone(), 1), (ctx.dir.join("absent"), 1)] {
        let done = verify(ctx, &path)?;
        ensure!(done.status.code() == Some(code), "{}: {}", path.display(), done.status);
        ensure!(done.stdout.contains(&*path.to_string_lossy()), "it does not say which: {}", done.stdout);
    }
    from_a_pipe(ctx)?;
    a_set(ctx)
}

/// Several files are proven as one set, in their order; of a file that has no bytes nothing can be asked.
fn a_set(ctx: &Context) -> Result<()> {
    let mut files = Vec::new();
    for (number, len) in [(1_u8, 40_000), (2, 900), (3, 127)] {
        let path = ctx.dir.join(format!("of-a-set-{number}"));
        std::fs::write(&path, vec![number; len])?;
        files.push(path);
    }
    let out = ctx.dir.join("set.proof");
    let prove = |files: &[PathBuf]| -> Result<Finished> {
        let mut command = Command::new(ctx.bin("holdfast")?);
        command.args(["proofs", "prove", "--json", "--seed", SEED]).args(files).arg("--out").arg(&out);
        run(&mut command, SHORT)
    };
    let done = prove(&files)?;
    ensure!(done.status.success(), "{}{}", done.stdout, done.stderr);
    let proven: Value = serde_json::from_str(&done.stdout)?;
    ensure!(proven["pieces"].as_array().is_some_and(|pieces| pieces.len() == files.len()), "{proven:#}");
    let digest = proven["set"].as_str().context("no digest")?;
    let said: Value = serde_json::from_str(&verify(ctx, &out)?.stdout)?;
    ensure!(said["kind"] == "possession-set" && said["production"] == true, "{said:#}");
    ensure!(said["shows"].to_string().contains(digest), "{said:#}");
    let mut bytes = std::fs::read(&out)?;
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).context("an empty proof")? ^= 1;
    std::fs::write(&out, bytes)?;
    refused(ctx, &out, "a changed proof of a set")?;
    files.reverse();
    let reversed: Value = serde_json::from_str(&prove(&files)?.stdout)?;
    ensure!(reversed["set"] != proven["set"], "the order of a set does not count");
    let empty = ctx.dir.join("nothing");
    std::fs::write(&empty, b"")?;
    ensure!(prove(&[empty])?.status.code() == Some(2), "nothing was proven");
    Ok(())
}

fn from_a_pipe(ctx: &Context) -> Result<()> {
    for vector in vectors() {
        let mut command = Command::new(ctx.bin("holdfast")?);
        let file = std::fs::File::open(&vector)?;
        command.args(["proofs", "verify", "-"]).stdin(Stdio::from(file));
        let done = command.output()?;
        ensure!(done.status.success(), "{}: {}", vector.display(), String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

/// The provider's side of a compressed audit, and the auditor's, by hand.
pub fn compressed(ctx: &Context) -> Result<()> {
    let mut slots = Vec::new();
    for (number, len) in [(1_u8, 300_000), (2, 90_000), (3, 127)] {
        let path = ctx.dir.join(format!("slot-{number}"));
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut bytes);
        std::fs::write(&path, bytes)?;
        slots.push(path);
    }
    let report = ctx.dir.join("report");
    let first = compress(ctx, &slots, SEED, &report)?;
    let said: Value = serde_json::from_str(&verify(ctx, &report)?.stdout)?;
    ensure!(said["kind"] == "compressed-possession" && said["production"] == false, "{said:#}");
    ensure!(said["warning"].as_str().is_some_and(|text| text.starts_with("TEST STRENGTH")), "{said:#}");
    ensure!(said["key_sha256"] == first["key_sha256"], "{said:#}");
    let shown = said["shows"].to_string();
    ensure!(first["set"].as_str().is_some_and(|set| shown.contains(set)), "{shown}");

    // Asked again: the same set under the same key, and another proof.
    let before = std::fs::read(&report)?;
    let other = SEED.replace('1', "2");
    let second = compress(ctx, &slots, &other, &report)?;
    ensure!((&second["set"], &second["key_sha256"]) == (&first["set"], &first["key_sha256"]), "{second:#}");
    ensure!(verify(ctx, &report)?.status.success() && std::fs::read(&report)? != before, "no other proof");
    let mut bad = before;
    *bad.last_mut().context("an empty report")? ^= 1;
    std::fs::write(&report, bad)?;
    refused(ctx, &report, "a changed report")?;

    let openings = ctx.dir.join("openings");
    let slot = slots.first().context("no slot")?;
    let opened = open(ctx, slot, &openings)?;
    ensure!(opened.status.success(), "{}{}", opened.stdout, opened.stderr);
    let opened: Value = serde_json::from_str(&opened.stdout)?;
    ensure!(
        opened["root"] == first["slots"][0]["root"] && opened["piece"] == first["slots"][0]["piece"],
        "{opened:#}"
    );
    let said: Value = serde_json::from_str(&verify(ctx, &openings)?.stdout)?;
    ensure!(
        said["kind"] == "openings" && said["shows"].to_string().contains("% of the leaves differ"),
        "{said:#}"
    );
    wrong(ctx, &slots, slot, &openings)
}

fn compress(ctx: &Context, slots: &[PathBuf], fresh: &str, out: &Path) -> Result<Value> {
    let done = run_ok(&mut compress_command(ctx, slots, fresh, out)?, LONG)?;
    Ok(serde_json::from_str(&done.stdout)?)
}

fn compress_command(ctx: &Context, slots: &[PathBuf], fresh: &str, out: &Path) -> Result<Command> {
    let mut command = Command::new(ctx.bin("holdfast")?);
    command.args(["proofs", "compress", "--json"]).args(slots).args(["--fresh", fresh]).arg("--out").arg(out);
    command.arg("--trees").arg(ctx.dir.join("trees")).arg("--parameters").arg(ctx.dir.join("parameters"));
    Ok(command)
}

fn open(ctx: &Context, slot: &Path, out: &Path) -> Result<Finished> {
    let mut command = Command::new(ctx.bin("holdfast")?);
    command.args(["proofs", "open", "--json", "--seed", SEED, "--count", "64"]).arg(slot);
    command.arg("--out").arg(out).arg("--trees").arg(ctx.dir.join("trees"));
    run(&mut command, LONG)
}

fn wrong(ctx: &Context, slots: &[PathBuf], slot: &Path, out: &Path) -> Result<()> {
    let empty = ctx.dir.join("empty");
    std::fs::write(&empty, b"")?;
    let twice = [slot.to_owned(), slot.to_owned()];
    let cases: [(&[PathBuf], &str, &str); 4] = [
        (slots, "12", "64 hexadecimal digits"),
        (&twice, SEED, "twice"),
        (&[empty], SEED, "0 bytes"),
        (&[ctx.dir.clone()], SEED, "no regular file"),
    ];
    for (files, fresh, word) in cases {
        let done = run(&mut compress_command(ctx, files, fresh, out)?, LONG)?;
        ensure!(
            done.status.code() == Some(2) && done.stdout.contains(word),
            "{word}: {} {}",
            done.status,
            done.stdout
        );
    }
    // A tree that rotted is noticed, and made again once it is gone.
    for entry in std::fs::read_dir(ctx.dir.join("trees"))? {
        let path = entry?.path();
        let mut bytes = std::fs::read(&path)?;
        let from = 32.min(bytes.len());
        let to = bytes.len().saturating_sub(128).max(from);
        bytes[from..to].iter_mut().for_each(|byte| *byte ^= 1);
        std::fs::write(&path, bytes)?;
    }
    let done = open(ctx, slot, out)?;
    ensure!(
        done.status.code() == Some(REFUSED) && done.stdout.contains("Remove the tree"),
        "{}",
        done.stdout
    );
    std::fs::remove_dir_all(ctx.dir.join("trees"))?;
    ensure!(open(ctx, slot, out)?.status.success(), "the tree was not made again");
    Ok(())
}
