//! Certificates, versions, suites, reloading.

use super::*;

fn write_pair(directory: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    std::fs::write(directory.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(directory.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
}

fn from_directory(directory: &Path) -> TlsOptions {
    TlsOptions { directory: Some(directory.to_owned()), ..TlsOptions::default() }
}

#[test]
fn without_a_directory_the_certificate_is_self_signed_and_speaks_h2() {
    let tls = Tls::new(&TlsOptions::default()).unwrap();
    assert_eq!(tls.config().alpn_protocols, [b"h2".to_vec()]);
    assert_eq!(tls.current.0.load().cert.len(), 1);
}

#[test]
fn what_is_wrong_with_a_directory_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Tls::new(&from_directory(directory.path())).unwrap_err().to_string();
    assert!(missing.contains("tls.crt") && missing.contains("--cert-path"), "{missing}");
    write_pair(directory.path(), "a");
    std::fs::write(directory.path().join("tls.crt"), "nonsense").unwrap();
    let nonsense = Tls::new(&from_directory(directory.path())).unwrap_err().to_string();
    assert!(nonsense.contains("tls.crt holds no certificate"), "{nonsense}");
    let other = tempfile::tempdir().unwrap();
    write_pair(other.path(), "b");
    std::fs::copy(other.path().join("tls.crt"), directory.path().join("tls.crt")).unwrap();
    assert!(Tls::new(&from_directory(directory.path())).is_err(), "key and certificate do not fit");
}

#[test]
fn versions_and_suites_go_by_gos_names() {
    let options = |version: &str, suites: &[&str]| TlsOptions {
        min_version: version.to_owned(),
        cipher_suites: suites.iter().map(|s| (*s).to_owned()).collect(),
        ..TlsOptions::default()
    };
    for version in ["", "VersionTLS10", "VersionTLS12", "VersionTLS13"] {
        assert!(Tls::new(&options(version, &[])).is_ok(), "{version}");
    }
    let unknown = Tls::new(&options("VersionTLS14", &[])).unwrap_err().to_string();
    assert!(unknown.contains("VersionTLS13"), "{unknown}");
    let chosen = suites(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".to_owned()]).unwrap();
    let of_tls12: Vec<_> = chosen.iter().filter(|s| s.tls13().is_none()).map(|s| s.suite()).collect();
    assert_eq!(of_tls12, [CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]);
    assert!(Tls::new(&options("VersionTLS12", &["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"])).is_ok());
    let weak = Tls::new(&options("", &["TLS_RSA_WITH_AES_128_CBC_SHA"])).unwrap_err().to_string();
    assert!(weak.contains("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"), "{weak}");
}

#[tokio::test]
async fn a_changed_pair_is_taken_over_and_a_broken_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path(), "first");
    let tls = Tls::new(&from_directory(directory.path())).unwrap();
    let certificate = || tls.current.0.load().cert[0].clone();
    let first = certificate();
    let reloading = tokio::spawn(tls.clone().reload_every(Duration::from_millis(1)));
    std::fs::write(directory.path().join("tls.crt"), "nonsense").unwrap();
    write_pair(directory.path(), "second");
    let changed = async {
        while certificate() == first {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), changed).await.unwrap();
    let second = certificate();
    tls.take(&Pair { certificate: b"nonsense".to_vec(), key: Vec::new() });
    assert_eq!(certificate(), second, "a broken pair is not taken over");
    reloading.abort();
}
