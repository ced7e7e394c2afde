//! The data layer against engines that misbehave in every way, on real sockets.

use super::*;
use crate::endpoint::health::{Cause, METRIC_HELD_BACK, METRIC_SUSPICIONS};
use crate::endpoint::{EndpointKey, Incarnation, Labels, Reading};
use crate::plugin::HttpSource;
use crate::pool::{EndpointSpec, PoolEvent, PoolWriter, channel};
use crate::telemetry::names;
use axum::extract::State as Shown;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// What an engine answers.
#[derive(Default)]
struct Behaviour {
    status: AtomicU32,
    waiting: AtomicU64,
    started: AtomicU64,
    hangs: std::sync::atomic::AtomicBool,
    requests: AtomicU64,
    at_once: AtomicU64,
    most_at_once: AtomicU64,
    connections: AtomicU64,
}

struct Engine {
    behaviour: Arc<Behaviour>,
    address: SocketAddr,
    _server: AbortOnDropHandle<()>,
}

async fn metrics_page(Shown(b): Shown<Arc<Behaviour>>) -> axum::response::Response {
    b.requests.fetch_add(1, SeqCst);
    let now = b.at_once.fetch_add(1, SeqCst) + 1;
    b.most_at_once.fetch_max(now, SeqCst);
    while b.hangs.load(SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    b.at_once.fetch_sub(1, SeqCst);
    let status =
        StatusCode::from_u16(u16::try_from(b.status.load(SeqCst)).unwrap()).unwrap_or(StatusCode::OK);
    let text = format!(
        "vllm:num_requests_waiting {}\nvllm:num_requests_running 1\nvllm:kv_cache_usage_perc 0.5\n\
         vllm:cache_config_info{{block_size=\"16\",num_gpu_blocks=\"8\"}} 1\nprocess_start_time_seconds {}\n",
        b.waiting.load(SeqCst),
        b.started.load(SeqCst),
    );
    (status, text).into_response()
}

async fn models_page() -> &'static str {
    r#"{"object":"list","data":[{"id":"base"},{"id":"adapter"}]}"#
}

impl Engine {
    async fn on(address: &str, behaviour: Arc<Behaviour>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new()
            .route("/metrics", axum::routing::get(metrics_page))
            .route("/v1/models", axum::routing::get(models_page))
            .with_state(Arc::clone(&behaviour));
        let counted = Arc::clone(&behaviour);
        let server = tokio::spawn(async move {
            let service = hyper_util::service::TowerToHyperService::new(app);
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.connections.fetch_add(1, SeqCst);
                let service = service.clone();
                open.spawn(async move {
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let _closed =
                        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                });
            }
        });
        Self { behaviour, address, _server: AbortOnDropHandle::new(server) }
    }
    async fn start() -> Self {
        Self::on("127.0.0.1:0", Arc::default()).await
    }
    fn spec(&self, name: &str) -> EndpointSpec {
        EndpointSpec {
            key: EndpointKey { namespace: "default".into(), name: name.into(), rank: 0 },
            address: self.address.to_string().parse().unwrap(),
            metrics_address: None,
            labels: Labels::default(),
            process_mark: None,
        }
    }
}

struct Setup {
    writer: PoolWriter,
    pool: PoolReader,
    health: Arc<HealthTracker>,
    status: DataStatus,
    clock: Clock,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

fn http(path: &str) -> HttpSource {
    HttpSource::plain(path)
}

fn metrics_binding(source: HttpSource) -> SourceBinding {
    SourceBinding {
        name: "metrics".into(),
        source: SourceSpec::Metrics(source),
        extractors: vec![extractor::core_metrics::default_spec()],
    }
}

impl Setup {
    fn new(bindings: &[SourceBinding], endpoints: Vec<EndpointSpec>) -> Self {
        let (mut writer, pool) = channel();
        writer.apply([PoolEvent::Endpoints(endpoints)]);
        let clock = Clock::system();
        let health = Arc::new(HealthTracker::new(clock.clone()));
        let options =
            Options { fetch_timeout: Duration::from_millis(200), max_page_bytes: 4096, ..Options::default() };
        let layer =
            DataLayer::new(pool.clone(), bindings, options, clock.clone(), Arc::clone(&health)).unwrap();
        let (status, stop) = (layer.status(), CancellationToken::new());
        let running = tokio::spawn(layer.run(stop.clone()));
        Self { writer, pool, health, status, clock, stop, running }
    }
    fn of(engines: &[&Engine]) -> Self {
        let specs = engines.iter().enumerate().map(|(i, e)| e.spec(&format!("e{i}"))).collect();
        Self::new(&[metrics_binding(http("/metrics"))], specs)
    }
    fn endpoint(&self, index: usize) -> Arc<Endpoint> {
        Arc::clone(&self.pool.load().endpoints[index])
    }
    fn source(&self, index: usize) -> SourceStatus {
        self.status.snapshot(self.clock.now(), &self.health)[index].sources[0].clone()
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "in 20 s never: {what}");
}

#[tokio::test]
async fn numbers_are_fresh_over_one_kept_connection_and_fetches_never_overlap() {
    let engine = Engine::start().await;
    let setup = Setup::of(&[&engine]);
    let endpoint = setup.endpoint(0);
    assert!(endpoint.live.sample().is_none());
    for waiting in [3, 9] {
        engine.behaviour.waiting.store(waiting, SeqCst);
        let waiting = u32::try_from(waiting).unwrap();
        until("the number is read", || {
            endpoint.live.with_sample(|s| s.and_then(|s| s.waiting)) == Some(waiting)
        })
        .await;
    }
    until("twenty scrapes", || engine.behaviour.requests.load(SeqCst) >= 20).await;
    assert_eq!(engine.behaviour.connections.load(SeqCst), 1);
    assert_eq!(engine.behaviour.most_at_once.load(SeqCst), 1);
    let at = endpoint.live.sample().map(|s| s.at);
    assert_eq!(endpoint.live.reading(at, setup.clock.now()), Reading::Fresh);
    setup.stop.cancel();
    setup.running.await.unwrap();
}

#[tokio::test]
async fn a_restart_between_two_scrapes_begins_an_incarnation_before_the_new_numbers() {
    let engine = Engine::start().await;
    let setup = Setup::of(&[&engine]);
    let live = Arc::clone(&setup.endpoint(0).live);
    until("a first sample", || live.sample().is_some()).await;
    assert_eq!(live.incarnation(), Incarnation(0));
    engine.behaviour.waiting.store(77, SeqCst);
    until("the same process goes on", || live.with_sample(|s| s.and_then(|s| s.waiting)) == Some(77)).await;
    assert_eq!(live.incarnation(), Incarnation(0));
    engine.behaviour.waiting.store(5, SeqCst);
    until("settled", || live.with_sample(|s| s.and_then(|s| s.waiting)) == Some(5)).await;
    engine.behaviour.started.store(100, SeqCst);
    engine.behaviour.waiting.store(6, SeqCst);
    // The order is what counts: whoever sees the new number must see the new incarnation too.
    let incarnation = live.incarnation();
    until("the new process's numbers", || live.with_sample(|s| s.and_then(|s| s.waiting)) == Some(6)).await;
    assert!(live.incarnation() >= Incarnation(1), "was {incarnation:?}");
    assert_eq!(live.sample().unwrap().cache.map(|c| c.blocks), Some(8), "the cache's size is read anew");
}

#[tokio::test]
async fn an_engine_that_dies_is_suspect_at_once_and_back_after_one_probe() {
    let (engine, other) = (Engine::start().await, Engine::start().await);
    let setup = Setup::of(&[&engine, &other]);
    let endpoint = setup.endpoint(0);
    until("a first sample", || endpoint.live.sample().is_some()).await;
    let (address, behaviour) = (engine.address.to_string(), Arc::clone(&engine.behaviour));
    let died = std::time::Instant::now();
    drop(engine);
    until("suspect", || endpoint.live.is_suspect()).await;
    assert!(died.elapsed() < Duration::from_secs(1), "took {:?}", died.elapsed());
    assert_eq!(setup.health.suspicion(&endpoint).map(|s| s.cause), Some(Cause::ScrapesRefused));
    let shown = setup.status.snapshot(setup.clock.now(), &setup.health);
    assert_eq!(
        shown[0].suspect.as_ref().map(|s| (s.reason, s.awaits_scrape)),
        Some(("scrapes_refused", true))
    );
    assert!(shown[1].suspect.is_none());
    let before = endpoint.live.incarnation();
    let _back = Engine::on(&address, behaviour).await;
    let returned = std::time::Instant::now();
    until("a probe is due", || setup.health.take_probe(&endpoint, setup.clock.now())).await;
    setup.health.request_ok(&endpoint);
    assert!(!endpoint.live.is_suspect());
    assert!(returned.elapsed() < Duration::from_secs(5));
    assert!(endpoint.live.incarnation() > before, "refused and back is another process");
}

#[tokio::test]
async fn a_hanging_page_holds_up_nobody_else() {
    let (engine, other) = (Engine::start().await, Engine::start().await);
    let setup = Setup::of(&[&engine, &other]);
    let (hanging, fine) = (setup.endpoint(0), setup.endpoint(1));
    until("first samples", || hanging.live.sample().is_some() && fine.live.sample().is_some()).await;
    engine.behaviour.hangs.store(true, SeqCst);
    let before = other.behaviour.requests.load(SeqCst);
    until("suspect", || hanging.live.is_suspect()).await;
    assert_eq!(setup.health.suspicion(&hanging).map(|s| s.cause), Some(Cause::ScrapesTimedOut));
    assert!(other.behaviour.requests.load(SeqCst) >= before + 4, "the other one was scraped all the while");
    setup.health.request_ok(&hanging);
    let failures = setup.source(0).consecutive_failures;
    until("more timeouts", || setup.source(0).consecutive_failures >= failures + 3).await;
    assert!(!hanging.live.is_suspect(), "requests work, so the page is what is broken");
    engine.behaviour.hangs.store(false, SeqCst);
    until("read again", || setup.source(0).consecutive_failures == 0).await;
}

#[tokio::test]
async fn an_error_page_is_an_outage_of_metrics_and_nothing_more() {
    let engine = Engine::start().await;
    let setup = Setup::of(&[&engine]);
    let endpoint = setup.endpoint(0);
    until("a first sample", || endpoint.live.sample().is_some()).await;
    engine.behaviour.status.store(500, SeqCst);
    until("failures are counted", || setup.source(0).consecutive_failures >= 5).await;
    let source = setup.source(0);
    assert!(source.last_error.as_ref().is_some_and(|e| e.contains("500")), "{source:?}");
    assert!(!endpoint.live.is_suspect() && endpoint.live.sample().is_some());
    assert_eq!(engine.behaviour.connections.load(SeqCst), 1, "the connection survives error pages");
    engine.behaviour.status.store(200, SeqCst);
    until("read again", || setup.source(0).consecutive_failures == 0).await;
    assert_eq!(endpoint.live.incarnation(), Incarnation(0));
}

#[tokio::test]
async fn a_page_without_end_is_cut_off() {
    let app = axum::Router::new().route("/metrics", axum::routing::get(|| async { "x 1\n".repeat(5_000) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _server =
        AbortOnDropHandle::new(tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }));
    let engine = Engine {
        behaviour: Arc::default(),
        address,
        _server: AbortOnDropHandle::new(tokio::spawn(async {})),
    };
    let setup = Setup::of(&[&engine]);
    until("failures", || {
        setup
            .status
            .snapshot(setup.clock.now(), &setup.health)
            .first()
            .is_some_and(|e| e.sources[0].failed > 1)
    })
    .await;
    assert!(setup.source(0).last_error.is_some_and(|e| e.contains("4096")));
}

#[tokio::test]
async fn pollers_follow_the_pool() {
    let (one, two) = (Engine::start().await, Engine::start().await);
    let mut setup = Setup::of(&[&one]);
    until("the first is scraped", || one.behaviour.requests.load(SeqCst) > 0).await;
    assert_eq!(two.behaviour.requests.load(SeqCst), 0);
    setup.writer.apply([PoolEvent::Endpoints(vec![two.spec("e1")])]);
    until("the second is scraped", || two.behaviour.requests.load(SeqCst) > 2).await;
    until("only the second is shown", || {
        let shown = setup.status.snapshot(setup.clock.now(), &setup.health);
        shown.len() == 1 && shown[0].endpoint == "default/e1"
    })
    .await;
    let (left, right) = (one.behaviour.requests.load(SeqCst), two.behaviour.requests.load(SeqCst));
    until("more of the second", || two.behaviour.requests.load(SeqCst) > right + 5).await;
    assert!(one.behaviour.requests.load(SeqCst) <= left + 1, "who left is not scraped any more");
}

#[tokio::test]
async fn models_are_listed_and_asked_for_again_after_a_restart() {
    let engine = Engine::start().await;
    let mut models = http("/v1/models");
    models.interval = Some(Duration::from_secs(3600));
    let models = SourceBinding {
        name: "models".into(),
        source: SourceSpec::Models(models),
        extractors: vec![ExtractorSpec::Models],
    };
    let setup = Setup::new(&[metrics_binding(http("/metrics")), models], vec![engine.spec("a")]);
    let live = Arc::clone(&setup.endpoint(0).live);
    let listed = || live.models().is_some_and(|m| *m == ["base".into(), "adapter".into()]);
    until("models are known", listed).await;
    engine.behaviour.started.store(9, SeqCst);
    until("the restart is seen", || live.incarnation() == Incarnation(1)).await;
    until("models are known again", listed).await;
}

#[tokio::test]
async fn https_is_verified_when_asked_and_only_then() {
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let page =
                    |_| async { Ok::<_, std::convert::Infallible>(http::Response::new("m 1\n".to_owned())) };
                let io = hyper_util::rt::TokioIo::new(stream);
                let service = hyper::service::service_fn(page);
                let _closed = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    }));
    let fetch = async |skip: bool, ca: Option<std::path::PathBuf>| {
        let source =
            HttpSource { https: true, insecure_skip_verify: skip, ca_cert_path: ca, ..http("/metrics") };
        let tls = source::client_config(&source).unwrap();
        let target = address.to_string().parse().unwrap();
        source::PageReader::new(target, "/metrics", tls, 100).fetch().await.map(|page| page.to_vec())
    };
    assert_eq!(fetch(true, None).await.unwrap(), b"m 1\n");
    assert_eq!(fetch(false, Some(ca)).await.unwrap(), b"m 1\n");
    let stranger = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let other_ca = folder.path().join("other.pem");
    std::fs::write(&other_ca, stranger.cert.pem()).unwrap();
    let refused = fetch(false, Some(other_ca)).await.unwrap_err();
    assert_eq!(refused.kind(), "tls", "{refused}");
}

#[test]
fn bindings_that_make_no_sense_are_refused() {
    let (_writer, pool) = channel();
    let made = |bindings: &[SourceBinding]| {
        let health = Arc::new(HealthTracker::new(Clock::manual()));
        let layer = DataLayer::new(pool.clone(), bindings, Options::default(), Clock::manual(), health);
        layer.map(|_| ()).map_err(|e| e.to_string())
    };
    let metrics = metrics_binding(http("/metrics"));
    assert_eq!(made(std::slice::from_ref(&metrics)), Ok(()));
    assert!(made(&[metrics.clone(), metrics.clone()]).unwrap_err().contains("both feed"));
    let crossed = SourceBinding { extractors: vec![ExtractorSpec::Models], ..metrics.clone() };
    assert!(made(&[crossed]).unwrap_err().contains("models-data-source"));
    let mut secure = http("/metrics");
    secure.https = true;
    secure.insecure_skip_verify = false;
    secure.ca_cert_path = Some("/nowhere/ca.pem".into());
    assert!(made(&[metrics_binding(secure)]).unwrap_err().contains("/nowhere/ca.pem"));
}

#[test]
fn names_of_metrics_are_the_ones_in_the_table() {
    assert_eq!((METRIC_SUSPICIONS, METRIC_HELD_BACK), (names::SUSPICIONS, names::SUSPICIONS_OVER_CAP));
}
