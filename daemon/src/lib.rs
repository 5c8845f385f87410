//! Holdfast: holdfast.
