//! The gRPC messages that the picker reads and writes, field by field what it needs and no more.
//!
//! Written by hand so that bodies and header values are [`bytes::Bytes`]: slices of what came from the network, never
//! copies, and never refused for not being UTF-8 (a protobuf `string` and `bytes` look the same on the wire). Fields
//! that are not listed are skipped on reading. Numbers are Envoy's and gRPC's published ones; tests encode every field
//! here and decode it with the generated types of the `envoy-types` crate, and the other way round.

pub mod ext_proc;
pub mod health;
pub mod metadata;
