//! A page of Prometheus metrics.

use prometheus_parse::{Scrape, Value};
use std::collections::BTreeMap;

/// One scraped page.
pub struct Page {
    scrape: Scrape,
    text: String,
}

impl Page {
    /// Scrapes `/metrics` of a port.
    pub async fn read(port: u16) -> Self {
        let answer = super::client::get(port, "/metrics").await.unwrap();
        assert_eq!(answer.status, 200, "/metrics of port {port}");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
        Self { scrape, text }
    }

    /// The sum of all series of `name` whose labels hold every given pair.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matching = self.scrape.samples.iter().filter(|sample| {
            sample.metric == name && labels.iter().all(|(key, value)| sample.labels.get(key) == Some(*value))
        });
        matching
            .map(|sample| match &sample.value {
                Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => *value,
                Value::Histogram(buckets) => buckets.iter().map(|bucket| bucket.count).fold(0.0, f64::max),
                Value::Summary(_) => 0.0,
            })
            .sum()
    }

    /// The series of `name` by the value of one label, summed.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut all = BTreeMap::new();
        for sample in self.scrape.samples.iter().filter(|sample| sample.metric == name) {
            if let (Some(key), Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value)) =
                (sample.labels.get(label), &sample.value)
            {
                *all.entry(key.to_owned()).or_insert(0.0) += value;
            }
        }
        all
    }

    /// Whether the page has a series of that name.
    pub fn has(&self, name: &str) -> bool {
        self.scrape.samples.iter().any(|sample| sample.metric == name)
    }

    /// The page as it came.
    pub fn text(&self) -> &str {
        &self.text
    }
}
