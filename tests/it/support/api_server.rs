//! A real Kubernetes API server with its etcd, both on free ports of this machine: RBAC on, tokens from a file, no kubelet
//! and no controllers, so pods stay as the test writes them.
//!
//! `POINTSMAN_KUBE_APISERVER` and `POINTSMAN_ETCD` name the programs (`make test-kube` sets them); without both a test says
//! SKIPPED with its name. `POINTSMAN_CRDS` names the folder of the custom resources, else those of `tests/kube/crds`.

use super::ports::free_port;
use super::process::Process;
use super::source_root;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Leaves the test, saying so with its name, where there is no API server to run.
#[macro_export]
macro_rules! needs_api_server {
    ($test:expr) => {
        if $crate::support::api_server::skipped($test) {
            return;
        }
    };
}

/// Whether there is no API server for a test; says so.
pub fn skipped(test: &str) -> bool {
    let missing: Vec<&str> = ["POINTSMAN_KUBE_APISERVER", "POINTSMAN_ETCD"]
        .into_iter()
        .filter(|name| program(name).is_none())
        .collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED: {test} ({} not set; `make test-kube` sets them)", missing.join(" and "));
    }
    !missing.is_empty()
}

fn program(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The files of the custom resources that the picker reads, in the order of their names.
pub fn crd_files() -> Vec<PathBuf> {
    let folder = program("POINTSMAN_CRDS").unwrap_or_else(|| source_root().join("tests/kube/crds"));
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("crd_") && name.ends_with(".yaml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no crd_*.yaml in {}", folder.display());
    files
}

/// The token of a member of `system:masters`.
pub const ADMIN_TOKEN: &str = "admin-token";

/// A user of the token file: name, token, groups.
pub struct User<'a> {
    pub name: &'a str,
    pub token: &'a str,
    pub groups: &'a [&'a str],
}

/// A running API server and its etcd. Both end with it.
pub struct ApiServer {
    pub process: Process,
    pub etcd: Process,
    pub port: u16,
    /// Where etcd takes requests, in the clear.
    pub etcd_port: u16,
    /// PEM file of the authority that signed the server's certificate.
    pub ca_file: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
}

impl ApiServer {
    /// Starts both with their files in `folder`; `users` beside the administrator may log in with their tokens. Returns at
    /// once: ask `/readyz` with the administrator's token before anything else.
    pub fn start(folder: &Path, users: &[User<'_>], more_arguments: &[&str]) -> Self {
        let etcd_port = free_port();
        let etcd = start_etcd(etcd_port, folder);
        write_certificates(folder);
        write_tokens(&folder.join("tokens.csv"), users);
        let port = free_port();
        let mut arguments = arguments(folder, port, etcd_port);
        arguments.extend(more_arguments.iter().map(|text| (*text).to_owned()));
        let process = spawn(&arguments, folder);
        Self {
            process,
            etcd,
            port,
            etcd_port,
            ca_file: folder.join("ca.crt"),
            arguments,
            folder: folder.to_owned(),
        }
    }

    /// Where the server answers.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Kills the server; its etcd goes on.
    pub fn stop(&mut self) {
        self.process.kill();
    }

    /// Starts the server again on the same port with the same data.
    pub fn start_again(&mut self) {
        self.process.kill();
        self.process = spawn(&self.arguments, &self.folder);
    }

    /// A kubeconfig for the holder of `token`, in a file.
    pub fn kubeconfig(&self, token: &str, namespace: &str) -> PathBuf {
        let file = self.folder.join(format!("kubeconfig-{token}"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"{}\", certificate-authority: \"{}\"}}}}]\n\
             users: [{{name: test, user: {{token: \"{token}\"}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test, namespace: \"{namespace}\"}}}}]\n",
            self.url(),
            self.ca_file.display()
        );
        std::fs::write(&file, text).unwrap();
        file
    }
}

fn spawn(arguments: &[String], folder: &Path) -> Process {
    let path = program("POINTSMAN_KUBE_APISERVER").expect("POINTSMAN_KUBE_APISERVER");
    let mut command = Command::new(path);
    command.args(arguments);
    Process::start("kube-apiserver", command, folder)
}

fn start_etcd(port: u16, folder: &Path) -> Process {
    let mut command = Command::new(program("POINTSMAN_ETCD").expect("POINTSMAN_ETCD"));
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
    command.arg("--data-dir").arg(folder.join("etcd")).args([
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
        "--initial-cluster",
        &format!("default={peer}"),
        "--unsafe-no-fsync",
    ]);
    Process::start("etcd", command, folder)
}

fn arguments(folder: &Path, port: u16, etcd_port: u16) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://pointsman.test".to_owned(),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        // Nobody makes the default ServiceAccount here, and pods are not started anyway.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        // The address of this server would be a loopback one, which Endpoints must not hold.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--cert-dir={}", file("certificates")),
        "--v=1".to_owned(),
    ]
}

fn write_tokens(file: &Path, users: &[User<'_>]) {
    let mut text = format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n");
    for User { name, token, groups } in users {
        text += &format!("{token},{name},{name},\"{}\"\n", groups.join(","));
    }
    std::fs::write(file, text).unwrap();
}

/// An authority, a certificate for 127.0.0.1 and the key that signs tokens of service accounts.
fn write_certificates(folder: &Path) {
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    write("ca.crt", authority.self_signed(&authority_key).unwrap().pem());
    let issuer = rcgen::Issuer::new(authority, &authority_key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned(), "kubernetes.default.svc".to_owned()];
    let server = rcgen::CertificateParams::new(names).unwrap().signed_by(&server_key, &issuer).unwrap();
    write("server.crt", server.pem());
    write("server.key", server_key.serialize_pem());
    let accounts_key = rcgen::KeyPair::generate().unwrap();
    write("accounts.key", accounts_key.serialize_pem());
    write("accounts.pub", accounts_key.public_key_pem());
}
