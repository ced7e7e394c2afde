//! Takes part in the election of a leader through a Lease, as [`Election`] decides, and says whether we lead.

use super::election::{Action, Election, Record, Terms};
use super::standing::{Class, Fault};
use crate::readiness::Gate;
use crate::telemetry::names;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// A candidate.
pub struct Candidate {
    /// Access to the API.
    pub client: Client,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub lease: String,
    /// Our name in it, of this process alone.
    pub identity: String,
    /// Open while we lead.
    pub gate: Gate,
    /// Tells whether we lead.
    pub leads: watch::Sender<bool>,
    /// The times.
    pub terms: Terms,
}

/// The Lease of a pool, as the reference picker calls it.
pub fn lease_name(namespace: &str, pool: &str) -> String {
    format!("epp-{namespace}-{pool}.llm-d.ai")
}

/// What is remembered between two tries.
struct Running {
    api: Api<Lease>,
    election: Election,
    begun: Instant,
    /// What went wrong last, said once.
    fault: Option<Class>,
}

impl Candidate {
    /// Takes part until told to stop, and releases the Lease then.
    pub async fn run(self, stop: CancellationToken) {
        let mut running = Running {
            api: Api::namespaced(self.client.clone(), &self.namespace),
            election: Election::new(self.identity.clone(), self.terms),
            begun: Instant::now(),
            fault: None,
        };
        self.show(false);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.turn(&mut running) => {}
            }
        }
        self.show(false);
        if running.election.resign() {
            self.release(&running.api).await;
        }
    }

    /// One try, and the pause after it. Leading may end at any moment of both.
    async fn turn(&self, running: &mut Running) {
        let began = running.begun;
        let end = |election: &Election| election.leads_until().map(|at| began + at);
        let ends = end(&running.election);
        let tried = self.until(ends, timeout(self.terms.renew_within / 2, self.attempt(running))).await;
        match tried.unwrap_or_else(|_late| Err(Fault::timeout(self.terms.renew_within / 2))) {
            Ok(()) => running.fault = None,
            Err(fault) => self.say(running, &fault),
        }
        self.show(running.election.leads(began.elapsed()));
        let pause = self.terms.retry.mul_f64(1.0 + 0.2 * fastrand::f64());
        self.until(end(&running.election), sleep(pause)).await;
        self.show(running.election.leads(began.elapsed()));
    }

    /// Completes with `work`; stops leading at `end` if that comes before.
    async fn until<T>(&self, end: Option<Instant>, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Some(end) = end {
            tokio::select! {
                done = work.as_mut() => return done,
                () = sleep_until(end) => self.show(false),
            }
        }
        work.await
    }

    async fn attempt(&self, running: &mut Running) -> Result<(), Fault> {
        let seen = running.api.get_opt(&self.lease).await?;
        let record = seen.as_ref().map(read);
        let begun = running.begun.elapsed();
        let action = running.election.decide(begun, record);
        let spec = seen.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let written = match (action, seen) {
            (Action::Wait, _) => return Ok(()),
            (Action::Renew, Some(lease)) => {
                let spec = LeaseSpec {
                    renew_time: Some(now()),
                    ..self.spec(spec.acquire_time, spec.lease_transitions)
                };
                running
                    .api
                    .replace(&self.lease, &PostParams::default(), &Lease { spec: Some(spec), ..lease })
                    .await
            }
            (Action::Take { transitions }, Some(lease)) => {
                let spec = self.spec(Some(now()), Some(transitions));
                running
                    .api
                    .replace(&self.lease, &PostParams::default(), &Lease { spec: Some(spec), ..lease })
                    .await
            }
            (_, _) => {
                let metadata = ObjectMeta { name: Some(self.lease.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(self.spec(Some(now()), Some(0))) };
                running.api.create(&PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_lease) => {
                running.election.wrote(begun);
                Ok(())
            }
            // Another one was quicker; the next turn reads what it wrote.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn spec(&self, acquired: Option<MicroTime>, transitions: Option<i32>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.terms.duration.as_secs()).ok(),
            acquire_time: acquired,
            renew_time: Some(now()),
            lease_transitions: transitions,
            ..LeaseSpec::default()
        }
    }

    /// Gives the Lease back, so that another replica need not wait for its end.
    async fn release(&self, api: &Api<Lease>) {
        let give_back = async {
            let Some(lease) = api.get_opt(&self.lease).await? else { return Ok(()) };
            if read(&lease).holder != self.identity {
                return Ok(());
            }
            let former = lease.spec.clone().unwrap_or_default();
            let spec = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                renew_time: Some(now()),
                ..former
            };
            api.replace(&self.lease, &PostParams::default(), &Lease { spec: Some(spec), ..lease })
                .await
                .map(drop)
        };
        match timeout(Duration::from_secs(5), give_back).await {
            Ok(Ok(())) => tracing::info!(lease = self.lease, "lease released"),
            Ok(Err(error)) => {
                tracing::warn!(lease = self.lease, %error, "lease not released: it runs out by itself")
            }
            Err(_late) => {
                tracing::warn!(lease = self.lease, "lease not released in time: it runs out by itself")
            }
        }
    }

    fn show(&self, leads: bool) {
        self.gate.set(leads);
        metrics::gauge!(names::LEADER).set(f64::from(u8::from(leads)));
        let changed = self.leads.send_if_modified(|now| std::mem::replace(now, leads) != leads);
        if changed {
            let identity = &self.identity;
            if leads {
                tracing::info!(lease = self.lease, identity, "this replica leads");
            } else {
                tracing::warn!(lease = self.lease, identity, "this replica leads no more");
            }
        }
    }

    fn say(&self, running: &mut Running, fault: &Fault) {
        if running.fault.replace(fault.class) == Some(fault.class) {
            return;
        }
        let (lease, namespace, error) = (&self.lease, &self.namespace, &fault.message);
        if fault.class == Class::Forbidden {
            tracing::error!(
                lease,
                namespace,
                error,
                "the Role lacks a verb of `leases` (API group coordination.k8s.io) in namespace `{namespace}`: add get, \
                 create and update, as in deploy/rbac/role.yaml"
            );
        } else {
            tracing::warn!(lease, namespace, error, "the lease cannot be read or written; it is tried again");
        }
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

fn read(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
