//! Which certificates of clients count: by the authorities of a PEM file, which may be read anew while the server runs.

use super::tls::TlsError;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Verifies the certificate of a client that shows one. Who shows none is let in, for others to judge.
#[derive(Debug)]
pub(super) struct Clients {
    file: PathBuf,
    current: ArcSwap<Arc<dyn ClientCertVerifier>>,
    /// The text that is in force, or that was found unusable last.
    seen: Mutex<Vec<u8>>,
}

impl Clients {
    /// Reads the authorities.
    pub(super) fn read(file: &Path) -> Result<Self, TlsError> {
        let text = text(file)?;
        let current = ArcSwap::from_pointee(verifier(file, &text)?);
        Ok(Self { file: file.to_owned(), current, seen: Mutex::new(text) })
    }

    /// Takes over a file that changed. One that cannot be used is said once, and the former authorities stay.
    pub(super) fn refresh(&self) {
        // A file that is away for a moment, as while it is replaced, changes nothing.
        let Ok(text) = text(&self.file) else { return };
        let mut seen = self.seen.lock();
        if *seen == text {
            return;
        }
        match verifier(&self.file, &text) {
            Ok(verifier) => {
                self.current.store(Arc::new(verifier));
                tracing::info!("the authorities of client certificates were read anew");
            }
            Err(problem) => {
                tracing::warn!(%problem, "the new authorities of client certificates cannot be used; the old ones stay");
            }
        }
        *seen = text;
    }
}

fn wrong(file: &Path, problem: impl ToString) -> TlsError {
    TlsError::ClientAuthorities { path: file.display().to_string(), problem: problem.to_string() }
}

fn text(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|problem| wrong(file, problem))
}

fn verifier(file: &Path, text: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|problem| wrong(file, problem))?;
        roots.add(certificate).map_err(|problem| wrong(file, problem))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .allow_unauthenticated()
        .build()
        .map_err(|problem| wrong(file, problem))
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: they would be of the authorities of one moment.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current.load().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current.load().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current.load().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current.load().supported_verify_schemes()
    }
}
