//! How the process stops: named tasks in stages, each stage told to stop and waited for before the next, all of it
//! within one deadline. A task that ends before it was told to is reported, so that a dead poller or listener never
//! goes unnoticed.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// When a task is told to stop, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// What takes requests in: stops first and drains.
    Edge,
    /// What requests in flight still need: pollers, discovery, caches.
    Support,
    /// What says how the drain goes: health, metrics, debug pages.
    Last,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Edge, Self::Support, Self::Last];
}

/// A task ended although nobody had told it to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlyEnd {
    /// Name of the task.
    pub task: Arc<str>,
    /// Whether it panicked.
    pub panicked: bool,
}

/// What a shutdown left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Names of tasks that did not end in time and were aborted.
    pub aborted: Vec<Arc<str>>,
}

/// Early ends that were not read yet; more than this are dropped, the first ones tell the story.
const EARLY_END_CAPACITY: usize = 64;

type Running = BTreeMap<Stage, Vec<(Arc<str>, JoinHandle<()>)>>;

/// All long-lived tasks of the process.
#[derive(Debug)]
pub struct Tasks {
    tokens: [CancellationToken; 3],
    running: Mutex<Running>,
    early: mpsc::Sender<EarlyEnd>,
}

impl Tasks {
    /// No task yet, and where early ends arrive.
    pub fn new() -> (Self, mpsc::Receiver<EarlyEnd>) {
        let (early, receiver) = mpsc::channel(EARLY_END_CAPACITY);
        let tokens = [CancellationToken::new(), CancellationToken::new(), CancellationToken::new()];
        (Self { tokens, running: Mutex::new(Running::new()), early }, receiver)
    }

    /// The token that tells the tasks of `stage` to stop.
    pub fn token(&self, stage: Stage) -> CancellationToken {
        self.tokens[stage as usize].clone()
    }

    /// Runs a task that ends when its stage's token, handed to `make`, is cancelled.
    pub fn spawn<F>(&self, stage: Stage, name: impl Into<Arc<str>>, make: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let token = self.token(stage);
        let work = tokio::spawn(make(token.clone()));
        let abort = AbortOnDrop(work.abort_handle());
        let (task, early) = (Arc::clone(&name), self.early.clone());
        let watched = tokio::spawn(async move {
            let _abort = abort;
            let panicked = work.await.is_err_and(|e| e.is_panic());
            if panicked || !token.is_cancelled() {
                // A full channel already holds more than anyone will read.
                let _full = early.try_send(EarlyEnd { task, panicked });
            }
        });
        let mut running = self.running.lock();
        let stage = running.entry(stage).or_default();
        stage.retain(|(_, handle)| !handle.is_finished());
        stage.push((name, watched));
    }

    /// Tells the stages to stop, one after another, waiting for each; what still runs at the deadline is aborted.
    pub async fn stop(&self, within: Duration) -> Leftovers {
        let deadline = Instant::now() + within;
        let mut left = Leftovers::default();
        for stage in Stage::ALL {
            self.tokens[stage as usize].cancel();
            let tasks = self.running.lock().remove(&stage).unwrap_or_default();
            for (name, mut handle) in tasks {
                if tokio::time::timeout_at(deadline, &mut handle).await.is_err() {
                    handle.abort();
                    left.aborted.push(name);
                }
            }
        }
        left
    }
}

/// Aborts the work when its watcher is dropped or aborted.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_stop_in_order_and_each_is_waited_for() {
        let (tasks, _early) = Tasks::new();
        let log = Arc::new(Mutex::new(Vec::new()));
        for (stage, name) in [(Stage::Last, "admin"), (Stage::Support, "pollers"), (Stage::Edge, "ext_proc")]
        {
            let log = Arc::clone(&log);
            tasks.spawn(stage, name, move |stop| async move {
                stop.cancelled().await;
                // Long enough for a later stage to overtake it, if that were possible.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                log.lock().push(name);
            });
        }
        assert_eq!(tasks.stop(Duration::from_secs(30)).await, Leftovers::default());
        assert_eq!(*log.lock(), ["ext_proc", "pollers", "admin"]);
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_aborted_and_named() {
        struct Told(Arc<Mutex<bool>>);
        impl Drop for Told {
            fn drop(&mut self) {
                *self.0.lock() = true;
            }
        }
        let (tasks, _early) = Tasks::new();
        let dropped = Arc::new(Mutex::new(false));
        let guard = Told(Arc::clone(&dropped));
        tasks.spawn(Stage::Edge, "stuck", move |_stop| async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        let left = tasks.stop(Duration::from_millis(20)).await;
        assert_eq!(left.aborted, [Arc::from("stuck")]);
        tokio::time::timeout(Duration::from_secs(5), async {
            while !*dropped.lock() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn an_early_end_is_reported_with_its_name() {
        let (tasks, mut early) = Tasks::new();
        tasks.spawn(Stage::Support, "poller", |_stop| async {});
        assert_eq!(early.recv().await, Some(EarlyEnd { task: "poller".into(), panicked: false }));
        tasks.spawn(Stage::Support, "cache", |_stop| async { panic!("on purpose") });
        assert_eq!(early.recv().await, Some(EarlyEnd { task: "cache".into(), panicked: true }));
    }
}
