//! Logs: one JSON object a line on standard error, in the reference's shape.
//!
//! `level`, `ts` (seconds since 1970 with fractions), `logger`, `caller`, `msg`, then the event's own fields; with several
//! pools `pool` where something is said of one. A thread of its own writes, so that a slow reader of standard error never holds a request up; what it cannot take is dropped
//! and counted.

use super::{Scope, names};
use crate::clock::Moment;
use serde_json::{Map, Value};
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// A request's headers came. Written at debug level.
pub const RECEIVED_REQUEST: &str = "EPP received request";
/// The request's replies went to the proxy. Written at debug level.
pub const SENT_REQUEST_BODY: &str = "EPP sent request body response(s) to proxy";
/// A reply to a part of the response body went to the proxy. Written at debug level.
pub const SENT_RESPONSE_BODY: &str = "EPP sent response body back to proxy";

/// Lines that wait for standard error before more are dropped.
const QUEUE: usize = 8192;
/// Longest text of one field; the rest is cut off.
const MAX_FIELD_BYTES: usize = 4096;

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It is set up already.
    #[error("logging is already set up in this process")]
    AlreadyInstalled,
    /// The system gives no thread.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[from] std::io::Error),
}

/// What is on its way to the writing thread.
enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Keeps the log going; dropped, it waits up to a second for what is still to be written.
#[derive(Debug)]
pub struct LogGuard(SyncSender<Item>);

impl LogGuard {
    /// Waits until everything logged so far is written, at most for `limit`.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.0.try_send(Item::Flush(done)).is_ok() {
            // Late or gone: there is nothing to be done about a log that cannot be written.
            let _: Result<(), RecvTimeoutError> = wait.recv_timeout(limit);
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.flush(Duration::from_secs(1));
    }
}

/// Logs events of `level` and above to standard error from here on. Other crates speak from warnings up, and from
/// info up when `level` is trace.
pub fn init(level: LevelFilter) -> Result<LogGuard, LogError> {
    let (send, receive) = sync_channel(QUEUE);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&receive))?;
    let lines = send.clone();
    let sink = move |line: Vec<u8>| {
        if lines.try_send(Item::Line(line)).is_err() {
            metrics::counter!(names::LOGS_DROPPED).increment(1);
        }
    };
    tracing::subscriber::set_global_default(subscriber(level, sink))
        .map_err(|_e| LogError::AlreadyInstalled)?;
    Ok(LogGuard(send))
}

fn write_lines(items: &Receiver<Item>) {
    let mut out = std::io::stderr();
    while let Ok(item) = items.recv() {
        match item {
            // Standard error that is gone leaves no place to complain to.
            Item::Line(line) => drop(out.write_all(&line)),
            Item::Flush(done) => {
                let _ = out.flush();
                // The one who asked may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }
}

/// A subscriber that hands each line to `sink`; for tests that look at what is logged.
pub fn subscriber(level: LevelFilter, sink: impl Fn(Vec<u8>) + Send + Sync + 'static) -> impl Subscriber {
    let others = if level >= LevelFilter::TRACE { LevelFilter::INFO } else { level.min(LevelFilter::WARN) };
    // The Kubernetes client says every failed request; discovery says what matters of that, once.
    let client = if level >= LevelFilter::TRACE { LevelFilter::WARN } else { LevelFilter::OFF };
    let filter = Targets::new()
        .with_default(others)
        .with_target("kube_client", client)
        .with_target("pointsman", level);
    tracing_subscriber::registry().with(JsonLines { sink: Arc::new(sink) }.with_filter(filter))
}

struct JsonLines {
    sink: Arc<dyn Fn(Vec<u8>) + Send + Sync>,
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (self.sink)(line(event, now));
    }
}

/// The reference knows info, debug and trace (its `error` is the fourth); a warning keeps its own word.
fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn line(event: &Event<'_>, now: Duration) -> Vec<u8> {
    let metadata = event.metadata();
    let mut fields = Fields::default();
    event.record(&mut fields);
    let mut line = Map::new();
    line.insert("level".to_owned(), level_word(*metadata.level()).into());
    line.insert("ts".to_owned(), seconds(now).into());
    line.insert("logger".to_owned(), logger(metadata.target()).into());
    line.insert("caller".to_owned(), caller(metadata).into());
    line.insert("msg".to_owned(), fields.message.into());
    for (name, value) in fields.rest {
        // An event's own field never replaces one of the fixed five.
        line.entry(name).or_insert(value);
    }
    if let Some(pool) = Scope::current().pool() {
        line.entry("pool").or_insert_with(|| pool.into());
    }
    let mut text = Value::Object(line).to_string().into_bytes();
    text.push(b'\n');
    text
}

/// Microseconds are as fine as a double of today's seconds gets.
fn seconds(now: Duration) -> f64 {
    now.as_micros() as f64 / 1e6
}

fn logger(target: &str) -> String {
    target.strip_prefix("pointsman::").unwrap_or(target).replace("::", ".")
}

/// Folder, file and line.
fn caller(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().unwrap_or_default();
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    format!("{}:{}", file.get(start..).unwrap_or_default(), metadata.line().unwrap_or(0))
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(String, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            name => self.rest.push((name.to_owned(), value)),
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_FIELD_BYTES {
        let end = (0..=MAX_FIELD_BYTES).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, cut(format!("{value:?}")).into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, cut(value.to_owned()).into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

/// Lets something repeated be said at most once in a period, and tells how often it was held back.
#[derive(Debug)]
pub struct Throttle {
    period: Duration,
    next_nanos: AtomicU64,
    held_back: AtomicU64,
}

impl Throttle {
    /// Once in `period`.
    pub const fn new(period: Duration) -> Self {
        Self { period, next_nanos: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    /// Whether to speak at `now`: the number of times that were held back since it was last allowed.
    pub fn allow(&self, now: Moment) -> Option<u64> {
        let next = self.next_nanos.load(Relaxed);
        let due = now.as_nanos() >= next;
        let later = now.plus(self.period).as_nanos();
        if due && self.next_nanos.compare_exchange(next, later, Relaxed, Relaxed).is_ok() {
            return Some(self.held_back.swap(0, Relaxed));
        }
        self.held_back.fetch_add(1, Relaxed);
        None
    }
}

/// True the first time only: for things worth one line in the life of what holds it.
#[derive(Debug, Default)]
pub struct Once(AtomicBool);

impl Once {
    /// Not yet said.
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }
    /// Whether this is the first time.
    pub fn first(&self) -> bool {
        !self.0.swap(true, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use parking_lot::Mutex;

    fn logged(level: LevelFilter, speak: impl FnOnce()) -> Vec<Value> {
        let lines: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let sink = Arc::clone(&lines);
        tracing::subscriber::with_default(subscriber(level, move |line| sink.lock().push(line)), speak);
        let lines = lines.lock();
        lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    #[test]
    fn a_line_has_the_shape_that_tools_expect() {
        let lines = logged(LevelFilter::INFO, || {
            tracing::info!(answer = 42, ratio = 0.5, ok = true, name = %"a\"b", msg = "lost", "something happened");
        });
        let line = lines[0].as_object().unwrap();
        let keys: Vec<_> = line.keys().map(String::as_str).collect();
        assert_eq!(keys, ["level", "ts", "logger", "caller", "msg", "answer", "ratio", "ok", "name"]);
        assert_eq!(line["level"], "info");
        assert!(line["ts"].as_f64().unwrap() > 1.7e9);
        assert_eq!(line["logger"], "telemetry.logs.tests");
        assert!(line["caller"].as_str().unwrap().starts_with("telemetry/logs.rs:"));
        assert_eq!(line["msg"], "something happened");
        assert_eq!((&line["answer"], &line["name"]), (&Value::from(42), &Value::from("a\"b")));
    }

    #[test]
    fn what_is_said_of_a_pool_among_several_names_it() {
        let metrics = crate::telemetry::MetricsHandle::detached(false).of_pool("ns/b");
        let lines = logged(LevelFilter::INFO, || {
            tracing::info!("of nobody");
            Scope::of(metrics).run(|| {
                tracing::info!("of the pool");
                tracing::info!(pool = "own", "as the event has it");
            });
        });
        let pools: Vec<_> = lines.iter().map(|line| line["pool"].clone()).collect();
        assert_eq!(pools, [Value::Null, "ns/b".into(), "own".into()]);
    }

    #[test]
    fn the_level_decides_and_other_crates_speak_less() {
        let speak = || {
            tracing::trace!("a");
            tracing::debug!("b");
            tracing::info!("c");
            tracing::warn!("d");
            tracing::info!(target: "h2::codec", "e");
            tracing::warn!(target: "h2::codec", "f");
        };
        let words = |level| {
            let lines = logged(level, speak);
            lines.iter().map(|l| l["msg"].as_str().unwrap().to_owned()).collect::<String>()
        };
        assert_eq!(words(LevelFilter::ERROR), "");
        assert_eq!(words(LevelFilter::WARN), "df");
        assert_eq!(words(LevelFilter::INFO), "cdf");
        assert_eq!(words(LevelFilter::DEBUG), "bcdf");
        assert_eq!(words(LevelFilter::TRACE), "abcdef");
    }

    #[test]
    fn a_long_field_is_cut() {
        let lines = logged(LevelFilter::INFO, || tracing::info!(text = "é".repeat(MAX_FIELD_BYTES), "x"));
        assert_eq!(lines[0]["text"].as_str().unwrap().chars().count(), MAX_FIELD_BYTES / 2 + 1);
    }

    #[test]
    fn a_throttle_speaks_once_in_its_period_and_counts_the_rest() {
        let clock = Clock::manual();
        let throttle = Throttle::new(Duration::from_secs(10));
        assert_eq!(throttle.allow(clock.now()), Some(0));
        assert_eq!(throttle.allow(clock.now()), None);
        clock.advance(Duration::from_secs(9));
        assert_eq!(throttle.allow(clock.now()), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(throttle.allow(clock.now()), Some(2));
    }

    #[test]
    fn once_is_once() {
        let once = Once::new();
        assert!(once.first() && !once.first());
    }
}
