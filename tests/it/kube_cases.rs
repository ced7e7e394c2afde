//! What the picker makes of a cluster: one list of cases, run against the fake API everywhere and against a real
//! kube-apiserver where one is given (`make test-kube`).

use crate::support::cluster::{Cluster, Server};
use crate::support::objects::{self, POOL};
use crate::support::wire::Mode;
use crate::support::{self, cluster};
use futures::future::BoxFuture;
use pointsman::discovery::KubernetesDiscovery;
use pointsman::discovery::kubernetes::{OLD_GROUP, POOL_GROUP, ProtocolGate, Selector, Target, Want};
use pointsman::pool::{PoolReader, PoolSnapshot, PoolSpec, channel};
use pointsman::readiness::Readiness;
use serde_json::json;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A discovery that runs, and what it publishes.
pub struct Watched {
    pub pool: PoolReader,
    pub readiness: Readiness,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Watched {
    /// Follows the tests' pool.
    pub async fn start(cluster: &Cluster) -> Self {
        Self::want(cluster, Want::Pool(POOL_GROUP)).await
    }

    pub async fn want(cluster: &Cluster, want: Want) -> Self {
        // What the discovery says is shown when a case fails.
        tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_test_writer().try_init().ok();
        Self::of(cluster.picker_client().await, want)
    }

    /// Follows the tests' pool through this client.
    pub fn of(client: kube::Client, want: Want) -> Self {
        let (writer, pool) = channel();
        let readiness = Readiness::new();
        let gate = readiness.gate("protocol");
        let protocols = ProtocolGate { spoken: Some(vec!["http"]), gate };
        let spec = PoolSpec { name: POOL.into(), namespace: cluster::NAMESPACE.into() };
        let discovery = KubernetesDiscovery::new(client, spec, want, protocols);
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(discovery.run(writer, stop.clone())));
        Self { pool, readiness, stop, task }
    }

    /// Waits until what is published satisfies `condition`.
    pub async fn until(&self, what: &str, condition: impl Fn(&PoolSnapshot) -> bool) {
        self.until_within(support::PATIENCE, what, condition).await;
    }

    /// The same, with another patience.
    pub async fn until_within(
        &self,
        patience: std::time::Duration,
        what: &str,
        condition: impl Fn(&PoolSnapshot) -> bool,
    ) {
        let mut pool = self.pool.clone();
        let wait = async {
            while !condition(&pool.load()) {
                assert!(pool.changed().await, "the discovery ended");
            }
        };
        if tokio::time::timeout(patience, wait).await.is_err() {
            panic!("{what}; in force: {:?}", summary(&self.pool.load()));
        }
    }

    /// Waits until exactly these destinations are in force.
    pub async fn destinations(&self, wanted: &[&str]) {
        self.until(&format!("endpoints {wanted:?}"), |pool| destinations(pool) == wanted).await;
    }

    pub async fn end(mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
    }
}

pub fn destinations(pool: &PoolSnapshot) -> Vec<&str> {
    pool.endpoints.iter().map(|e| &*e.destination).collect()
}

fn summary(pool: &PoolSnapshot) -> impl std::fmt::Debug {
    let objectives = pool.objectives.clone();
    (
        pool.spec.is_some(),
        destinations(pool).iter().map(ToString::to_string).collect::<Vec<_>>(),
        objectives,
        pool.rewrites.len(),
    )
}

async fn pods_come_become_ready_and_go(cluster: &mut Cluster) {
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("a", "llm", "10.0.0.1")).await;
    cluster.create(&objects::pod("other", "db", "10.0.0.9")).await;
    let watched = Watched::start(cluster).await;
    watched.destinations(&["10.0.0.1:8000"]).await;
    assert!(watched.pool.load().synced);

    let mut starting = objects::pod("b", "llm", "10.0.0.2");
    starting["status"] = objects::status(false, "10.0.0.2", 0);
    cluster.create(&starting).await;
    cluster.create(&objects::pod("c", "llm", "fd00::3")).await;
    watched.destinations(&["10.0.0.1:8000", "[fd00::3]:8000"]).await;
    cluster.set_status(&starting, &objects::status(true, "10.0.0.2", 0)).await;
    watched.destinations(&["10.0.0.1:8000", "10.0.0.2:8000", "[fd00::3]:8000"]).await;
    cluster.set_status(&objects::pod("a", "llm", ""), &objects::status(false, "10.0.0.1", 0)).await;
    watched.destinations(&["10.0.0.2:8000", "[fd00::3]:8000"]).await;
    cluster.delete(&starting).await;
    watched.destinations(&["[fd00::3]:8000"]).await;
    watched.end().await;
}

async fn every_target_port_is_a_rank(cluster: &mut Cluster) {
    let pool = objects::pool("llm", &[8000, 8001, 8002]);
    cluster.create(&pool).await;
    cluster.create(&objects::pod("a", "llm", "10.0.0.1")).await;
    let watched = Watched::start(cluster).await;
    watched.destinations(&["10.0.0.1:8000", "10.0.0.1:8001", "10.0.0.1:8002"]).await;
    let keys: Vec<String> = watched.pool.load().endpoints.iter().map(|e| e.key.to_string()).collect();
    assert_eq!(keys, ["default/a", "default/a-rank-1", "default/a-rank-2"]);
    cluster.patch(&pool, &json!({"spec": {"targetPorts": [{"number": 8001}]}})).await;
    watched.destinations(&["10.0.0.1:8001"]).await;
    watched.end().await;
}

async fn annotations_narrow_the_ports(cluster: &mut Cluster) {
    cluster.create(&objects::pool("llm", &[8000, 8001])).await;
    let pod = objects::pod("a", "llm", "10.0.0.1");
    cluster.create(&pod).await;
    let watched = Watched::start(cluster).await;
    let annotate =
        |key: &'static str, value: serde_json::Value| json!({"metadata": {"annotations": {key: value}}});
    let both = ["10.0.0.1:8000", "10.0.0.1:8001"];
    watched.destinations(&both).await;
    cluster.patch(&pod, &annotate("inference.networking.k8s.io/active-ports", json!("8001"))).await;
    watched.destinations(&["10.0.0.1:8001"]).await;
    cluster.patch(&pod, &annotate("llm-d.ai/active-ports", json!(" 8000 , 9999, x"))).await;
    watched.destinations(&["10.0.0.1:8000"]).await;
    cluster.patch(&pod, &annotate("llm-d.ai/active-ports", json!(""))).await;
    watched.destinations(&[]).await;
    cluster.patch(&pod, &annotate("llm-d.ai/active-ports", json!(null))).await;
    watched.destinations(&["10.0.0.1:8001"]).await;
    cluster.patch(&pod, &annotate("inference.networking.k8s.io/active-ports", json!(null))).await;
    watched.destinations(&both).await;
    watched.end().await;
}

async fn selectors_and_labels_change(cluster: &mut Cluster) {
    let pool = objects::pool("one", &[8000]);
    cluster.create(&pool).await;
    let (a, b) = (objects::pod("a", "one", "10.0.0.1"), objects::pod("b", "two", "10.0.0.2"));
    cluster.create(&a).await;
    cluster.create(&b).await;
    let watched = Watched::start(cluster).await;
    watched.destinations(&["10.0.0.1:8000"]).await;
    cluster.patch(&pool, &json!({"spec": {"selector": {"matchLabels": {"app": "two"}}}})).await;
    watched.destinations(&["10.0.0.2:8000"]).await;
    cluster.patch(&a, &json!({"metadata": {"labels": {"app": "two", "llm-d.ai/role": "prefill"}}})).await;
    watched.destinations(&["10.0.0.1:8000", "10.0.0.2:8000"]).await;
    cluster.patch(&b, &json!({"metadata": {"labels": {"app": "three"}}})).await;
    watched.destinations(&["10.0.0.1:8000"]).await;
    assert_eq!(watched.pool.load().endpoints[0].labels.get("llm-d.ai/role"), Some("prefill"));
    watched.end().await;
}

async fn a_pool_that_returns_finds_its_objectives(cluster: &mut Cluster) {
    let pool = objects::pool("llm", &[8000]);
    cluster.create(&pool).await;
    cluster.create(&objects::pod("a", "llm", "10.0.0.1")).await;
    cluster.create(&objects::objective("llm-d.ai", "high", 10, None, POOL)).await;
    cluster.create(&objects::rewrite("canary", Some("m"), &[("m-2", 1)])).await;
    let watched = Watched::start(cluster).await;
    let whole = |pool: &PoolSnapshot| {
        destinations(pool) == ["10.0.0.1:8000"]
            && pool.objectives.get("high") == Some(&10)
            && pool.rewrites.len() == 1
    };
    watched.until("pool, endpoint, objective and rewrite", whole).await;
    cluster.delete(&pool).await;
    watched
        .until("nothing is left", |pool| {
            pool.spec.is_none()
                && pool.endpoints.is_empty()
                && pool.objectives.is_empty()
                && pool.rewrites.is_empty()
        })
        .await;
    cluster.create(&pool).await;
    watched.until("everything is back", |pool| pool.spec.is_some() && whole(pool)).await;
    watched.end().await;
}

async fn objectives_of_this_pool_are_priorities(cluster: &mut Cluster) {
    cluster.create(&objects::pool("llm", &[8000])).await;
    let high = objects::objective("llm-d.ai", "high", 10, Some(POOL_GROUP), POOL);
    cluster.create(&high).await;
    cluster.create(&objects::objective("llm-d.ai", "of-another-pool", 1, None, "other")).await;
    cluster.create(&objects::objective("llm-d.ai", "of-another-group", 2, Some(OLD_GROUP), POOL)).await;
    cluster.create(&objects::objective(OLD_GROUP, "in-the-older-group", 3, None, POOL)).await;
    let watched = Watched::start(cluster).await;
    let is = |wanted: &'static [(&'static str, i32)]| {
        move |pool: &PoolSnapshot| {
            let found: Vec<(&str, i32)> = pool.objectives.iter().map(|(n, p)| (&**n, *p)).collect();
            pool.spec.is_some() && found == wanted
        }
    };
    watched.until("one objective", is(&[("high", 10)])).await;
    cluster.patch(&high, &json!({"spec": {"priority": -3}})).await;
    watched.until("another priority", is(&[("high", -3)])).await;
    cluster.create(&objects::objective("llm-d.ai", "batch", -9, None, POOL)).await;
    watched.until("two objectives", is(&[("batch", -9), ("high", -3)])).await;
    cluster.delete(&high).await;
    watched.until("one is gone", is(&[("batch", -9)])).await;
    watched.end().await;
}

async fn rewrites_stand_in_order_of_age(cluster: &mut Cluster) {
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::rewrite("z-old", Some("m"), &[("first", 3), ("second", 1)])).await;
    // Ages count in seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    cluster.create(&objects::rewrite("a-young", None, &[("any", 1)])).await;
    let watched = Watched::start(cluster).await;
    watched
        .until("two rules, the older first", |pool| {
            let objects: Vec<&str> = pool.rewrites.iter().map(|r| &*r.object).collect();
            objects == ["z-old", "a-young"]
        })
        .await;
    let pool = watched.pool.load();
    assert_eq!(pool.rewrites[0].models, [Arc::from("m")]);
    assert_eq!(pool.rewrites[0].targets, [(Arc::from("first"), Some(3)), (Arc::from("second"), Some(1))]);
    assert!(pool.rewrites[1].models.is_empty());
    watched.end().await;
}

async fn the_older_pool_group_is_read(cluster: &mut Cluster) {
    let pool = objects::old_pool("llm", 8000);
    cluster.create(&pool).await;
    cluster.create(&objects::pod("a", "llm", "10.0.0.1")).await;
    let watched = Watched::want(cluster, Want::Pool(OLD_GROUP)).await;
    watched.destinations(&["10.0.0.1:8000"]).await;
    cluster.patch(&pool, &json!({"spec": {"targetPortNumber": 9000}})).await;
    watched.destinations(&["10.0.0.1:9000"]).await;
    watched.end().await;
}

async fn criticality_of_an_inference_model_is_its_priority(cluster: &mut Cluster) {
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::model("chat", "chat-model", "Critical")).await;
    cluster.create(&objects::model("batch", "batch-model", "Sheddable")).await;
    let watched = Watched::start(cluster).await;
    watched
        .until("priorities by model", |pool| {
            pool.model_priorities.get("chat-model") == Some(&10)
                && pool.model_priorities.get("batch-model") == Some(&-10)
        })
        .await;
    watched.end().await;
}

async fn another_process_is_another_incarnation(cluster: &mut Cluster) {
    cluster.create(&objects::pool("llm", &[8000])).await;
    let pod = objects::pod("a", "llm", "10.0.0.1");
    cluster.create(&pod).await;
    let watched = Watched::start(cluster).await;
    watched.destinations(&["10.0.0.1:8000"]).await;
    let first = watched.pool.load().endpoints[0].occupant();
    cluster.set_status(&pod, &objects::status(true, "10.0.0.1", 1)).await;
    watched
        .until("a restarted container", |pool| pool.endpoints.first().is_some_and(|e| e.occupant() > first))
        .await;
    let second = watched.pool.load().endpoints[0].occupant();
    cluster.delete(&pod).await;
    cluster.create(&pod).await;
    watched
        .until("another pod of that name", |pool| {
            pool.endpoints.first().is_some_and(|e| e.occupant().incarnation > second.incarnation)
        })
        .await;
    watched.end().await;
}

async fn pods_are_served_without_a_pool(cluster: &mut Cluster) {
    for (name, app, ip) in [("a", "llm", "10.0.0.1"), ("b", "other", "10.0.0.2"), ("c", "db", "10.0.0.3")] {
        cluster.create(&objects::pod(name, app, ip)).await;
    }
    let selector = Selector::parse("app in (llm,other),!canary").unwrap();
    let watched = Watched::want(cluster, Want::Pods(Target { selector, ports: vec![8000] })).await;
    watched.destinations(&["10.0.0.1:8000", "10.0.0.2:8000"]).await;
    cluster.patch(&objects::pod("a", "", ""), &json!({"metadata": {"labels": {"canary": "yes"}}})).await;
    watched.destinations(&["10.0.0.2:8000"]).await;
    watched.end().await;
}

async fn a_protocol_that_nobody_speaks_closes_the_gate(cluster: &mut Cluster) {
    let mut pool = objects::pool("llm", &[8000]);
    pool["spec"]["appProtocol"] = json!("kubernetes.io/h2c");
    cluster.create(&pool).await;
    let watched = Watched::start(cluster).await;
    watched.until("the pool is known", |pool| pool.spec.is_some()).await;
    assert_eq!(watched.readiness.waiting_for(), [Arc::from("protocol")]);
    cluster.patch(&pool, &json!({"spec": {"appProtocol": "http"}})).await;
    let mut ready = watched.readiness.watch();
    tokio::time::timeout(support::PATIENCE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
    watched.end().await;
}

async fn a_cut_connection_loses_nothing(cluster: &mut Cluster) {
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("a", "llm", "10.0.0.1")).await;
    let watched = Watched::start(cluster).await;
    watched.destinations(&["10.0.0.1:8000"]).await;
    cluster.wire.set(Mode::Refuse);
    cluster.create(&objects::pod("b", "llm", "10.0.0.2")).await;
    cluster.delete(&objects::pod("a", "llm", "")).await;
    assert_eq!(destinations(&watched.pool.load()), ["10.0.0.1:8000"], "the last state is served on");
    cluster.wire.set(Mode::Carry);
    watched.destinations(&["10.0.0.2:8000"]).await;
    if let Server::Fake(api) = &cluster.server {
        assert_eq!(api.count("list", "pods"), 1, "a watch goes on where it was");
    }
    watched.end().await;
}

async fn an_expired_watch_is_one_list_and_one_publication(cluster: &mut Cluster) {
    cluster.create(&objects::pool("llm", &[8000])).await;
    for i in 0..5 {
        cluster.create(&objects::pod(&format!("old-{i}"), "llm", &format!("10.0.0.{i}"))).await;
    }
    let watched = Watched::start(cluster).await;
    watched.until("five endpoints", |pool| pool.endpoints.len() == 5).await;
    let before = watched.pool.load().generation;
    cluster.wire.set(Mode::Refuse);
    for i in 0..5 {
        cluster.delete(&objects::pod(&format!("old-{i}"), "llm", "")).await;
        cluster.create(&objects::pod(&format!("new-{i}"), "llm", &format!("10.0.1.{i}"))).await;
    }
    match &mut cluster.server {
        Server::Fake(api) => api.expire(),
        Server::Real(api) => {
            api.compact().await;
            api.restart().await;
        }
    }
    cluster.wire.set(Mode::Carry);
    watched
        .until("five others", |pool| {
            pool.endpoints.len() == 5 && pool.endpoints.iter().all(|e| e.key.name.starts_with("new"))
        })
        .await;
    if let Server::Fake(api) = &cluster.server {
        assert_eq!(api.count("list", "pods"), 2, "one list at the start, one because of the expiry");
        assert_eq!(watched.pool.load().generation, before + 1, "the list is one publication");
    }
    watched.end().await;
}

async fn rights_are_taken_and_given_back(cluster: &mut Cluster) {
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("a", "llm", "10.0.0.1")).await;
    let watched = Watched::start(cluster).await;
    watched.destinations(&["10.0.0.1:8000"]).await;
    cluster.set_rules(&[]).await;
    cluster.wire.cut();
    cluster.create(&objects::pod("b", "llm", "10.0.0.2")).await;
    // Long enough for several refused tries.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(destinations(&watched.pool.load()), ["10.0.0.1:8000"], "the last state is served on");
    cluster.set_rules(&cluster::shipped_rules()).await;
    watched.destinations(&["10.0.0.1:8000", "10.0.0.2:8000"]).await;
    watched.end().await;
}

type Case = for<'a> fn(&'a mut Cluster) -> BoxFuture<'a, ()>;

/// The list: each case is a test against the fake, and all of them are one test against a real server.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        const ALL: &[(&str, Case)] = &[$((stringify!($name), |cluster| Box::pin($name(cluster)))),+];

        mod fake {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(&mut crate::support::cluster::Cluster::fake().await).await;
                }
            )+
        }
    };
}

cases!(
    pods_come_become_ready_and_go,
    every_target_port_is_a_rank,
    annotations_narrow_the_ports,
    selectors_and_labels_change,
    a_pool_that_returns_finds_its_objectives,
    objectives_of_this_pool_are_priorities,
    rewrites_stand_in_order_of_age,
    the_older_pool_group_is_read,
    criticality_of_an_inference_model_is_its_priority,
    another_process_is_another_incarnation,
    pods_are_served_without_a_pool,
    a_protocol_that_nobody_speaks_closes_the_gate,
    a_cut_connection_loses_nothing,
    an_expired_watch_is_one_list_and_one_publication,
    rights_are_taken_and_given_back,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_api_server_every_case() {
    let Some(mut cluster) = Cluster::real().await else { return };
    for (name, case) in ALL {
        println!("real API server: {name}");
        cluster.set_rules(&cluster::shipped_rules()).await;
        cluster.wire.set(Mode::Carry);
        case(&mut cluster).await;
        cluster.clear().await;
    }
}
