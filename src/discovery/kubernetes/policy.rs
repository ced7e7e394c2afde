//! Follows the kinds that a cluster may or may not have: objectives, rewrites, InferenceModels. The newer API group wins
//! where both serve a kind, also when it appears while the picker runs.

use super::facts::Facts;
use super::follow::{Ended, Follow};
use super::kind::{Home, Kind};
use super::pace::Pace;
use super::reducer::{Change, Input};
use super::standing::{Class, Fault, Standing, Verb};
use kube::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Time between two looks for a kind, or for a newer group, that is not there.
const LOOK_PERIOD: Duration = Duration::from_secs(60);
/// How long the API may take to say which kinds it has.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What every follower needs.
#[derive(Clone)]
pub struct Shared {
    /// Access to the API.
    pub client: Client,
    /// The pool's namespace.
    pub namespace: Arc<str>,
    /// How the watches stand.
    pub standing: Standing,
    /// Where changes go.
    pub sink: mpsc::Sender<Input>,
}

impl Shared {
    /// A follower of all objects of a kind.
    pub fn follow<F: Facts>(&self, home: Home, wrap: fn(Change<F>) -> Input) -> Follow<F> {
        Follow {
            client: self.client.clone(),
            home,
            namespace: Arc::clone(&self.namespace),
            labels: String::new(),
            only: None,
            standing: self.standing.clone(),
            sink: self.sink.clone(),
            wrap,
        }
    }

    /// Where the API serves a kind; `None` when it does nowhere.
    async fn locate(&self, kind: Kind) -> Result<Option<Home>, Fault> {
        for home in kind.homes() {
            let version = format!("{}/{}", home.group, home.version);
            let answer = timeout(ANSWER_WITHIN, self.client.list_api_group_resources(&version)).await;
            let answer = answer.map_err(|_late| Fault::timeout(ANSWER_WITHIN))?;
            match answer.map_err(Fault::from) {
                Ok(list) if list.resources.iter().any(|r| r.name == kind.plural()) => return Ok(Some(*home)),
                Ok(_) => {}
                Err(fault) if fault.class == Class::NotFound => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(None)
    }

    /// Completes when the preferred group serves the kind.
    async fn newer(&self, kind: Kind) {
        loop {
            sleep(LOOK_PERIOD).await;
            let first = kind.homes().first().copied();
            if self.locate(kind).await.is_ok_and(|home| home.is_some() && home == first) {
                return;
            }
        }
    }

    /// Follows a kind wherever it is served, until nobody reads any more.
    pub async fn follow_policy<F: Facts>(self, wrap: fn(Change<F>) -> Input) {
        let kind = F::KIND;
        let mut pace = Pace::new(fastrand::u64(..));
        let mut known: Option<Option<Home>> = None;
        loop {
            match self.locate(kind).await {
                Ok(found) => {
                    if known.replace(found) != Some(found) {
                        say(kind, found);
                    }
                    let Some(home) = found else {
                        self.standing.idle(kind);
                        if self.sink.send(wrap(Change::Listed(Vec::new()))).await.is_err() {
                            return;
                        }
                        sleep(LOOK_PERIOD).await;
                        continue;
                    };
                    let preferred = kind.homes().first() == Some(&home);
                    let ended = tokio::select! {
                        ended = self.follow(home, wrap).run() => ended,
                        () = self.newer(kind), if !preferred => Ended::NotServed,
                    };
                    if ended == Ended::Unread {
                        return;
                    }
                    pace.stood(Duration::ZERO);
                    sleep(pace.failed(None)).await;
                }
                Err(fault) => {
                    let home = kind.homes()[0];
                    self.standing.failed(kind, home, &self.namespace, Verb::Discover, &fault);
                    if known.is_none() && self.sink.send(wrap(Change::Unavailable)).await.is_err() {
                        return;
                    }
                    sleep(pace.failed(fault.wait)).await;
                }
            }
        }
    }
}

fn say(kind: Kind, found: Option<Home>) {
    let preferred = kind.homes().first();
    match found {
        None => {
            tracing::info!(%kind, "the API does not serve this kind; it is looked for again every minute")
        }
        Some(home) if Some(&home) != preferred => tracing::info!(
            %kind, group = home.group,
            "this kind is read in its older API group; as soon as the newer one is installed only that one counts"
        ),
        Some(home) => tracing::info!(%kind, group = home.group, "this kind is read"),
    }
}
