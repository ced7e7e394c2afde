//! A router by script that counts what became of its routes.

use bytes::Bytes;
use pointsman::director::{BodyView, Envelope, RouteError, RoutedRequest, Router};
use pointsman::plugin::HeaderEdits;
use pointsman::request::{Api, Ending, Headers, Intake, ParseError, ParserKind, ParserSet, Usage};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// What engines call the model.
pub const TARGET: &str = "t/1";
/// What clients call it.
pub const INCOMING: &str = "asked";

const KINDS: [ParserKind; 4] =
    [ParserKind::OpenAi, ParserKind::Anthropic, ParserKind::SglangHttp, ParserKind::VllmGrpc];

/// The bytes of a body that are replaced, and by what.
type Rewrite = (Range<usize>, Bytes);

/// Says the same of every request.
#[derive(Debug)]
pub struct Scripted {
    refuses: bool,
    rewrites: bool,
    pub restores: bool,
    rewrite: OnceLock<Rewrite>,
    routed: AtomicUsize,
    endings: Arc<AtomicUsize>,
}

impl Scripted {
    pub fn new(refuses: bool, rewrites: bool, restores: bool) -> Self {
        Self {
            refuses,
            rewrites,
            restores,
            rewrite: OnceLock::new(),
            routed: AtomicUsize::new(0),
            endings: Arc::default(),
        }
    }

    pub fn rewrite(&self) -> Option<Rewrite> {
        self.rewrite.get().cloned()
    }

    pub fn decide(&self, envelope: Envelope) -> Result<ScriptedRoute, RouteError> {
        self.routed.fetch_add(1, Ordering::Relaxed);
        let parsed = match envelope.body {
            BodyView::Whole(parsed) | BodyView::Cut(parsed) => Some(parsed),
            BodyView::Absent | BodyView::Hidden => None,
        };
        if let Some(span) = &parsed.as_ref().and_then(|p| p.model_span.clone()) {
            assert!(span.end <= envelope.body_bytes);
            if self.rewrites {
                let text = Bytes::from_static(b"\"t/1\"");
                self.rewrite.set((span.clone(), text)).expect("one decision");
            }
        }
        if self.refuses {
            return Err(RouteError::NoEndpoints { pool: "p".to_owned() });
        }
        Ok(ScriptedRoute {
            edits: HeaderEdits::default(),
            api: parsed.map_or(Api::Opaque, |p| p.api),
            rewrite: self.rewrite(),
            restores: self.restores,
            endings: Arc::clone(&self.endings),
            ended: false,
        })
    }

    /// At most one request was routed, and each route ended once.
    pub fn check_endings(&self) {
        let routed = self.routed.load(Ordering::Relaxed);
        assert!(routed <= 1);
        assert_eq!(self.endings.load(Ordering::Relaxed), if self.refuses { 0 } else { routed });
    }
}

impl Router for Scripted {
    type Route = ScriptedRoute;

    fn open(&self, headers: &Headers) -> Result<Intake, ParseError> {
        if headers.get(":path") == Some("/nobody/reads/this") {
            return ParserSet::new(&[ParserKind::Passthrough]).open(headers);
        }
        ParserSet::new(&KINDS).open(headers)
    }
    async fn route(&self, envelope: Envelope) -> Result<ScriptedRoute, RouteError> {
        self.decide(envelope)
    }
    fn refused(&self, _headers: &Headers, _error: &RouteError) {}
}

/// A route of [`Scripted`].
#[derive(Debug)]
pub struct ScriptedRoute {
    edits: HeaderEdits,
    api: Api,
    rewrite: Option<Rewrite>,
    restores: bool,
    endings: Arc<AtomicUsize>,
    ended: bool,
}

impl RoutedRequest for ScriptedRoute {
    fn destination(&self) -> &str {
        "10.0.0.1:8000"
    }
    fn edits(&self) -> &HeaderEdits {
        &self.edits
    }
    fn model_rewrite(&self) -> Option<Rewrite> {
        self.rewrite.clone()
    }
    fn request_id_to_set(&self) -> Option<&str> {
        None
    }
    fn api(&self) -> Api {
        self.api
    }
    fn streaming(&self) -> bool {
        false
    }
    fn scores(&self) -> Option<&[(Arc<str>, f64)]> {
        None
    }
    fn on_response_headers(&mut self, _: Option<u16>, _: Option<&str>, _: &Headers) -> HeaderEdits {
        HeaderEdits::default()
    }
    fn on_response_chunk(&mut self, _bytes: usize, _usage: Usage) {}
    fn restore_model(&self) -> Option<(&str, &str)> {
        self.restores.then_some((TARGET, INCOMING))
    }
    fn finish(mut self, _usage: Usage, _ending: Ending) {
        self.ended = true;
        self.endings.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for ScriptedRoute {
    fn drop(&mut self) {
        if !self.ended {
            self.endings.fetch_add(1, Ordering::Relaxed);
        }
    }
}
