//! The API server over plain HTTPS, for what a typed client hides: raw YAML, dry runs, the server's own words.

use super::api_server::ApiServer;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex;

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// One connection to the API server, as the holder of one token.
pub struct KubeHttp {
    sender: Mutex<Option<Sender>>,
    port: u16,
    token: String,
    tls: tokio_rustls::TlsConnector,
    kinds: Mutex<HashMap<String, Value>>,
}

/// What the server answered.
pub struct Said {
    pub status: StatusCode,
    pub body: Value,
}

impl Said {
    /// The message of a refusal.
    pub fn message(&self) -> String {
        self.body["message"].as_str().map_or_else(|| self.body.to_string(), str::to_owned)
    }
}

impl KubeHttp {
    /// A client of `server` that shows `token`. Connects with the first request.
    pub fn new(server: &ApiServer, token: &str) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&server.ca_file).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (port, token) = (server.port, token.to_owned());
        Self { sender: Mutex::new(None), port, token, tls, kinds: Mutex::new(HashMap::new()) }
    }

    /// Waits until the server answers `/readyz`.
    pub async fn await_ready(&self, server: &mut ApiServer) {
        super::await_within(std::time::Duration::from_secs(90), "the API server is ready", || {
            server.process.assert_alive();
            server.etcd.assert_alive();
            async {
                self.send("GET", "/readyz", "", Bytes::new()).await.is_some_and(|said| said.status == 200)
            }
        })
        .await;
    }

    /// `GET` of a path.
    pub async fn get(&self, path: &str) -> Said {
        self.send("GET", path, "", Bytes::new()).await.expect("an answer of the API server")
    }

    /// `POST` of an object.
    pub async fn post(&self, path: &str, object: &Value) -> Said {
        self.send_object("POST", path, "application/json", object).await
    }

    /// JSON merge patch.
    pub async fn merge(&self, path: &str, change: &Value) -> Said {
        self.send_object("PATCH", path, "application/merge-patch+json", change).await
    }

    /// `DELETE` of a path.
    pub async fn delete(&self, path: &str) -> Said {
        self.send("DELETE", path, "", Bytes::new()).await.expect("an answer of the API server")
    }

    async fn send_object(&self, method: &str, path: &str, content_type: &str, object: &Value) -> Said {
        let body = Bytes::from(object.to_string());
        self.send(method, path, content_type, body).await.expect("an answer of the API server")
    }

    /// Server-side apply of one YAML document with every field checked; `query` is added to the address (`&dryRun=All`).
    pub async fn apply(&self, document: &str, query: &str) -> Said {
        let object = head(document);
        let path = self.path(&object).await;
        let path = format!("{path}?fieldManager=test&force=true&fieldValidation=Strict{query}");
        let body = Bytes::from(document.to_owned());
        self.send("PATCH", &path, "application/apply-patch+yaml", body)
            .await
            .expect("an answer of the API server")
    }

    /// Where an object is: the plural of its kind comes from the server, which may take a moment to know a new one.
    async fn path(&self, object: &Head) -> String {
        let root = if object.api_version.contains('/') { "/apis" } else { "/api" };
        let group = format!("{root}/{}", object.api_version);
        let mut found = None;
        super::await_that(&format!("the server knows {} {}", object.api_version, object.kind), || async {
            self.resource(&group, &object.kind).await.is_some()
        })
        .await;
        if let Some(resource) = self.resource(&group, &object.kind).await {
            found = Some(resource);
        }
        let (plural, namespaced) = found.unwrap();
        let namespace = if namespaced { format!("/namespaces/{}", object.namespace) } else { String::new() };
        format!("{group}{namespace}/{plural}/{}", object.name)
    }

    async fn resource(&self, group: &str, kind: &str) -> Option<(String, bool)> {
        let find = |list: &Value| {
            let all = list["resources"].as_array()?;
            let is = |entry: &&Value| {
                entry["kind"] == kind && !entry["name"].as_str().unwrap_or("/").contains('/')
            };
            let entry = all.iter().find(is)?;
            Some((entry["name"].as_str()?.to_owned(), entry["namespaced"].as_bool()?))
        };
        if let Some(found) = self.kinds.lock().await.get(group).and_then(find) {
            return Some(found);
        }
        let list = self.get(group).await.body;
        let found = find(&list);
        self.kinds.lock().await.insert(group.to_owned(), list);
        found
    }

    async fn send(&self, method: &str, path: &str, content_type: &str, body: Bytes) -> Option<Said> {
        let mut held = self.sender.lock().await;
        if held.as_ref().is_none_or(|sender| sender.is_closed()) {
            *held = Some(self.connect().await?);
        }
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1:{}{path}", self.port))
            .header("authorization", format!("Bearer {}", self.token))
            .header("accept", "application/json");
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let response = held.as_mut()?.send_request(request.body(Full::new(body)).unwrap()).await.ok()?;
        drop(held);
        let status = response.status();
        let bytes = response.into_body().collect().await.ok()?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Some(Said { status, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) })
    }

    async fn connect(&self) -> Option<Sender> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = self.tls.connect(name, stream).await.ok()?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        Some(sender)
    }
}

/// What an object is called.
pub struct Head {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

/// Reads the head of a YAML document.
pub fn head(document: &str) -> Head {
    let at_start = |key: &str| {
        let line = document.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key} in:\n{document}")).trim().trim_matches('"').to_owned()
    };
    let metadata =
        document.split("\nmetadata:").nth(1).unwrap_or_else(|| panic!("no metadata in:\n{document}"));
    // Up to the next line at the left edge.
    let inside = |key: &str| {
        let lines = metadata.lines().skip(1).take_while(|line| line.starts_with([' ', '#']));
        let mut found = lines.filter_map(|line| line.strip_prefix("  ")?.strip_prefix(key));
        found.next().map(|value| value.trim().trim_matches('"').to_owned())
    };
    Head {
        api_version: at_start("apiVersion:"),
        kind: at_start("kind:"),
        name: inside("name:").unwrap_or_else(|| panic!("no name in:\n{document}")),
        namespace: inside("namespace:").unwrap_or_else(|| "default".to_owned()),
    }
}

/// The documents of a YAML text that hold anything.
pub fn documents(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in text.lines() {
        match all.last_mut() {
            Some(last) if line != "---" => *last += &format!("{line}\n"),
            _ => all.push(String::new()),
        }
    }
    all.retain(|document| document.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')));
    all
}
