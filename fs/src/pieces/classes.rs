//! How many losses each piece has to survive: rows beside the pieces'.
//!
//! ```text
//! class/ | piece 16      version u8 = 1 | class u8 (fs/format/content.md)
//! ```
//!
//! Owns: these rows, for pieces that are here, elsewhere or written by another device. Promises: a class only rises ([`raise`] joins), so that no order of
//! raises and no crash between two of them leaves a piece less safe than any of them asked; a piece without a row has the drive's policy, and one that is raised to it from less has a row.

use std::collections::BTreeMap;

use holdfast_content::block::PieceId;
use holdfast_content::class::Class;
use holdfast_store::{Direction, KeyRange, Reads, Store, Table, Txn};

use super::folder::Folder;
use crate::drive::error::DriveError;

const PREFIX: &[u8] = b"class/";
const VERSION: u8 = 1;
/// Rows fetched at once.
const PAGE_ROWS: usize = 1024;

fn key(piece: &PieceId) -> Vec<u8> {
    [PREFIX, piece].concat()
}

/// At rest.
pub(crate) fn encode(class: Class) -> Vec<u8> {
    vec![VERSION, class.to_byte()]
}

/// From rest.
pub(crate) fn decode(bytes: &[u8]) -> Result<Class, DriveError> {
    match *bytes {
        [VERSION, class] => {
            Class::from_byte(class).ok_or_else(|| DriveError::damaged("class row", "no class"))
        }
        [found, ..] if found > VERSION => {
            Err(DriveError::damaged("class row", format!("version {found}: update Holdfast")))
        }
        _ => Err(DriveError::damaged("class row", "its length")),
    }
}

/// The class of a piece.
pub(crate) fn of(store: &impl Reads, piece: &PieceId) -> Result<Class, DriveError> {
    let row = store.get(Table::Jobs, &key(piece))?;
    row.map_or(Ok(Class::DRIVE), |row| decode(&row))
}

/// Writes a new piece's class along with its other rows.
pub(crate) fn put(txn: &mut Txn, piece: &PieceId, class: Class) {
    if class != Class::DRIVE {
        txn.put(Table::Jobs, key(piece), encode(class));
    }
}

/// Takes the row away along with the piece's.
pub(crate) fn delete(txn: &mut Txn, piece: &PieceId) {
    txn.delete(Table::Jobs, key(piece));
}

/// From now on the piece is as safe as `class` asks. Says whether it was not before.
pub(crate) fn raise(
    store: &Store,
    folder: &Folder,
    piece: &PieceId,
    class: Class,
) -> Result<bool, DriveError> {
    let _guard = folder.rows_lock();
    let before = of(store, piece)?;
    if before.covers(class) {
        return Ok(false);
    }
    let mut txn = Txn::new();
    // Also where that is the drive's policy now: of a piece that had less the row says so.
    txn.put(Table::Jobs, key(piece), encode(before.join(class)));
    store.commit(txn)?;
    Ok(true)
}

/// What another device packed a piece for, of which this home knows nothing; where it knows something, as [`raise`].
pub(crate) fn adopt(store: &Store, folder: &Folder, piece: &PieceId, class: Class) -> Result<(), DriveError> {
    {
        let _guard = folder.rows_lock();
        let here =
            store.get(Table::Piece, piece)?.is_some() || store.get(Table::Jobs, &key(piece))?.is_some();
        if !here {
            let mut txn = Txn::new();
            txn.put(Table::Jobs, key(piece), encode(class));
            store.commit(txn)?;
            return Ok(());
        }
    }
    raise(store, folder, piece, class)?;
    Ok(())
}

/// All pieces that have a class of their own.
pub(crate) fn all(store: &impl Reads) -> Result<BTreeMap<PieceId, Class>, DriveError> {
    let mut range = KeyRange::prefix(PREFIX);
    let mut out = BTreeMap::new();
    loop {
        let page = store.scan(Table::Jobs, &range, PAGE_ROWS, Direction::Forward)?;
        let last = page.len() < PAGE_ROWS;
        if let Some((key, _)) = page.last() {
            range = range.after(key.clone());
        }
        for (key, row) in page {
            let piece = key.get(PREFIX.len()..).and_then(|id| PieceId::try_from(id).ok());
            let piece = piece.ok_or_else(|| DriveError::damaged("class row", "its key"))?;
            out.insert(piece, decode(&row)?);
        }
        if last {
            return Ok(out);
        }
    }
}

/// Whether any piece has one.
pub(crate) fn any(store: &impl Reads) -> Result<bool, DriveError> {
    Ok(!store.scan(Table::Jobs, &KeyRange::prefix(PREFIX), 1, Direction::Forward)?.is_empty())
}
