//! Holdfast: holdfast-store.
