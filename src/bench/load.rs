//! Sends a workload to a picker and measures.

use super::BenchError;
use super::account::Account;
use super::connection::{self, Connection, Target};
use super::exchange::{Decision, Exchange, Failure, Plan, through_proxy};
use super::pacer::{Due, Schedule, pace};
use super::prompt::Prompts;
use super::sessions::{Session, Sessions};
use super::stats::{Measured, Reading, Stats};
use super::workload::{Arrivals, Pace, Workload};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Longest time that one exchange may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Shortest sleep between two requests of an open loop.
const GRAIN: Duration = Duration::from_micros(1);

/// Requests at once while memory is filled.
const FILLERS: usize = 8;

/// What all senders of a run share.
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) prompts: Prompts,
    pub(super) stats: Mutex<Stats>,
    sessions: Mutex<Sessions>,
    end: Instant,
}

/// Runs `workload` once against `target`, whose process is accounted for when it is known.
///
/// # Errors
/// When no connection can be opened or the picker's account cannot be read. What goes wrong later is counted.
pub async fn run(
    workload: &Workload,
    prompts: Prompts,
    target: Target,
    account: Option<&Account>,
) -> Result<Measured, BenchError> {
    let connections = connection::open(target, workload.connections).await?;
    let begin = Instant::now();
    let start = begin + workload.warm_up;
    let end = start + workload.window;
    let shared = Arc::new(Shared {
        plan: Plan::new(workload),
        prompts,
        stats: Mutex::new(Stats::new(start, end)),
        sessions: Mutex::new(Sessions::new(workload.sessions, workload.turns)),
        end,
    });
    let readings = async {
        tokio::time::sleep_until(start.into()).await;
        let before = Reading::take(account);
        tokio::time::sleep_until(end.into()).await;
        Ok::<_, std::io::Error>((before?, Reading::take(account)?))
    };
    let sending = send(workload, &shared, connections, begin);
    let (readings, ()) = tokio::join!(readings, sending);
    let (before, after) = readings.map_err(BenchError::Account)?;
    let stats = std::mem::replace(&mut *shared.stats.lock(), Stats::new(start, end));
    Ok(Measured::new(stats, &before, &after))
}

async fn send(workload: &Workload, shared: &Arc<Shared>, connections: Vec<Connection>, begin: Instant) {
    match workload.pace {
        Pace::Concurrency(count) => closed_loop(count, shared, &connections).await,
        Pace::Rate { per_second, arrivals, in_flight } => {
            let schedule = Schedule::new(arrivals, per_second, workload.seed);
            open_loop(schedule, in_flight, begin, shared, &connections).await;
        }
        Pace::Chunks { streams, per_second, tick } => {
            let schedule = Schedule::new(Arrivals::Fixed, per_second, workload.seed);
            super::chunks::run(schedule, tick, streams, shared, &connections).await;
        }
        Pace::Idle => tokio::time::sleep_until(shared.end.into()).await,
    }
}

impl Shared {
    pub(super) fn end(&self) -> Instant {
        self.end
    }

    pub(super) fn failed(&self, failure: &Failure) {
        self.stats.lock().error(failure.to_string(), 1);
    }

    /// One request from the opening to the end of the response.
    async fn ask(&self, connection: &mut Connection, session: &mut Session) -> Result<Decision, Failure> {
        let body = self.prompts.body(session.id, session.turn);
        let ahead = self.plan.chunks() + 4;
        let exchange = async {
            if self.plan.is_through_proxy() {
                return Ok((through_proxy(connection, session.id, body).await?, None));
            }
            let token = session.token.as_ref();
            let (exchange, decision) =
                Exchange::begin(&self.plan, connection, session.id, body, token, ahead).await?;
            let token = exchange.finish().await?;
            Ok::<_, Failure>((decision, token))
        };
        let (decision, token) = tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_elapsed| Failure::TimedOut(PATIENCE.as_secs()))??;
        if token.is_some() {
            session.token = token;
        }
        Ok(decision)
    }

    /// One request with everything that is counted of it. `due` is when it should have begun, if that was planned.
    async fn one(&self, connection: &mut Connection, due: Option<Instant>) {
        let mut session = self.sessions.lock().take();
        let result = self.ask(connection, &mut session).await;
        let mut stats = self.stats.lock();
        match &result {
            Ok(decision) => {
                let at = due.unwrap_or_else(Instant::now);
                let since = due.unwrap_or(decision.sent);
                let latency = decision.came.saturating_duration_since(since);
                stats.request(at, latency, self.plan.chunks() as u64);
                if let Some(last) = session.last.replace(decision.destination.clone()) {
                    stats.turn(at, last == decision.destination);
                }
            }
            Err(failure) => stats.error(failure.to_string(), 1),
        }
        drop(stats);
        self.sessions.lock().give_back(session, result.is_ok());
    }
}

/// Sends `count` requests of `workload`, so many at once as its concurrency says, and nothing is measured: it fills the
/// picker's memory. Says what went wrong.
///
/// # Errors
/// When no connection can be opened.
pub async fn fill(
    workload: &Workload,
    prompts: Prompts,
    target: Target,
    count: u64,
) -> Result<u64, BenchError> {
    let connections = connection::open(target, workload.connections).await?;
    let now = Instant::now();
    let shared = Arc::new(Shared {
        plan: Plan::new(workload),
        prompts,
        stats: Mutex::new(Stats::new(now, now + PATIENCE * 100)),
        sessions: Mutex::new(Sessions::new(workload.sessions, workload.turns)),
        end: now + PATIENCE * 100,
    });
    let left = Arc::new(AtomicU64::new(count));
    let mut workers = JoinSet::new();
    for connection in connections.iter().cycle().take(FILLERS) {
        let (shared, mut connection, left) = (Arc::clone(&shared), connection.clone(), Arc::clone(&left));
        workers.spawn(async move {
            while left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok() {
                shared.one(&mut connection, None).await;
            }
        });
    }
    while workers.join_next().await.is_some() {}
    let failed = shared.stats.lock().error_count();
    Ok(failed)
}

async fn closed_loop(count: usize, shared: &Arc<Shared>, connections: &[Connection]) {
    let mut workers = JoinSet::new();
    for connection in connections.iter().cycle().take(count) {
        let (shared, mut connection) = (Arc::clone(shared), connection.clone());
        workers.spawn(async move {
            while Instant::now() < shared.end {
                shared.one(&mut connection, None).await;
                if connection.is_closed() {
                    shared.failed(&Failure::Broke("the connection is closed".to_owned()));
                    return;
                }
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

async fn open_loop(
    schedule: Schedule,
    limit: usize,
    begin: Instant,
    shared: &Arc<Shared>,
    connections: &[Connection],
) {
    let length = shared.end.saturating_duration_since(begin);
    let mut due = pace(schedule, begin, length, GRAIN);
    let under_way = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let mut turn = 0;
    while let Some(next) = due.recv().await {
        while tasks.try_join_next().is_some() {}
        let at = match next {
            Due::At(at) => at,
            Due::Missed(count) => {
                shared.stats.lock().error(Failure::GeneratorBehind.to_string(), count);
                continue;
            }
        };
        if under_way.load(Relaxed) >= limit {
            shared.failed(&Failure::NotBegun(limit));
            continue;
        }
        under_way.fetch_add(1, Relaxed);
        turn += 1;
        let (shared, under_way) = (Arc::clone(shared), Arc::clone(&under_way));
        let mut connection = connections[turn % connections.len()].clone();
        tasks.spawn(async move {
            shared.one(&mut connection, Some(at)).await;
            under_way.fetch_sub(1, Relaxed);
        });
    }
    while tasks.join_next().await.is_some() {}
}
