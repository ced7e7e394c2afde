//! Requests: who asks, whether they may, and the answer.

use super::store::Place;
use super::{ADMIN, Rule, State, watch};
use ::http::{Method, Request, Response};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

pub type Body = BoxBody<Bytes, Infallible>;

/// A path taken apart.
struct Target {
    place: Place,
    name: Option<String>,
    sub: Option<String>,
}

/// The parameters of a request.
#[derive(Clone, Default)]
pub struct Query {
    labels: Option<pointsman::discovery::kubernetes::Selector>,
    name: Option<String>,
    limit: usize,
    next: Option<String>,
    watch: bool,
    version: Option<String>,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
}

impl Query {
    fn read(text: &str) -> Self {
        let pairs: BTreeMap<String, String> = text
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), decode(value)))
            .collect();
        let get = |key: &str| pairs.get(key).filter(|v| !v.is_empty()).cloned();
        let labels = get("labelSelector")
            .map(|text| pointsman::discovery::kubernetes::Selector::parse(&text).unwrap());
        Self {
            labels,
            name: get("fieldSelector").and_then(|f| f.strip_prefix("metadata.name=").map(str::to_owned)),
            limit: get("limit").and_then(|l| l.parse().ok()).unwrap_or(usize::MAX),
            next: get("continue"),
            watch: get("watch").is_some_and(|w| w == "true" || w == "1"),
            version: get("resourceVersion"),
            timeout_seconds: get("timeoutSeconds").and_then(|t| t.parse().ok()),
            bookmarks: get("allowWatchBookmarks").is_some_and(|b| b == "true"),
        }
    }

    /// Whether the selectors take this object.
    pub fn matches(&self, object: &Value) -> bool {
        let labels: BTreeMap<String, String> =
            serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default();
        self.labels.as_ref().is_none_or(|selector| selector.matches(&labels))
            && self.name.as_ref().is_none_or(|name| object["metadata"]["name"] == name.as_str())
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// The body of a failure.
pub fn status_body(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "message": message, "reason": reason, "code": code})
}

fn reply(code: u16, body: &Value) -> Response<Body> {
    let full = Full::new(Bytes::from(body.to_string())).boxed();
    Response::builder().status(code).header("content-type", "application/json").body(full).unwrap()
}

fn refuse(code: u16, reason: &str, message: &str) -> Response<Body> {
    reply(code, &status_body(code, reason, message))
}

/// Answers one request.
pub async fn answer<B>(state: &Arc<State>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes>,
{
    let bearer = request.headers().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let token = bearer.strip_prefix("Bearer ").unwrap_or_default().to_owned();
    let path = request.uri().path().to_owned();
    let query = Query::read(request.uri().query().unwrap_or_default());
    let method = request.method().clone();
    let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    if token != ADMIN && !state.roles.lock().contains_key(&token) {
        return refuse(401, "Unauthorized", "Unauthorized");
    }
    if token != ADMIN {
        let mut faults = state.faults.lock();
        if faults.throttle > 0 {
            faults.throttle -= 1;
            let mut body = status_body(429, "TooManyRequests", "too many requests");
            body["details"] = json!({"retryAfterSeconds": faults.retry_after});
            *state.counts.lock().entry(("throttled".into(), path)).or_default() += 1;
            return reply(429, &body);
        }
    }
    if let Some(found) = discovery(state, &path) {
        return found;
    }
    let Some(target) = target(&path) else { return refuse(404, "NotFound", "no such path") };
    let serves = |plural: &String| *plural == target.place.plural;
    if !state.served.lock().get(&target.place.home).is_some_and(|list| list.iter().any(serves)) {
        return refuse(404, "NotFound", "the server could not find the requested resource");
    }
    let verb = verb(&method, &target, &query);
    let resource = match &target.sub {
        Some(sub) => format!("{}/{sub}", target.place.plural),
        None => target.place.plural.clone(),
    };
    if token != ADMIN {
        *state.counts.lock().entry((verb.to_owned(), resource.clone())).or_default() += 1;
        if let Some(refused) = refused(state, &token, verb, &resource, &target) {
            return refused;
        }
    }
    act(state, verb, target, query, &body)
}

fn refused(
    state: &State,
    token: &str,
    verb: &str,
    resource: &str,
    target: &Target,
) -> Option<Response<Body>> {
    let group = target.place.home.rsplit_once('/').map_or("", |(group, _)| group);
    let has = |list: &[String], wanted: &str| list.iter().any(|item| item == wanted || item == "*");
    let allows =
        |rule: &Rule| has(&rule.groups, group) && has(&rule.resources, resource) && has(&rule.verbs, verb);
    if !state.roles.lock().get(token).is_some_and(|rules| rules.iter().any(allows)) {
        let message = format!(
            "{resource}.{group} is forbidden: User \"system:serviceaccount:default:picker\" cannot {verb} resource \
             \"{resource}\" in API group \"{group}\" in the namespace \"{}\"",
            target.place.namespace
        );
        return Some(refuse(403, "Forbidden", &message));
    }
    let status = state.faults.lock().status.filter(|_| matches!(verb, "list" | "watch"));
    status.map(|code| refuse(code, "InternalError", "broken on purpose"))
}

fn verb(method: &Method, target: &Target, query: &Query) -> &'static str {
    match (method.as_str(), &target.name, query.watch) {
        ("GET", None, true) => "watch",
        ("GET", None, false) => "list",
        ("GET", Some(_), _) => "get",
        ("POST", ..) => "create",
        ("PUT", ..) => "update",
        ("PATCH", ..) => "patch",
        ("DELETE", ..) => "delete",
        _ => "other",
    }
}

fn target(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (home, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ((*version).to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => ((*namespace).to_owned(), rest),
        rest => (String::new(), rest),
    };
    let (plural, rest) = rest.split_first()?;
    let mut rest = rest.iter().map(|part| (*part).to_owned());
    let place = Place { home, namespace, plural: (*plural).to_owned() };
    Some(Target { place, name: rest.next(), sub: rest.next() })
}

fn discovery(state: &State, path: &str) -> Option<Response<Body>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let home = match parts.as_slice() {
        ["api", version] => (*version).to_owned(),
        ["apis", group, version] => format!("{group}/{version}"),
        _ => return None,
    };
    let served = state.served.lock();
    let Some(list) = served.get(&home) else { return Some(refuse(404, "NotFound", "no such group")) };
    let entry = |plural: &String| json!({"name": plural, "singularName": "", "namespaced": true, "kind": plural, "verbs": ["get", "list", "watch"]});
    let resources: Vec<Value> = list.iter().map(entry).collect();
    Some(reply(200, &json!({"kind": "APIResourceList", "groupVersion": home, "resources": resources})))
}

fn act(state: &Arc<State>, verb: &str, target: Target, query: Query, body: &Bytes) -> Response<Body> {
    let given = || serde_json::from_slice::<Value>(body);
    match (verb, target.name.clone()) {
        ("list", _) => list(state, &target.place, &query),
        ("watch", _) => start_watch(state, target.place, query),
        ("get", Some(name)) => match state.store.lock().get(&target.place, &name) {
            Some(object) => reply(200, object),
            None => refuse(404, "NotFound", "not found"),
        },
        ("create", _) => given().map_or_else(bad, |object| create(state, &target.place, object)),
        ("update", Some(name)) => given().map_or_else(bad, |object| update(state, &target, &name, object)),
        ("patch", Some(name)) => given().map_or_else(bad, |patch| {
            let former = state.store.lock().get(&target.place, &name).cloned();
            let Some(object) = former else { return refuse(404, "NotFound", "not found") };
            let mut object = Value::clone(&object);
            merge(&mut object, &patch);
            update(state, &Target { sub: None, ..target }, &name, object)
        }),
        ("delete", Some(name)) => {
            let gone = state.store.lock().remove(&target.place, &name);
            state.tell();
            gone.map_or_else(|| refuse(404, "NotFound", "not found"), |object| reply(200, &object))
        }
        _ => refuse(405, "MethodNotAllowed", "not here"),
    }
}

fn bad(error: serde_json::Error) -> Response<Body> {
    refuse(400, "BadRequest", &error.to_string())
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, change) in changes {
        if change.is_null() {
            object.as_object_mut().unwrap().shift_remove(key);
        } else {
            merge(&mut object[key.as_str()], change);
        }
    }
}

fn create(state: &State, place: &Place, object: Value) -> Response<Body> {
    if place.plural == "tokenreviews" || place.plural == "subjectaccessreviews" {
        return reply(201, &review(state, object));
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut store = state.store.lock();
    if store.get(place, &name).is_some() {
        return refuse(409, "AlreadyExists", "already exists");
    }
    let stored = store.put(place, object);
    drop(store);
    state.tell();
    reply(201, &stored)
}

/// Who a token is, and whether a user may read a path: a user called `scraper` may, others may not.
fn review(state: &State, mut object: Value) -> Value {
    if let Some(token) = object["spec"]["token"].as_str() {
        let user = state.users.lock().get(token).cloned();
        object["status"] = match user {
            Some(name) => {
                json!({"authenticated": true, "user": {"username": name, "groups": ["system:authenticated"]}})
            }
            None => json!({"authenticated": false, "error": "invalid bearer token"}),
        };
        return object;
    }
    let spec = &object["spec"];
    let path = spec["nonResourceAttributes"]["path"].as_str().unwrap_or_default();
    let allowed = spec["user"] == "scraper" && (path == "/metrics" || path.starts_with("/debug/"));
    object["status"] = json!({"allowed": allowed && spec["nonResourceAttributes"]["verb"] == "get"});
    object
}

fn update(state: &State, target: &Target, name: &str, object: Value) -> Response<Body> {
    let mut store = state.store.lock();
    let Some(former) = store.get(&target.place, name) else { return refuse(404, "NotFound", "not found") };
    let asked = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if !asked.is_empty() && former["metadata"]["resourceVersion"] != asked {
        return refuse(409, "Conflict", "the object has been modified");
    }
    let stored = store.put(&target.place, object);
    drop(store);
    state.tell();
    reply(200, &stored)
}

fn list(state: &State, place: &Place, query: &Query) -> Response<Body> {
    let store = state.store.lock();
    let (version, after) = match query.next.as_deref().and_then(|next| next.split_once('/')) {
        Some((version, after)) => (version.parse().unwrap_or(0), after.to_owned()),
        None => (store.version(), String::new()),
    };
    if version < store.floor() {
        return refuse(410, "Expired", "the provided continue parameter is too old");
    }
    let mut matching = store.list(place, &after).filter(|(_, object)| query.matches(object));
    let page: Vec<(String, std::sync::Arc<Value>)> = matching
        .by_ref()
        .take(query.limit)
        .map(|(name, object)| (name.clone(), std::sync::Arc::clone(object)))
        .collect();
    let next = match page.last() {
        Some((last, _)) if matching.next().is_some() => format!("{version}/{last}"),
        _ => String::new(),
    };
    let items: Vec<Value> = page.into_iter().map(|(_, object)| Value::clone(&object)).collect();
    let meta = json!({"resourceVersion": version.to_string(), "continue": next});
    reply(200, &json!({"kind": "List", "apiVersion": place.home, "metadata": meta, "items": items}))
}

fn start_watch(state: &Arc<State>, place: Place, query: Query) -> Response<Body> {
    let version = query.version.as_deref().and_then(|v| v.parse().ok());
    let version = version.unwrap_or_else(|| state.store.lock().version());
    let faults = state.faults.lock().clone();
    if faults.always_gone || version < state.store.lock().floor() && faults.gone_by_status {
        return refuse(410, "Expired", "too old resource version");
    }
    let body = watch::body(state, place, query, version);
    Response::builder().status(200).header("content-type", "application/json").body(body).unwrap()
}
