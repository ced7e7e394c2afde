//! Who may read the metrics port of a picker that follows a cluster: tokens by review, and client certificates.

use crate::support::cluster::{self, Cluster, PICKER};
use crate::support::kube_api::Rule;
use crate::support::kube_picker::KubePicker;
use crate::support::objects::{self, POOL};
use crate::support::wire::Mode;
use crate::support::{await_that, client, shared};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A cluster in which a picker may review tokens, and where two users are known.
async fn cluster() -> Cluster {
    let cluster = Cluster::fake().await;
    let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let review = |group: &str, resource: &str| Rule {
        groups: words(&[group]),
        resources: words(&[resource]),
        verbs: words(&["create"]),
    };
    let mut rules = cluster::shipped_rules();
    rules.push(review("authentication.k8s.io", "tokenreviews"));
    rules.push(review("authorization.k8s.io", "subjectaccessreviews"));
    cluster.set_rules(&rules).await;
    for (token, user) in [("scraper-token", "scraper"), ("guest-token", "guest")] {
        cluster.fake_api().state.users.lock().insert(token.to_owned(), user.to_owned());
    }
    cluster.create(&objects::pool("llm", &[8000])).await;
    cluster
}

async fn status(picker: &KubePicker, path: &str, token: Option<&str>) -> u16 {
    let client = client::Client::new(picker.metrics_port);
    let mut request = client.request("GET", path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    client.send(request.body(client::empty()).unwrap()).await.unwrap().status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_for_those_whom_the_cluster_allows() {
    let _machine = shared().await;
    let cluster = cluster().await;
    let mut picker = KubePicker::start(&cluster, "picker", &["--metrics-endpoint-auth=true"]);
    picker.await_ready().await;
    for (token, expected) in [
        (None, 401),
        (Some("nobody-token"), 401),
        (Some(PICKER), 401),
        (Some("guest-token"), 403),
        (Some("scraper-token"), 200),
    ] {
        assert_eq!(status(&picker, "/metrics", token).await, expected, "{token:?}");
    }
    assert_eq!(status(&picker, "/debug/state", None).await, 200, "from this machine");
    assert_eq!(status(&picker, "/readyz", None).await, 200);
    // Answers are remembered: many scrapes, one review.
    let asked = cluster.fake_api().count("create", "tokenreviews");
    for _ in 0..20 {
        assert_eq!(status(&picker, "/metrics", Some("scraper-token")).await, 200);
    }
    assert_eq!(cluster.fake_api().count("create", "tokenreviews"), asked);
    // And hold while the API is away; who is not known yet gets no answer then.
    cluster.wire.set(Mode::Refuse);
    assert_eq!(status(&picker, "/metrics", Some("scraper-token")).await, 200);
    assert_eq!(status(&picker, "/metrics", Some("another-token")).await, 503);
    let log = picker.process.log();
    for token in ["scraper-token", "guest-token", "another-token", "nobody-token"] {
        assert!(!log.contains(token), "a token stands in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picker_that_may_not_review_says_which_right_is_missing() {
    let _machine = shared().await;
    let cluster = cluster().await;
    cluster.set_rules(&cluster::shipped_rules()).await;
    let mut picker = KubePicker::start(&cluster, "picker", &["--metrics-endpoint-auth=true"]);
    picker.await_ready().await;
    assert_eq!(status(&picker, "/metrics", Some("scraper-token")).await, 503);
    picker
        .await_log("the right", |line| {
            line.contains("could not be reviewed") && line.contains("cannot create resource")
        })
        .await;
}

struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// Certificate and key, in DER and in PEM.
    fn issue(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>, String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (pem, key_pem) = (certificate.pem(), key.serialize_pem());
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (certificate.der().clone(), der, pem, key_pem)
    }

    /// Writes a pair for a server.
    fn write_pair(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let (_, _, pem, key) = self.issue();
        std::fs::write(folder.join("tls.key"), key).unwrap();
        std::fs::write(folder.join("tls.crt"), pem).unwrap();
    }
}

/// A connection that trusts `server` and shows a certificate of `client`; `None` when TLS fails.
async fn connect(
    port: u16,
    server: &Authority,
    client: Option<&Authority>,
) -> Option<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    use rustls_pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client.map(Authority::issue) {
        Some((certificate, key, ..)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()
}

/// Status of `/metrics` over such a connection; `None` when TLS fails.
async fn over_tls(
    port: u16,
    server: &Authority,
    client: Option<&Authority>,
    token: Option<&str>,
) -> Option<u16> {
    let mut stream = connect(port, server, client).await?;
    let authorization = token.map_or_else(String::new, |t| format!("Authorization: Bearer {t}\r\n"));
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_admits_and_all_certificates_are_read_anew() {
    let _machine = shared().await;
    let cluster = cluster().await;
    let (server, next, clients, strangers) =
        (Authority::new(), Authority::new(), Authority::new(), Authority::new());
    let folder = cluster.folder().join("metrics-tls");
    server.write_pair(&folder);
    let ca = cluster.folder().join("clients.pem");
    std::fs::write(&ca, &clients.pem).unwrap();
    let flags = [
        format!("--pool-name={POOL}"),
        "--metrics-endpoint-auth=true".to_owned(),
        format!("--metrics-cert-dir={}", folder.display()),
        format!("--metrics-client-ca-file={}", ca.display()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut picker = KubePicker::with(&cluster, "picker", &flags, &[]);
    picker.await_log("it listens", |line| line.contains("\"listening\"")).await;
    let port = picker.metrics_port;
    assert_eq!(over_tls(port, &server, Some(&clients), None).await, Some(200));
    assert_eq!(over_tls(port, &server, None, None).await, Some(401));
    assert_eq!(over_tls(port, &server, None, Some("scraper-token")).await, Some(200));
    assert_eq!(over_tls(port, &server, None, Some("guest-token")).await, Some(403));
    assert_eq!(over_tls(port, &server, Some(&strangers), None).await, None, "a stranger's certificate");
    assert!(client::get(port, "/metrics").await.is_err(), "nothing in the clear");
    next.write_pair(&folder);
    await_that("the new certificate is shown", || async {
        over_tls(port, &next, Some(&clients), None).await == Some(200)
    })
    .await;
    // The authorities of clients as well: who was a stranger is let in, who was known is not any more.
    std::fs::write(&ca, &strangers.pem).unwrap();
    await_that("the new authorities count", || async {
        over_tls(port, &next, Some(&strangers), None).await == Some(200)
    })
    .await;
    assert_eq!(over_tls(port, &next, Some(&clients), None).await, None, "an authority that was taken away");
    // What cannot be used changes nothing.
    std::fs::write(&ca, "no certificate").unwrap();
    std::fs::write(folder.join("tls.key"), "no key").unwrap();
    picker
        .await_log("it says so", |line| line.contains("authorities") && line.contains("cannot be used"))
        .await;
    picker
        .await_log("it says so", |line| line.contains("certificate cannot be used; the old one stays"))
        .await;
    assert_eq!(over_tls(port, &next, Some(&strangers), None).await, Some(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_towards_envoy_is_read_anew() {
    let _machine = shared().await;
    let cluster = cluster().await;
    let (first, next) = (Authority::new(), Authority::new());
    let folder = cluster.folder().join("tls");
    first.write_pair(&folder);
    let path = format!("--cert-path={}", folder.display());
    let flags = ["--secure-serving=true", "--enable-cert-reload", &path];
    let mut picker = KubePicker::start(&cluster, "picker", &flags);
    picker.await_ready().await;
    let port = picker.grpc_port;
    let kept = connect(port, &first, None).await.expect("the first certificate");
    assert!(connect(port, &next, None).await.is_none());
    next.write_pair(&folder);
    await_that("the new certificate is shown", || async { connect(port, &next, None).await.is_some() }).await;
    assert!(connect(port, &first, None).await.is_none());
    drop(kept);
}
