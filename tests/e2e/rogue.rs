//! A watcher that turned on its owner: what it can read, move and make others believe, with all that its capability gives it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use holdfast::watch::bundle::{Bundle, Piece, Slot};
use holdfast::watch::capability::{Capability, Known};
use holdfast::watch::log::Log;
use holdfast::watch::reach::Reach;
use holdfast_content::placement::{ChainEnd, PlacementAction, PlacementFacts};
use holdfast_content::watch::WatcherKeys;
use holdfast_content::watch::part::{self, Part};
use holdfast_net::client::PutOutcome;
use holdfast_net::deal::{DEAL_SUITE, DEAL_VERSION, manifest_digest};
use holdfast_net::mask::{SlotSeed, apply};
use holdfast_net::{
    DealId, DealProposal, Env, ErrorCode, Manifest, Multiaddr, NetError, PeerId, RecordKey, RecordKind,
};
use holdfast_tests::compare::Tree;
use holdfast_tests::harness::{Context, Drive, InitOptions, Network, wait_until};
use serde_bytes::ByteBuf;
use serde_json::json;

use crate::watch::{granted, kept, watches};
use crate::{ensure_same, inputs};

const SYNC: Duration = Duration::from_secs(120);
const STALL: Duration = Duration::from_secs(30);
const NAME: &str = "a-name-that-nobody-else-may-see";
const WORDS: &str = "words of the owner's that nobody else may read; ";

/// A rogue, with the capability's keys and what it was told last.
struct Rogue {
    capability: Capability,
    keys: WatcherKeys,
    reach: Reach,
    bundle: Bundle,
}

impl Rogue {
    async fn start(file: &Path, first: &str) -> Result<Rogue> {
        let capability = Capability::read(&std::fs::read(file)?)?;
        let keys = capability.keys();
        let reach = Reach::start(&keys, Env::system(), false).await?;
        let peer = add(&reach, first)?;
        let (mut plain, mut number) = (BTreeMap::new(), 0);
        for n in 0.. {
            let key = bundle_name(&capability, n);
            let value = reach.get(&peer, &key).await?.context("no bundle")?;
            let part = Part::verify(&key.name, &value)?;
            number = part.number;
            plain.insert(n, part.open(&keys.open)?.to_vec());
            if n + 1 == Bundle::count(&plain[&0])? {
                break;
            }
        }
        let bundle = Bundle::join(number, &plain)?;
        for provider in &bundle.head.providers {
            let addrs =
                provider.known.addrs.iter().map(|addr| format!("{addr}/p2p/{}", text(&provider.known)));
            for addr in addrs {
                add(&reach, &addr)?;
            }
        }
        reach.set_permits(&bundle)?;
        Ok(Rogue { capability, keys, reach, bundle })
    }

    /// Every slot that somebody keeps, with its holder and its deal.
    fn held(&self) -> impl Iterator<Item = (&Piece, u16, &Slot, Vec<u8>, DealId)> {
        self.bundle.pieces.iter().flat_map(move |piece| {
            piece.slots.iter().zip(0u16..).filter_map(move |(slot, n)| {
                let held = slot.held.as_ref()?;
                let peer = self.bundle.head.providers.get(usize::from(held.provider))?.known.peer.to_vec();
                Some((piece, n, slot, peer, DealId(held.deal)))
            })
        })
    }

    async fn fetch(&self, peer: &Vec<u8>, deal: DealId, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len)?];
        let session = self.reach.session(peer).await?;
        let took = session
            .fetch(deal, 0, len, STALL, |offset, part| {
                let at = usize::try_from(offset).unwrap_or(usize::MAX);
                let fits = bytes.get_mut(at..at.saturating_add(part.len()));
                let copied = fits.map(|place| place.copy_from_slice(&part));
                std::future::ready(copied.ok_or_else(|| NetError::Local("a range beyond the slot".into())))
            })
            .await;
        took?;
        Ok(bytes)
    }

    /// All slots without their masks.
    async fn read_all(&self) -> Result<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        for (piece, n, slot, peer, deal) in self.held() {
            let mut bytes = self.fetch(&peer, deal, piece.slot_len(n)).await?;
            let seed = slot.seed.as_ref().context("a slot without a mask")?;
            apply(&SlotSeed::from_bytes(*seed.as_bytes()), 0, &mut bytes)?;
            all.push(bytes);
        }
        Ok(all)
    }

    /// Tries to end, to list and to pass itself off as the owner.
    async fn take_over(&self) -> Result<usize> {
        let refused = |result: Result<(), NetError>, what: &str| match result {
            Err(error) if matches!(error.code(), Some(ErrorCode::NotFound | ErrorCode::Unauthorized)) => {
                Ok(())
            }
            other => bail!("{what}: {other:?}"),
        };
        let mut deals = 0;
        for (_, _, slot, peer, deal) in self.held() {
            let session = self.reach.session(&peer).await?;
            refused(session.release(deal).await, "a deal of the owner's was ended")?;
            self.reach
                .audit(&peer, deal.0, &slot.cid, false)
                .await
                .context("the slot is not there any more")?;
            let listed = session.holdings(None).await;
            ensure!(listed.map_or(true, |page| page.holdings.is_empty()), "the owner's deals are listed");
            deals += 1;
        }
        let (_, _, _, peer, _) = self.held().next().context("nothing is held")?;
        let session = self.reach.session(&peer).await?;
        let key = bundle_name(&self.capability, 0);
        for author in [&self.keys.log, &self.keys.holder] {
            let forged = part::write(author, 0, u64::MAX, &self.keys.open, b"forged")?;
            match session.put_record(&key, &forged).await {
                Err(_) => {}
                Ok(PutOutcome::Superseded(kept)) if kept.as_ref() != forged => {}
                Ok(outcome) => bail!("a forged bundle was taken: {outcome:?}"),
            }
        }
        Ok(deals)
    }

    /// A further copy of a slot that is well, with `peer`, under the owner's own permit: the deal and its receipt.
    async fn place_needlessly(&self, peer: &Vec<u8>) -> Result<PlacementFacts> {
        let (piece, n, slot, from, deal) = self.held().next().context("nothing is held")?;
        let bytes = Bytes::from(self.fetch(&from, deal, piece.slot_len(n)).await?);
        let signer = self.keys.holder.verifying_key().to_bytes();
        let manifest =
            Manifest::replicas(piece.id, piece.len, piece.cids()?, signer).sign(&self.keys.holder)?;
        let permit = self.reach.place_permit(peer).context("no permit to place")?;
        let now = self.reach.env.clock.unix_seconds();
        let proposal = DealProposal {
            version: DEAL_VERSION,
            suite: DEAL_SUITE,
            client: permit.body().client,
            provider: peer.clone(),
            piece_cid: cid::Cid::try_from(slot.cid.as_slice())?,
            raw_len: bytes.len() as u64,
            manifest: manifest_digest(manifest.as_bytes()),
            start: now,
            end: now + self.bundle.head.deal_seconds,
            price: Vec::new(),
            settlement: 0,
            settlement_data: Vec::new(),
            nonce: [7; 16],
        };
        let signed = proposal.sign_by(permit, &self.keys.holder)?;
        let session = self.reach.session(peer).await?;
        session.propose(&signed, manifest.as_bytes()).await?;
        let receipt = session.push(&signed, Arc::new(bytes), |_| {}).await?;
        Ok(PlacementFacts {
            action: PlacementAction::Add,
            piece: piece.id,
            raw_len: signed.proposal().raw_len,
            slot: n,
            holder: peer.clone(),
            slot_cid: slot.cid.to_vec(),
            deal: signed.deal_id().0.to_vec(),
            receipt: receipt.to_bytes(),
            time: now,
        })
    }

    /// Says in its log what it placed, and things that are not so: a deal that nobody made with a receipt for another one, for the
    /// next slot's own bytes; and a true receipt under another slot's bytes.
    async fn tell(&self, placed: &PlacementFacts, place: Known) -> Result<usize> {
        let (_, n, other, ..) = self.held().nth(1).context("one slot only")?;
        let same_piece = self.held().nth(1).is_some_and(|(piece, ..)| piece.id == placed.piece);
        ensure!(same_piece, "the first piece has one slot only");
        let invented =
            PlacementFacts { slot: n, slot_cid: other.cid.to_vec(), deal: vec![9; 32], ..placed.clone() };
        let elsewhere = PlacementFacts { slot: n, ..placed.clone() };
        let mut log = Log::new(self.keys.log.verifying_key().to_bytes(), ChainEnd::default());
        for facts in [placed.clone(), invented, elsewhere] {
            log.add(facts, &self.keys.log)?;
        }
        let mut parts = log.parts(0)?;
        parts.push((0, log.head(Vec::new(), vec![place])?));
        let author = self.keys.log.verifying_key().to_bytes();
        for provider in &self.bundle.head.providers {
            for (n, plain) in &parts {
                let key = RecordKey::new(RecordKind::WatchLog, part::name(&author, *n));
                let value = part::write(&self.keys.log, *n, 1, &self.bundle.head.shared, plain)?;
                ensure!(
                    self.reach.put(&provider.known.peer.to_vec(), &key, &value).await?,
                    "its log is not taken"
                );
            }
        }
        Ok(log.entries().len())
    }
}

fn bundle_name(capability: &Capability, n: u16) -> RecordKey {
    RecordKey::new(RecordKind::WatchBundle, part::name(&capability.bundle, n))
}

fn text(known: &Known) -> String {
    PeerId::from_bytes(&known.peer).map_or_else(|_| "?".into(), |peer| peer.to_string())
}

/// A provider by the address that it shows.
fn parse(address: &str) -> Result<Known> {
    let mut addr: Multiaddr = address.parse()?;
    let Some(libp2p::multiaddr::Protocol::P2p(peer)) = addr.pop() else { bail!("no identity in {address}") };
    Ok(Known { peer: ByteBuf::from(peer.to_bytes()), addrs: vec![addr.to_string()] })
}

fn add(reach: &Reach, address: &str) -> Result<Vec<u8>> {
    let known = parse(address)?;
    let peer = known.peer.to_vec();
    reach.add_place(&peer, &known.addrs);
    Ok(peer)
}

/// The planted name and words in the spellings that somebody would look for.
fn spellings() -> Vec<Vec<u8>> {
    let encodings = |text: &str| {
        [
            text.as_bytes().to_vec(),
            data_encoding::HEXLOWER.encode(text.as_bytes()).into_bytes(),
            data_encoding::BASE64.encode(&text.as_bytes()[..24]).into_bytes(),
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ]
    };
    [NAME, WORDS].into_iter().flat_map(encodings).collect()
}

pub fn reads_and_moves_nothing(ctx: &Context) -> Result<()> {
    let network = Network::start(ctx, 4)?;
    let options = InitOptions {
        providers: network.addresses[..3].to_vec(),
        config: json!({"limits": {"seal_after_idle_seconds": 1, "audit_interval_seconds": 3}}),
        ..InitOptions::default()
    };
    let drive = Drive::init(ctx, "drive", &options)?;
    drive.mount()?;
    let folder = drive.mountpoint.join(NAME);
    inputs::random_files(&folder, 4, 64 << 10, 1)?;
    std::fs::write(folder.join(format!("{NAME}.txt")), WORDS.repeat(200))?;
    drive.sync_wait(SYNC)?;
    let file = granted(ctx, &drive, "attic", &["--newcomers"])?;
    wait_until("providers having what the watcher needs", SYNC, || {
        Ok(watches(&drive)?.iter().all(|watch| watch["bundle_with"] == 3))
    })
    .with_context(|| drive.daemon_log())?;
    let tree = Tree::read(&drive.mountpoint)?;
    let holders = kept(&network, &[1, 2, 3])?;

    let runtime = tokio::runtime::Runtime::new()?;
    let rogue = runtime.block_on(Rogue::start(&file, &network.addresses[0]))?;
    let slots = runtime.block_on(rogue.read_all())?;
    let bytes: usize = slots.iter().map(Vec::len).sum();
    ensure!(bytes > 3 * (64 << 10), "it read {bytes} bytes only");
    for spelling in spellings() {
        let finder = memchr::memmem::Finder::new(&spelling);
        ensure!(slots.iter().all(|slot| finder.find(slot).is_none()), "it reads {spelling:?}");
    }
    let deals = runtime.block_on(rogue.take_over())?;
    ctx.note(format!(
        "{bytes} bytes of {} slots read and unmasked; {deals} deals could not be ended",
        slots.len()
    ));

    let newcomer = parse(&network.addresses[3])?;
    let peer = add(&rogue.reach, &network.addresses[3])?;
    let placed = runtime.block_on(rogue.place_needlessly(&peer))?;
    ensure!(kept(&network, &[4])? == 1, "the needless copy is not there");
    let told = runtime.block_on(rogue.tell(&placed, newcomer))?;
    ctx.note(format!("a copy of a slot that is well was placed, and {told} entries told"));

    // The owner reads logs once a minute, and when it begins.
    drive.unmount()?;
    drive.mount()?;
    wait_until("the owner ending what was placed needlessly", SYNC, || {
        Ok(kept(&network, &[4])? == 0 && watches(&drive)?.iter().all(|watch| watch["entries_open"] == 0))
    })
    .with_context(|| format!("{:?}\n{}", watches(&drive), drive.daemon_log()))?;
    let log = drive.daemon_log_text();
    for why in [
        "the slot is well where it is",
        "its receipt is not the holder's",
        "it is of other bytes than the slot's",
    ] {
        ensure!(log.contains(why), "no entry was dismissed because {why}:\n{}", drive.daemon_log());
    }
    ensure!(kept(&network, &[1, 2, 3])? == holders, "slots were moved");
    let deals = runtime.block_on(rogue.take_over())?;
    ensure!(deals > 0, "nothing was asked");
    let status = drive.status()?;
    ensure!(status["pieces"]["full"] == status["pieces"]["total"], "{}", drive.status_text());
    ensure_same("after all that", &tree.differences(&Tree::read(&drive.mountpoint)?))?;
    drive.unmount()?;
    Ok(())
}
