//! Traces over OTLP/gRPC, off unless configured. Off, a request pays one look at a `None`.
//!
//! The picker joins the caller's trace (W3C headers), makes `gateway.request` with `gateway.request_orchestration` in it,
//! and hands the former on to the engine as the one `traceparent`. Spans are exported in batches by a thread of the SDK;
//! a collector that is away costs log lines and dropped spans, never a request.

use crate::request::Headers;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span, SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter, SpanProcessor,
};
use std::sync::Arc;
use std::time::Duration;

/// Longest that one export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Exports that fail in a row are told of once in this many.
const TELL_EVERY: u64 = 60;

/// Where spans go and which.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// OTLP/gRPC endpoint, `http://host:4317`.
    pub endpoint: String,
    /// Share of the traces that begin here which are kept, 0 to 1; a parent's decision is followed.
    pub ratio: f64,
    /// Name of the service.
    pub service_name: String,
    /// Further attributes of the resource.
    pub resource: Vec<(String, String)>,
}

/// Traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// TLS to a collector is not built in.
    #[error(
        "`{0}`: spans are sent in the clear only; point OTEL_EXPORTER_OTLP_ENDPOINT at an http:// address"
    )]
    Tls(String),
    /// The exporter does not take its settings.
    #[error("cannot export spans to `{endpoint}`: {cause}; check OTEL_EXPORTER_OTLP_ENDPOINT")]
    Exporter {
        /// The endpoint.
        endpoint: String,
        /// What is wrong.
        cause: String,
    },
}

/// Makes spans; the default makes none. Clones share one exporter.
#[derive(Clone, Debug, Default)]
pub struct Tracing(Option<Arc<Live>>);

#[derive(Debug)]
struct Live {
    provider: SdkTracerProvider,
    handlers: SdkTracer,
    control: SdkTracer,
}

/// Sends spans out from here on. Must be called inside the runtime that stays for the life of the process: the
/// connection to the collector lives on it.
pub fn init(options: &Options) -> Result<Tracing, TraceError> {
    if options.endpoint.starts_with("https:") {
        return Err(TraceError::Tls(options.endpoint.clone()));
    }
    let wrong = |cause: String| TraceError::Exporter { endpoint: options.endpoint.clone(), cause };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&options.endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|e| wrong(e.to_string()))?;
    let telling = Telling { inner: exporter, failures: 0.into(), endpoint: options.endpoint.clone() };
    Ok(Tracing::with_processor(options, BatchSpanProcessor::builder(telling).build()))
}

impl Tracing {
    /// No traces.
    pub fn off() -> Self {
        Self::default()
    }

    fn with_processor(options: &Options, processor: impl SpanProcessor + 'static) -> Self {
        let attributes = options.resource.iter().map(|(k, v)| KeyValue::new(k.clone(), v.clone()));
        let resource = Resource::builder()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attributes(attributes)
            .with_service_name(options.service_name.clone())
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(options.ratio)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        let scope = |name: &'static str| {
            InstrumentationScope::builder(name).with_version(env!("CARGO_PKG_VERSION")).build()
        };
        let handlers = provider.tracer_with_scope(scope("pointsman/ext_proc"));
        let control = provider.tracer_with_scope(scope("pointsman/director"));
        Self(Some(Arc::new(Live { provider, handlers, control })))
    }

    /// Begins `gateway.request` for a request with these headers, in the caller's trace if they name one.
    pub fn start_request(&self, headers: &Headers) -> RequestSpan {
        let Some(live) = &self.0 else { return RequestSpan(None) };
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Carrier(headers));
        let span = live.handlers.span_builder("gateway.request").with_kind(SpanKind::Server);
        let span = span.start_with_context(&live.handlers, &parent);
        let context = span.span_context().clone();
        RequestSpan(Some(Box::new(Begun { live: Arc::clone(live), span, context })))
    }

    /// Sends out what is left, waiting at most for `limit`. Later spans are lost.
    pub async fn shutdown(&self, limit: Duration) {
        let Some(live) = self.0.clone() else { return };
        // The SDK waits on its thread; that must not hold the runtime up.
        let ended = tokio::task::spawn_blocking(move || live.provider.shutdown_with_timeout(limit));
        match tokio::time::timeout(limit + Duration::from_millis(200), ended).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans were not exported"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the last spans were not exported in time"),
        }
    }
}

struct Carrier<'a>(&'a Headers);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)
    }
    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name).collect()
    }
}

/// The span of one request; ends when dropped. Does nothing when traces are off.
#[derive(Debug, Default)]
pub struct RequestSpan(Option<Box<Begun>>);

#[derive(Debug)]
struct Begun {
    live: Arc<Live>,
    span: opentelemetry_sdk::trace::Span,
    context: SpanContext,
}

impl RequestSpan {
    /// The header that hands the trace on; it replaces whatever came under that name.
    pub fn inject(&self) -> Option<(&'static str, String)> {
        let context = &self.0.as_ref()?.context;
        let flags = context.trace_flags().to_u8();
        context
            .is_valid()
            .then(|| ("traceparent", format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())))
    }

    /// The request failed with this error code; the text of an error is not recorded, it may quote the request.
    pub fn failed(&mut self, code: &'static str) {
        if let Some(begun) = &mut self.0 {
            begun.span.set_status(Status::error(code));
        }
    }

    /// Begins `gateway.request_orchestration` inside; it ends when the guard is dropped.
    pub fn orchestration(&self) -> Orchestration {
        Orchestration(self.0.as_ref().filter(|b| b.context.is_sampled()).map(|begun| {
            let parent = Context::new().with_remote_span_context(begun.context.clone());
            let span =
                begun.live.control.span_builder("gateway.request_orchestration").with_kind(SpanKind::Server);
            span.start_with_context(&begun.live.control, &parent)
        }))
    }
}

/// The time that the picker takes to decide, as a span.
#[derive(Debug, Default)]
pub struct Orchestration(Option<opentelemetry_sdk::trace::Span>);

impl Orchestration {
    /// What was decided for.
    pub fn decided(&mut self, target_model: &str, priority: i32) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new("target_model", target_model.to_owned()));
            span.set_attribute(KeyValue::new("request_prio", i64::from(priority)));
        }
    }
    /// The decision failed with this error code.
    pub fn failed(&mut self, code: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(code));
        }
    }
}

/// An exporter that says in the log when it fails, once and then now and again, and when it works again.
#[derive(Debug)]
struct Telling<E> {
    inner: E,
    failures: std::sync::atomic::AtomicU64,
    endpoint: String,
}

impl<E: SpanExporter> SpanExporter for Telling<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        use std::sync::atomic::Ordering::Relaxed;
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        let endpoint = &self.endpoint;
        match &result {
            Ok(()) => {
                let failures = self.failures.swap(0, Relaxed);
                if failures > 0 {
                    tracing::info!(endpoint, failures, "spans are exported again");
                }
            }
            Err(error) => {
                let failures = self.failures.fetch_add(1, Relaxed) + 1;
                if failures % TELL_EVERY == 1 {
                    tracing::warn!(endpoint, spans, failures, %error, "spans cannot be exported and are dropped");
                }
            }
        }
        result
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::SimpleSpanProcessor;
    use parking_lot::Mutex;

    #[derive(Clone, Debug, Default)]
    struct Kept {
        spans: Arc<Mutex<Vec<SpanData>>>,
        fail: bool,
    }

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.spans.lock().extend(batch);
            if self.fail { Err(OTelSdkError::InternalFailure("away".to_owned())) } else { Ok(()) }
        }
    }

    fn options(ratio: f64) -> Options {
        Options {
            endpoint: "http://127.0.0.1:4317".to_owned(),
            ratio,
            service_name: "llm-d-epp".to_owned(),
            resource: Vec::new(),
        }
    }

    fn kept(ratio: f64) -> (Tracing, Kept) {
        let kept = Kept::default();
        (Tracing::with_processor(&options(ratio), SimpleSpanProcessor::new(kept.clone())), kept)
    }

    fn headers(pairs: &[(&str, &'static str)]) -> Headers {
        let mut headers = Headers::default();
        pairs.iter().for_each(|(n, v)| headers.push(n, Bytes::from_static(v.as_bytes())));
        headers
    }

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn off_injects_nothing() {
        let span = Tracing::off().start_request(&headers(&[("traceparent", PARENT)]));
        assert_eq!(span.inject(), None);
        drop(span.orchestration());
    }

    #[test]
    fn the_callers_trace_is_joined_and_handed_on() {
        let (tracing, kept) = kept(0.0);
        let mut span =
            tracing.start_request(&headers(&[("traceparent", PARENT), ("authorization", "Bearer planted")]));
        let (name, value) = span.inject().unwrap();
        assert_eq!(name, "traceparent");
        assert!(value.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && value.ends_with("-01"));
        assert_ne!(value, PARENT);
        span.orchestration().decided("m", -1);
        span.failed("ModelServerError");
        drop(span);
        let spans = kept.spans.lock();
        let named = |name: &str| spans.iter().find(|s| s.name == name).unwrap();
        let (inner, outer) = (named("gateway.request_orchestration"), named("gateway.request"));
        assert_eq!(inner.parent_span_id, outer.span_context.span_id());
        assert_eq!(outer.parent_span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(outer.status, Status::error("ModelServerError"));
        assert!(outer.attributes.is_empty());
        assert_eq!(
            inner.attributes,
            [KeyValue::new("target_model", "m"), KeyValue::new("request_prio", -1_i64)]
        );
        assert!(!format!("{spans:?}").contains("planted"));
    }

    #[test]
    fn without_a_parent_the_ratio_decides_and_a_header_is_injected_all_the_same() {
        let (tracing, kept) = kept(0.0);
        let span = tracing.start_request(&headers(&[]));
        assert!(span.inject().unwrap().1.ends_with("-00"));
        drop(span);
        assert!(kept.spans.lock().is_empty());
    }

    #[test]
    fn a_broken_traceparent_begins_a_trace_of_its_own() {
        let (tracing, _) = kept(1.0);
        for text in ["", "00-xyz-1-01", "zz", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            let span = tracing.start_request(&headers(&[("traceparent", text)]));
            assert!(span.inject().unwrap().1.ends_with("-01"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_failing_exporter_is_said_once_and_holds_nothing_up() {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&lines);
        let subscriber =
            crate::telemetry::logs::subscriber(tracing::level_filters::LevelFilter::INFO, move |l| {
                sink.lock().push(String::from_utf8(l).unwrap());
            });
        let _here = tracing::subscriber::set_default(subscriber);
        let kept = Kept { fail: true, ..Kept::default() };
        let telling = Telling { inner: kept, failures: 0.into(), endpoint: "http://e".to_owned() };
        for _ in 0..5 {
            assert!(telling.export(Vec::new()).await.is_err());
        }
        assert_eq!(lines.lock().iter().filter(|l| l.contains("spans cannot be exported")).count(), 1);
    }

    #[tokio::test]
    async fn an_absent_collector_does_not_hold_up_the_end() {
        // Port 9 of this machine: nobody listens there.
        let tracing = init(&Options { endpoint: "http://127.0.0.1:9".to_owned(), ..options(1.0) }).unwrap();
        drop(tracing.start_request(&headers(&[])));
        let began = std::time::Instant::now();
        tracing.shutdown(Duration::from_millis(300)).await;
        assert!(began.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn tls_to_the_collector_is_refused_with_a_hint() {
        let error = init(&Options { endpoint: "https://c:4317".to_owned(), ..options(1.0) }).unwrap_err();
        assert!(error.to_string().contains("http://"));
    }
}
