//! Work beside the requests: scraping has a runtime of its own, so that a burst of pages never stands in a request's way.

use std::future::Future;
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// A runtime of one thread for one long task.
pub(super) struct Aside(Option<Runtime>);

impl Aside {
    /// Its thread is called `name`; an error means that the system gives none.
    pub(super) fn new(name: &'static str) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs `work` there to its end; dropped before, the work stops at its next wait. A panic of the work goes on here.
    pub(super) async fn run(self, work: impl Future<Output = ()> + Send + 'static) {
        let Some(runtime) = &self.0 else { return };
        if let Err(ended) = AbortOnDropHandle::new(runtime.spawn(work)).await
            && let Ok(panic) = ended.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // A runtime may not be waited for on a thread of another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_runs_on_its_own_thread_and_is_waited_for() {
        let (tell, told) = oneshot::channel();
        let aside = Aside::new("beside").unwrap();
        aside
            .run(async move {
                let name = std::thread::current().name().map(str::to_owned);
                tell.send(name).unwrap();
            })
            .await;
        assert_eq!(told.await.unwrap().as_deref(), Some("beside"));
    }

    #[tokio::test]
    async fn a_panic_comes_through() {
        let here = tokio::spawn(Aside::new("beside").unwrap().run(async { panic!("by itself") }));
        assert!(here.await.unwrap_err().is_panic());
    }

    #[tokio::test]
    async fn dropped_work_stops() {
        let (held, gone) = oneshot::channel::<()>();
        let work = tokio::spawn(Aside::new("beside").unwrap().run(async move {
            let _held = held;
            std::future::pending::<()>().await;
        }));
        tokio::task::yield_now().await;
        work.abort();
        assert!(gone.await.is_err(), "what the work held is released");
    }
}
