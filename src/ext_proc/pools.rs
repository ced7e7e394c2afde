//! Which pool a request belongs to, where one process serves several.
//!
//! What says so is read once for each stream, from its first message, and in this order:
//!
//! 1. metadata of the gRPC stream, `x-pointsman-pool`: what the proxy's route gives its ext_proc filter
//!    (`grpc_initial_metadata`);
//! 2. dynamic metadata that the proxy forwards: field `pool` of the namespace `pointsman`;
//! 3. an attribute that the proxy sends (`request_attributes`): usually what the route's metadata holds in that place;
//! 4. a header, when the operator names one. It is taken out of the request, whatever chose the pool.
//!
//! The first of these that is there counts alone: a name that is not known is never passed over for the next.

use super::budget::Budget;
use super::headers::Facts;
use super::meters::Meters;
use super::{headers, reject};
use crate::clock::Moment;
use crate::director::RouteError;
use crate::proto::ext_proc::{Event, HeaderMap, ProcessingRequest, ProcessingResponse};
use crate::proto::metadata::{Kind, Metadata};
use crate::telemetry::logs::Throttle;
use crate::telemetry::{MetricsHandle, Scope, names};
use bytes::Bytes;
use metrics::Counter;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Metadata of the gRPC stream that names the pool.
pub const STREAM_METADATA: &str = "x-pointsman-pool";
/// Namespace of the metadata that names the pool.
pub const NAMESPACE: &str = "pointsman";
/// Its field.
pub const FIELD: &str = "pool";
/// Longest name of a pool that is repeated in the log: a namespace, a slash and a name.
const MAX_NAME_BYTES: usize = 63 + 1 + 253;
/// Between two warnings about requests that belong to no pool.
const WARN_GAP: Duration = Duration::from_secs(10);

/// What serves the requests of one pool.
#[derive(Debug)]
pub struct Lane<D> {
    /// Chooses among its endpoints.
    pub router: Arc<D>,
    /// Memory of its request bodies.
    pub budget: Arc<Budget>,
    /// What is counted.
    pub meters: Arc<Meters>,
    /// Where it is counted.
    pub scope: Scope,
}

/// A pool and what it is called.
#[derive(Debug)]
pub struct Named<D> {
    /// Every name that requests may use for it; the first is the one for logs.
    pub names: Vec<Arc<str>>,
    /// What serves it.
    pub lane: Lane<D>,
}

/// Where a request says to which pool it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signs {
    /// The header that the gateway sets, in lower case; `None` takes no header's word.
    pub header: Option<Bytes>,
    /// The attribute, as it is written in the proxy's `request_attributes`.
    pub attribute: Bytes,
}

/// The pools of the process: at least one.
#[derive(Debug)]
pub struct Pools<D> {
    first: Lane<D>,
    others: Vec<Lane<D>>,
    chooser: Option<Chooser>,
}

/// Place of a pool among all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(usize);

impl<D> Pools<D> {
    /// One pool, to which every request belongs.
    pub fn one(lane: Lane<D>) -> Self {
        Self { first: lane, others: Vec::new(), chooser: None }
    }

    /// Several pools: `first` and those of `others`. Requests that belong to none are counted in `metrics`.
    pub fn several(first: Named<D>, others: Vec<Named<D>>, signs: Signs, metrics: &MetricsHandle) -> Self {
        let mut places = HashMap::new();
        for (place, named) in std::iter::once(&first).chain(&others).enumerate() {
            places.extend(named.names.iter().map(|name| (Arc::clone(name), Place(place))));
        }
        let called = |named: &Named<D>| named.names.first().map_or("?", |name| name).to_owned();
        let all: Vec<String> = std::iter::once(&first).chain(&others).map(called).collect();
        let chooser = Chooser { signs, places, unplaced: Unplaced::new(metrics, all.join(", ")) };
        let others = others.into_iter().map(|named| named.lane).collect();
        Self { first: first.lane, others, chooser: Some(chooser) }
    }

    /// Who chooses among the pools; `None` where there is one.
    pub(super) fn chooser(&self) -> Option<&Chooser> {
        self.chooser.as_ref()
    }

    /// What serves the pool at `place`.
    pub(super) fn lane(&self, place: Place) -> &Lane<D> {
        match place.0.checked_sub(1) {
            None => &self.first,
            Some(other) => self.others.get(other).unwrap_or(&self.first),
        }
    }
}

/// Chooses the pool of a request.
#[derive(Debug)]
pub(super) struct Chooser {
    signs: Signs,
    places: HashMap<Arc<str>, Place>,
    unplaced: Unplaced,
}

/// What a first message comes to.
#[derive(Debug)]
pub(super) enum Choice {
    /// The pool, and the header that must not reach the engine.
    Pool(Place, Option<Bytes>),
    /// The request belongs to no pool: this is the answer.
    Refused(Box<ProcessingResponse>),
}

impl Chooser {
    /// The pool of the request that `message` begins, on a stream for which the proxy `called` a pool; takes the header that
    /// names it out of the message.
    pub(super) fn choose(
        &self,
        called: Option<Bytes>,
        message: &mut ProcessingRequest,
        now: Moment,
    ) -> Choice {
        let (written, header) = self.take_header(message);
        let found = match called.or_else(|| said(message, &self.signs.attribute)).or(written) {
            None => Err(RouteError::NoPool),
            Some(name) => self.place(&name).ok_or_else(|| {
                self.unplaced.warn(Some(&name), &self.signs, now);
                RouteError::UnknownPool
            }),
        };
        match (found, &message.request) {
            (Ok(place), _) => Choice::Pool(place, header),
            (Err(error), Some(Event::RequestHeaders(request))) => {
                if matches!(error, RouteError::NoPool) {
                    self.unplaced.warn(None, &self.signs, now);
                }
                self.unplaced.count(&error);
                let grpc = Facts::of(&headers::read(request.headers.clone())).grpc;
                Choice::Refused(Box::new(reject::refusal(&error, grpc)))
            }
            // No request to refuse: an answer of the proxy's own passes, anything else is out of order anywhere.
            (Err(_), _) => Choice::Pool(Place::default(), header),
        }
    }

    fn place(&self, name: &[u8]) -> Option<Place> {
        self.places.get(std::str::from_utf8(name).ok()?).copied()
    }

    /// The header's value and, when it is there at all, its name. Several values that differ are the word of nobody.
    fn take_header(&self, message: &mut ProcessingRequest) -> (Option<Bytes>, Option<Bytes>) {
        let (Some(name), Some(Event::RequestHeaders(request))) = (&self.signs.header, &mut message.request)
        else {
            return (None, None);
        };
        let Some(value) = request.headers.as_mut().and_then(|map| taken(map, name)) else {
            return (None, None);
        };
        (Some(value), Some(name.clone()))
    }
}

/// Takes every header called `name` out of the list; what they say, or what names no pool when they disagree.
fn taken(map: &mut HeaderMap, name: &[u8]) -> Option<Bytes> {
    let mut said: Option<Bytes> = None;
    map.headers.retain(|header| {
        let is_it = header.key.eq_ignore_ascii_case(name);
        if is_it {
            let value = if header.raw_value.is_empty() { &header.value } else { &header.raw_value };
            let value = value.slice_ref(value.trim_ascii());
            let agreed = said.as_ref().is_none_or(|former| *former == value);
            said = Some(if agreed { value } else { Bytes::from_static(b"\0several") });
        }
        !is_it
    });
    said
}

/// What metadata or the attribute says, in this order. An attribute without a value is not there: that is how proxies
/// send what a route does not have.
fn said(message: &ProcessingRequest, attribute: &[u8]) -> Option<Bytes> {
    let of_metadata = |metadata: &Metadata| text(metadata.namespace(NAMESPACE)?.get(FIELD)?);
    let named = std::str::from_utf8(attribute).ok();
    let of_attributes = || {
        let filters = message.attributes.iter().filter_map(|filter| filter.value.as_ref());
        filters.filter_map(|values| text(values.get(named?)?)).find(|value| !value.is_empty())
    };
    message.metadata_context.as_ref().and_then(of_metadata).or_else(of_attributes)
}

/// A value as text; what is no text names no pool.
fn text(kind: &Kind) -> Option<Bytes> {
    match kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Null(_) => None,
        Kind::Number(_) | Kind::Bool(_) | Kind::Struct(_) | Kind::List(_) => Some(Bytes::from_static(b"\0")),
    }
}

/// Requests that belong to no pool: counted for the process, and said now and then.
struct Unplaced {
    attempts: Counter,
    refusals: Counter,
    ended: Counter,
    /// The pools that there are, for the log.
    pools: String,
    throttle: Throttle,
}

impl Unplaced {
    fn new(metrics: &MetricsHandle, pools: String) -> Self {
        let code = RouteError::UnknownPool.code();
        Self {
            attempts: metrics.counter(names::ATTEMPTS, &[]),
            refusals: metrics.counter(names::REFUSALS, &[("code", code)]),
            ended: metrics.counter(names::ENDED, &[("ending", "refused")]),
            pools,
            throttle: Throttle::new(WARN_GAP),
        }
    }

    fn count(&self, error: &RouteError) {
        self.attempts.increment(1);
        self.refusals.increment(1);
        self.ended.increment(1);
        let status = reject::http_status(error.class());
        tracing::info!(status, code = error.code(), reason = %error, "request refused");
    }

    fn warn(&self, named: Option<&[u8]>, signs: &Signs, now: Moment) {
        if self.throttle.allow(now).is_none() {
            return;
        }
        let pools = &self.pools;
        match named {
            Some(name) => tracing::warn!(
                named = shown(name),
                pools,
                "requests are refused: they name a pool that is not served here; correct the gateway's route, or add \
                 --pool-name (further ones are counted in pointsman_refusals_total)"
            ),
            None => tracing::warn!(
                attribute = %String::from_utf8_lossy(&signs.attribute),
                header = signs.header.as_deref().map(|h| String::from_utf8_lossy(h).into_owned()),
                pools,
                "requests are refused: the gateway does not say to which pool they belong; let its ext_proc filter send \
                 the attribute (request_attributes), metadata `pointsman: {{pool: NAME}}`, x-pointsman-pool as \
                 grpc_initial_metadata, or the header of --pool-header"
            ),
        }
    }
}

/// What may be repeated of a name that somebody sent: only what could be a name.
fn shown(name: &[u8]) -> &str {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'/');
    let sound = name.len() <= MAX_NAME_BYTES && !name.is_empty() && name.iter().all(fits);
    std::str::from_utf8(name).ok().filter(|_| sound).unwrap_or("(not the name of a pool)")
}

impl std::fmt::Debug for Unplaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unplaced").field("pools", &self.pools).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "pools_tests.rs"]
mod tests;
