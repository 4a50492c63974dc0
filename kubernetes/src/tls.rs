//! Certificates that are replaced while they are served, and which TLS connections are taken.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use thiserror::Error;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The certificate of a server. Clones share it; a new one counts from the next connection on. Without one, no
/// connection is taken.
#[derive(Clone, Debug, Default)]
pub struct ServedCertificate {
    latest: Arc<watch::Sender<Option<Arc<CertifiedKey>>>>,
}

impl ServedCertificate {
    /// One that no client can verify, made on the spot.
    ///
    /// # Errors
    ///
    /// When no key can be made.
    pub fn self_signed() -> Result<Self, InvalidCertificate> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let served = Self::default();
        served.replace(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())?;
        Ok(served)
    }

    /// Serves another certificate: a chain and its key, both PEM. A wrong one changes nothing.
    ///
    /// # Errors
    ///
    /// When one of the two cannot be read, or they do not belong together.
    pub fn replace(&self, certificate: &[u8], key: &[u8]) -> Result<(), InvalidCertificate> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(InvalidCertificate::Chain)?;
        if chain.is_empty() {
            return Err(InvalidCertificate::Empty);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(InvalidCertificate::Key)?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())?;
        self.latest.send_replace(Some(Arc::new(certified)));
        Ok(())
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.latest.borrow().is_some()
    }
}

impl ResolvesServerCert for ServedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.latest.borrow().clone()
    }
}

/// Why a certificate cannot be served.
#[derive(Debug, Error)]
pub enum InvalidCertificate {
    /// The chain is not PEM.
    #[error("the certificate is not PEM")]
    Chain(#[source] rustls::pki_types::pem::Error),
    /// There is no certificate in the chain.
    #[error("the certificate is empty")]
    Empty,
    /// The key is not PEM.
    #[error("the key is not PEM")]
    Key(#[source] rustls::pki_types::pem::Error),
    /// The two are of no use together.
    #[error("the certificate and the key cannot be served")]
    Pair(#[from] rustls::Error),
    /// None can be made.
    #[error("no certificate can be made")]
    Make(#[from] rcgen::Error),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// Serves `tls.crt` and `tls.key` of a directory, read again when they change, until `stop`.
pub async fn serve_files(dir: PathBuf, certificate: ServedCertificate, stop: CancellationToken) {
    let mut served = None;
    let mut complained = false;
    loop {
        match read_pair(&dir).await {
            Ok(pair) if served.as_ref() == Some(&pair) => complained = false,
            Ok(pair) => match certificate.replace(&pair.0, &pair.1) {
                Ok(()) => {
                    info!(dir = %dir.display(), "serving the certificate of the files");
                    served = Some(pair);
                    complained = false;
                }
                // The two files may have been read between two writes: complain of what stays wrong.
                Err(error) if complained => warn!(dir = %dir.display(), %error, "cannot serve tls.crt and tls.key"),
                Err(_) => complained = true,
            },
            Err(error) if !complained => {
                warn!(%error, "no certificate can be read; the one before it is kept");
                complained = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(READ_AGAIN) => {}
        }
    }
}

async fn read_pair(dir: &Path) -> Result<(Vec<u8>, Vec<u8>), InvalidCertificate> {
    Ok((read(dir.join("tls.crt")).await?, read(dir.join("tls.key")).await?))
}

async fn read(path: PathBuf) -> Result<Vec<u8>, InvalidCertificate> {
    tokio::fs::read(&path).await.map_err(|source| InvalidCertificate::File { path: path.display().to_string(), source })
}

/// Which TLS connections are taken.
#[derive(Clone, Debug)]
pub struct TlsRules {
    oldest: TlsVersion,
    provider: Arc<CryptoProvider>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TlsVersion {
    V12,
    V13,
}

impl Default for TlsRules {
    fn default() -> Self {
        Self { oldest: TlsVersion::V13, provider: Arc::new(ring::default_provider()) }
    }
}

impl TlsRules {
    /// Reads MetalLB's flags: `VersionTLS12` or `VersionTLS13`, names of cipher suites of TLS 1.2, numbers of curves. What
    /// is empty is left to the library. Names that are known to Go alone are left out while one remains.
    ///
    /// # Errors
    ///
    /// When a text means nothing, or nothing remains.
    pub fn new(oldest: &str, cipher_suites: &[String], curves: &[u16]) -> Result<Self, InvalidTlsRules> {
        let oldest = match oldest {
            "" | "VersionTLS13" => TlsVersion::V13,
            "VersionTLS12" => TlsVersion::V12,
            other => return Err(InvalidTlsRules::Version(other.to_owned())),
        };
        let mut provider = ring::default_provider();
        if !cipher_suites.is_empty() {
            if oldest == TlsVersion::V13 {
                return Err(InvalidTlsRules::SuitesWithTls13);
            }
            provider.cipher_suites.retain(|suite| {
                let name = suite.suite().as_str().unwrap_or_default();
                let go = name.strip_suffix("_SHA256").unwrap_or(name);
                suite.tls13().is_some() || cipher_suites.iter().any(|wanted| wanted == name || wanted == go)
            });
            if provider.cipher_suites.iter().all(|suite| suite.tls13().is_some()) {
                return Err(InvalidTlsRules::Suites(cipher_suites.join(",")));
            }
        }
        if !curves.is_empty() {
            let known = std::mem::take(&mut provider.kx_groups);
            let by_number = |number: &u16| known.iter().find(|group| u16::from(group.name()) == *number).copied();
            provider.kx_groups = curves.iter().filter_map(by_number).collect();
            if provider.kx_groups.is_empty() {
                return Err(InvalidTlsRules::Curves(curves.to_vec()));
            }
        }
        Ok(Self { oldest, provider: Arc::new(provider) })
    }

    /// What takes TLS connections.
    ///
    /// # Errors
    ///
    /// When the rules contradict each other.
    pub fn acceptor(&self, certificate: &ServedCertificate) -> Result<TlsAcceptor, InvalidTlsRules> {
        let versions = match self.oldest {
            TlsVersion::V12 => SINCE_TLS12,
            TlsVersion::V13 => SINCE_TLS13,
        };
        let config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(InvalidTlsRules::Contradiction)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificate.clone()));
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Why no TLS connection can be taken by these rules.
#[derive(Debug, Error)]
pub enum InvalidTlsRules {
    /// Not a version.
    #[error("--tls-min-version: \"{0}\" is not a version that is served; write VersionTLS12 or VersionTLS13")]
    Version(String),
    /// TLS 1.3 has no choice.
    #[error(
        "--tls-cipher-suites has no effect on TLS 1.3; write --tls-min-version=VersionTLS12 or leave the suites out"
    )]
    SuitesWithTls13,
    /// No suite remains.
    #[error(
        "--tls-cipher-suites: none of \"{0}\" is served; write one such as TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    )]
    Suites(String),
    /// No curve remains.
    #[error("--tls-curve-preferences: none of {0:?} is served; write one of 23 (P-256), 24 (P-384), 29 (X25519)")]
    Curves(Vec<u16>),
    /// The parts do not fit together.
    #[error("the TLS flags contradict each other")]
    Contradiction(#[source] rustls::Error),
}

const SINCE_TLS12: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];
const SINCE_TLS13: &[&SupportedProtocolVersion] = &[&TLS13];
/// How often files are looked at. Chosen: the kubelet takes a minute to bring a changed Secret.
const READ_AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_metallb_choose_versions_suites_and_curves() {
        let suites = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let chosen = suites(&["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"]);
        let rules = TlsRules::new("VersionTLS12", &chosen, &[29]).unwrap();
        let old = rules.provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count();

        assert_eq!((old, rules.provider.kx_groups.len(), rules.oldest), (1, 1, TlsVersion::V12));
        assert_eq!(TlsRules::new("", &[], &[]).unwrap().oldest, TlsVersion::V13);
        for (version, suites, curves, named) in [
            ("VersionTLS11", suites(&[]), vec![], "VersionTLS11"),
            ("VersionTLS13", chosen.clone(), vec![], "leave the suites out"),
            ("VersionTLS12", suites(&["TLS_RSA_WITH_AES_128_CBC_SHA"]), vec![], "CBC"),
            ("", suites(&[]), vec![1], "[1]"),
        ] {
            let error = TlsRules::new(version, &suites, &curves).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_certificate_that_does_not_belong_to_its_key_changes_nothing() {
        let served = ServedCertificate::self_signed().unwrap();
        let before = served.latest.borrow().clone().unwrap();
        let [one, other] = [0, 1].map(|_| rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap());
        let certificate = one.cert.pem();

        for (certificate, key) in [
            (certificate.as_str(), other.signing_key.serialize_pem()),
            (certificate.as_str(), String::new()),
            ("", one.signing_key.serialize_pem()),
        ] {
            assert!(served.replace(certificate.as_bytes(), key.as_bytes()).is_err());
        }

        assert!(Arc::ptr_eq(&before, served.latest.borrow().as_ref().unwrap()));
        served.replace(certificate.as_bytes(), one.signing_key.serialize_pem().as_bytes()).unwrap();
        assert!(!Arc::ptr_eq(&before, served.latest.borrow().as_ref().unwrap()));
    }
}
