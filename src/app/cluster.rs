//! Where endpoints come from: a file, or a cluster.

use super::assemble::DataPlan;
use crate::admin::{Protection, Reviewer, Verdict};
use crate::config::{ClusterOptions, EppOptions, MetricsOptions, PoolGroup, PoolOptions};
use crate::discovery::Discovery;
use crate::discovery::kubernetes::{
    self, Access, Candidate, KubernetesDiscovery, OLD_GROUP, POOL_GROUP, ProtocolGate, Reviewed, Reviews,
    Selector, Target, Terms, Want, lease_name,
};
use crate::ext_proc::tls::Tls;
use crate::pool::{PoolReader, PoolSpec};
use crate::readiness::{Gate, Readiness};
use crate::request::ParserKind;
use crate::shutdown::{Stage, Tasks};
use anyhow::Context as _;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the certificate of the metrics port is looked at.
const CERTIFICATE_PERIOD: Duration = Duration::from_secs(5);

/// The cluster that pools may live in; one client for all of them.
pub(super) struct Cluster {
    client: Option<Access>,
    /// The candidate of the election.
    pub(super) candidate: Option<Candidate>,
    /// Reviews callers of the metrics port.
    pub(super) reviewer: Option<Arc<dyn Reviewer>>,
}

/// Tokens are reviewed by the cluster.
struct ByCluster(Reviews);

impl Reviewer for ByCluster {
    fn review(&self, token: String, path: String) -> BoxFuture<'_, Verdict> {
        Box::pin(async move {
            match self.0.review(&token, &path).await {
                Ok(Reviewed::Allowed) => Verdict::Allowed,
                Ok(Reviewed::Unknown) => Verdict::Unknown,
                Ok(Reviewed::Forbidden) => Verdict::Forbidden,
                Err(reason) => Verdict::Unavailable(reason),
            }
        })
    }
}

impl Cluster {
    /// Access to the cluster, when it is needed.
    pub(super) async fn connect(
        options: &EppOptions,
        needed: bool,
        readiness: &Readiness,
    ) -> anyhow::Result<Self> {
        if !needed {
            return Ok(Self { client: None, candidate: None, reviewer: None });
        }
        let client = kubernetes::connect().await?;
        let candidate = options
            .leader_election
            .then(|| candidate(options, client.clone(), readiness.gate("leader")))
            .transpose()?;
        let reviewer = options.listen.metrics.reviewed.then(|| {
            let reviews = ByCluster(Reviews::new(client.clone()));
            Arc::new(reviews) as Arc<dyn Reviewer>
        });
        Ok(Self { client: Some(client), candidate, reviewer })
    }

    /// The discovery that configuration and flags ask for. A file wins over a cluster.
    pub(super) fn discovery(
        &self,
        options: &PoolOptions,
        data: &DataPlan,
        parsers: &[ParserKind],
        readiness: &Readiness,
    ) -> anyhow::Result<Discovery> {
        let pool = PoolSpec { name: Arc::clone(&options.name), namespace: Arc::clone(&options.namespace) };
        if let Some(spec) = &data.discovery {
            return Ok(Discovery::new(spec, pool));
        }
        let (Some(cluster), Some(client)) = (&options.cluster, &self.client) else {
            anyhow::bail!(
                "no endpoints: name an InferencePool with --pool-name, pods with --endpoint-selector, or a file with \
                 --endpoints-file"
            );
        };
        let want = match cluster {
            ClusterOptions::Pool { group: PoolGroup::Stable } => Want::Pool(POOL_GROUP),
            ClusterOptions::Pool { group: PoolGroup::Experimental } => Want::Pool(OLD_GROUP),
            ClusterOptions::Pods { selector, ports } => {
                let selector = Selector::parse(selector).context("--endpoint-selector")?;
                Want::Pods(Target { selector, ports: ports.clone() })
            }
        };
        let protocols = ProtocolGate { spoken: spoken(parsers), gate: readiness.gate("protocol") };
        tracing::info!(pool = %pool.name, namespace = %pool.namespace, ?want, "endpoints come from Kubernetes");
        let mut discovery = KubernetesDiscovery::new(client.clone(), pool, want, protocols);
        if let Some(candidate) = self.candidate.as_ref().filter(|_| !data.followers_know) {
            discovery = discovery.only_while(candidate.leads.subscribe());
        }
        Ok(Discovery::Kubernetes(discovery))
    }
}

/// The process's candidate: one Lease, called after the first pool.
fn candidate(options: &EppOptions, client: Access, gate: Gate) -> anyhow::Result<Candidate> {
    let pod = options.pod_name.as_deref().unwrap_or("pointsman");
    let pool = options.pools.first().context("no pool")?;
    Ok(Candidate {
        client,
        namespace: pool.namespace.to_string(),
        lease: lease_name(&pool.namespace, &pool.name),
        // A pod that starts again under its name is another candidate.
        identity: format!("{pod}_{:016x}", fastrand::u64(..)),
        gate,
        leads: tokio::sync::watch::Sender::new(false),
        terms: Terms::default(),
    })
}

/// Who may read the metrics port, and its TLS, whose certificate is followed.
pub(super) fn protection(
    options: &MetricsOptions,
    reviewer: Option<Arc<dyn Reviewer>>,
    tasks: &Tasks,
) -> anyhow::Result<Protection> {
    let Some(directory) = options.cert_dir.clone() else {
        return Ok(Protection { reviewer, ..Protection::default() });
    };
    let tls = Tls::for_pages(directory, options.client_ca.as_deref()).context("--metrics-cert-dir")?;
    let config = tls.config();
    tasks.spawn(Stage::Last, "metrics certificate reload", move |stop| async move {
        stop.run_until_cancelled_owned(tls.reload_every(CERTIFICATE_PERIOD)).await;
    });
    Ok(Protection { reviewer, tls: Some(config), certificates: options.client_ca.is_some() })
}

/// The application protocols that every parser takes which cares; `None` when none does.
fn spoken(parsers: &[ParserKind]) -> Option<Vec<&'static str>> {
    const H2C: &str = "kubernetes.io/h2c";
    let mut cares = false;
    let mut http = true;
    for parser in parsers {
        match parser {
            ParserKind::Passthrough => continue,
            ParserKind::VllmGrpc => http = false,
            ParserKind::OpenAi | ParserKind::Anthropic | ParserKind::VllmHttp | ParserKind::SglangHttp => {}
        }
        cares = true;
    }
    cares.then(|| if http { vec!["http", H2C] } else { vec![H2C] })
}

/// Whether the pool is known and its endpoints were listed.
pub(super) fn known(pool: &PoolReader) -> bool {
    let snapshot = pool.peek();
    snapshot.synced && snapshot.spec.is_some()
}

/// Keeps the gate open while the pool is known.
pub(super) async fn keep_gate(gate: Gate, mut pool: PoolReader, stop: CancellationToken) {
    loop {
        gate.set(known(&pool));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = pool.changed() => {
                if !changed {
                    // Nobody writes any more; what is known stays known until the end.
                    stop.cancelled().await;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{PoolEvent, channel};

    #[test]
    fn a_protocol_must_suit_every_parser_that_cares() {
        use ParserKind::{Anthropic, OpenAi, Passthrough, VllmGrpc};
        assert_eq!(spoken(&[Passthrough]), None);
        assert_eq!(spoken(&[OpenAi, Anthropic, Passthrough]), Some(vec!["http", "kubernetes.io/h2c"]));
        assert_eq!(spoken(&[OpenAi, VllmGrpc]), Some(vec!["kubernetes.io/h2c"]));
    }

    #[tokio::test]
    async fn the_gate_follows_the_pool() {
        let readiness = Readiness::new();
        let (mut writer, reader) = channel();
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep_gate(readiness.gate("pool"), reader, stop.clone()));
        let mut ready = readiness.watch();
        let spec = PoolSpec { name: "p".into(), namespace: "n".into() };
        writer.apply([PoolEvent::Pool(Some(spec)), PoolEvent::Endpoints(Vec::new())]);
        ready.wait_for(|ready| *ready).await.unwrap();
        writer.apply([PoolEvent::Pool(None)]);
        ready.wait_for(|ready| !*ready).await.unwrap();
        stop.cancel();
        task.await.unwrap();
    }
}
