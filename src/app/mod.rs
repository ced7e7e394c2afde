//! Builds everything and runs it.

pub mod assemble;

mod run;
mod state;

pub use run::App;
