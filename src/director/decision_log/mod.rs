//! The decisions as lines that can be replayed: arrival, lengths, keyed hashes of the prompt's blocks, who was picked and
//! what came of it. No text of a prompt, no value of a session, no key.
//!
//! Whole sessions are kept or left out, by a keyed hash of their value; a request without a session by one of its id. On
//! the path of a request stand that hash and a hand-over that never waits: lines are made and written elsewhere, from a
//! queue that is bounded in entries and in bytes. What does not fit is dropped and counted.

mod keyed;
mod line;
#[cfg(test)]
mod tests;

pub use keyed::{BLOCK_TOKENS, LEAST_KEY_BYTES, LogKey, ShortKey};

use super::decisions::After;
use super::producer::SessionOrigin;
use crate::clock::{Clock, Moment};
use crate::endpoint::Endpoint;
use crate::request::{Headers, InferenceRequest, Prompt};
use crate::telemetry::logs::Throttle;
use crate::telemetry::names;
use metrics::Counter;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Most bytes that waiting entries hold on to.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// A dropped line is told of once in this time.
const TELL_EACH: Duration = Duration::from_secs(10);

/// Where the session of a request stands: a header, or a cookie written `cookie:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPlace(SessionOrigin);

impl SessionPlace {
    /// Reads one place; `None` for an empty name.
    pub fn read(text: &str) -> Option<Self> {
        let origin = match text.trim().strip_prefix("cookie:") {
            Some(name) => SessionOrigin::Cookie(name.trim().to_owned()),
            None => SessionOrigin::Header(text.trim().to_ascii_lowercase()),
        };
        let (SessionOrigin::Cookie(name) | SessionOrigin::Header(name)) = &origin;
        (!name.is_empty()).then_some(Self(origin))
    }
}

/// What is logged, and how much of it may wait.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Makes sessions and blocks unreadable.
    pub key: LogKey,
    /// Share of the sessions that are kept, 0 to 1.
    pub sample: f64,
    /// Where sessions stand, the first that is there counts.
    pub sessions: Vec<SessionPlace>,
    /// Entries that wait for the writer.
    pub queue: usize,
}

/// What time it was at a moment of the clock.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The moment.
    pub at: Moment,
    /// Since 1970 then.
    pub unix: Duration,
}

/// What the writer gets.
#[derive(Debug)]
pub enum LogItem {
    /// A line to write.
    Entry(Box<Entry>),
    /// Nothing to write: look at what else was told.
    Wake,
}

/// What the writer works with: how entries become lines.
#[derive(Clone, Debug)]
pub struct Writing {
    key: LogKey,
    origin: Origin,
}

/// The log as requests see it.
#[derive(Clone)]
pub struct DecisionLog {
    shared: Arc<Shared>,
    pool: Option<Arc<str>>,
}

struct Shared {
    key: LogKey,
    /// Draws up to here are kept.
    most: u64,
    sessions: Vec<SessionPlace>,
    queue: SyncSender<LogItem>,
    waiting: Arc<AtomicUsize>,
    dropped: Counter,
    throttle: Throttle,
    clock: Clock,
}

/// A request whose decision is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    session: Option<u64>,
}

/// A choice that is logged when its request has ended.
#[derive(Debug)]
pub struct Pending {
    pub(super) log: DecisionLog,
    pub(super) kept: Kept,
    /// When the proxy's headers were complete and the choice was made.
    pub(super) took: Duration,
    /// Tokens that the first target was believed to hold.
    pub(super) predicted: Option<u64>,
}

/// What became of a request.
#[derive(Debug)]
pub enum Fate {
    /// It was routed.
    Routed {
        /// The first one is preferred.
        endpoints: Vec<Arc<Endpoint>>,
        /// Prompt tokens that the first one was believed to hold.
        predicted: Option<u64>,
    },
    /// It was refused, with this code.
    Refused(&'static str),
}

/// A decision on its way to the log.
#[derive(Debug)]
pub struct Entry {
    pub(super) request: Arc<InferenceRequest>,
    pub(super) session: Option<u64>,
    pub(super) pool: Option<Arc<str>>,
    pub(super) generation: u64,
    pub(super) took: Duration,
    pub(super) fate: Fate,
    pub(super) after: After,
    /// Given back when the entry is gone.
    waiting: Option<Weight>,
}

/// Bytes that an entry holds on to while it waits.
#[derive(Debug)]
struct Weight {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Relaxed);
    }
}

impl Entry {
    /// A decision of the plan `generation` on `request` that took `took`.
    pub(super) fn new(
        request: Arc<InferenceRequest>,
        kept: Kept,
        (generation, took): (u64, Duration),
        fate: Fate,
        after: After,
    ) -> Self {
        Self { request, session: kept.session, pool: None, generation, took, fate, after, waiting: None }
    }
}

impl DecisionLog {
    /// A log, what is to be written of it, and how.
    pub fn channel(
        settings: LogSettings,
        clock: Clock,
        origin: Origin,
    ) -> (Self, Receiver<LogItem>, Writing) {
        let (queue, items) = sync_channel(settings.queue);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "from 0 to u64::MAX, as a cast saturates"
        )]
        let most = (settings.sample * u64::MAX as f64) as u64;
        let shared = Shared {
            key: settings.key,
            most,
            sessions: settings.sessions,
            queue,
            waiting: Arc::default(),
            dropped: metrics::counter!(names::DECISION_LOG_LINES, "outcome" => "dropped"),
            throttle: Throttle::new(TELL_EACH),
            clock,
        };
        let writing = Writing { key: settings.key, origin };
        (Self { shared: Arc::new(shared), pool: None }, items, writing)
    }

    /// The same log for the decisions of one pool of several.
    #[must_use]
    pub fn of_pool(&self, pool: &Arc<str>) -> Self {
        Self { shared: Arc::clone(&self.shared), pool: Some(Arc::clone(pool)) }
    }

    /// Whether decisions on `request` are logged.
    pub fn keeps(&self, request: &InferenceRequest) -> Option<Kept> {
        let session = self.shared.session(&request.headers);
        let draw = self.shared.key.draw(session.unwrap_or(&request.id));
        (draw <= self.shared.most)
            .then(|| Kept { session: session.map(|value| self.shared.key.session(value)) })
    }

    /// Hands an entry to the writer. Never waits: an entry that does not fit is dropped and counted.
    pub fn push(&self, mut entry: Entry) {
        let shared = &*self.shared;
        let bytes = weight(&entry.request);
        let before = shared.waiting.fetch_add(bytes, Relaxed);
        entry.waiting = Some(Weight { of: Arc::clone(&shared.waiting), bytes });
        entry.pool = self.pool.clone();
        let fits = before == 0 || before.saturating_add(bytes) <= MAX_WAITING_BYTES;
        let sent = if fits {
            shared.queue.try_send(LogItem::Entry(Box::new(entry))).map_err(Some)
        } else {
            Err(None)
        };
        if sent.is_ok() {
            return;
        }
        shared.dropped.increment(1);
        if matches!(sent, Err(Some(TrySendError::Disconnected(_)))) {
            // The log is closed: the process is about to end, and no disk is to blame.
            return;
        }
        if let Some(others) = shared.throttle.allow(shared.clock.now()) {
            tracing::warn!(
                lines = others + 1,
                "the decision log is not written fast enough, lines are dropped: look at its disk or reader, or keep less with --decision-log-sample"
            );
        }
    }

    /// Lets the writer look at what it was told besides the queue.
    pub fn wake(&self) {
        // A queue that is full wakes it as well.
        let _full = self.shared.queue.try_send(LogItem::Wake);
    }
}

impl Shared {
    fn session<'a>(&self, headers: &'a Headers) -> Option<&'a str> {
        self.sessions.iter().find_map(|place| place.0.read(headers))
    }
}

impl fmt::Debug for DecisionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionLog").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// About how many bytes a waiting request takes.
pub(super) fn weight(request: &InferenceRequest) -> usize {
    use crate::request::Segment;
    let prompt = match &request.parsed.prompt {
        Prompt::None => 0,
        Prompt::Text(prompts) => {
            prompts.iter().map(|p| p.blocks.len() * 8 + p.segments.len() * size_of::<Segment>()).sum()
        }
        Prompt::Tokens(prompts) => prompts.iter().map(|tokens| tokens.len() * 4).sum(),
        Prompt::Blocks { hashes, .. } => hashes.len() * 8,
    };
    let headers: usize = request.headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
    size_of::<Entry>() + size_of::<InferenceRequest>() + prompt + headers
}
