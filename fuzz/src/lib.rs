//! What must hold for any input: one function for each fuzz target, which panics where it does not.
//!
//! `tests/it/fuzz_corpus.rs` includes this file and runs the kept corpus through the same functions.

pub mod cel;
pub mod config;
pub mod endpoints;
pub mod exchange;
pub mod forms;
pub mod headers;
pub mod metrics_page;
pub mod parser;
pub mod pieces;
pub mod restore;
pub mod scanner;
pub mod trace;
pub mod usage;

/// A target: what it asserts of one input.
pub type Check = fn(&[u8]);

/// Every target by its name, which is also that of its folder in `fuzz/corpus`.
pub const TARGETS: [(&str, Check); 12] = [
    ("scanner", scanner::check),
    ("parser", parser::check),
    ("restore", restore::check),
    ("usage", usage::check),
    ("exchange", exchange::check),
    ("headers", headers::check),
    ("metrics_page", metrics_page::check),
    ("endpoints", endpoints::check),
    ("config", config::check),
    ("forms", forms::check),
    ("cel", cel::check),
    ("trace", trace::check),
];
