//! Holdfast: holdfast-fs.
