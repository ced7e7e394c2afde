//! A headless Chromium that is driven as a person drives it: tabs, a mouse, a keyboard. It speaks the DevTools protocol
//! over two pipes (`--remote-debugging-pipe`: JSON, each message ended by a zero byte).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

/// How long one command to the browser may take.
const PATIENCE: Duration = Duration::from_secs(60);

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
    /// Whether it is a telephone's screen.
    pub mobile: bool,
}

/// A desk.
pub const DESK: Look = Look { window: (1280, 900), dark: false, mobile: false };
/// A telephone at night.
pub const PHONE: Look = Look { window: (390, 844), dark: true, mobile: true };

/// What came from the browser and nobody waited for, and who waits.
#[derive(Default)]
struct Heard {
    waiting: HashMap<u64, oneshot::Sender<Value>>,
    events: Vec<Value>,
    sent: u64,
}

struct Wires {
    heard: Mutex<Heard>,
    input: tokio::sync::Mutex<ChildStdin>,
}

impl Wires {
    /// Sends a command and returns its result.
    async fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut heard = self.heard.lock().unwrap();
            heard.sent += 1;
            let id = heard.sent;
            heard.waiting.insert(id, sender);
            id
        };
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let line = message.to_string() + "\0";
        self.input.lock().await.write_all(line.as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, receiver).await;
        let mut answer = answer
            .unwrap_or_else(|_| panic!("Chromium does not answer {method}"))
            .unwrap_or_else(|_| panic!("Chromium ended during {method}"));
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }
}

async fn listen(output: ChildStdout, wires: Arc<Wires>) {
    let (mut reader, mut message) = (BufReader::new(output), Vec::new());
    while reader.read_until(0, &mut message).await.is_ok_and(|n| n > 0) {
        let end = message.len() - usize::from(message.ends_with(&[0]));
        let value: Value = serde_json::from_slice(&message[..end]).unwrap();
        message.clear();
        let mut heard = wires.heard.lock().unwrap();
        match value["id"].as_u64().and_then(|id| heard.waiting.remove(&id)) {
            Some(waiting) => drop(waiting.send(value)),
            None => heard.events.push(value),
        }
    }
    wires.heard.lock().unwrap().waiting.clear();
}

/// A running browser with a profile of its own; it ends with the handle.
pub struct Browser {
    wires: Arc<Wires>,
    _child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the browser that `scripts/chromium` finds.
    pub async fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("pointsman-chromium-").tempdir().unwrap();
        let program = super::script("chromium", &[]).unwrap_or_else(|said| panic!("{said}"));
        let mut command = Command::new("sh");
        // It reads its descriptor 3 and writes 4, which only a shell can hand over without unsafe code.
        command.args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#, &program]);
        command.args([
            "--headless",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let wires = Arc::new(Wires { heard: Mutex::default(), input: input.into() });
        tokio::spawn(listen(output, Arc::clone(&wires)));
        wires.call(None, "Browser.getVersion", json!({})).await;
        Self { wires, _child: child, _profile: profile }
    }

    /// Opens `url` in a new tab, which stands before the others.
    pub async fn open(&self, url: &str, look: Look) -> Tab {
        let target = self.wires.call(None, "Target.createTarget", json!({"url": "about:blank"})).await;
        let target = target["targetId"].as_str().unwrap().to_owned();
        let attach = json!({"targetId": target, "flatten": true});
        let session = self.wires.call(None, "Target.attachToTarget", attach).await;
        let session = session["sessionId"].as_str().unwrap().to_owned();
        let tab = Tab { wires: Arc::clone(&self.wires), target, session };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tab.call(&format!("{domain}.enable"), json!({})).await;
        }
        tab.look(look).await;
        tab.call("Page.navigate", json!({"url": url})).await;
        tab.until("document.readyState === 'complete'").await;
        tab
    }
}

/// One page in the browser.
pub struct Tab {
    wires: Arc<Wires>,
    target: String,
    session: String,
}

impl Tab {
    async fn call(&self, method: &str, parameters: Value) -> Value {
        self.wires.call(Some(&self.session), method, parameters).await
    }

    /// Looks at the page in another way.
    pub async fn look(&self, look: Look) {
        let (width, height) = look.window;
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": look.mobile});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        self.call("Emulation.setTouchEmulationEnabled", json!({"enabled": look.mobile})).await;
        let scheme = if look.dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// What an expression in the page is; a promise is awaited.
    pub async fn eval(&self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", asked).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// The text that an expression is.
    pub async fn text(&self, expression: &str) -> String {
        let value = self.eval(expression).await;
        value.as_str().unwrap_or_else(|| panic!("{expression} is no text: {value}")).to_owned()
    }

    /// Waits until an expression is true.
    pub async fn until(&self, expression: &str) {
        let what = format!("in the browser: {expression}");
        super::await_that(&what, || async { self.eval(expression).await == Value::Bool(true) }).await;
    }

    /// A click with the mouse in the middle of what `selector` finds first, wherever it has to be scrolled from. Fails
    /// where something else would take the click.
    pub async fn click(&self, selector: &str) {
        let place = self.point_at(selector).await;
        self.mouse("mousePressed", &place).await;
        self.mouse("mouseReleased", &place).await;
    }

    /// Brings the mouse to the middle of what `selector` finds first; where that is.
    pub async fn point_at(&self, selector: &str) -> Value {
        // The browser finds out under which thing the mouse is from the last frame that it drew.
        let place = format!(
            "(async () => {{ const frame = () => new Promise(requestAnimationFrame);
               const node = document.querySelector({selector:?}); node.scrollIntoView({{ block: 'center', inline: 'center' }});
               await frame(); await frame();
               const box = node.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
               const hit = document.elementFromPoint(x, y);
               return node.contains(hit) ? [x, y] : 'covered by ' + (hit && hit.outerHTML); }})()"
        );
        let place = self.eval(&place).await;
        assert!(place.is_array(), "{selector} is {place}");
        self.mouse("mouseMoved", &place).await;
        place
    }

    /// What the mouse does at a place of [`Tab::point_at`]: `mouseMoved`, `mousePressed` or `mouseReleased`.
    pub async fn mouse(&self, kind: &str, place: &Value) {
        let button = if kind == "mouseMoved" { "none" } else { "left" };
        let event = json!({"type": kind, "x": place[0], "y": place[1], "button": button, "clickCount": 1});
        self.call("Input.dispatchMouseEvent", event).await;
    }

    /// Types a text into whatever has the focus.
    pub async fn write(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Presses and releases a key that writes nothing, by its name (`Escape`, `Tab`).
    pub async fn press(&self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Brings the tab before the others, which are hidden from then on.
    pub async fn to_front(&self) {
        self.wires.call(None, "Target.activateTarget", json!({"targetId": self.target})).await;
        self.until("document.visibilityState === 'visible'").await;
    }

    /// What the browser reported of this tab under any of `methods`.
    fn events(&self, methods: &[&str]) -> Vec<Value> {
        let heard = self.wires.heard.lock().unwrap();
        let own = heard.events.iter().filter(|event| event["sessionId"] == self.session.as_str());
        own.filter(|event| methods.iter().any(|method| event["method"] == *method)).cloned().collect()
    }

    /// Everything on the console: what the page wrote, faults of its script, refused and failed requests.
    pub fn complaints(&self) -> Vec<Value> {
        self.events(&["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"])
    }

    /// The addresses that the tab asked for.
    pub fn requested(&self) -> Vec<String> {
        let sent = self.events(&["Network.requestWillBeSent"]);
        sent.iter().map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// Leaves a picture of what is seen in `file`.
    pub async fn picture(&self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        std::fs::write(file, BASE64_STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()).unwrap();
    }
}
