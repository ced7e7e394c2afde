//! Which endpoint holds which blocks of KV cache: hashing of prompts into block chains, and the index over them.
//!
//! Nothing here touches the network.

pub mod chain;
pub mod index;
