//! Builds everything and runs it.

pub mod assemble;

mod aside;
mod cluster;
mod run;
mod state;

pub use run::App;
