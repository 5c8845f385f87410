//! One program for all decoders of the prover, as `decoder` is for all others. `HOLDFAST_DECODER` chooses.

#![no_main]

use std::sync::OnceLock;

use holdfast_sectors::fuzzing::DECODERS;
use libfuzzer_sys::{Corpus, fuzz_target};

fn decoder() -> fn(&[u8]) {
    static DECODER: OnceLock<fn(&[u8])> = OnceLock::new();
    *DECODER.get_or_init(|| {
        let wanted = std::env::var("HOLDFAST_DECODER").unwrap_or_default();
        if wanted == "list" {
            DECODERS.iter().for_each(|(name, _)| println!("{name}"));
            std::process::exit(0);
        }
        match DECODERS.iter().find(|(name, _)| *name == wanted) {
            Some((_, decoder)) => *decoder,
            None => panic!("HOLDFAST_DECODER names no decoder: `{wanted}` (`list` lists them)"),
        }
    })
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    decoder()(bytes);
    Corpus::Keep
});
