//! Lists and watches the objects of one kind, and keeps doing so whatever the API server does.
//!
//! This is a loop of its own over kube's requests rather than kube's `watcher`: that one does not say when a watch that
//! failed stands again, asks for ever with a version that was refused by an HTTP 410, and waits without end for a list
//! that does not come. Here each list and watch is a step with a deadline, and each failure is a pause ([`Pace`]).

use super::facts::{Facts, Seen};
use super::kind::Home;
use super::pace::Pace;
use super::reducer::{Change, Input};
use super::standing::{Class, Fault, Standing, Verb};
use futures::TryStreamExt;
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, WatchEvent};
use serde::Deserialize;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Objects of one page of a list.
const PAGE: u32 = 500;
/// How long a page, or the start of a watch, may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// After so many seconds the server ends a watch and it is opened again where it was: a connection that died without a
/// word is noticed soon after that.
const WATCH_SECONDS: u32 = 110;
/// What is allowed on top for the end to arrive.
const WATCH_MARGIN: Duration = Duration::from_secs(10);

/// What is followed, and where it is told.
pub struct Follow<F> {
    /// Access to the API.
    pub client: Client,
    /// Group and version of the kind.
    pub home: Home,
    /// The namespace.
    pub namespace: Arc<str>,
    /// Labels, in the API's form; empty is all.
    pub labels: String,
    /// Name of the one object that is wanted.
    pub only: Option<Arc<str>>,
    /// How the watch stands.
    pub standing: Standing,
    /// Where changes go. A reader that is gone ends the loop.
    pub sink: mpsc::Sender<Input>,
    /// What a change of this kind is there.
    pub wrap: fn(Change<F>) -> Input,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody reads any more.
    Unread,
    /// The API does not serve this kind (any more).
    NotServed,
}

/// What ends a step.
enum Stop {
    Fault(Verb, Fault),
    Unread,
}

#[derive(Deserialize)]
#[serde(bound = "F: Facts")]
struct Page<F: Facts> {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<Seen<F>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(rename = "continue", default)]
    next: String,
}

impl<F: Facts> Follow<F> {
    /// Runs until nobody reads any more, or until the API no longer serves the kind.
    pub async fn run(self) -> Ended {
        let mut pace = Pace::new(fastrand::u64(..));
        let mut version: Option<String> = None;
        let mut listed = false;
        loop {
            let mut opened: Option<Instant> = None;
            let step = match version.take() {
                None => self.list().await.map(|found| (found, Duration::ZERO)),
                Some(mut from) => {
                    let end = self.watch(&mut from, &mut opened).await;
                    // What was seen until the end stays seen.
                    version = Some(from.clone());
                    end.map(|()| (from, pace.ended(stood(opened))))
                }
            };
            match step {
                Ok((from, pause)) => {
                    (version, listed) = (Some(from), true);
                    sleep(pause).await;
                }
                Err(Stop::Unread) => return Ended::Unread,
                Err(Stop::Fault(verb, fault)) => {
                    self.standing.failed(F::KIND, self.home, &self.namespace, verb, &fault);
                    if fault.class == Class::NotFound {
                        return Ended::NotServed;
                    }
                    if matches!(fault.class, Class::Expired | Class::Garbled) {
                        version = None;
                    }
                    if !listed && self.tell(Change::Unavailable).await.is_err() {
                        return Ended::Unread;
                    }
                    // Waiting for an answer that did not come is no standing.
                    pace.stood(stood(opened));
                    sleep(match fault.class {
                        Class::Expired => pace.expired(),
                        _ => pace.failed(fault.wait),
                    })
                    .await;
                }
            }
        }
    }

    fn path(&self) -> Request {
        Request::new(self.home.path(F::KIND, &self.namespace))
    }

    fn labels(&self) -> Option<String> {
        (!self.labels.is_empty()).then(|| self.labels.clone())
    }

    fn fields(&self) -> Option<String> {
        self.only.as_ref().map(|name| format!("metadata.name={name}"))
    }

    /// Reads every page, tells them as one change, and returns the version that they are of.
    async fn list(&self) -> Result<String, Stop> {
        self.standing.listing(F::KIND);
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let parameters = ListParams {
                label_selector: self.labels(),
                field_selector: self.fields(),
                limit: Some(PAGE),
                continue_token: next.take(),
                ..ListParams::default()
            };
            let request = self.path().list(&parameters).map_err(kube::Error::BuildRequest);
            let request = request.map_err(|e| Stop::Fault(Verb::List, e.into()))?;
            let page = timeout(ANSWER_WITHIN, self.client.request::<Page<F>>(request)).await;
            let page = page.map_err(|_late| Stop::Fault(Verb::List, Fault::timeout(ANSWER_WITHIN)))?;
            let page = page.map_err(|e| Stop::Fault(Verb::List, e.into()))?;
            all.extend(page.items.unwrap_or_default());
            if page.metadata.next.is_empty() {
                self.tell(Change::Listed(all)).await?;
                return Ok(page.metadata.resource_version);
            }
            next = Some(page.metadata.next);
        }
    }

    /// Watches from `version` on, which moves along with what is seen, until the server ends the watch. `opened` is when it
    /// stood.
    async fn watch(&self, version: &mut String, opened: &mut Option<Instant>) -> Result<(), Stop> {
        let fault = |fault| Stop::Fault(Verb::Watch, fault);
        let parameters = WatchParams {
            label_selector: self.labels(),
            field_selector: self.fields(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            send_initial_events: false,
        };
        let request = self.path().watch(&parameters, version).map_err(kube::Error::BuildRequest);
        let request = request.map_err(|e| fault(e.into()))?;
        let answer = timeout(ANSWER_WITHIN, self.client.request_events::<Seen<F>>(request)).await;
        let events = answer.map_err(|_late| fault(Fault::timeout(ANSWER_WITHIN)))?;
        let mut events = pin!(events.map_err(|e| fault(e.into()))?);
        *opened = Some(Instant::now());
        self.standing.watching(F::KIND, &self.namespace);
        let silence = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_MARGIN;
        loop {
            let event = timeout(silence, events.try_next()).await;
            let event = event.map_err(|_late| fault(Fault::timeout(silence)))?;
            let Some(event) = event.map_err(|e| fault(e.into()))? else { return Ok(()) };
            let change = match event {
                WatchEvent::Bookmark(mark) => {
                    *version = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return Err(fault((*status).into())),
                WatchEvent::Added(seen) | WatchEvent::Modified(seen) => {
                    advance(version, &seen.version);
                    Change::Applied(seen)
                }
                WatchEvent::Deleted(seen) => {
                    advance(version, &seen.version);
                    Change::Deleted(seen.name)
                }
            };
            self.tell(change).await?;
        }
    }

    async fn tell(&self, change: Change<F>) -> Result<(), Stop> {
        self.sink.send((self.wrap)(change)).await.map_err(|_gone| Stop::Unread)
    }
}

/// How long a watch stood.
fn stood(opened: Option<Instant>) -> Duration {
    opened.map_or(Duration::ZERO, |at| at.elapsed())
}

fn advance(version: &mut String, seen: &str) {
    if !seen.is_empty() {
        seen.clone_into(version);
    }
}
