//! What is asked of a picker: kind of exchange, prompts, pace, how long.

use super::prompt::Shape;
use std::time::Duration;

/// How the request's body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RequestMode {
    /// Piece by piece, both directions independent.
    FullDuplex,
    /// One message after the reply to the headers.
    Buffered,
    /// Headers and nothing else.
    HeadersOnly,
    /// An HTTP/2 request to a proxy in front of a picker; needs --plaintext unless the proxy speaks TLS.
    Http,
}

/// How the response's body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ResponseMode {
    /// Not at all; the response's headers are.
    None,
    /// Piece by piece.
    FullDuplex,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many at once, each followed by the next (closed loop).
    Concurrency(usize),
    /// So many a second, whether or not the earlier ones are answered (open loop).
    Rate {
        /// Requests a second.
        per_second: f64,
        /// How they are spread.
        arrivals: Arrivals,
        /// More than so many at once are not started but counted as errors.
        in_flight: usize,
    },
    /// So many streams stay open, and response chunks flow at this rate over all of them together.
    Chunks {
        /// Open streams.
        streams: usize,
        /// Chunks a second, all streams together.
        per_second: f64,
        /// Chunks that are due within such a time of each other are sent together, as an engine's step brings a token
        /// to many streams at once.
        tick: Duration,
    },
    /// Nothing is sent.
    Idle,
}

/// How requests of an open loop are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// As if many clients asked independently of each other.
    Poisson,
    /// At equal distances.
    Fixed,
}

/// One row of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its name in tables.
    pub name: String,
    /// What it is, prompts included.
    pub about: String,
    /// How request bodies go.
    pub request: RequestMode,
    /// How response bodies go.
    pub response: ResponseMode,
    /// Response chunks of each request.
    pub chunks: usize,
    /// Bytes of each.
    pub chunk_bytes: usize,
    /// The prompts.
    pub prompts: Shape,
    /// Sessions that take turns; 0 asks each prompt once.
    pub sessions: usize,
    /// Turns of each session, after which a new one takes its place.
    pub turns: usize,
    /// Request bodies are cut into pieces of this size.
    pub piece_bytes: usize,
    /// Endpoints that the proxy's subset hint names; none sends no hint.
    pub subset: Vec<String>,
    /// HTTP/2 connections.
    pub connections: usize,
    /// The pace.
    pub pace: Pace,
    /// Time that does not count.
    pub warm_up: Duration,
    /// Time that counts.
    pub window: Duration,
    /// Seed of prompts and arrivals.
    pub seed: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            name: "1 KB".to_owned(),
            about: String::new(),
            request: RequestMode::FullDuplex,
            response: ResponseMode::None,
            chunks: 0,
            chunk_bytes: 250,
            prompts: Shape { bytes: 1024, shared: 0.5, groups: 64, turn_bytes: 0 },
            sessions: 0,
            turns: 1,
            piece_bytes: 32 * 1024,
            subset: Vec::new(),
            connections: 1,
            pace: Pace::Concurrency(64),
            warm_up: Duration::from_secs(2),
            window: Duration::from_secs(5),
            seed: 1,
        }
    }
}

impl Workload {
    /// Whether the rate is set by the picker's speed.
    pub fn is_closed_loop(&self) -> bool {
        matches!(self.pace, Pace::Concurrency(_))
    }
}
