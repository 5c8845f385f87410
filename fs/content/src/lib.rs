//! Holdfast: holdfast-content.
