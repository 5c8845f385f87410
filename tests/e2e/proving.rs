//! A provider that seals: deals become sectors that are proven on schedule, under load, and its prover's death is not its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use holdfast_net::client::{AuditSpec, Priority};
use holdfast_net::deal::{DEAL_SUITE, DEAL_VERSION, manifest_digest};
use holdfast_net::{
    ByteRange, Client, ClientConfig, DealProposal, Env, ErrorCode, Manifest, Multiaddr, Node, NodeConfig,
    PeerId, Session, SignedManifest, SignedProposal, SigningKey,
};
use holdfast_proofs::{CommpHasher, PieceCid};
use holdfast_tests::harness::{Context, Process, kill_pid, run, run_ok, wait_until};
use serde_json::Value;

use crate::standing::{metrics, of_provider, value};

const PERIOD_SECONDS: u64 = 60;
const DEADLINE_SECONDS: u64 = 30;
/// Making parameters for Window PoSt takes seconds on an idle machine.
const READY: Duration = Duration::from_secs(240);
const LOAD: Duration = Duration::from_secs(120);
const LOAD_FULL: Duration = Duration::from_secs(600);
/// An audit that is answered later is missed.
const AUDIT: Duration = Duration::from_secs(DEADLINE_SECONDS);
/// Deals that are sealed at once: each fills a sector, and each two sectors are a Groth16 proof a period.
const SEALED_AT_ONCE: usize = 8;
/// Fills a sector of 2 KiB alone.
const SMALL: usize = 1_900;
/// Longer than a sector: stored, served and audited, not sealed.
const LARGE: usize = 4 << 20;
const LARGE_AT_ONCE: usize = 4;

/// Whether the prover was built as well.
pub fn prover_is_there() -> Result<()> {
    let mut program = std::env::current_exe()?;
    program.pop();
    if program.ends_with("deps") {
        program.pop();
    }
    ensure!(program.join("holdfast-prover").exists(), "no holdfast-prover (tests/run builds it)");
    Ok(())
}

struct Sealing {
    dir: PathBuf,
    holdfast: PathBuf,
    process: Process,
    address: (PeerId, Vec<Multiaddr>),
}

impl Sealing {
    fn start(ctx: &Context) -> Result<Sealing> {
        let (dir, parameters) = (ctx.dir.join("provider"), ctx.dir.join("parameters"));
        let holdfast = ctx.bin("holdfast")?;
        let mut command = Command::new(&holdfast);
        command
            .args(["provide", "--capacity", "4G", "--listen", "/ip4/127.0.0.1/tcp/0"])
            .args(["--seal", "test-2k", "--seal-cores", "2", "--seal-memory", "5G", "--seal-gather", "1"])
            .args(["--seal-period", &PERIOD_SECONDS.to_string()])
            .args(["--seal-deadline", &DEADLINE_SECONDS.to_string()])
            .args(["--metrics", "0"])
            .arg("--parameters")
            .arg(&parameters)
            .arg(&dir);
        let mut process = Process::start(&mut command, &ctx.dir.join("provide.log"), &ctx.registry)?;
        let file = dir.join("address");
        wait_until("the provider's address", READY, || {
            ensure!(process.running(), "it ended: {}", process.output());
            Ok(file.exists())
        })?;
        let address: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        let peer = address["peer_id"].as_str().context("no peer id")?.parse()?;
        let addrs = address["addrs"].as_array().context("no addresses")?.iter();
        let addrs = addrs.filter_map(|addr| addr.as_str()?.parse().ok()).collect();
        Ok(Sealing { dir, holdfast, process, address: (peer, addrs) })
    }

    fn status(&self) -> Result<Value> {
        let mut command = Command::new(&self.holdfast);
        command.args(["proofs", "status", "--json"]).arg(&self.dir);
        Ok(serde_json::from_str(&run_ok(&mut command, AUDIT)?.stdout)?)
    }

    fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let waited = wait_until(what, READY, || {
            last = self.status()?;
            Ok(is(&last))
        });
        waited.with_context(|| format!("{last:#}"))?;
        Ok(last)
    }

    async fn session(&self, key: &SigningKey) -> Result<Session> {
        let node = Node::start(NodeConfig::client(holdfast_net::identity::keypair([9; 32])?)).await?;
        let client = Client::new(node, Env::system(), ClientConfig::default());
        let session = client.connect(self.address.0, self.address.1.clone()).await?;
        session.authenticate(key.clone()).await?;
        Ok(session)
    }
}

struct Slot {
    bytes: Bytes,
    piece: PieceCid,
    proposal: SignedProposal,
    manifest: SignedManifest,
}

impl Slot {
    fn new(len: usize, number: u64, key: &SigningKey, provider: PeerId) -> Result<Slot> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
        let mut hasher = CommpHasher::new();
        hasher.update(&bytes);
        let piece = hasher.finish();
        let (signer, cid) = (key.verifying_key().to_bytes(), piece.to_cid()?);
        let mut id = [0; 16];
        id.split_at_mut(8).0.copy_from_slice(&number.to_le_bytes());
        let manifest = Manifest::replicas(id, len as u64, vec![cid], signer).sign(key)?;
        let now = holdfast_net::env::SystemClock::new();
        let now = holdfast_net::Clock::unix_seconds(&now);
        let proposal = DealProposal {
            version: DEAL_VERSION,
            suite: DEAL_SUITE,
            client: signer,
            provider: provider.to_bytes(),
            piece_cid: cid,
            raw_len: len as u64,
            manifest: manifest_digest(manifest.as_bytes()),
            start: now,
            end: now + 86_400,
            price: vec![],
            settlement: 0,
            settlement_data: vec![],
            nonce: id,
        };
        Ok(Slot { bytes: Bytes::from(bytes), piece, proposal: proposal.sign(key)?, manifest })
    }

    async fn store(&self, session: &Session) -> Result<(), holdfast_net::NetError> {
        session.propose(&self.proposal, self.manifest.as_bytes()).await?;
        session.push(&self.proposal, Arc::new(self.bytes.clone()), |_| {}).await.map(drop)
    }
}

/// What a while of load came to.
#[derive(Debug, Default)]
struct Tally {
    stored: usize,
    refused: usize,
    audits: usize,
    slowest_audit: Duration,
    read_bytes: u64,
}

/// Stores, reads, audits and gives up, small pieces that are sealed and large ones that are not, one after the other as fast
/// as the provider lets us; small ones a little slower, so that every one of them gets into a sector.
async fn load(sealing: &Sealing, lasting: Duration) -> Result<Tally> {
    let key = SigningKey::from_bytes(&[5; 32]);
    let session = sealing.session(&key).await?;
    let (started, mut tally) = (Instant::now(), Tally::default());
    let (mut small, mut large): (Vec<Slot>, Vec<Slot>) = (Vec::new(), Vec::new());
    let mut small_at = started;
    let mut number = 0;
    while started.elapsed() < lasting {
        number += 1;
        let is_small = Instant::now() >= small_at;
        if is_small {
            small_at = Instant::now() + Duration::from_secs(3);
        }
        let (slots, len, most) = match is_small {
            true => (&mut small, SMALL, SEALED_AT_ONCE),
            false => (&mut large, LARGE, LARGE_AT_ONCE),
        };
        if slots.len() >= most {
            session.release(slots.remove(0).proposal.deal_id()).await?;
        }
        let slot = Slot::new(len, number, &key, sealing.address.0)?;
        match slot.store(&session).await {
            Ok(()) => {
                tally.stored += 1;
                slots.push(slot);
            }
            // Back-pressure: tried again later.
            Err(error) if error.code() == Some(ErrorCode::Busy) => tally.refused += 1,
            Err(error) => return Err(error.into()),
        }
        for slot in small.iter().chain(&large) {
            let asked = Instant::now();
            let spec = AuditSpec { piece: slot.piece, count: 24, epoch: number, record: None };
            session.audit(slot.proposal.deal_id(), &spec, AUDIT).await?;
            tally.slowest_audit = tally.slowest_audit.max(asked.elapsed());
            tally.audits += 1;
        }
        for slot in &large {
            let range = ByteRange::new(0, 1 << 20);
            let got = session.read(slot.proposal.deal_id(), &[range], Priority::Bulk, AUDIT).await?;
            let first = got.first().context("nothing was read")?;
            ensure!(first[..] == slot.bytes[..1 << 20], "other bytes were read");
            tally.read_bytes += first.len() as u64;
        }
    }
    session.close().await;
    Ok(tally)
}

fn windows(status: &Value, name: &str) -> u64 {
    status["windows"][name].as_u64().unwrap_or(0)
}

/// Sealing, serving and receiving at once misses no deadline of 30 s; and the provider outlives its prover.
pub fn under_load(ctx: &Context) -> Result<()> {
    let mut sealing = Sealing::start(ctx)?;
    sealing.wait("a prover that takes deals", |status| status["accepts"] == true)?;
    let status = sealing.status()?;
    ensure!(status["strength"] == "test strength" && status["warning"].is_string(), "{status:#}");

    let runtime = tokio::runtime::Runtime::new()?;
    let lasting = if ctx.full { LOAD_FULL } else { LOAD };
    let tally = runtime.block_on(load(&sealing, lasting))?;
    ctx.note(format!("{tally:?}"));
    let status = sealing.status()?;
    ctx.note(format!("windows {}, {} sector(s)", status["windows"], status["sectors_total"]));
    ensure!(windows(&status, "missed") == 0, "{status:#}");
    ensure!(windows(&status, "proven") >= lasting.as_secs() / DEADLINE_SECONDS / 2, "{status:#}");
    ensure!(status["sectors_faulty"] == 0, "{status:#}");
    let newest = status["sectors"].as_array().context("no sectors")?.iter();
    let newest = newest.filter_map(|sector| sector["number"].as_u64()).max().unwrap_or(0);
    ensure!(newest > SEALED_AT_ONCE as u64, "only {newest} sectors were begun: {status:#}");

    // Anybody may check what was proven.
    let proof = status["windows"]["newest_proof"].as_str().context("no proof")?;
    let mut verify = Command::new(&sealing.holdfast);
    verify.args(["proofs", "verify"]).arg(proof);
    let said = run_ok(&mut verify, AUDIT)?.stdout;
    ensure!(said.starts_with("TEST STRENGTH") && said.contains("window-post"), "{said}");
    let twin = ctx.dir.join("twin.proof");
    let mut bytes = std::fs::read(proof)?;
    *bytes.last_mut().context("an empty proof")? ^= 1;
    std::fs::write(&twin, bytes)?;
    let mut verify = Command::new(&sealing.holdfast);
    verify.args(["proofs", "verify"]).arg(&twin);
    ensure!(run(&mut verify, AUDIT)?.status.code() == Some(11), "a changed proof was not refused");

    stands(ctx, &sealing, &tally)?;
    outlives_its_prover(ctx, &mut sealing)
}

/// `holdfast status` and the metrics say what `proofs status` says, and what was served.
fn stands(ctx: &Context, sealing: &Sealing, tally: &Tally) -> Result<()> {
    let report = of_provider(ctx, &sealing.dir)?;
    ensure!(report["sealing"]["last"]["running"] == true, "{report:#}");
    ensure!(windows(&report["sealing"]["last"], "missed") == 0, "{report:#}");
    ensure!(report["served"]["proofs_made"].as_u64() >= Some(tally.audits as u64), "{report:#}");
    ensure!(report["served"]["proofs_failed"] == 0 && report["health"]["level"] != "trouble", "{report:#}");
    let page = metrics(report["metrics"].as_str().context("no metrics")?)?;
    ensure!(value(&page, "holdfast_sealing_up")? == 1.0, "{page}");
    ensure!(value(&page, "holdfast_sealing_windows_total{result=\"missed\"}")? == 0.0, "{page}");
    let proven = value(&page, "holdfast_sealing_windows_total{result=\"proven\"}")?;
    ensure!(proven >= windows(&report["sealing"]["last"], "proven") as f64, "{page}");
    ensure!(value(&page, "holdfast_provider_served_bytes_total")? >= tally.read_bytes as f64, "{page}");
    ensure!(value(&page, "holdfast_sealing_tasks_at_risk{class=\"proof\"}")? == 0.0, "{page}");
    Ok(())
}

fn outlives_its_prover(ctx: &Context, sealing: &mut Sealing) -> Result<()> {
    // Sectors of deals that were given up at the end of the load go first: they would be gone with any prover.
    let settled = |status: &Value| status["sectors_total"].as_u64() <= Some(SEALED_AT_ONCE as u64);
    let before = sealing.wait("the end of what was given up", settled)?;
    let pid = before["pid"].as_u64().context("no pid")?;
    kill_pid(u32::try_from(pid)?)?;
    let after = sealing.wait("another prover", |status| status["pid"] != pid && status["accepts"] == true)?;
    ensure!(sealing.process.running(), "the provider ended with its prover");
    ensure!(after["sectors_total"] == before["sectors_total"], "{after:#}");
    ensure!(windows(&after, "proven") >= windows(&before, "proven"), "{after:#}");
    let report = of_provider(ctx, &sealing.dir)?;
    ensure!(report["sealing"]["prover_ended"] == 1, "{report:#}");
    let log = std::fs::read_to_string(sealing.dir.join("provider.log"))?;
    ensure!(log.contains("the prover has ended"), "the log does not tell of it");
    ctx.note("the prover was killed and is there again");
    Ok(())
}

/// A prover that cannot be found, or that refuses, is told before anybody is served.
pub fn refused(ctx: &Context) -> Result<()> {
    let holdfast = ctx.bin("holdfast")?;
    let refused = |program: &Path, seal: &str, code: i32, word: &str| -> Result<()> {
        let mut command = Command::new(program);
        command.args(["provide", "--json", "--seal", seal]).arg(ctx.dir.join(format!("p-{code}-{seal}")));
        let done = run(&mut command, READY)?;
        ensure!(done.status.code() == Some(code), "{seal}: {}\n{}{}", done.status, done.stdout, done.stderr);
        ensure!(done.stdout.contains(word), "{}", done.stdout);
        Ok(())
    };
    refused(&holdfast, "test-3k", 2, "unknown profile")?;
    refused(&holdfast, "production-32g", 15, "public beacon")?;
    // The same program where there is no other.
    let alone = ctx.folder("alone")?.join("holdfast");
    std::fs::copy(&holdfast, &alone)?;
    refused(&alone, "test-2k", 15, "holdfast-prover is missing")
}
