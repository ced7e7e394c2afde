//! Streams that stay open while response chunks flow over them at a fixed rate, as tokens do.

use super::connection::Connection;
use super::exchange::{Exchange, Failure};
use super::load::Shared;
use super::pacer::{Due, Schedule, pace};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Chunks that may wait in the generator for one stream.
const AHEAD: usize = 1024;

/// When the chunks of one stream that have no reply yet were due.
type Waiting = Arc<Mutex<VecDeque<Instant>>>;

struct Lane {
    out: mpsc::Sender<Bytes>,
    waiting: Waiting,
}

/// Opens the streams, sends a chunk on one after the other as they are due, and ends them at the end of the window.
pub(super) async fn run(
    schedule: Schedule,
    tick: Duration,
    streams: usize,
    shared: &Arc<Shared>,
    connections: &[Connection],
) {
    let mut readers = JoinSet::new();
    let lanes = open(streams, shared, connections, &mut readers).await;
    if lanes.is_empty() {
        return;
    }
    let begin = Instant::now();
    let length = shared.end().saturating_duration_since(begin);
    let mut due = pace(schedule, begin, length, tick);
    let mut turn = 0;
    while let Some(next) = due.recv().await {
        match next {
            Due::Missed(count) => {
                shared.stats.lock().error(Failure::GeneratorBehind.to_string(), count);
            }
            Due::At(at) => {
                turn += 1;
                let lane = &lanes[turn % lanes.len()];
                lane.waiting.lock().push_back(at);
                if lane.out.try_send(shared.plan.chunk()).is_err() {
                    lane.waiting.lock().pop_back();
                    shared.failed(&Failure::ChunkBehind);
                }
            }
        }
    }
    for lane in &lanes {
        let _ended_already = lane.out.send(shared.plan.last_chunk()).await;
    }
    drop(lanes);
    while readers.join_next().await.is_some() {}
}

async fn open(
    streams: usize,
    shared: &Arc<Shared>,
    connections: &[Connection],
    readers: &mut JoinSet<()>,
) -> Vec<Lane> {
    let mut lanes = Vec::with_capacity(streams);
    for (id, connection) in connections.iter().cycle().take(streams).enumerate() {
        let (lane, began) = tokio::sync::oneshot::channel();
        let (shared, mut connection) = (Arc::clone(shared), connection.clone());
        readers.spawn(async move {
            if let Err(failure) = read(&shared, &mut connection, id as u64, lane).await {
                shared.failed(&failure);
            }
        });
        if let Ok(lane) = began.await {
            lanes.push(lane);
        }
    }
    lanes
}

/// Begins one stream, hands out its lane, and takes replies until the last chunk's.
async fn read(
    shared: &Shared,
    connection: &mut Connection,
    id: u64,
    lane: tokio::sync::oneshot::Sender<Lane>,
) -> Result<(), Failure> {
    let body = shared.prompts.body(id, 0);
    let (mut exchange, _decision) = Exchange::begin(&shared.plan, connection, id, body, None, AHEAD).await?;
    exchange.response_head().await?;
    let waiting = Waiting::default();
    let Some(out) = exchange.sender() else { return Err(Failure::OutOfPlace) };
    let _nobody_waits = lane.send(Lane { out, waiting: Arc::clone(&waiting) });
    loop {
        let (bytes, end) = exchange.next_piece().await?;
        if end {
            return exchange.end().await;
        }
        if bytes != shared.plan.chunk_bytes() {
            return Err(Failure::Length);
        }
        let due = waiting.lock().pop_front();
        if let Some(due) = due {
            shared.stats.lock().chunk(due, due.elapsed());
        }
    }
}
