//! TLS of the picker's port: self-signed unless a directory with a certificate is given, which may be read anew while
//! the server runs.

use super::tls_clients::Clients;
use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Names that the self-signed certificate is valid for. Clients of the picker do not verify it.
const SELF_SIGNED_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "pointsman"];

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {problem}; --cert-path needs a directory with tls.crt and tls.key in PEM form")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not fit, or are of a kind that is not supported.
    #[error("certificate cannot be used: {0}")]
    Certificate(String),
    /// The authorities of client certificates cannot be read or used.
    #[error("--metrics-client-ca-file {path}: {problem}; it must hold certificates in PEM form")]
    ClientAuthorities {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A word of a flag is not known.
    #[error("{0}")]
    Flag(String),
}

/// What the flags say about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Directory with `tls.crt` and `tls.key`; without one the certificate is self-signed.
    pub directory: Option<PathBuf>,
    /// Lowest version, by Go's name (`VersionTLS12`). Empty means 1.2.
    pub min_version: String,
    /// TLS 1.2 cipher suites by Go's names. Empty means all that are safe.
    pub cipher_suites: Vec<String>,
}

/// A server configuration whose certificate can be exchanged.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    /// The directory and what was read from it.
    source: Option<(PathBuf, Arc<Pair>)>,
    /// Whose certificates of clients count.
    clients: Option<Arc<Clients>>,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Sets TLS up.
    ///
    /// # Errors
    /// When the certificate cannot be read or used, or a flag names what is not known.
    pub fn new(options: &TlsOptions) -> Result<Self, TlsError> {
        let source = match &options.directory {
            Some(directory) => Some((directory.clone(), Arc::new(Pair::read(directory)?))),
            None => None,
        };
        let key = match &source {
            Some((_, pair)) => pair.certified()?,
            None => self_signed()?,
        };
        let provider =
            CryptoProvider { cipher_suites: suites(&options.cipher_suites)?, ..default_provider() };
        let versions = versions(&options.min_version)?;
        Self::build(key, source, provider, versions, None, b"h2")
    }

    /// TLS for pages over HTTP/1.1 with the certificate of `directory`. With `client_ca` (a PEM file) the certificates of
    /// clients that show one are verified; who must show one is decided with the page.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn for_pages(directory: PathBuf, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let pair = Arc::new(Pair::read(&directory)?);
        let key = pair.certified()?;
        let clients = client_ca.map(Clients::read).transpose()?.map(Arc::new);
        let provider = default_provider();
        Self::build(key, Some((directory, pair)), provider, rustls::ALL_VERSIONS, clients, b"http/1.1")
    }

    fn build(
        key: CertifiedKey,
        source: Option<(PathBuf, Arc<Pair>)>,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<Arc<Clients>>,
        alpn: &[u8],
    ) -> Result<Self, TlsError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(key)));
        let builder = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .map_err(|problem| {
                TlsError::Flag(format!("--tls-cipher-suites, --tls-min-version: {problem}"))
            })?;
        let builder = match clients.clone() {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![alpn.to_vec()];
        if clients.is_some() {
            // A session that goes on would not be judged by the authorities of now.
            config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        }
        Ok(Self { config: Arc::new(config), current, source, clients })
    }

    /// The configuration for an acceptor.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Reads the files every `period` and takes over a pair, or authorities of clients, that changed. What cannot be used
    /// is said, and the old stays. Returns at once where the certificate is self-signed, else never.
    pub async fn reload_every(self, period: Duration) {
        let Some((directory, loaded)) = self.source.clone() else { return };
        let mut known = Some(loaded);
        loop {
            tokio::time::sleep(period).await;
            if let Some(clients) = self.clients.clone() {
                // A panic in there would have been told by its own.
                let _told = tokio::task::spawn_blocking(move || clients.refresh()).await;
            }
            let from = directory.clone();
            let read = tokio::task::spawn_blocking(move || Pair::read(&from)).await;
            match read {
                Ok(Ok(pair)) if known.as_deref() != Some(&pair) => {
                    self.take(&pair);
                    known = Some(Arc::new(pair));
                }
                Ok(Err(problem)) if known.is_some() => {
                    tracing::warn!(%problem, "the certificate cannot be read; the old one stays");
                    known = None;
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn take(&self, pair: &Pair) {
        match pair.certified() {
            Ok(key) => {
                self.current.0.store(Arc::new(key));
                tracing::info!("the certificate was read anew");
            }
            Err(problem) => tracing::warn!(%problem, "the new certificate cannot be used; the old one stays"),
        }
    }
}

/// The two files as they are.
#[derive(PartialEq, Eq)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(..)")
    }
}

impl Pair {
    fn read(directory: &Path) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).map_err(|problem| TlsError::File {
                path: path.display().to_string(),
                problem: problem.to_string(),
            })
        };
        Ok(Self { certificate: read("tls.crt")?, key: read("tls.key")? })
    }

    fn certified(&self) -> Result<CertifiedKey, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|problem| TlsError::Certificate(format!("tls.crt: {problem}")))?;
        if chain.is_empty() {
            return Err(TlsError::Certificate("tls.crt holds no certificate in PEM form".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|problem| TlsError::Certificate(format!("tls.key: {problem}")))?;
        certified(chain, &key)
    }
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Result<CertifiedKey, TlsError> {
    let signer = any_supported_type(key).map_err(|problem| TlsError::Certificate(problem.to_string()))?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(problem) => Err(TlsError::Certificate(problem.to_string())),
    }
}

fn self_signed() -> Result<CertifiedKey, TlsError> {
    let made = rcgen::generate_simple_self_signed(SELF_SIGNED_NAMES.map(str::to_owned))
        .map_err(|problem| TlsError::Certificate(problem.to_string()))?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|problem| TlsError::Certificate(problem.to_owned()))?;
    certified(vec![made.cert.der().clone()], &key)
}

static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn versions(lowest: &str) -> Result<&'static [&'static SupportedProtocolVersion], TlsError> {
    match lowest {
        "" | "VersionTLS12" => Ok(rustls::ALL_VERSIONS),
        "VersionTLS10" | "VersionTLS11" => {
            tracing::warn!(lowest, "TLS before 1.2 is not supported: the lowest version is 1.2");
            Ok(rustls::ALL_VERSIONS)
        }
        "VersionTLS13" => Ok(ONLY_TLS13),
        other => Err(TlsError::Flag(format!(
            "--tls-min-version `{other}` is not known: use VersionTLS12 or VersionTLS13"
        ))),
    }
}

/// TLS 1.2 suites by Go's names. Suites of TLS 1.3 are always on and cannot be chosen, as in Go.
fn suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    let all = default_provider().cipher_suites;
    let names: Vec<&str> = names.iter().map(|n| n.trim()).filter(|n| !n.is_empty()).collect();
    if names.is_empty() {
        return Ok(all);
    }
    let mut chosen: Vec<_> = all.iter().copied().filter(|s| s.tls13().is_some()).collect();
    for name in names {
        let suite = all.iter().copied().find(|s| go_names(s.suite()).contains(&name));
        match suite {
            Some(suite) if chosen.contains(&suite) => {}
            Some(suite) => chosen.push(suite),
            None => {
                let known: Vec<_> = all.iter().filter_map(|s| go_names(s.suite()).first()).copied().collect();
                return Err(TlsError::Flag(format!(
                    "--tls-cipher-suites `{name}` is not supported: use {}",
                    known.join(", ")
                )));
            }
        }
    }
    Ok(chosen)
}

fn go_names(suite: CipherSuite) -> &'static [&'static str] {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => &["TLS_AES_128_GCM_SHA256"],
        CipherSuite::TLS13_AES_256_GCM_SHA384 => &["TLS_AES_256_GCM_SHA384"],
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => &["TLS_CHACHA20_POLY1305_SHA256"],
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => &["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"],
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => &["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"],
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => &["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => &["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"],
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            &["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"]
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            &["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]
        }
        _ => &[],
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
