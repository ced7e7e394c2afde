//! When a process of several pools is ready.

use crate::readiness::{Gate, Readiness};
use futures::StreamExt as _;
use std::time::Duration;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

/// How long a start waits for the slowest of the pools. A pool that is not there must not keep the others from being
/// served, but one that comes a moment later should find the picker that takes over from another complete.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps the gate open while any pool is ready; it opens first when all are, or after a while.
pub(super) async fn keep_gate(gate: Gate, pools: Vec<Readiness>, stop: CancellationToken) {
    follow(gate, pools, PATIENCE, stop).await;
}

async fn follow(gate: Gate, pools: Vec<Readiness>, patience: Duration, stop: CancellationToken) {
    let mut changes = futures::stream::select_all(pools.iter().map(|pool| WatchStream::new(pool.watch())));
    let patience = tokio::time::sleep(patience);
    tokio::pin!(patience);
    let mut patient = true;
    loop {
        let ready = pools.iter().filter(|pool| pool.is_ready()).count();
        let enough = if patient { ready == pools.len() } else { ready > 0 };
        patient &= !enough;
        gate.set(enough);
        tokio::select! {
            () = stop.cancelled() => return,
            () = patience.as_mut(), if patient => patient = false,
            Some(_) = changes.next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_are_waited_for_at_first_and_later_any_is_enough() {
        let process = Readiness::new();
        let pools = [Readiness::new(), Readiness::new()];
        let (a, b) = (pools[0].gate("pool"), pools[1].gate("pool"));
        let stop = CancellationToken::new();
        let gate = process.gate("pools");
        let task = tokio::spawn(follow(gate, pools.to_vec(), Duration::from_secs(3600), stop.clone()));
        let mut ready = process.watch();
        a.open();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!process.is_ready(), "the other may come at any moment");
        b.open();
        ready.wait_for(|ready| *ready).await.unwrap();
        a.set(false);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(process.is_ready(), "the other pool is still served");
        b.set(false);
        ready.wait_for(|ready| !*ready).await.unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_pool_that_never_comes_is_not_waited_for_for_ever() {
        let process = Readiness::new();
        let pools = vec![Readiness::new(), Readiness::new()];
        let _never = pools[1].gate("pool");
        let gate = process.gate("pools");
        tokio::spawn(follow(gate, pools, Duration::from_millis(1), CancellationToken::new()));
        process.watch().wait_for(|ready| *ready).await.unwrap();
    }
}
