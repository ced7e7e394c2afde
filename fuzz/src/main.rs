//! What libFuzzer calls, which has `main`. `POINTSMAN_FUZZ_TARGET` names the target.
#![no_main]

#[path = "lib.rs"]
mod oracle;

use std::ffi::{c_char, c_int};
use std::sync::OnceLock;

static CHECK: OnceLock<oracle::Check> = OnceLock::new();

/// Chooses the target. A panic ends the process from here on, so that libFuzzer keeps the input.
#[unsafe(no_mangle)]
pub extern "C" fn LLVMFuzzerInitialize(_argc: *const c_int, _argv: *const *const *const c_char) -> c_int {
    let wanted = std::env::var("POINTSMAN_FUZZ_TARGET").unwrap_or_default();
    let known: Vec<&str> = oracle::TARGETS.iter().map(|(name, _)| *name).collect();
    let found = oracle::TARGETS.iter().find(|(name, _)| *name == wanted);
    let Some((_, check)) = found else {
        eprintln!("POINTSMAN_FUZZ_TARGET={wanted} is no target; there are {}", known.join(", "));
        std::process::exit(2);
    };
    let _ = CHECK.set(*check);
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
    0
}

/// Tries one input.
///
/// # Safety
/// `data` must be the beginning of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn LLVMFuzzerTestOneInput(data: *const u8, size: usize) -> c_int {
    // libFuzzer gives no address for an empty input.
    let input = if size == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, size) } };
    if let Some(check) = CHECK.get() {
        check(input);
    }
    0
}
