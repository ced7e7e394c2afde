//! A headless Chromium that opens one page and says what stands there.

use std::path::{Path, PathBuf};

/// Whether there is no Chromium for a test; says so with its name.
pub fn skipped(test: &str) -> bool {
    super::missing("chromium", test)
}

/// Leaves the test, saying so, when there is no Chromium.
#[macro_export]
macro_rules! needs_chromium {
    ($test:expr) => {
        if $crate::support::chromium::skipped($test) {
            return;
        }
    };
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Width and height of the window.
    pub window: (u32, u32),
    /// Whether the system is dark.
    pub dark: bool,
}

/// A desk.
pub const DESK: Look = Look { window: (1280, 900), dark: false };
/// A telephone at night.
pub const PHONE: Look = Look { window: (390, 844), dark: true };

async fn run(url: &str, look: Look, output: &str) -> String {
    let profile = tempfile::Builder::new().prefix("pointsman-chromium-").tempdir().unwrap();
    let program = PathBuf::from(super::script("chromium", &[]).unwrap_or_else(|said| panic!("{said}")));
    let mut command = tokio::process::Command::new(program);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--virtual-time-budget=4000",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--window-size={},{}", look.window.0, look.window.1));
    command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!look.dark)));
    command.args([output, url]).kill_on_drop(true);
    let output = tokio::time::timeout(std::time::Duration::from_secs(90), command.output()).await;
    let output = output.expect("Chromium ends within 90 s").unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The document as it stands after four seconds of the page's own time.
pub async fn document(url: &str, look: Look) -> String {
    run(url, look, "--dump-dom").await
}

/// The same as a picture in `file`.
pub async fn picture(url: &str, look: Look, file: &Path) {
    run(url, look, &format!("--screenshot={}", file.display())).await;
    let bytes = std::fs::read(file).unwrap();
    assert!(bytes.starts_with(b"\x89PNG"), "{} is no picture", file.display());
}
