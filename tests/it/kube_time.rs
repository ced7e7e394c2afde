//! Minutes without the API, with the clock stopped: the last state is served on, it is said and counted, tries keep their
//! distance, and recovery comes by itself.

use crate::kube_cases::{Watched, destinations};
use crate::support::cluster::{self, NAMESPACE, PICKER};
use crate::support::kube_api::{Asked, Direct, Place};
use crate::support::objects;
use crate::support::wire::Mode;
use pointsman::discovery::kubernetes::{POOL_GROUP, Want};
use pointsman::telemetry::recorder::MetricsHandle;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const TEN_MINUTES: Duration = Duration::from_secs(600);
/// The kinds that are watched, as the ends of their paths.
const KINDS: [&str; 5] =
    ["inferencepools", "pods", "inferenceobjectives", "inferencemodelrewrites", "inferencemodels"];

/// What the discovery says and counts on this thread.
struct Seen {
    log: Arc<Mutex<Vec<u8>>>,
    metrics: MetricsHandle,
    _subscriber: tracing::subscriber::DefaultGuard,
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seen {
    fn new() -> Self {
        let log: Arc<Mutex<Vec<u8>>> = Arc::default();
        let sink = Arc::clone(&log);
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || Sink(Arc::clone(&sink))).finish();
        let _subscriber = tracing::subscriber::set_default(subscriber);
        Self { log, metrics: MetricsHandle::detached(false), _subscriber }
    }

    /// How many lines about pods hold this text.
    fn of_pods(&self, text: &str) -> usize {
        let log = String::from_utf8(self.log.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(text) && line.contains("kind=pods")).count()
    }

    fn gauge(&self, name: &str) -> BTreeMap<String, f64> {
        let page = self.metrics.render();
        let lines = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix("{kind=\""));
        lines
            .filter_map(|line| line.split_once("\"} "))
            .map(|(kind, value)| (kind.to_owned(), value.parse().unwrap()))
            .collect()
    }
}

fn pods() -> Place {
    Place { home: "v1".to_owned(), namespace: NAMESPACE.to_owned(), plural: "pods".to_owned() }
}

fn put(api: &Direct, home: &str, plural: &str, object: serde_json::Value) {
    let place = Place { home: home.to_owned(), namespace: NAMESPACE.to_owned(), plural: plural.to_owned() };
    api.state.store.lock().put(&place, object);
    api.state.tell();
}

/// A cluster with a pool and one pod, and a discovery that stands and has nothing to do.
async fn standing() -> (Direct, Watched) {
    let api = Direct::new(PICKER, &cluster::shipped_rules());
    put(&api, "inference.networking.k8s.io/v1", "inferencepools", objects::pool("llm", &[8000]));
    put(&api, "v1", "pods", objects::pod("a", "llm", "10.0.0.1"));
    let watched = Watched::of(api.client(), Want::Pool(POOL_GROUP));
    watched.destinations(&["10.0.0.1:8000"]).await;
    sleep(Duration::from_secs(5)).await;
    (api, watched)
}

/// Pod `a` goes and pod `b` comes while nobody can see it.
fn change(api: &Direct) {
    put(api, "v1", "pods", objects::pod("b", "llm", "10.0.0.2"));
    api.state.store.lock().remove(&pods(), "a");
    api.state.tell();
}

fn lists_of_pods(asked: &[Asked]) -> usize {
    asked.iter().filter(|asked| asked.path.ends_with("/pods") && !asked.watch).count()
}

/// Tries of one kind: their count, and the shortest and the longest time between two.
fn distances(asked: &[Asked], kind: &str) -> (usize, Duration, Duration) {
    let times: Vec<Instant> = asked
        .iter()
        .filter(|asked| asked.path.ends_with(&format!("/{kind}")))
        .map(|asked| asked.at)
        .collect();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    (times.len(), gaps.clone().min().unwrap_or_default(), gaps.max().unwrap_or_default())
}

async fn cut_for_ten_minutes(cut: Mode, expired: bool) {
    let seen = Seen::new();
    let _recorder = metrics::set_default_local_recorder(&seen.metrics);
    let (api, watched) = standing().await;
    let before = api.asked();
    let generation = watched.pool.load().generation;
    assert_eq!(seen.gauge("pointsman_kube_watch_state").values().sum::<f64>(), 5.0);
    api.set(cut);
    change(&api);
    let begun = Instant::now();
    for minute in 1..=10 {
        sleep(TEN_MINUTES / 10).await;
        let pool = watched.pool.load();
        assert_eq!(destinations(&pool), ["10.0.0.1:8000"], "served on in minute {minute}");
        assert_eq!(pool.generation, generation, "nothing is published in minute {minute}");
        assert!(watched.readiness.waiting_for().is_empty(), "ready in minute {minute}");
    }
    assert_eq!(seen.gauge("pointsman_kube_watch_state").values().sum::<f64>(), 0.0, "each kind says so");
    assert_eq!(seen.of_pods("cannot be followed"), 1, "said once");
    let during = api.asked().split_off(before.len());
    for kind in KINDS {
        let (tries, shortest, longest) = distances(&during, kind);
        println!("kube: {cut:?} for ten minutes, {kind}: {tries} tries, {shortest:?} to {longest:?} apart");
        // Pauses double from 0.25 s to 30 s, each a fifth more or less; a swallowed try takes 30 s itself.
        let (bound, apart) = if cut == Mode::Refuse { (32, 200) } else { (14, 30_200) };
        assert!((8..=bound).contains(&tries), "{tries} tries of {kind}");
        assert!(shortest >= Duration::from_millis(apart), "{kind}: {shortest:?}");
        assert!(longest <= Duration::from_secs(67), "{kind}: {longest:?}");
    }
    assert_eq!(lists_of_pods(&during), 0, "what was known is not listed anew as long as it may be good");

    if expired {
        api.state.store.lock().compact();
    }
    api.set(Mode::Carry);
    let back = Instant::now();
    watched.until_within(TEN_MINUTES, "b alone", |pool| destinations(pool) == ["10.0.0.2:8000"]).await;
    println!("kube: {cut:?}, expired {expired}: in force {:?} after the API was back", back.elapsed());
    // One pause, and at most one try that was swallowed.
    assert!(back.elapsed() <= Duration::from_secs(if cut == Mode::Refuse { 37 } else { 67 }));
    assert_eq!(watched.pool.load().generation, generation + 1, "one publication");
    sleep(Duration::from_secs(70)).await;
    assert_eq!(seen.gauge("pointsman_kube_watch_state").values().sum::<f64>(), 5.0, "each kind stands again");
    assert_eq!(seen.of_pods("watched again"), 1, "said once");
    assert_eq!(seen.of_pods("cannot be followed"), 1);
    assert_eq!(lists_of_pods(&api.asked()), 1 + usize::from(expired), "listed anew only where it must be");
    assert!(begun.elapsed() >= TEN_MINUTES);
    watched.end().await;
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_refused_connections() {
    cut_for_ten_minutes(Mode::Refuse, false).await;
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_refused_connections_and_a_history_that_is_gone() {
    cut_for_ten_minutes(Mode::Refuse, true).await;
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_silence() {
    cut_for_ten_minutes(Mode::Swallow, false).await;
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_silence_and_a_history_that_is_gone() {
    cut_for_ten_minutes(Mode::Swallow, true).await;
}

/// The connections are open and dead, as after the loss of a node between, while new ones would be answered: the server
/// ends a watch after 110 s, so silence for longer means that nobody is there.
#[tokio::test(start_paused = true)]
async fn watches_that_went_silent_are_noticed_and_opened_anew() {
    let seen = Seen::new();
    let _recorder = metrics::set_default_local_recorder(&seen.metrics);
    let (api, watched) = standing().await;
    api.set(Mode::Swallow);
    sleep(Duration::from_millis(1)).await;
    api.set(Mode::Carry);
    let silent = Instant::now();
    change(&api);
    watched.until_within(TEN_MINUTES, "noticed", |pool| destinations(pool) == ["10.0.0.2:8000"]).await;
    println!("kube: dead connections noticed after {:?}", silent.elapsed());
    assert!(silent.elapsed() <= Duration::from_secs(121), "{:?}", silent.elapsed());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(seen.gauge("pointsman_kube_watch_state").values().sum::<f64>(), 5.0);
    let asked = api.asked();
    for kind in KINDS {
        let watches = asked.iter().filter(|asked| asked.watch && asked.path.ends_with(&format!("/{kind}")));
        assert_eq!(watches.count(), 2, "{kind}");
    }
    assert_eq!(lists_of_pods(&asked), 1, "a watch goes on where it was");
    assert_eq!(seen.of_pods("nothing came for 120s"), 1);
    watched.end().await;
}

/// A server that takes a list and refuses every watch as too old, for an hour.
#[tokio::test(start_paused = true)]
async fn a_history_that_is_always_gone_is_not_listed_in_a_tight_loop() {
    let (api, watched) = standing().await;
    api.state.faults.lock().always_gone = true;
    api.set(Mode::Refuse);
    sleep(Duration::from_secs(1)).await;
    api.set(Mode::Carry);
    sleep(Duration::from_secs(3600)).await;
    let asked = api.asked();
    println!("kube: {} lists of pods in an hour in which every watch is too old", lists_of_pods(&asked));
    assert!((100..=160).contains(&lists_of_pods(&asked)), "{}", lists_of_pods(&asked));
    assert_eq!(destinations(&watched.pool.load()), ["10.0.0.1:8000"], "served on");
    api.state.faults.lock().always_gone = false;
    change(&api);
    watched.until_within(TEN_MINUTES, "b alone", |pool| destinations(pool) == ["10.0.0.2:8000"]).await;
    watched.end().await;
}

/// A quiet day: watches are opened anew every 110 s without a list, a failure or a word.
#[tokio::test(start_paused = true)]
async fn a_quiet_hour_costs_a_watch_of_each_kind_every_two_minutes() {
    let seen = Seen::new();
    let _recorder = metrics::set_default_local_recorder(&seen.metrics);
    let (api, watched) = standing().await;
    let before = api.asked().len();
    let generation = watched.pool.load().generation;
    sleep(Duration::from_secs(3600)).await;
    let during = api.asked().split_off(before);
    for kind in KINDS {
        let (watches, shortest, _) = distances(&during, kind);
        assert!((32..=33).contains(&watches), "{watches} watches of {kind}");
        assert!(shortest >= Duration::from_secs(109), "{kind}: {shortest:?}");
    }
    assert!(during.iter().all(|asked| asked.watch), "no list");
    assert_eq!(watched.pool.load().generation, generation);
    assert!(!seen.metrics.render().contains("pointsman_kube_failures_total{"), "{}", seen.metrics.render());
    watched.end().await;
}
