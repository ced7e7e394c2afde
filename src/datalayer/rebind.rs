//! Other sources while the data layer runs: because the configuration changed, or the certificates that it names.

use super::job::{self, DataLayerError};
use super::poller::Shared;
use super::{Options, SourceBinding};
use crate::clock::Clock;
use crate::endpoint::health::HealthTracker;
use crate::plugin::{HttpSource, SourceSpec};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;

/// Binds other sources while the data layer runs.
#[derive(Clone)]
pub struct Rebind(Arc<Inner>);

struct Inner {
    options: Options,
    clock: Clock,
    health: Arc<HealthTracker>,
    to: watch::Sender<Arc<Shared>>,
    bound: Mutex<Bound>,
}

/// What is fetched now, and the files that it rests on as they were when they were read.
struct Bound {
    bindings: Vec<SourceBinding>,
    scalars: Vec<String>,
    files: Vec<Option<Stamp>>,
}

/// Tells files apart without reading them: time of change, and size.
type Stamp = (SystemTime, u64);

impl Rebind {
    /// Compiles the first bindings.
    pub(super) fn new(
        bindings: &[SourceBinding],
        options: Options,
        clock: Clock,
        health: Arc<HealthTracker>,
    ) -> Result<(Self, watch::Receiver<Arc<Shared>>), DataLayerError> {
        let scalars = options.scalars.clone();
        // Looked at before they are read, so that a change in between is seen the next time.
        let files = stamps(bindings);
        let jobs = job::compile(bindings, &options)?;
        let shared =
            Shared { jobs, options: options.clone(), clock: clock.clone(), health: Arc::clone(&health) };
        let (to, next) = watch::channel(Arc::new(shared));
        let bound = Mutex::new(Bound { bindings: bindings.to_vec(), scalars, files });
        Ok((Self(Arc::new(Inner { options, clock, health, to, bound })), next))
    }

    /// Every page is fetched by these bindings from now on; `scalars` are the configured metrics in order of their places.
    /// Reads certificate files. Nothing changes when a binding cannot be used.
    pub fn rebind(&self, bindings: &[SourceBinding], scalars: Vec<String>) -> Result<(), DataLayerError> {
        self.bind(&mut self.0.bound.lock(), bindings.to_vec(), scalars)
    }

    fn bind(
        &self,
        bound: &mut Bound,
        bindings: Vec<SourceBinding>,
        scalars: Vec<String>,
    ) -> Result<(), DataLayerError> {
        let files = stamps(&bindings);
        let options = Options { scalars: scalars.clone(), ..self.0.options.clone() };
        let jobs = job::compile(&bindings, &options)?;
        let (clock, health) = (self.0.clock.clone(), Arc::clone(&self.0.health));
        *bound = Bound { bindings, scalars, files };
        self.0.to.send_replace(Arc::new(Shared { jobs, options, clock, health }));
        Ok(())
    }

    /// Reads certificates, keys and authorities anew when one of their files changed; whether that was so. Files that
    /// cannot be used are told once for each change, and the former ones stay in use.
    pub fn renew(&self) -> bool {
        let mut bound = self.0.bound.lock();
        let files = stamps(&bound.bindings);
        if files == bound.files {
            return false;
        }
        let (bindings, scalars) = (bound.bindings.clone(), bound.scalars.clone());
        match self.bind(&mut bound, bindings, scalars) {
            Ok(()) => {
                tracing::info!("certificates for fetching the engines' pages read anew");
                true
            }
            Err(error) => {
                bound.files = files;
                tracing::error!(%error, "changed certificates for the engines' pages cannot be used: the former ones stay");
                false
            }
        }
    }
}

/// The files of all bindings, in order; `None` for one that is not there.
fn stamps(bindings: &[SourceBinding]) -> Vec<Option<Stamp>> {
    let stamp = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len()))
    };
    bindings.iter().flat_map(|binding| files(&binding.source)).map(stamp).collect()
}

fn files(source: &SourceSpec) -> Vec<&Path> {
    let (SourceSpec::Metrics(http) | SourceSpec::Models(http)) = source;
    let HttpSource { ca_cert_path, client_cert, .. } = http;
    let mut all: Vec<&Path> = ca_cert_path.iter().map(std::path::PathBuf::as_path).collect();
    if let Some((certificate, key)) = client_cert {
        all.extend([certificate.as_path(), key.as_path()]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::ExtractorSpec;
    use std::time::Duration;

    #[test]
    fn changed_authorities_are_read_anew_and_bad_ones_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        let write = |text: &str, seconds: u64| {
            std::fs::write(&path, text).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        };
        let authority = || rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem();
        write(&authority(), 1);
        let source = HttpSource {
            https: true,
            path: "/v1/models".into(),
            port: None,
            insecure_skip_verify: false,
            ca_cert_path: Some(path.clone()),
            client_cert: None,
            interval: None,
        };
        let binding = SourceBinding {
            name: "models".into(),
            source: SourceSpec::Models(source),
            extractors: vec![ExtractorSpec::Models],
        };
        let clock = Clock::manual();
        let health = Arc::new(HealthTracker::new(clock.clone()));
        let (rebind, mut next) = Rebind::new(&[binding], Options::default(), clock, health).unwrap();
        next.borrow_and_update();
        assert!(!rebind.renew() && !next.has_changed().unwrap(), "nothing changed");
        write(&authority(), 2);
        assert!(rebind.renew() && next.has_changed().unwrap());
        next.borrow_and_update();
        write("no certificate", 3);
        assert!(!rebind.renew() && !next.has_changed().unwrap(), "the former ones stay");
        write(&authority(), 4);
        assert!(rebind.renew());
    }
}
