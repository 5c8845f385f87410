//! Who is reading a piece's file right now.
//!
//! Owns: a count for each piece, in memory. Promises: while a [`Pin`] lives, [`Pins::is_pinned`] says so, and [`Pins::unless_pinned`] runs nothing.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_content::block::PieceId;
use parking_lot::Mutex;

/// Counts of readers.
#[derive(Clone, Default)]
pub(crate) struct Pins(Arc<Mutex<HashMap<PieceId, usize>>>);

/// One reader.
pub(crate) struct Pin {
    pins: Pins,
    id: PieceId,
}

impl Pins {
    /// Keeps the piece while the pin lives.
    pub(crate) fn pin(&self, id: PieceId) -> Pin {
        *self.0.lock().entry(id).or_insert(0) += 1;
        Pin { pins: self.clone(), id }
    }

    /// Runs `f` with no reader there and none coming meanwhile; `None` if there is one.
    pub(crate) fn unless_pinned<T>(&self, id: PieceId, f: impl FnOnce() -> T) -> Option<T> {
        let pins = self.0.lock();
        if pins.contains_key(&id) { None } else { Some(f()) }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock();
        if let Some(count) = pins.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.id);
            }
        }
    }
}
