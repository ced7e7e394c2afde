//! Whose numbers are counted while some code runs: with several pools in one process, everything that is done for one of
//! them is counted through that pool's view, also by the `metrics` macros deep inside.

use super::MetricsHandle;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    static CURRENT: RefCell<Scope> = const { RefCell::new(Scope(None)) };
}

/// Where the `metrics` macros count. The default is the process's recorder, which costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Scope(Option<MetricsHandle>);

impl Scope {
    /// Counting through `metrics`.
    pub fn of(metrics: MetricsHandle) -> Self {
        Self(Some(metrics))
    }

    /// Whether the process's recorder counts, as without any scope.
    pub fn is_process(&self) -> bool {
        self.0.is_none()
    }

    /// The scope that this code runs in.
    pub fn current() -> Self {
        CURRENT.with_borrow(Clone::clone)
    }

    /// What the pool is called whose numbers these are.
    pub fn pool(&self) -> Option<&str> {
        self.0.as_ref()?.pool()
    }

    /// Runs `work` in this scope.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let Some(metrics) = &self.0 else { return work() };
        let _back = Back(CURRENT.replace(self.clone()));
        metrics::with_local_recorder(metrics, work)
    }

    /// `work`, which runs in this scope wherever it is polled.
    pub fn around<F: Future>(self, work: F) -> Scoped<F> {
        Scoped { scope: self, work: Box::pin(work) }
    }
}

/// A task of its own of who calls this: it counts where its parent does.
pub fn inherited<F: Future>(work: F) -> Scoped<F> {
    Scope::current().around(work)
}

/// Puts the former scope back, also when the work panics.
struct Back(Scope);

impl Drop for Back {
    fn drop(&mut self) {
        CURRENT.set(std::mem::take(&mut self.0));
    }
}

/// A future in a scope.
#[derive(Debug)]
pub struct Scoped<F> {
    scope: Scope,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let work = &mut this.work;
        this.scope.run(|| work.as_mut().poll(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names;
    use crate::telemetry::recorder::Scale;

    #[tokio::test]
    async fn macros_count_for_the_pool_of_the_task_and_of_its_children() {
        let metrics = MetricsHandle::new(false, Scale::SeveralPools);
        let (a, b) = (metrics.of_pool("a"), metrics.of_pool("b"));
        let count = || metrics::counter!(names::ATTEMPTS).increment(1);
        let of_a = tokio::spawn(Scope::of(a).around(async move {
            tokio::task::yield_now().await;
            count();
            tokio::spawn(inherited(async move { count() })).await.unwrap();
            assert_eq!(Scope::current().pool(), Some("a"));
            Scope::of(b).run(count);
            count();
        }));
        of_a.await.unwrap();
        count();
        let page = metrics.render();
        assert!(page.contains("attempts_total{inference_pool=\"a\"} 3\n"), "{page}");
        assert!(page.contains("attempts_total{inference_pool=\"b\"} 1\n"), "{page}");
        assert!(!page.contains("attempts_total 1"), "outside of any scope the process's recorder counts");
    }

    #[test]
    fn a_panic_leaves_the_scope() {
        let metrics = MetricsHandle::new(false, Scale::SeveralPools).of_pool("a");
        let scope = Scope::of(metrics);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scope.run(|| panic!()))).is_err());
        assert!(Scope::current().is_process());
    }
}
