//! Watches: changes after a version as lines of JSON, with bookmarks, until the time is up.

use super::State;
use super::http::{Body, Query, status_body};
use super::store::Place;
use bytes::Bytes;
use futures::SinkExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The body of a watch from `version` on.
pub fn body(state: &Arc<State>, place: Place, query: Query, mut version: u64) -> Body {
    let (mut lines, receiver) = futures::channel::mpsc::channel(16);
    let mut changed = state.changed.subscribe();
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let end = Instant::now() + Duration::from_secs(query.timeout_seconds.unwrap_or(300));
        loop {
            changed.borrow_and_update();
            let (events, floor, now) = {
                let store = state.store.lock();
                (store.since(&place, version), store.floor(), store.version())
            };
            if version < floor {
                let gone = json!({"type": "ERROR", "object": status_body(410, "Expired", "too old resource version")});
                lines.send(line(&gone)).await.ok();
                return;
            }
            for change in events {
                version = change.version;
                let matches = |object: &Option<Arc<Value>>| object.as_ref().is_some_and(|o| query.matches(o));
                let (kind, object) = match (matches(&change.before), matches(&change.after)) {
                    (false, true) => ("ADDED", change.after),
                    (true, true) => ("MODIFIED", change.after),
                    (true, false) => {
                        // An object that left the selection is shown with the version of its leaving.
                        let mut gone = Value::clone(change.before.as_deref().unwrap());
                        gone["metadata"]["resourceVersion"] = json!(change.version.to_string());
                        ("DELETED", Some(Arc::new(gone)))
                    }
                    (false, false) => continue,
                };
                let object = object.unwrap();
                let text = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
                if lines.send(Ok(Frame::data(Bytes::from(text)))).await.is_err() {
                    return;
                }
            }
            version = version.max(now);
            let bookmark = Instant::now() + *state.bookmarks.lock();
            tokio::select! {
                _ = changed.changed() => {}
                () = sleep_until(end) => return,
                () = sleep_until(bookmark), if query.bookmarks => {
                    let meta = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
                    let mark = json!({"kind": "Bookmark", "apiVersion": "v1", "metadata": meta});
                    if lines.send(line(&json!({"type": "BOOKMARK", "object": mark}))).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    BodyExt::boxed(StreamBody::new(receiver))
}

fn line(event: &Value) -> Result<Frame<Bytes>, std::convert::Infallible> {
    Ok(Frame::data(Bytes::from(format!("{event}\n"))))
}
