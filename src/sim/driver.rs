//! Runs an engine in real time: one thread that sleeps until the engine's next event or the next command.
//!
//! A thread and a condition variable rather than a task: they wake within tens of microseconds, while tokio's timer counts
//! whole milliseconds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use super::engine::{Engine, EngineConfig, Event, EventKind, Refusal, Request, RequestId, Summary, Time};
use super::metrics::{Hist, Stats};

/// Submissions that may wait for the engine's thread; it empties the box at every wake-up.
const MAX_COMMANDS: usize = 4096;

/// How far a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Prompt tokens that were cached when it started.
    pub cached_tokens: u32,
    /// Tokens that are out.
    pub generated: u32,
    /// Whether these are all.
    pub finished: bool,
}

/// Why a request was not taken or not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriveError {
    /// The engine refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// More submissions at once than the engine looks at.
    #[error("too many submissions at once")]
    Busy,
    /// The engine was restarted or stopped.
    #[error("the engine stopped")]
    Stopped,
}

enum Command {
    Submit {
        request: Request,
        progress: watch::Sender<Progress>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Cancel(RequestId),
    ResetPrefixCache,
    Slowdown(f64),
    Restart,
    Stop,
}

#[derive(Default)]
struct Mailbox {
    commands: VecDeque<Command>,
    stopped: bool,
}

struct Shared {
    mailbox: Mutex<Mailbox>,
    wake: Condvar,
    stats: Mutex<Stats>,
    next_id: std::sync::atomic::AtomicU64,
}

/// A handle on a running engine. The engine stops when [`Driver::stop`] is called or the last handle is dropped.
#[derive(Clone)]
pub struct Driver {
    shared: Arc<Shared>,
    _stop: Arc<StopOnDrop>,
}

struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.push(Command::Stop);
    }
}

impl Shared {
    /// Always takes commands other than submissions: cancels are at most as many as requests, the rest is rare.
    fn push(&self, command: Command) {
        let mut mailbox = self.mailbox.lock();
        if !mailbox.stopped {
            mailbox.commands.push_back(command);
        }
        drop(mailbox);
        self.wake.notify_one();
    }
}

impl Driver {
    /// Starts the engine's thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(config: EngineConfig, adapters: Vec<String>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            mailbox: Mutex::new(Mailbox::default()),
            wake: Condvar::new(),
            stats: Mutex::new(Stats::new(unix_now())),
            next_id: std::sync::atomic::AtomicU64::new(1),
        });
        let worker = Worker {
            engine: Engine::new(config.clone()),
            config,
            adapters,
            shared: shared.clone(),
            started: Instant::now(),
            live: HashMap::new(),
            slowdown: 1.0,
        };
        std::thread::Builder::new().name("sim-engine".into()).spawn(move || worker.run())?;
        Ok(Self { _stop: Arc::new(StopOnDrop(shared.clone())), shared })
    }

    /// An id that no other request of this driver has.
    pub fn next_id(&self) -> RequestId {
        RequestId(self.shared.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }

    /// Hands a request to the engine.
    ///
    /// # Errors
    /// When it is not taken; nothing is left of it then.
    pub async fn submit(&self, request: Request) -> Result<Generation, DriveError> {
        let (progress, watch) = watch::channel(Progress::default());
        let (reply, answer) = oneshot::channel();
        let cancel = CancelOnDrop { shared: self.shared.clone(), id: request.id };
        {
            let mut mailbox = self.shared.mailbox.lock();
            if mailbox.stopped {
                return Err(DriveError::Stopped);
            }
            if mailbox.commands.len() >= MAX_COMMANDS {
                return Err(DriveError::Busy);
            }
            mailbox.commands.push_back(Command::Submit { request, progress, reply });
        }
        self.shared.wake.notify_one();
        let generation = Generation { watch, _cancel: cancel };
        answer.await.map_err(|_| DriveError::Stopped)??;
        Ok(generation)
    }

    /// Forgets all cached blocks.
    pub fn reset_prefix_cache(&self) {
        self.shared.push(Command::ResetPrefixCache);
    }

    /// Makes every step take so many times as long; survives a restart.
    pub fn set_slowdown(&self, factor: f64) {
        self.shared.push(Command::Slowdown(factor));
    }

    /// A new incarnation: requests, cache and counters are gone, the start time is new. Requests under way see
    /// [`DriveError::Stopped`].
    pub fn restart(&self) {
        self.shared.push(Command::Restart);
    }

    /// Ends the engine's thread; requests under way see [`DriveError::Stopped`].
    pub fn stop(&self) {
        self.shared.push(Command::Stop);
    }

    /// Reads, or adds to, what was counted.
    pub fn with_stats<T>(&self, read: impl FnOnce(&mut Stats) -> T) -> T {
        read(&mut self.shared.stats.lock())
    }
}

/// A request in the engine; dropping it cancels what is left.
pub struct Generation {
    watch: watch::Receiver<Progress>,
    _cancel: CancelOnDrop,
}

impl Generation {
    /// Waits until more than `seen` tokens are out, or all.
    ///
    /// # Errors
    /// [`DriveError::Stopped`] when the engine went away before the end.
    pub async fn beyond(&mut self, seen: u32) -> Result<Progress, DriveError> {
        let seen = self.watch.wait_for(|p| p.finished || p.generated > seen).await;
        seen.map(|p| *p).map_err(|_| DriveError::Stopped)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// As [`Generation::beyond`].
    pub async fn finish(&mut self) -> Result<Progress, DriveError> {
        self.beyond(u32::MAX).await
    }
}

struct CancelOnDrop {
    shared: Arc<Shared>,
    id: RequestId,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.shared.push(Command::Cancel(self.id));
    }
}

struct Live {
    progress: watch::Sender<Progress>,
    prompt_tokens: u32,
    last_token: Option<Time>,
}

struct Worker {
    engine: Engine,
    config: EngineConfig,
    adapters: Vec<String>,
    shared: Arc<Shared>,
    started: Instant,
    live: HashMap<RequestId, Live>,
    slowdown: f64,
}

impl Worker {
    fn run(mut self) {
        let mut events = Vec::new();
        let mut commands = VecDeque::new();
        while self.wait(&mut commands) {
            // Tokens come out at the engine's times, however late this thread woke up.
            let now = Time::from_nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX));
            self.engine.advance(now, &mut events);
            for command in commands.drain(..) {
                if !self.obey(now, command) {
                    return;
                }
            }
            self.engine.advance(now, &mut events);
            self.publish(&mut events);
        }
    }

    /// Sleeps until something is due; the commands that came meanwhile. False once stopped.
    fn wait(&self, commands: &mut VecDeque<Command>) -> bool {
        let due = self.engine.next_event().map(|t| self.started + Duration::from_nanos(t.as_nanos()));
        let mut mailbox = self.shared.mailbox.lock();
        while mailbox.commands.is_empty() {
            match due {
                None => self.shared.wake.wait(&mut mailbox),
                Some(due) if self.shared.wake.wait_until(&mut mailbox, due).timed_out() => break,
                Some(_) => {}
            }
        }
        std::mem::swap(&mut mailbox.commands, commands);
        mailbox.stopped = commands.iter().any(|c| matches!(c, Command::Stop));
        true
    }

    fn obey(&mut self, now: Time, command: Command) -> bool {
        match command {
            Command::Submit { request, progress, reply } => self.take(now, request, progress, reply),
            Command::Cancel(id) => {
                let summary = self.engine.cancel(now, id);
                self.live.remove(&id);
                if let Some(summary) = summary {
                    self.shared.stats.lock().count_finished(&summary);
                }
            }
            Command::ResetPrefixCache => self.engine.reset_prefix_cache(),
            Command::Slowdown(factor) => {
                self.slowdown = factor;
                self.engine.set_slowdown(factor);
            }
            Command::Restart => {
                self.engine = Engine::new(self.config.clone());
                self.engine.set_slowdown(self.slowdown);
                self.live.clear();
                *self.shared.stats.lock() = Stats::new(unix_now());
            }
            Command::Stop => return false,
        }
        true
    }

    fn take(
        &mut self,
        now: Time,
        request: Request,
        progress: watch::Sender<Progress>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) {
        let (id, prompt_tokens, output) = (request.id, request.prompt_tokens, request.output_tokens);
        let taken = self.engine.submit(now, request);
        let mut stats = self.shared.stats.lock();
        match taken {
            Ok(()) => {
                self.live.insert(id, Live { progress, prompt_tokens, last_token: None });
                stats.observe(Hist::ParamsMaxTokens, f64::from(output));
                stats.observe(Hist::MaxGenerationTokens, f64::from(output));
            }
            Err(Refusal::QueueFull { .. }) => stats.rejected += 1,
            Err(_) => {}
        }
        drop(stats);
        // A client that is gone by now cancels by its guard.
        let _ = reply.send(taken);
    }

    /// Counts the events and shows each request its progress, once per wake-up.
    fn publish(&mut self, events: &mut Vec<Event>) {
        let mut stats = self.shared.stats.lock();
        for Event { at, id, kind } in events.drain(..) {
            let Some(live) = self.live.get_mut(&id) else { continue };
            stats.count(at, &kind, live.prompt_tokens, live.last_token);
            match kind {
                EventKind::Started { cached_tokens } => {
                    live.progress.send_modify(|p| p.cached_tokens = cached_tokens);
                }
                EventKind::FirstToken | EventKind::Token { .. } => {
                    live.last_token = Some(at);
                    live.progress.send_modify(|p| p.generated += 1);
                }
                EventKind::Finished(Summary { generated_tokens, .. }) => {
                    live.progress
                        .send_modify(|p| *p = Progress { generated: generated_tokens, finished: true, ..*p });
                    self.live.remove(&id);
                }
                EventKind::Preempted | EventKind::BlockStored { .. } | EventKind::BlockRemoved { .. } => {}
            }
        }
        stats.read_gauges(&self.engine, &self.adapters);
    }
}

/// Seconds since 1970.
pub(super) fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
