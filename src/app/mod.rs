//! Builds everything and runs it.

pub mod assemble;
