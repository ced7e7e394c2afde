//! What must hold for any input: one function for each fuzz target, which panics where it does not.
//!
//! `tests/it/fuzz_corpus.rs` includes this file and runs the kept corpus through the same functions.

pub mod config;
pub mod exchange;
pub mod metrics_page;
pub mod parser;
pub mod pieces;
pub mod restore;
pub mod scanner;
pub mod usage;

/// A target: what it asserts of one input.
pub type Check = fn(&[u8]);

/// Every target by its name, which is also that of its folder in `fuzz/corpus`.
pub const TARGETS: [(&str, Check); 7] = [
    ("scanner", scanner::check),
    ("parser", parser::check),
    ("restore", restore::check),
    ("usage", usage::check),
    ("exchange", exchange::check),
    ("metrics_page", metrics_page::check),
    ("config", config::check),
];
