//! Which files there are and what their headers say.

use std::collections::HashMap;
use std::sync::Arc;

use super::Tools;
use crate::error::Result;
use crate::forge::FreeSegment;
use crate::medium::read_exact_at;
use crate::segment::{
    FileName, HEADER_BYTES, HeaderError, Kind, Segment, assemble, file_name, open_header, parse_name,
};
use crate::{Lsn, StoreError};

#[derive(Default)]
pub(crate) struct Inventory {
    pub(crate) segments: HashMap<u64, Arc<Segment>>,
    pub(crate) free: Vec<FreeSegment>,
    /// Files that a start or a rescue did not finish.
    pub(crate) unfinished: Vec<String>,
    pub(crate) store_id: Option<[u8; 16]>,
    pub(crate) next_number: u64,
    pub(crate) epoch_max: u64,
    /// First record of each epoch, in order.
    pub(crate) epochs: Vec<(u64, Lsn)>,
    /// The first header found damaged.
    pub(crate) damage: Option<String>,
}

impl Inventory {
    /// Records from here on are void in segments of `epoch`.
    pub(crate) fn void_from(&self, epoch: u64) -> Lsn {
        let later = self.epochs.iter().filter(|(other, _)| *other > epoch);
        later.map(|(_, first)| *first).min().unwrap_or(Lsn::MAX)
    }

    /// Starts vouch for all records before their first.
    pub(crate) fn vouched(&self) -> Lsn {
        self.epochs.iter().map(|(_, first)| first.saturating_sub(1)).max().unwrap_or(0)
    }
}

pub(super) fn take(tools: &Tools<'_>) -> Result<Inventory> {
    let failed = |error| StoreError::io("list", "log", error);
    let mut inventory = Inventory { next_number: 1, ..Inventory::default() };
    let (mut sealed, mut damaged) = (0, 0);
    for name in tools.medium.list().map_err(failed)? {
        match parse_name(&name) {
            FileName::Segment(kind, number) => {
                inventory.next_number = inventory.next_number.max(number.saturating_add(1));
                match read_header(tools, &name, kind, number)? {
                    Ok(segment) => add(&mut inventory, segment)?,
                    Err(error) => {
                        damaged += 1;
                        sealed += usize::from(matches!(error, HeaderError::Sealed));
                        inventory.damage = Some(format!("the header of {name} is damaged"));
                    }
                }
            }
            FileName::Free(kind, number) => {
                inventory.next_number = inventory.next_number.max(number.saturating_add(1));
                let opened = tools.medium.open(&name).and_then(|file| file.len());
                let size = opened.map_err(|error| StoreError::io("open", &name, error))?;
                inventory.free.push(FreeSegment { kind, name, size });
            }
            FileName::Unfinished => inventory.unfinished.push(name),
            FileName::Foreign => {}
        }
    }
    if inventory.segments.is_empty() && damaged > 0 {
        return Err(if sealed == damaged {
            StoreError::WrongKey
        } else {
            StoreError::corrupt("no segment of the log has a readable header")
        });
    }
    inventory.epochs.sort_unstable();
    inventory.epochs.dedup();
    inventory.epoch_max = inventory.epochs.last().map_or(0, |(epoch, _)| *epoch);
    Ok(inventory)
}

fn add(inventory: &mut Inventory, segment: Segment) -> Result<()> {
    let header = &segment.header;
    if inventory.store_id.is_some_and(|id| id != header.store_id) {
        return Err(StoreError::corrupt("segments of different stores in one folder"));
    }
    inventory.store_id = Some(header.store_id);
    inventory.epochs.push((header.epoch, header.epoch_first_lsn));
    inventory.segments.insert(header.number, Arc::new(segment));
    Ok(())
}

fn read_header(
    tools: &Tools<'_>,
    name: &str,
    kind: Kind,
    number: u64,
) -> Result<Result<Segment, HeaderError>> {
    let file = tools.medium.open(name).map_err(|error| StoreError::io("open", name, error))?;
    let mut bytes = [0; HEADER_BYTES];
    match read_exact_at(&*file, &mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Ok(Err(HeaderError::Malformed));
        }
        Err(error) => return Err(StoreError::io("read the header", name, error)),
    }
    match open_header(&bytes, tools.wrap) {
        Ok((header, key)) if header.kind == kind && header.number == number => {
            Ok(Ok(assemble(header, key, file)))
        }
        Ok(_) => Ok(Err(HeaderError::Malformed)),
        Err(HeaderError::Newer(found)) => Err(StoreError::NewerFormat {
            what: file_name(kind, number),
            found,
            known: crate::segment::VERSION,
        }),
        Err(error) => Ok(Err(error)),
    }
}
