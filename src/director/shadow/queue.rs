//! Decisions that wait for the shadow profiles.

use super::Work;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Most decisions that wait.
const MOST: usize = 1024;
/// Most bytes that they hold on to. One decision may wait whatever it takes.
const MOST_BYTES: usize = 64 << 20;
/// Time between two looks. Handing over work wakes nobody, so that no request pays for a waking.
const PERIOD: Duration = Duration::from_millis(10);

/// The queue, bounded in number and bytes: what does not fit is counted and forgotten.
pub struct Shadows {
    queue: Mutex<Queue>,
    begun: AtomicBool,
    wanted: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    bytes: usize,
}

impl Queue {
    fn take(&mut self) -> Option<Work> {
        let work = self.waiting.pop_front()?;
        self.bytes -= work.bytes();
        Some(work)
    }
}

impl Shadows {
    /// An empty one.
    pub(in crate::director) fn new() -> Self {
        Self { queue: Mutex::default(), begun: AtomicBool::new(false), wanted: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a decision over.
    pub(in crate::director) fn push(&self, work: Work) {
        let bytes = work.bytes();
        {
            let mut queue = self.lock();
            let fits =
                queue.waiting.is_empty() || (queue.waiting.len() < MOST && queue.bytes + bytes <= MOST_BYTES);
            if !fits {
                drop(queue);
                return work.give_up();
            }
            queue.bytes += bytes;
            queue.waiting.push_back(work);
        }
        if !self.begun.load(Ordering::Relaxed) && !self.begun.swap(true, Ordering::Relaxed) {
            self.wanted.notify_one();
        }
    }

    /// Carries out what waits now; how much that was. A plugin that panics costs that decision and no more.
    pub fn work_off(&self) -> usize {
        let waiting = self.lock().waiting.len();
        let take = || self.lock().take();
        let carry_out = |work: Work| {
            let plan = Arc::clone(&work.plan);
            if catch_unwind(AssertUnwindSafe(|| work.carry_out())).is_err() {
                Work::count_dropped(&plan);
            }
        };
        (0..waiting).map_while(|_| take()).map(carry_out).count()
    }

    /// Returns when there is the first work to do.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Works off what comes until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            self.work_off();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }
}

impl fmt::Debug for Shadows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shadows({} waiting)", self.lock().waiting.len())
    }
}
