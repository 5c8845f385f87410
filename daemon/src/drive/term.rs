//! The term that this machine writes in: held by a row, claimed where there is none, lost for good where a higher one is met.
//!
//! ```text
//! new drive, older head     writable ─► claimed before the first head that needs it
//! restored                  claimed before the mount; where too few grant: read-only, asked again, then writable
//! overtaken                 what the kernel holds is written ─► read-only ─► sealed and kept under a name (`keep_conflict`)
//! ```
//!
//! Promises: a head is composed only under a standing that is in its row; who is overtaken never writes again, and all that was
//! written before is in a snapshot with a name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use holdfast_content::head::HeadBody;
use holdfast_fs::snapshots::label;
use holdfast_net::term::{Anchors, SignedClaim, Standing};
use parking_lot::Mutex;

use super::claim::{Base, Claimant, Claimed};
use super::events::Level;
use super::ledger::{Ledger, Peer, ProviderState};
use super::{Engine, anchors};
use crate::control::TermReport;
use crate::records::HeadValue;

const NOTE: &str = "term";
/// u64, big endian.
const KNOWN_NOTE: &str = "known";
/// The snapshot that was made when this machine was overtaken; empty: there was nothing to keep.
const CONFLICT_NOTE: &str = "conflict";
/// One round of answers to a claim.
const PATIENCE: Duration = Duration::from_secs(10);
/// The kernel's dirty pages are waited for so long before the drive turns read-only.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

/// What of a term is held, in memory and in its row.
pub struct TermState {
    standing: Mutex<Option<Standing>>,
    /// Anchors that keep the newest head, and of those before them.
    keeping: Mutex<[u32; 2]>,
}

impl TermState {
    /// Reads the row.
    pub fn open(ledger: &Ledger) -> anyhow::Result<Self> {
        let row = ledger.note(NOTE)?;
        let standing =
            row.map(|bytes| Standing::decode(&bytes)).transpose().context("the row of the term")?;
        Ok(Self { standing: Mutex::new(standing), keeping: Mutex::default() })
    }

    /// The term that is held, and who grants the next one.
    pub fn standing(&self) -> Option<Standing> {
        self.standing.lock().clone()
    }

    /// Writes the row, then the memory.
    pub fn set(&self, ledger: &Ledger, standing: Standing) -> anyhow::Result<()> {
        keep(ledger, &standing)?;
        *self.standing.lock() = Some(standing);
        Ok(())
    }

    /// So many anchors keep the newest head, and so many of those before them.
    pub fn note_keeping(&self, anchors: [u32; 2]) {
        *self.keeping.lock() = anchors;
    }
}

/// Writes the row of a standing.
pub fn keep(ledger: &Ledger, standing: &Standing) -> anyhow::Result<()> {
    Ok(ledger.set_note(NOTE, standing.encode())?)
}

/// The last commit that everybody knows who takes the drive over: a majority of the anchors kept a head that names it.
pub fn known(ledger: &Ledger) -> anyhow::Result<u64> {
    let note = ledger.note(KNOWN_NOTE)?;
    let sequence = note.map(|note| note.as_slice().try_into().map(u64::from_be_bytes)).transpose();
    Ok(sequence.context("the row of the last commit that others know")?.unwrap_or(0))
}

/// Notes it; it only rises.
pub fn note_known(ledger: &Ledger, sequence: u64) -> anyhow::Result<()> {
    if known(ledger)? < sequence {
        ledger.set_note(KNOWN_NOTE, sequence.to_be_bytes().to_vec())?;
    }
    Ok(())
}

/// What a claim begins from, by a head as it travels.
pub fn base_of(head: Vec<u8>, value: &HeadValue, body: Option<&HeadBody>) -> Option<Base> {
    let anchors = match value.standing() {
        Some(standing) => Some(standing.anchors.clone()),
        None => body.and_then(anchors::of_old_head),
    };
    Some(Base { head: Some(head), term: value.record().term(), anchors: anchors? })
}

impl Engine {
    /// The head key's public half.
    pub fn head_name(&self) -> [u8; 32] {
        self.keys.head_signing().verifying_key().to_bytes()
    }

    /// The claim of the term that is held, to be shown again.
    pub fn own_claim(&self) -> Option<SignedClaim> {
        let standing = self.term.standing()?;
        let term = standing.certificate.claim().term;
        Some(SignedClaim::sign(term, self.keys.head_signing(), &self.writer))
    }

    /// Whether a provider is in the drive.
    fn is_in(&self, peer: &[u8]) -> bool {
        let row = self.ledger.provider(&peer.to_vec());
        row.is_some_and(|row| !matches!(row.state, ProviderState::Removed))
    }

    /// Providers that may become anchors, those that answer first.
    pub fn may_anchor(&self) -> Vec<Peer> {
        let now = self.now();
        let mut all = self.ledger.providers();
        all.retain(|(_, row)| {
            !matches!(row.state, ProviderState::Removed | ProviderState::Failed { .. }) && !row.is_barred(now)
        });
        all.sort_by_key(|(peer, row)| (!row.answers() || row.last_ok == 0, peer.clone()));
        all.into_iter().map(|(peer, _)| peer).collect()
    }

    /// What a claim of this home begins from.
    fn base(&self) -> anyhow::Result<Option<Base>> {
        if let Some(published) = self.head.published() {
            let value = HeadValue::verify(&published.pair, &self.head_name())?;
            let body = HeadBody::open(value.sealed(), &self.keys)?;
            let base = base_of(published.pair.into_vec(), &value, Some(&body));
            // The owner's word stands for the votes of those that he took out.
            return Ok(base.and_then(|base| {
                let anchors = base.anchors.without(|peer| !self.is_in(peer))?;
                Some(Base { anchors, ..base })
            }));
        }
        let first = self.may_anchor().into_iter().take(anchors::wanted(self.highest_losses()));
        Ok(Anchors::new(first, []).ok().map(|anchors| Base { head: None, term: 0, anchors }))
    }

    /// The term that this machine holds, claimed if it holds none. `Err`: why there is none yet. A higher head that is met on the
    /// way is dealt with.
    pub async fn hold_term(self: &Arc<Self>) -> anyhow::Result<Result<Standing, String>> {
        if let Some(standing) = self.term.standing() {
            return Ok(Ok(standing));
        }
        let Some(base) = self.base()? else {
            return Ok(Err("no provider is known that could decide who writes the drive".to_owned()));
        };
        let claimant = Claimant {
            keys: &self.keys,
            writer: &self.writer,
            env: &self.env,
            patience: PATIENCE,
            force: false,
        };
        let engine = self.clone();
        let session = move |peer: Peer| {
            let engine = engine.clone();
            async move { engine.peers.session(&engine.ledger, &peer).await }
        };
        match claimant.claim(&base, session).await {
            Claimed::Held(certificate) => {
                let standing = Standing { certificate, anchors: base.anchors };
                let row = standing.clone();
                self.blocking(move |e| {
                    if e.head.published().is_some_and(|published| published.taken_over) {
                        // Nothing is given up for a while after a change of term.
                        crate::workers::retain::note_term(&e.ledger, e.now())?;
                    }
                    e.term.set(&e.ledger, row)
                })
                .await??;
                let term = standing.certificate.claim().term;
                let text = format!("term {term} was granted by a majority: this machine writes the drive");
                self.events.add(self.now(), Level::Info, text);
                self.set_waiting(None);
                Ok(Ok(standing))
            }
            Claimed::Newer(head) => {
                self.overtaken_by(&head).await;
                Ok(Err("another machine was granted a higher term".to_owned()))
            }
            Claimed::TooFew(few) => Ok(Err(few.to_string())),
        }
    }

    /// A restored drive that holds no term yet is read-only until it does.
    pub fn wait_for_term(&self) {
        let taken_over = self.head.published().is_some_and(|published| published.taken_over);
        if taken_over && self.term.standing().is_none() && self.overtaken().is_none() {
            self.set_waiting(Some(
                "too few of the providers that decide who writes the drive have agreed yet".into(),
            ));
        }
    }

    /// Somebody shows a head that ends this machine's term.
    pub async fn overtaken_by(self: &Arc<Self>, theirs: &HeadValue) {
        let own = self.term.standing();
        let both = own.as_ref().zip(theirs.standing());
        if both.is_some_and(|(ours, theirs)| {
            let (ours, theirs) = (&ours.certificate, &theirs.certificate);
            theirs.is_forced() || ours.claim().term == theirs.claim().term
        }) {
            // By the owner's word, or by a lie, and not from what a majority kept: nothing of this machine is known there for sure.
            self.distrust();
        }
        let liars = both.map(|(ours, theirs)| ours.certificate.granted_twice(&theirs.certificate));
        for liar in liars.into_iter().flatten() {
            if let Err(error) = self.provider_caught(&liar, "it granted one term to two machines") {
                tracing::error!(%error, "a provider's lie is not noted");
            }
        }
        let body = HeadBody::open(theirs.sealed(), &self.keys);
        let same_device = body.is_ok_and(|body| body.device == self.device);
        let reason = match (same_device, own.is_some()) {
            (true, _) => {
                "providers keep a newer head of this very machine: the home folder is an old copy. Nothing is published from it"
            }
            (false, true) => {
                "another machine writes this drive now. Nothing of this one is published any more"
            }
            (false, false) => {
                "this drive was restored from an older state than its providers keep by now. Nothing of it is published"
            }
        };
        self.overtake(reason).await;
    }

    fn distrust(&self) {
        if let Err(error) = self.ledger.set_note(KNOWN_NOTE, 0u64.to_be_bytes().to_vec()) {
            tracing::error!(%error, "the row of the last commit that others know");
        }
    }

    /// So many anchors granted a higher term that none of this machine's heads will ever be kept by a majority.
    pub async fn outvoted(self: &Arc<Self>) {
        self.overtake("another machine was granted the right to write this drive. Nothing of this one is published any more")
            .await;
    }

    async fn overtake(self: &Arc<Self>, reason: &str) {
        if self.overtaken().is_some() {
            return;
        }
        self.flush_kernel().await;
        let reason = format!(
            "{reason}; what is only here stays readable here: copy it out, then restore the drive from its words into a new home folder"
        );
        self.set_read_only(&reason);
        self.set_waiting(None);
        if let Err(error) = self.keep_conflict().await {
            tracing::warn!(error = %format!("{error:#}"), "what is only here has no name yet; it is tried again");
        }
    }

    /// What programs have written and the kernel has not handed on would be refused once the drive is read-only.
    async fn flush_kernel(&self) {
        let Some(at) = self.mountpoint() else { return };
        let (done, flushed) = tokio::sync::oneshot::channel();
        // A thread of its own: the call returns when every request below it was served.
        let flushing = std::thread::Builder::new().name("flush".into()).spawn(move || {
            let folder = std::fs::File::open(at);
            let synced = folder.and_then(|folder| nix::unistd::syncfs(folder).map_err(std::io::Error::from));
            let _ = done.send(synced);
        });
        let outcome = match flushing {
            Ok(_) => tokio::time::timeout(FLUSH_PATIENCE, flushed).await,
            Err(error) => return tracing::warn!(%error, "the kernel's pages are not waited for"),
        };
        if !matches!(outcome, Ok(Ok(Ok(())))) {
            tracing::warn!(?outcome, "not all of the kernel's pages came before the drive turned read-only");
        }
    }

    /// All that is here, and nobody else has, becomes a snapshot with a name. Done once; after a failure it is tried again.
    pub async fn keep_conflict(self: &Arc<Self>) -> anyhow::Result<()> {
        if self.drive.read_only().is_some() || self.ledger.note(CONFLICT_NOTE)?.is_some() {
            return Ok(());
        }
        self.drive.hurry();
        self.seal_now(true).await?;
        self.blocking(name_conflict).await?
    }

    /// The snapshot that keeps what only this machine has.
    pub fn conflict(&self) -> Option<String> {
        let note = self.ledger.note(CONFLICT_NOTE).ok().flatten()?;
        (!note.is_empty()).then(|| String::from_utf8_lossy(&note).into_owned())
    }

    /// As `status` shows it.
    pub fn term_report(&self) -> Option<TermReport> {
        let standing = self.term.standing()?;
        let names = |peers: &BTreeSet<Peer>| peers.iter().map(super::peers::peer_text).collect();
        let [keeping, keeping_former] = *self.term.keeping.lock();
        Some(TermReport {
            number: standing.certificate.claim().term,
            forced: standing.certificate.is_forced(),
            anchors: names(standing.anchors.now()),
            keeping,
            former: names(standing.anchors.former()),
            keeping_former,
        })
    }
}

fn name_conflict(engine: &Engine) -> anyhow::Result<()> {
    let known = known(&engine.ledger)?;
    let latest = engine.drive.latest_commit()?.map(|commit| commit.sequence);
    let Some(latest) = latest.filter(|latest| *latest > known) else {
        return Ok(engine.ledger.set_note(CONFLICT_NOTE, Vec::new())?);
    };
    let device = engine.device.first_chunk::<4>().map(|d| data_encoding::HEXLOWER.encode(d));
    let name = format!("conflict-{}-{}", device.unwrap_or_default(), label::of_time(engine.now()));
    // After a crash in between it has the name of then.
    let names = engine.drive.snapshot_names()?;
    let name = match names.into_iter().find(|(known, of)| known.starts_with("conflict-") && *of == latest) {
        Some((known, _)) => known,
        None => {
            engine.drive.name_snapshot(&name, latest)?;
            name
        }
    };
    engine.ledger.set_note(CONFLICT_NOTE, name.clone().into_bytes())?;
    let text =
        format!("what only this machine has is in the snapshot {name}: `cp -a` it from .snapshots/{name}");
    engine.events.add(engine.now(), Level::Error, text);
    Ok(())
}
