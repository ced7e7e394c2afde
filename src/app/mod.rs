//! Builds everything and runs it.

pub mod assemble;

mod aside;
mod run;
mod state;

pub use run::App;
