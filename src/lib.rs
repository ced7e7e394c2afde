//! Pointsman: an Envoy ext_proc endpoint picker for LLM inference.
//!
//! The modules form layers, and a module imports only from layers below it (`tests/it/layering.rs` fails otherwise):
//!
//! 1. `app` builds everything and runs it;
//! 2. the edges: `ext_proc` (Envoy), `discovery` (where endpoints come from), `datalayer` (keeps endpoint data fresh),
//!    `admin` (health, metrics, debug pages), `config` (flags and the configuration document);
//! 3. `director`: what happens to one request;
//! 4. `scheduling`: filters, scorers, pickers; pure and synchronous;
//! 5. `plugin`: the contracts every plugin shares;
//! 6. the domain: `pool`, `endpoint`, `request`, `kv`, and what everybody needs: `telemetry`, `clock`, `shutdown`,
//!    `readiness`, `reuse`, `plot`.
//!
//! `sim`, `demo`, `bench` and `explain` are programs of their own beside `app`; `replay` is one above both: it runs `app`'s plans over
//! `sim`'s engines.

pub mod admin;
pub mod app;
pub mod bench;
pub mod clock;
pub mod config;
pub mod datalayer;
pub mod demo;
pub mod director;
pub mod discovery;
pub mod endpoint;
pub mod explain;
pub mod ext_proc;
pub mod kv;
pub mod plot;
pub mod plugin;
pub mod pool;
pub mod proto;
pub mod readiness;
pub mod replay;
pub mod request;
pub mod reuse;
pub mod scheduling;
pub mod shutdown;
pub mod sim;
pub mod telemetry;
