//! Sources and their extractors, checked and compiled: what every endpoint's poller does.

use super::extractor::{CorePlan, PlanError};
use super::source::{TlsError, client_config, metrics, models};
use super::{MIN_PERIOD, Options, SourceBinding};
use crate::endpoint::{Endpoint, HostPort};
use crate::plugin::{ExtractorSpec, HttpSource, SourceSpec};
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at the list of models, unless the source says otherwise.
const MODELS_PERIOD: Duration = Duration::from_secs(10);

/// Why sources and extractors cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum DataLayerError {
    /// An extractor cannot read what the source delivers.
    #[error("data source `{source_name}`: `{extractor}` cannot read its pages; bind it to a {wanted}")]
    Mismatch {
        /// The source's instance.
        source_name: Arc<str>,
        /// The extractor's type.
        extractor: &'static str,
        /// The type of source that it reads.
        wanted: &'static str,
    },
    /// Two sources would write the same numbers.
    #[error("data sources `{first}` and `{second}` both feed `{extractor}`; keep one of them")]
    Twice {
        /// One source.
        first: Arc<str>,
        /// The other one.
        second: Arc<str>,
        /// The extractor's type.
        extractor: &'static str,
    },
    /// Engine specs cannot be used.
    #[error("core-metrics-extractor: {0}")]
    Plan(#[from] PlanError),
    /// TLS cannot be set up.
    #[error("data source `{0}`: {1}")]
    Tls(Arc<str>, TlsError),
}

/// What is done with a page.
pub(super) enum Work {
    Metrics(CorePlan),
    Models,
}

impl Work {
    pub fn extractor_type(&self) -> &'static str {
        match self {
            Self::Metrics(_) => "core-metrics-extractor",
            Self::Models => "models-data-extractor",
        }
    }
}

/// One source with what reads its pages.
pub(super) struct Job {
    pub name: Arc<str>,
    pub source_type: &'static str,
    pub work: Work,
    pub period: Duration,
    pub path: Arc<str>,
    pub port: Option<u16>,
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Job {
    /// Where the page of this endpoint is.
    pub fn target(&self, endpoint: &Endpoint) -> HostPort {
        let usual = match self.work {
            Work::Metrics(_) => &endpoint.metrics_address,
            // The list of models is part of the API that serves requests.
            Work::Models => &endpoint.address,
        };
        HostPort { host: usual.host.clone(), port: self.port.unwrap_or(usual.port) }
    }

    fn new(binding: &SourceBinding, work: Work, options: &Options) -> Result<Self, DataLayerError> {
        let (source_type, usual, source): (_, _, &HttpSource) = match &binding.source {
            SourceSpec::Metrics(source) => (metrics::NAME, options.period, source),
            SourceSpec::Models(source) => (models::NAME, MODELS_PERIOD, source),
        };
        Ok(Self {
            name: Arc::clone(&binding.name),
            source_type,
            work,
            period: source.interval.unwrap_or(usual).max(MIN_PERIOD),
            path: Arc::clone(&source.path),
            port: source.port,
            tls: client_config(source).map_err(|e| DataLayerError::Tls(Arc::clone(&binding.name), e))?,
        })
    }
}

/// Checks the bindings and compiles them. A source without extractors is left out, with a word.
pub(super) fn compile(bindings: &[SourceBinding], options: &Options) -> Result<Vec<Job>, DataLayerError> {
    let mut jobs: Vec<Job> = Vec::new();
    for binding in bindings {
        if binding.extractors.is_empty() {
            let source = &binding.name;
            tracing::warn!(%source, "data source has no extractor: its pages are not fetched");
        }
        // What reads no page needs no job, whatever source it is bound to.
        for extractor in binding.extractors.iter().filter(|e| **e != ExtractorSpec::Pageless) {
            let work = work(binding, extractor, options)?;
            let twice = jobs.iter().find(|j| j.work.extractor_type() == work.extractor_type());
            if let Some(first) = twice {
                return Err(DataLayerError::Twice {
                    first: Arc::clone(&first.name),
                    second: Arc::clone(&binding.name),
                    extractor: work.extractor_type(),
                });
            }
            jobs.push(Job::new(binding, work, options)?);
        }
    }
    Ok(jobs)
}

fn work(
    binding: &SourceBinding,
    extractor: &ExtractorSpec,
    options: &Options,
) -> Result<Work, DataLayerError> {
    match (&binding.source, extractor) {
        (SourceSpec::Metrics(_), ExtractorSpec::CoreMetrics { engine_label, default_engine, engines }) => {
            Ok(Work::Metrics(CorePlan::new(engine_label.clone(), default_engine, engines, &options.scalars)?))
        }
        (SourceSpec::Models(_), ExtractorSpec::Models) => Ok(Work::Models),
        (SourceSpec::Models(_), _) => Err(DataLayerError::Mismatch {
            source_name: Arc::clone(&binding.name),
            extractor: "core-metrics-extractor",
            wanted: metrics::NAME,
        }),
        (SourceSpec::Metrics(_), _) => Err(DataLayerError::Mismatch {
            source_name: Arc::clone(&binding.name),
            extractor: "models-data-extractor",
            wanted: models::NAME,
        }),
    }
}
