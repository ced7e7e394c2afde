//! Builds everything and runs it.

pub mod assemble;
pub mod check;

mod aside;
mod cluster;
mod decision_log;
mod edge;
mod pool;
mod reload;
mod run;
mod several;
mod state;

pub use run::App;
