//! Holdfast: holdfast-proofs.
