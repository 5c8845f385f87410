//! Holdfast: holdfast-tests.
