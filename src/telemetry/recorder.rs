//! The process's metrics: one recorder behind the `metrics` macros, one page for Prometheus.
//!
//! Counters and gauges live in the Prometheus exporter. Histograms live here, as fixed buckets, because the exporter
//! keeps every value until the page is read: at a few million streamed tokens a second that is memory without a bound.
//! A family with an older twin is counted under both names when legacy metrics are on; whoever counts does not notice.
//!
//! With several pools each has a view of its own of the same page: what is counted through it carries the pool's label.

use super::histogram::FixedHistogram;
use super::names::{self, FAMILIES, Family, Kind, Old};
use super::{buckets, pool_gauges, process, text};
use metrics::atomics::AtomicU64;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Label, Level, Metadata,
    Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use parking_lot::{Mutex, RwLock};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Version of the build.
const BUILD: &str = concat!("v", env!("CARGO_PKG_VERSION"));

static METADATA: Metadata<'static> = Metadata::new("pointsman", Level::INFO, None);

/// Families that only exist when a flag asks for them, so they are not shown as zero from the start.
const ON_REQUEST: [&str; 2] = [names::STREAMS_IN_FLIGHT, names::STREAM_DURATION];
/// Families of the process, whatever pools it serves.
const OF_PROCESS: [&str; 3] = [names::LEADER, names::LOGS_DROPPED, names::DRAINING];

/// A recorder was installed in this process before.
#[derive(Debug, thiserror::Error)]
#[error("metrics are already set up in this process: install the recorder once, at the start")]
pub struct AlreadyInstalled;

/// Whose numbers are on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// One pool: no series names it.
    OnePool,
    /// Several: what belongs to one of them is counted through [`MetricsHandle::of_pool`].
    SeveralPools,
}

/// Sets up metrics for the process: from here on the `metrics` macros count. `legacy` also writes the older names.
pub fn install(legacy: bool, scale: Scale) -> Result<MetricsHandle, AlreadyInstalled> {
    let handle = MetricsHandle::new(legacy, scale);
    metrics::set_global_recorder(handle.clone()).map_err(|_e| AlreadyInstalled)?;
    Ok(handle)
}

/// The metrics of the process, or one pool's view of them; clones share both.
#[derive(Clone)]
pub struct MetricsHandle {
    registry: Arc<Registry>,
    view: Arc<View>,
}

/// What is one pool's own.
#[derive(Default)]
struct View {
    /// The pool that every series names; `None` with a single pool, and for what belongs to no pool.
    pool: Option<SharedString>,
    /// Gauges without labels of their own, to be read back.
    plain_gauges: RwLock<BTreeMap<String, Arc<AtomicU64>>>,
}

impl std::fmt::Debug for MetricsHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MetricsHandle(legacy: {}, pool: {:?})", self.registry.legacy, self.view.pool)
    }
}

/// The series of one histogram family by their labels.
type HistogramSeries = BTreeMap<Vec<(String, String)>, Arc<FixedHistogram>>;

struct Registry {
    plain: PrometheusRecorder,
    histograms: RwLock<BTreeMap<String, HistogramSeries>>,
    families: HashMap<&'static str, &'static Family>,
    legacy: bool,
    unlisted: Mutex<BTreeSet<String>>,
    /// Rows by the label of their pool.
    pool_rows: Mutex<BTreeMap<String, Arc<Vec<Row>>>>,
}

/// One value that is written on the page as it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) family: &'static str,
    pub(super) labels: text::LabelPairs,
    pub(super) value: f64,
}

impl MetricsHandle {
    /// Metrics that belong to nobody else: what tests use.
    pub fn detached(legacy: bool) -> Self {
        Self::new(legacy, Scale::OnePool)
    }

    /// Metrics that count for nobody else.
    pub fn new(legacy: bool, scale: Scale) -> Self {
        let registry = Arc::new(Registry {
            plain: PrometheusBuilder::new().build_recorder(),
            histograms: RwLock::default(),
            families: FAMILIES.iter().map(|f| (f.name, f)).collect(),
            legacy,
            unlisted: Mutex::default(),
            pool_rows: Mutex::default(),
        });
        FAMILIES.iter().for_each(|family| registry.describe(family));
        let handle = Self { registry, view: Arc::default() };
        let shown = |f: &&Family| scale == Scale::OnePool || OF_PROCESS.contains(&f.name);
        FAMILIES.iter().filter(shown).for_each(|family| handle.show(family));
        let build = [("commit", option_env!("POINTSMAN_COMMIT").unwrap_or("unknown")), ("build_ref", BUILD)];
        handle.gauge(names::INFO, &build).set(1.0);
        handle
    }

    /// The view of the pool `label`: the same page, on which everything that is counted through the view has the label
    /// [`names::POOL_LABEL`]. Families without other labels are shown as zero from here on.
    #[must_use]
    pub fn of_pool(&self, label: &str) -> Self {
        let handle = self.seen_by(label);
        FAMILIES.iter().filter(|f| !OF_PROCESS.contains(&f.name)).for_each(|family| handle.show(family));
        handle
    }

    /// The same for a moment: it can set what [`MetricsHandle::of_pool`] shows, and reads nothing back.
    #[must_use]
    pub fn seen_by(&self, label: &str) -> Self {
        let view = View { pool: Some(label.to_owned().into()), ..View::default() };
        Self { registry: Arc::clone(&self.registry), view: Arc::new(view) }
    }

    /// The page in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let mut page = self.registry.plain.handle().render();
        self.registry.write_histograms(&mut page);
        let rows = self.registry.all_pool_rows();
        self.registry.write_rows(&mut page, &rows);
        self.registry.write_rows(&mut page, &process::rows());
        page
    }

    /// A counter series. `labels` are in the order of the family's.
    pub fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.register_counter(&key(name, labels), &METADATA)
    }
    /// A gauge series.
    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.register_gauge(&key(name, labels), &METADATA)
    }
    /// A histogram series.
    pub fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.register_histogram(&key(name, labels), &METADATA)
    }
    /// The series of a counter with their labels as the page writes them, over all pools.
    pub fn counted(&self, name: &str) -> Vec<(String, u64)> {
        let page = self.registry.plain.handle().render();
        let series = page.lines().filter_map(|line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            let labels = if labels.is_empty() { "" } else { labels.strip_prefix('{')?.strip_suffix('}')? };
            Some((labels.to_owned(), value.parse().ok()?))
        });
        series.collect()
    }
    /// Value of a gauge without labels, as counted through this view; `None` when there is none of this name.
    pub fn value(&self, name: &str) -> Option<f64> {
        let gauges = self.view.plain_gauges.read();
        gauges.get(name).map(|bits| f64::from_bits(bits.load(Ordering::Acquire)))
    }
    /// The pool that every series of this view names.
    pub fn pool(&self) -> Option<&str> {
        self.view.pool.as_deref()
    }
    /// Whether older names are written too.
    pub fn legacy(&self) -> bool {
        self.registry.legacy
    }
    /// Names that were counted under and do not stand in the table: a mistake that tests look for.
    pub fn unlisted(&self) -> Vec<String> {
        self.registry.unlisted.lock().iter().cloned().collect()
    }

    /// Replaces the rows of this view's pool.
    pub(super) fn set_pool_rows(&self, mut rows: Vec<Row>) {
        let pool = self.view.pool.as_deref().unwrap_or_default().to_owned();
        if !pool.is_empty() {
            for row in &mut rows {
                // A family may have the label of its own.
                row.labels.retain(|(label, _)| *label != names::POOL_LABEL);
                row.labels.push((names::POOL_LABEL, pool.clone()));
            }
        }
        self.registry.pool_rows.lock().insert(pool, Arc::new(rows));
    }

    /// Shows a family without labels as zero from the start, so that a rate over the first event is not lost.
    fn show(&self, family: &'static Family) {
        let read_elsewhere = process::NAMES.contains(&family.name) || ON_REQUEST.contains(&family.name);
        if family.labels.is_empty() && !read_elsewhere {
            match family.kind {
                Kind::Counter => drop(self.counter(family.name, &[])),
                Kind::Gauge => drop(self.gauge(family.name, &[])),
                Kind::Histogram(_) => drop(self.histogram(family.name, &[])),
            }
        }
    }

    /// The key as it stands on the page.
    fn placed<'a>(&self, key: &'a Key) -> Cow<'a, Key> {
        let label = self.view.pool.as_ref().map(|pool| Label::new(names::POOL_LABEL, pool.clone()));
        label.map_or(Cow::Borrowed(key), |label| Cow::Owned(key.with_extra_labels(vec![label])))
    }

    fn old_twin(&self, key: &Key) -> Option<Key> {
        self.registry.old_twin(key).map(|old| self.placed(&old).into_owned())
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(n, v)| Label::new(*n, (*v).to_owned())).collect();
    Key::from_parts(name, labels)
}

/// The key of the older twin: its labels take their values from the new ones.
fn old_key(old: Old, key: &Key) -> Key {
    let value = |from: &str| key.labels().find(|l| l.key() == from).map(|l| l.value().to_owned());
    let labels: Vec<Label> =
        old.labels.iter().map(|(to, from)| Label::new(*to, value(from).unwrap_or_default())).collect();
    Key::from_parts(old.name, labels)
}

impl Registry {
    fn describe(&self, family: &'static Family) {
        let plain = &self.plain;
        let old = family.old.filter(|_| self.legacy);
        let texts = [(family.name, family.help_line())].into_iter();
        for (name, help) in texts.chain(old.map(|o| (o.name, family.old_help_line()))) {
            match family.kind {
                Kind::Counter => plain.describe_counter(name.into(), None, help.into()),
                Kind::Gauge => plain.describe_gauge(name.into(), None, help.into()),
                Kind::Histogram(_) => {}
            }
        }
    }

    /// The rows of every pool, those of one family together.
    fn all_pool_rows(&self) -> Arc<Vec<Row>> {
        let pools: Vec<_> = self.pool_rows.lock().values().map(Arc::clone).collect();
        if let [one] = &pools[..] {
            return Arc::clone(one);
        }
        let mut rows: Vec<Row> = pools.iter().flat_map(|rows| rows.iter().cloned()).collect();
        let place = |row: &Row| pool_gauges::FAMILIES.iter().position(|name| *name == row.family);
        rows.sort_by_key(place);
        Arc::new(rows)
    }

    fn family(&self, name: &str) -> Option<&'static Family> {
        let family = self.families.get(name).copied();
        if family.is_none() {
            self.unlisted.lock().insert(name.to_owned());
        }
        family
    }

    fn old_twin(&self, key: &Key) -> Option<Key> {
        let old = self.family(key.name()).and_then(|f| f.old)?;
        self.legacy.then(|| old_key(old, key))
    }

    fn fixed(&self, key: &Key, bounds: &'static [f64]) -> Arc<FixedHistogram> {
        let labels: Vec<_> = key.labels().map(|l| (l.key().to_owned(), l.value().to_owned())).collect();
        if let Some(found) = self.histograms.read().get(key.name()).and_then(|f| f.get(&labels)) {
            return Arc::clone(found);
        }
        let mut all = self.histograms.write();
        let family = all.entry(key.name().to_owned()).or_default();
        Arc::clone(family.entry(labels).or_insert_with(|| Arc::new(FixedHistogram::new(bounds))))
    }

    fn help(&self, name: &str) -> String {
        let own = self.families.get(name).map(|f| f.help_line());
        let old =
            || FAMILIES.iter().find(|f| f.old.is_some_and(|o| o.name == name)).map(Family::old_help_line);
        own.or_else(old).unwrap_or_default()
    }

    fn write_histograms(&self, page: &mut String) {
        for (name, series) in self.histograms.read().iter() {
            text::header(page, name, "histogram", &self.help(name));
            for (labels, histogram) in series {
                text::histogram(page, name, labels, histogram.bounds(), &histogram.read());
            }
            page.push('\n');
        }
    }

    /// Rows of one family stand together.
    fn write_rows(&self, page: &mut String, rows: &[Row]) {
        for block in rows.chunk_by(|a, b| a.family == b.family) {
            let Some(family) = block.first().and_then(|row| self.families.get(row.family)) else { continue };
            text::family_header(page, family);
            for row in block {
                text::line(page, family.name, &row.labels, None, row.value);
            }
            page.push('\n');
            let Some(old) = family.old.filter(|_| self.legacy) else { continue };
            text::header(page, old.name, family.type_word(), &family.old_help_line());
            for row in block {
                let value = |from: &str| row.labels.iter().find(|(n, _)| *n == from).map(|(_, v)| v.clone());
                let mut labels: text::LabelPairs =
                    old.labels.iter().map(|(to, from)| (*to, value(from).unwrap_or_default())).collect();
                if labels.iter().all(|(label, _)| *label != names::POOL_LABEL) {
                    labels.extend(value(names::POOL_LABEL).map(|pool| (names::POOL_LABEL, pool)));
                }
                text::line(page, old.name, &labels, None, row.value);
            }
            page.push('\n');
        }
    }
}

/// Counts under the new and the older name.
struct Both<T>(T, T);

impl CounterFn for Both<Counter> {
    fn increment(&self, value: u64) {
        self.0.increment(value);
        self.1.increment(value);
    }
    fn absolute(&self, value: u64) {
        self.0.absolute(value);
        self.1.absolute(value);
    }
}

impl GaugeFn for Both<Gauge> {
    fn increment(&self, value: f64) {
        self.0.increment(value);
        self.1.increment(value);
    }
    fn decrement(&self, value: f64) {
        self.0.decrement(value);
        self.1.decrement(value);
    }
    fn set(&self, value: f64) {
        self.0.set(value);
        self.1.set(value);
    }
}

impl HistogramFn for Both<Arc<FixedHistogram>> {
    fn record(&self, value: f64) {
        self.0.record(value);
        self.1.record(value);
    }
}

impl Recorder for MetricsHandle {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.registry.plain.describe_counter(name, unit, text);
    }
    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.registry.plain.describe_gauge(name, unit, text);
    }
    /// The table describes histograms.
    fn describe_histogram(&self, _name: KeyName, _unit: Option<Unit>, _text: SharedString) {}

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let plain = &self.registry.plain;
        let new = plain.register_counter(&self.placed(key), metadata);
        match self.old_twin(key) {
            Some(old) => Counter::from_arc(Arc::new(Both(new, plain.register_counter(&old, metadata)))),
            None => new,
        }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        if pool_gauges::FAMILIES.contains(&key.name()) {
            // The pool's refresh writes these, so that endpoints that left are gone from the page too.
            return Gauge::noop();
        }
        let plain = &self.registry.plain;
        let mut new = plain.register_gauge(&self.placed(key), metadata);
        if key.labels().len() == 0 {
            let mut mirrors = self.view.plain_gauges.write();
            let mirror = mirrors.entry(key.name().to_owned()).or_insert_with(|| Arc::new(AtomicU64::new(0)));
            new = Gauge::from_arc(Arc::new(Both(new, Gauge::from_arc(Arc::clone(mirror)))));
        }
        match self.old_twin(key) {
            Some(old) => Gauge::from_arc(Arc::new(Both(new, plain.register_gauge(&old, metadata)))),
            None => new,
        }
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        let registry = &self.registry;
        let bounds = match registry.family(key.name()).map(|f| f.kind) {
            Some(Kind::Histogram(bounds)) => bounds,
            _ => buckets::FAST,
        };
        let new = registry.fixed(&self.placed(key), bounds);
        match self.old_twin(key) {
            Some(old) => Histogram::from_arc(Arc::new(Both(new, registry.fixed(&old, bounds)))),
            None => Histogram::from_arc(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
        let mut found: Vec<_> = page
            .lines()
            .filter(|l| {
                l.starts_with(name)
                    && !l.as_bytes().get(name.len()).is_some_and(|b| b.is_ascii_lowercase() || *b == b'_')
            })
            .collect();
        found.sort_unstable();
        found
    }

    const L4: [(&str, &str); 4] =
        [("model_name", "m"), ("target_model_name", "t"), ("fairness_id", "f"), ("priority", "2")];

    #[test]
    fn a_counter_is_written_under_both_names_with_the_labels_of_each() {
        let metrics = MetricsHandle::detached(true);
        metrics.counter(names::REQUEST_TOTAL, &L4).increment(3);
        let page = metrics.render();
        assert_eq!(
            lines(&page, "llm_d_epp_request_total"),
            [
                r#"llm_d_epp_request_total{model_name="m",target_model_name="t",fairness_id="f",priority="2"} 3"#
            ]
        );
        assert_eq!(
            lines(&page, "inference_objective_request_total"),
            [r#"inference_objective_request_total{model_name="m",target_model_name="t",priority="2"} 3"#]
        );
        assert!(page.contains(
            "# HELP inference_objective_request_total [ALPHA] [Deprecated: Use llm_d_epp_request_total] Requests"
        ));
    }

    #[test]
    fn a_gauge_without_labels_can_be_read_back() {
        let metrics = MetricsHandle::detached(false);
        metrics.gauge(names::STREAMS_OPEN, &[]).increment(3.0);
        metrics.gauge(names::STREAMS_OPEN, &[]).decrement(1.0);
        assert_eq!(metrics.value(names::STREAMS_OPEN), Some(2.0));
        assert_eq!(metrics.value("nothing"), None);
        assert!(metrics.render().contains("\npointsman_streams_open 2\n"));
    }

    #[test]
    fn the_build_is_named_under_both_names() {
        let page = MetricsHandle::detached(true).render();
        assert!(page.contains(&format!("llm_d_epp_info{{commit=\"unknown\",build_ref=\"{BUILD}\"}} 1\n")));
        assert!(page.contains("inference_extension_info{"));
    }

    #[test]
    fn without_legacy_no_old_name_is_on_the_page() {
        let metrics = MetricsHandle::detached(false);
        metrics.counter(names::REQUEST_TOTAL, &L4).increment(3);
        metrics.histogram(names::REQUEST_SIZE, &L4).record(1.0);
        assert!(!metrics.render().contains("inference_"));
    }

    #[test]
    fn a_gauge_of_fewer_labels_adds_up() {
        let metrics = MetricsHandle::detached(true);
        metrics.gauge(names::REQUEST_RUNNING, &L4).increment(1.0);
        let mut other = L4;
        other[2].1 = "g";
        metrics.gauge(names::REQUEST_RUNNING, &other).increment(1.0);
        assert_eq!(
            lines(&metrics.render(), "inference_objective_running_requests"),
            [r#"inference_objective_running_requests{model_name="m"} 2"#]
        );
    }

    #[test]
    fn histograms_have_the_buckets_of_their_family() {
        let metrics = MetricsHandle::detached(true);
        metrics.histogram(names::RESPONSE_SIZE, &L4).record(32770.0);
        let page = metrics.render();
        for (labels, name) in [
            (
                r#"model_name="m",target_model_name="t",fairness_id="f",priority="2""#,
                "llm_d_epp_response_size_bytes",
            ),
            (r#"model_name="m",target_model_name="t""#, "inference_objective_response_sizes"),
        ] {
            let line = |le: &str, n: u32| format!("{name}_bucket{{{labels},le=\"{le}\"}} {n}\n");
            assert!(
                page.contains(&(line("16384", 0) + &line("32778", 1) + &line("65536", 1) + &line("+Inf", 1)))
            );
            assert!(page.contains(&format!("{name}_sum{{{labels}}} 32770\n{name}_count{{{labels}}} 1\n")));
        }
    }

    #[test]
    fn label_less_families_are_there_from_the_start_and_flagged_ones_are_not() {
        let page = MetricsHandle::detached(true).render();
        assert!(page.contains("\npointsman_attempts_total 0\n"));
        assert!(page.contains("llm_d_epp_scheduler_e2e_duration_seconds_count 0\n"));
        assert!(page.contains("inference_extension_scheduler_e2e_duration_seconds_count 0\n"));
        assert!(!page.contains("extproc_stream_duration"));
    }

    #[test]
    fn what_is_counted_through_the_view_of_a_pool_names_it() {
        let metrics = MetricsHandle::new(true, Scale::SeveralPools);
        let (a, b) = (metrics.of_pool("a"), metrics.of_pool("ns/b"));
        a.counter(names::REQUEST_TOTAL, &L4).increment(3);
        metrics::with_local_recorder(&b, || metrics::counter!(names::ATTEMPTS).increment(2));
        b.gauge(names::STREAMS_OPEN, &[]).set(7.0);
        b.histogram(names::SCHEDULER_E2E, &[]).record(1.0);
        let page = a.render();
        assert_eq!(
            lines(&page, "inference_objective_request_total"),
            [
                r#"inference_objective_request_total{model_name="m",target_model_name="t",priority="2",inference_pool="a"} 3"#
            ]
        );
        assert_eq!(
            lines(&page, names::ATTEMPTS),
            [
                r#"pointsman_attempts_total{inference_pool="a"} 0"#,
                r#"pointsman_attempts_total{inference_pool="ns/b"} 2"#
            ]
        );
        assert!(page.contains("scheduler_e2e_duration_seconds_count{inference_pool=\"ns/b\"} 1\n"));
        assert_eq!((a.value(names::STREAMS_OPEN), b.value(names::STREAMS_OPEN)), (Some(0.0), Some(7.0)));
        assert_eq!(lines(&page, names::LEADER), ["pointsman_leader 0"], "that is the process's");
    }

    #[test]
    fn names_outside_the_table_are_noticed() {
        let metrics = MetricsHandle::detached(false);
        metrics::with_local_recorder(&metrics, || metrics::counter!("stray_total").increment(1));
        assert_eq!(metrics.unlisted(), ["stray_total"]);
    }

    #[test]
    fn the_page_is_read_by_a_prometheus_parser() {
        let metrics = MetricsHandle::detached(true);
        metrics.histogram(names::REQUEST_DURATION, &L4).record(0.2);
        let page = metrics.render();
        let scrape = prometheus_parse::Scrape::parse(page.lines().map(|l| Ok(l.to_owned()))).unwrap();
        let sample = scrape.samples.iter().find(|s| s.metric == names::REQUEST_DURATION).unwrap();
        assert!(matches!(sample.value, prometheus_parse::Value::Histogram(_)));
    }
}
