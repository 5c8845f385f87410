//! Slots that no provider may take, and why: `select`'s rule from its other side, for whoever reads `status`.
//!
//! Owns what providers last said of their room. Promises: a slot is called stuck only if every provider of the drive is out of
//! the question by the rows, or has said within the last minutes that it has no room. Refuses to wait: room is asked for in the
//! background, and what is not known is taken for enough.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use holdfast_net::NetError;
use holdfast_net::wire::message::ProviderInfo;
use parking_lot::Mutex;

use super::Engine;
use super::ledger::{Form, Peer, PieceId, PieceRow, ProviderRow, ProviderState, Seconds};
use crate::workers::place::open_slots;

/// Room is asked for again after so long, while something waits for it.
const ROOM_ASKED: Duration = Duration::from_secs(20);
/// What was said of it counts for so long.
const ROOM_KNOWN: Duration = Duration::from_secs(120);
/// One answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Providers asked side by side.
const AT_ONCE: usize = 8;
/// Slots that are looked at one by one: a status is short.
const SLOTS_LOOKED_MAX: usize = 2_000;

/// What a provider said that it would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub free: u64,
    /// Whether it takes new deals from this drive at all.
    pub accepting: bool,
}

/// What all of them said, and when.
#[derive(Default)]
pub struct Rooms {
    asked: Mutex<Option<Instant>>,
    told: Mutex<HashMap<Peer, (Room, Instant)>>,
}

impl Rooms {
    fn is_due(&self) -> bool {
        let mut asked = self.asked.lock();
        let due = asked.is_none_or(|at| at.elapsed() >= ROOM_ASKED);
        if due {
            *asked = Some(Instant::now());
        }
        due
    }

    fn tell(&self, peer: &Peer, room: Room) {
        self.told.lock().insert(peer.clone(), (room, Instant::now()));
    }

    fn of(&self, peer: &Peer) -> Option<Room> {
        let told = self.told.lock();
        told.get(peer).filter(|(_, at)| at.elapsed() < ROOM_KNOWN).map(|(room, _)| *room)
    }
}

/// Why a provider may not take a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bar {
    /// It keeps, or is asked for, another slot of the piece, or lost this one.
    Keeps,
    /// It fails together with one that does.
    Together,
    /// It does not answer.
    Silent,
    /// It was caught, and gets nothing new until then.
    Barred(Seconds),
    /// It says that it has no room.
    Full,
}

/// What keeps one provider from taking slot `slot` of a piece; nothing if it may. `together`: it is one failure domain with a
/// provider of another slot.
pub fn bar(
    piece: &PieceRow,
    slot: u16,
    (peer, row): (&Peer, &ProviderRow),
    together: bool,
    room: Option<Room>,
    now: Seconds,
) -> Option<Bar> {
    let keeps = piece.slots.iter().zip(0u16..).any(|(s, n)| {
        let holds =
            s.holder.as_ref().is_some_and(|h| &h.provider == peer && (h.failed.is_none() || n == slot));
        holds || (n != slot && s.intent.as_ref().is_some_and(|i| &i.provider == peer))
    });
    if keeps {
        return Some(Bar::Keeps);
    }
    if !matches!(row.state, ProviderState::Active) {
        return Some(Bar::Silent);
    }
    if row.is_barred(now) {
        return Some(Bar::Barred(row.barred_until));
    }
    if together {
        return Some(Bar::Together);
    }
    room.filter(|room| !room.accepting || room.free < piece.slot_len(slot)).map(|_| Bar::Full)
}

/// All slots that are stuck.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stuck {
    /// How many.
    pub slots: u64,
    /// Who is kept from taking them, by what.
    pub bars: BTreeMap<Bar, BTreeSet<Peer>>,
}

impl Stuck {
    /// As a person reads it, one sentence's part for each reason.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut barred: (usize, Seconds) = (0, Seconds::MAX);
        for (bar, peers) in &self.bars {
            let n = peers.len();
            let (are, have) = if n == 1 { ("is", "has") } else { ("are", "have") };
            words.push(match bar {
                Bar::Keeps => format!("{n} {have} another slot of the same data already, or lost this one"),
                Bar::Together => {
                    format!("{n} {are} of one failure domain with a provider that has another slot")
                }
                Bar::Silent => format!("{n} {} not answer", if n == 1 { "does" } else { "do" }),
                Bar::Full => format!("{n} {have} no room"),
                Bar::Barred(until) => {
                    barred = (barred.0 + n, barred.1.min(*until));
                    continue;
                }
            });
        }
        if barred.0 > 0 {
            let (n, minutes) = (barred.0, barred.1 / 60);
            let was = if n == 1 { "was" } else { "were" };
            let first = if n == 1 { "" } else { "at the earliest " };
            let (hour, minute) = (minutes / 60 % 24, minutes % 60);
            words.push(format!("{n} {was} caught and barred, {first}until {hour:02}:{minute:02} UTC"));
        }
        if words.is_empty() {
            words.push("the drive has no providers".to_owned());
        }
        words
    }
}

/// Looks at every slot that data still needs. Reads rows only.
pub fn look(engine: &Engine) -> Stuck {
    let (ledger, now) = (&engine.ledger, engine.now());
    let safe = |row: &PieceRow| {
        let enough = |stripe: &super::ledger::StripeRow| {
            let safe = |id: &PieceId| ledger.counting_as(id, Form::Copies) >= engine.wanted(id);
            stripe.pieces.iter().all(|piece| safe(&piece.id))
        };
        row.stripe.as_ref().is_some_and(enough)
    };
    let providers: Vec<(Peer, ProviderRow)> = ledger
        .providers()
        .into_iter()
        .filter(|(_, row)| !matches!(row.state, ProviderState::Removed))
        .collect();
    let rooms: Vec<Option<Room>> = providers.iter().map(|(peer, _)| engine.rooms.of(peer)).collect();
    let mut stuck = Stuck::default();
    let mut looked = 0;
    for (id, row) in ledger.pieces() {
        // The same slots that the place worker fills.
        let needed = open_slots(&row).next().is_some()
            && !safe(&row)
            && (row.stripe.is_some() || ledger.counting_as(&id, Form::Stripe) < engine.wanted(&id));
        if !needed || looked >= SLOTS_LOOKED_MAX {
            continue;
        }
        for slot in open_slots(&row) {
            looked += 1;
            let others = others(&row, slot);
            let mut bars = Vec::new();
            let may = providers.iter().zip(&rooms).any(|((peer, provider), room)| {
                let all: Vec<&Peer> = others.iter().copied().chain([peer]).collect();
                let domains = ledger.domains(&all);
                let together = domains.split_last().is_some_and(|(own, others)| others.contains(own));
                match bar(&row, slot, (peer, provider), together, *room, now) {
                    Some(bar) => bars.push((bar, peer)),
                    None => return true,
                }
                false
            });
            if !may {
                stuck.slots += 1;
                bars.into_iter().for_each(|(bar, peer)| {
                    stuck.bars.entry(bar).or_default().insert(peer.clone());
                });
            }
        }
    }
    stuck
}

/// Who keeps another slot, or is asked to.
fn others(row: &PieceRow, slot: u16) -> Vec<&Peer> {
    let slots = row.slots.iter().zip(0u16..).filter(|(_, n)| *n != slot);
    slots
        .flat_map(|(s, _)| {
            let holder = s.holder.as_ref().filter(|h| h.failed.is_none()).map(|h| &h.provider);
            holder.into_iter().chain(s.intent.as_ref().map(|intent| &intent.provider))
        })
        .collect()
}

impl Engine {
    /// Asks the providers for their room, in the background and not too often.
    pub fn ask_room_soon(self: &Arc<Self>) {
        if self.rooms.is_due() {
            let engine = self.clone();
            tokio::spawn(async move { engine.ask_info().await });
        }
    }

    /// What every provider says of itself now, and when by our clock; or why it says nothing.
    pub async fn ask_info(self: &Arc<Self>) -> Vec<(Peer, Result<(ProviderInfo, Seconds), String>)> {
        let there = self.ledger.providers().into_iter();
        let there = there.filter(|(_, row)| !matches!(row.state, ProviderState::Removed));
        let said: Vec<(Peer, Result<(ProviderInfo, Seconds), String>)> = futures::stream::iter(there)
            .map(|(peer, _)| async move {
                let asking = async {
                    let session = self.peers.session(&self.ledger, &peer).await?;
                    Ok::<_, NetError>((session.info().await?, self.now()))
                };
                let said = match tokio::time::timeout(PATIENCE, asking).await {
                    Ok(answer) => answer.map_err(|error| error.to_string()),
                    Err(_) => Err("no answer in time".to_owned()),
                };
                (peer, said)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (peer, info) in said.iter().filter_map(|(peer, info)| Some((peer, &info.as_ref().ok()?.0))) {
            self.rooms.tell(peer, Room { free: info.free, accepting: info.accepting });
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{Holder, Intent};
    use super::*;

    fn holder(name: &str, failed: bool) -> Option<Holder> {
        Some(Holder {
            provider: name.into(),
            deal: vec![],
            entry: 0,
            confirmed_at: 1,
            proven_at: 1,
            ends_at: 9,
            failed: failed.then(|| "wrong bytes".into()),
        })
    }

    #[test]
    fn each_reason_is_found() {
        let mut piece = PieceRow::new(10, 3);
        piece.slots[0].holder = holder("a", false);
        piece.slots[1].intent = Some(Intent { provider: b"b".to_vec(), proposal: vec![], since: 0 });
        piece.slots[2].holder = holder("c", true);
        let well = ProviderRow::new(0);
        let of = |name: &str, row: &ProviderRow, together, room| {
            bar(&piece, 2, (&name.as_bytes().to_vec(), row), together, room, 50)
        };
        for name in ["a", "b", "c"] {
            assert_eq!(of(name, &well, false, None), Some(Bar::Keeps), "{name}");
        }
        assert_eq!(of("d", &well, false, None), None);
        assert_eq!(of("d", &well, true, None), Some(Bar::Together));
        let room = |free, accepting| Some(Room { free, accepting });
        assert_eq!(of("d", &well, false, room(10, true)), None);
        assert_eq!(of("d", &well, false, room(9, true)), Some(Bar::Full));
        assert_eq!(of("d", &well, false, room(99, false)), Some(Bar::Full));
        let silent = ProviderRow { state: ProviderState::Suspect { since: 1 }, ..well.clone() };
        assert_eq!(of("d", &silent, false, None), Some(Bar::Silent));
        let caught = ProviderRow { barred_until: 100, ..well };
        assert_eq!(of("d", &caught, false, None), Some(Bar::Barred(100)));
    }

    #[test]
    fn a_person_reads_who_is_kept_from_it_and_until_when() {
        let peers = |names: &[&str]| -> BTreeSet<Peer> {
            names.iter().map(|name| name.as_bytes().to_vec()).collect()
        };
        let at = |hour: u64, minute: u64| 20_000 * 86_400 + hour * 3600 + minute * 60;
        let bars = [
            (Bar::Keeps, peers(&["a", "b"])),
            (Bar::Together, peers(&["c"])),
            (Bar::Barred(at(14, 5)), peers(&["d"])),
            (Bar::Barred(at(16, 0)), peers(&["e"])),
        ];
        let words = Stuck { slots: 1, bars: bars.into() }.words();
        assert_eq!(words.len(), 3);
        assert!(words[0].starts_with("2 have another slot"), "{words:?}");
        assert!(words[1].starts_with("1 is of one failure domain"), "{words:?}");
        assert_eq!(words[2], "2 were caught and barred, at the earliest until 14:05 UTC");
        assert_eq!(Stuck::default().words(), ["the drive has no providers"]);
    }
}
