//! Free ports on the loopback address, outside the range that the kernel gives to outgoing connections.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Ports between two that are handed out: an engine of several ranks takes those after its own.
const APART: u16 = 8;

/// A port that nobody listened on a moment ago and that this process hands out only once per round of 2,250.
pub fn free_port() -> u16 {
    // Two test processes at once start at different places.
    let start = (std::process::id().wrapping_mul(677) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT / APART {
        let step = NEXT.fetch_add(APART, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
