//! Holdfast: holdfast-net.
