//! The picker as a process: election of a leader and who may read metrics. One list of cases, run against the fake API
//! everywhere and against a real kube-apiserver where one is given (`make test-kube`), with tokens of real
//! ServiceAccounts and the shipped RBAC objects there.

use crate::kube_cases::{Watched, destinations};
use crate::kube_picker::replicas;
use crate::support::cluster::{self, Cluster, NAMESPACE, Server};
use crate::support::kube_api::Rule;
use crate::support::kube_picker::KubePicker;
use crate::support::objects::{self, POOL};
use crate::support::{await_that, client, shared, source_root};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The holder that the Lease names, and how often it changed hands.
async fn holder(cluster: &Cluster) -> Option<(String, i64)> {
    let path =
        format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/epp-{NAMESPACE}-{POOL}.llm-d.ai");
    let lease = cluster.send("GET", &path, None).await.ok()?;
    let spec = &lease["spec"];
    Some((spec["holderIdentity"].as_str()?.to_owned(), spec["leaseTransitions"].as_i64().unwrap_or(0)))
}

/// gRPC health of the picker, by name.
async fn health(picker: &KubePicker, service: &str) -> i32 {
    use pointsman::proto::health::{HealthCheckRequest, HealthCheckResponse};
    let address = format!("http://127.0.0.1:{}", picker.health_port);
    let channel = tonic::transport::Channel::from_shared(address).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec: tonic_prost::ProstCodec<HealthCheckRequest, HealthCheckResponse> = Default::default();
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    client.unary(request, path, codec).await.unwrap().into_inner().status
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

async fn one_replica_leads_the_other_follows_with_a_full_store_and_takes_over(cluster: &mut Cluster) {
    let cluster = &*cluster;
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    let [first, second] = replicas(cluster, &[]).await;
    await_that("the follower knows the pool", || async { second.endpoints().await.len() == 1 }).await;
    assert!(!second.is_ready().await);
    let led = holder(cluster).await.unwrap();
    assert!(led.0.starts_with("first_") && led.1 == 0, "{led:?}");
    for (name, leader, follower) in [
        ("liveness", SERVING, SERVING),
        ("inference-extension", SERVING, SERVING),
        ("readiness", SERVING, NOT_SERVING),
        ("", SERVING, NOT_SERVING),
        ("envoy.service.ext_proc.v3.ExternalProcessor", SERVING, NOT_SERVING),
    ] {
        assert_eq!((health(&first, name).await, health(&second, name).await), (leader, follower), "{name}");
    }
    // A stop releases the lease at once: the other one leads long before the 15 seconds are over.
    let stopped = std::time::Instant::now();
    first.process.signal("TERM");
    await_that("the follower leads", || async { second.is_ready().await }).await;
    println!("kube: the follower led {:?} after the leader was told to stop", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(8), "{:?}", stopped.elapsed());
    let led = holder(cluster).await.unwrap();
    assert!(led.0.starts_with("second_") && led.1 == 1, "{led:?}");
    assert_eq!(second.metrics().await.sum("pointsman_leader", &[]), 1.0);
}

/// A leader that is killed gives nothing back: the Lease runs out, and the follower leads with what it knew all along.
async fn a_follower_takes_over_from_a_leader_that_was_killed(cluster: &mut Cluster) {
    let cluster = &*cluster;
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("a", "llm", "127.0.0.1")).await;
    let [mut first, second] = replicas(cluster, &[]).await;
    await_that("the follower knows the pool", || async { second.endpoints().await.len() == 1 }).await;
    assert!(!second.is_ready().await);
    first.process.kill();
    let killed = Instant::now();
    assert_eq!(health(&second, "readiness").await, NOT_SERVING, "the Lease is still the first one's");
    await_that("the follower leads", || async { second.is_ready().await }).await;
    println!("kube: the follower led {:?} after the leader was killed", killed.elapsed());
    assert_eq!(second.endpoints().await, ["127.0.0.1:8000"]);
    assert_eq!(health(&second, "readiness").await, SERVING);
    let led = holder(cluster).await.unwrap();
    assert!(led.0.starts_with("second_") && led.1 == 1, "{led:?}");
}

/// Tokens of who may read metrics and of who may not. On a real server they are of ServiceAccounts, the first one with the
/// shipped `deploy/monitoring/metrics-reader.yaml`; and the picker may review.
async fn readers(cluster: &Cluster) -> [String; 2] {
    if let Server::Fake(api) = &cluster.server {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let create = |group: &str, resource: &str| Rule {
            groups: words(&[group]),
            resources: words(&[resource]),
            verbs: words(&["create"]),
        };
        let mut rules = cluster::shipped_rules();
        rules.push(create("authentication.k8s.io", "tokenreviews"));
        rules.push(create("authorization.k8s.io", "subjectaccessreviews"));
        cluster.set_rules(&rules).await;
        let tokens = [("scraper-token", "scraper"), ("guest-token", "guest")];
        return tokens.map(|(token, user)| {
            api.state.users.lock().insert(token.to_owned(), user.to_owned());
            token.to_owned()
        });
    }
    let group = "rbac.authorization.k8s.io";
    let delegator = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "picker-auth"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "system:auth-delegator"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "picker"}],
    });
    let shipped =
        std::fs::read_to_string(source_root().join("deploy/monitoring/metrics-reader.yaml")).unwrap();
    let shipped = shipped.split("\n---").map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    for object in shipped.chain([delegator]) {
        let plural = object["kind"].as_str().unwrap().to_lowercase() + "s";
        let path = format!("/apis/{group}/v1/{plural}/{}", object["metadata"]["name"].as_str().unwrap());
        // For roles and bindings a PUT creates as well.
        cluster.send("PUT", &path, Some(&object)).await.unwrap_or_else(|e| panic!("{path}: {e}"));
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}});
    cluster.send("POST", "/api/v1/namespaces", Some(&namespace)).await.unwrap();
    [account(cluster, "prometheus-k8s").await, account(cluster, "guest").await]
}

/// Makes a ServiceAccount in the namespace `monitoring`; its token.
async fn account(cluster: &Cluster, name: &str) -> String {
    let path = "/api/v1/namespaces/monitoring/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    cluster.send("POST", path, Some(&account)).await.unwrap();
    let wanted = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let made = cluster.send("POST", &format!("{path}/{name}/token"), Some(&wanted)).await.unwrap();
    made["status"]["token"].as_str().unwrap().to_owned()
}

/// Status of a page of the metrics port for the holder of a token.
async fn status(picker: &KubePicker, path: &str, token: Option<&str>) -> u16 {
    let client = client::Client::new(picker.metrics_port);
    let mut request = client.request("GET", path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    client.send(request.body(client::empty()).unwrap()).await.unwrap().status
}

async fn readers_of_metrics_are_reviewed(cluster: &mut Cluster) {
    let cluster = &*cluster;
    cluster.create(&objects::pool("llm", &[8000])).await;
    let [allowed, forbidden] = readers(cluster).await;
    let mut picker = KubePicker::start(cluster, "reviewing", &["--metrics-endpoint-auth=true"]);
    picker.await_ready().await;
    let garbage = format!("{}x", &allowed[..allowed.len() / 2]);
    for (token, expected) in
        [(None, 401), (Some(&garbage), 401), (Some(&forbidden), 403), (Some(&allowed), 200)]
    {
        let found = status(&picker, "/metrics", token.map(String::as_str)).await;
        assert_eq!(found, expected, "{token:?}: {}", picker.process.log());
    }
    assert_eq!(status(&picker, "/readyz", None).await, 200, "probes show no token");
    let log = picker.process.log();
    for token in [&allowed, &forbidden, &garbage] {
        assert!(!log.contains(token.as_str()), "a token stands in the log");
    }
    cluster.set_rules(&cluster::shipped_rules()).await;
}

type Case = for<'a> fn(&'a mut Cluster) -> BoxFuture<'a, ()>;

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        const ALL: &[(&str, Case)] = &[$((stringify!($name), |cluster| Box::pin($name(cluster)))),+];

        mod fake {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let _machine = super::shared().await;
                    super::$name(&mut crate::support::cluster::Cluster::fake().await).await;
                }
            )+
        }
    };
}

cases!(
    one_replica_leads_the_other_follows_with_a_full_store_and_takes_over,
    a_follower_takes_over_from_a_leader_that_was_killed,
    readers_of_metrics_are_reviewed,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_api_server_every_case() {
    let Some(mut cluster) = Cluster::real().await else { return };
    let _machine = shared().await;
    for (name, case) in ALL {
        println!("real API server: {name}");
        cluster.set_rules(&cluster::shipped_rules()).await;
        case(&mut cluster).await;
        cluster.clear().await;
    }
}

/// What befalls the server, and its end.
enum Trouble {
    Killed,
    Frozen,
    WithoutEtcd,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_api_server_that_is_killed_frozen_or_without_etcd() {
    let Some(mut cluster) = Cluster::real().await else { return };
    let _machine = shared().await;
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster.create(&objects::pod("a", "llm", "10.0.0.1")).await;
    let watched = Watched::start(&cluster).await;
    let mut all = vec!["10.0.0.1:8000".to_owned()];
    watched.destinations(&["10.0.0.1:8000"]).await;
    for (number, trouble) in [Trouble::Frozen, Trouble::WithoutEtcd, Trouble::Killed].into_iter().enumerate()
    {
        let Server::Real(api) = &mut cluster.server else { panic!("a real server") };
        match trouble {
            Trouble::Killed => api.kill(),
            Trouble::Frozen => api.signal("STOP"),
            Trouble::WithoutEtcd => api.signal_etcd("STOP"),
        }
        // Long enough for what fails at once to be tried again and again.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(destinations(&watched.pool.load()), all, "served on, {number}");
        match trouble {
            Trouble::Killed => api.restart().await,
            Trouble::Frozen => api.signal("CONT"),
            Trouble::WithoutEtcd => api.signal_etcd("CONT"),
        }
        let back = Instant::now();
        let ip = format!("10.0.1.{number}");
        cluster.create(&objects::pod(&format!("b-{number}"), "llm", &ip)).await;
        all.push(format!("{ip}:8000"));
        watched.until("the new pod as well", |pool| destinations(pool) == all).await;
        println!("kube: trouble {number} over, a new pod in force after {:?}", back.elapsed());
    }
    watched.end().await;
}
