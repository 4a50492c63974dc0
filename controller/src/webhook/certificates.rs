//! The certificate in the Secret of the webhook: whether it is good for long enough, and a new one.
//!
//! The entries are those of MetalLB, so both can run by one Secret: `ca.crt`, `ca.key`, `tls.crt`, `tls.key`. A renewal
//! makes a new authority too; `ca.crt` then holds the one before it as second, because other replicas go on with the old
//! certificate for a moment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use garpike_kubernetes::ServedCertificate;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

/// The entries of the Secret.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entries(pub(super) BTreeMap<String, ByteString>);

impl Entries {
    /// One of them; `None` when it is not there, or empty.
    pub(super) fn entry(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(|entry| entry.0.as_slice()).filter(|entry| !entry.is_empty())
    }
}

/// What is to be done with the certificate of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is good for long enough.
    Keep,
    /// There must be another.
    Replace(Why),
}

/// Why a certificate must be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is none.
    Missing,
    /// No client would trust it.
    Broken(String),
    /// It ends soon.
    Expires,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is none"),
            Self::Broken(text) => write!(f, "it cannot be used: {text}"),
            Self::Expires => f.write_str("it expires soon"),
        }
    }
}

/// Decides about the certificate that serves as `name`.
pub(super) fn decide(held: &Entries, name: &str, now: SystemTime) -> Decision {
    let (Some(ca), Some(certificate), Some(key)) = (held.entry(CA), held.entry(CERTIFICATE), held.entry(KEY)) else {
        return Decision::Replace(Why::Missing);
    };
    if let Err(error) = ServedCertificate::default().replace(certificate, key) {
        return Decision::Replace(Why::Broken(error.to_string()));
    }
    match verify(ca, certificate, name, now) {
        Err(text) => Decision::Replace(Why::Broken(text)),
        Ok(()) if verify(ca, certificate, name, now + RENEW_BEFORE).is_err() => Decision::Replace(Why::Expires),
        Ok(()) => Decision::Keep,
    }
}

/// Whether a client that trusts `ca` takes the certificate at that time.
fn verify(ca: &[u8], certificate: &[u8], name: &str, at: SystemTime) -> Result<(), String> {
    let text = |error: &dyn fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca) {
        roots.add(root.map_err(|error| text(&error))?).map_err(|error| text(&error))?;
    }
    let chain: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|error| text(&error))?;
    let (leaf, rest) = chain.split_first().ok_or("it is empty")?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    let verifier = verifier.build().map_err(|error| text(&error))?;
    let name = ServerName::try_from(name.to_owned()).map_err(|error| text(&error))?;
    let since = at.duration_since(SystemTime::UNIX_EPOCH).map_err(|error| text(&error))?;
    verifier
        .verify_server_cert(leaf, rest, &name, &[], UnixTime::since_unix_epoch(since))
        .map(drop)
        .map_err(|error| text(&error))
}

/// New entries for a server that is called `name`. The authority of the entries `before` stays trusted.
pub(super) fn make(name: &str, before: &Entries, now: SystemTime) -> Result<Entries, rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::OrganizationName, "metallb");
    authority.distinguished_name.push(DnType::CommonName, "cert");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    authority.not_before = (now - SKEW).into();
    authority.not_after = (now + CA_LIFETIME).into();
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut server = CertificateParams::new(vec![name.to_owned()])?;
    server.distinguished_name.push(DnType::CommonName, name);
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    server.not_before = (now - SKEW).into();
    server.not_after = (now + LIFETIME).into();
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;

    let mut trusted = authority.pem();
    trusted.push_str(&authority_before(before).unwrap_or_default());
    let entries = [
        (CA, trusted),
        (CA_KEY, authority.key().serialize_pem()),
        (CERTIFICATE, certificate.pem()),
        (KEY, key.serialize_pem()),
    ];
    Ok(Entries(entries.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes()))).into()))
}

/// The newest authority of the entries, as PEM.
fn authority_before(entries: &Entries) -> Option<String> {
    let text = std::str::from_utf8(entries.entry(CA)?).ok()?;
    CertificateDer::pem_slice_iter(text.as_bytes()).next()?.ok()?;
    let end = text.find(PEM_END)? + PEM_END.len();
    Some(format!("{}\n", text.get(..end)?.trim_start()))
}

pub(super) const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";
const PEM_END: &str = "-----END CERTIFICATE-----";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As MetalLB's.
const LIFETIME: Duration = DAY.saturating_mul(365);
const CA_LIFETIME: Duration = DAY.saturating_mul(3650);
const RENEW_BEFORE: Duration = DAY.saturating_mul(90);
/// Chosen: how far the clocks of nodes may differ.
const SKEW: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_certificate_is_kept_until_90_days_before_its_end() {
        let start = at(0);
        let made = make(NAME, &Entries::default(), start).unwrap();
        let decision = |day: u32| decide(&made, NAME, start + DAY * day);

        assert_eq!([decision(0), decision(274)], [Decision::Keep, Decision::Keep]);
        assert_eq!(decision(276), Decision::Replace(Why::Expires));
        assert!(matches!(decision(366), Decision::Replace(Why::Broken(text)) if text.contains("expired")));
    }

    #[test]
    fn what_no_client_would_trust_is_replaced() {
        let made = make(NAME, &Entries::default(), at(0)).unwrap();
        let other = make(NAME, &Entries::default(), at(0)).unwrap();
        let with = |name: &str, value: &[u8]| {
            let mut entries = made.clone();
            entries.0.insert(name.to_owned(), ByteString(value.to_vec()));
            decide(&entries, NAME, at(0))
        };
        let broken = |decision: &Decision| matches!(decision, Decision::Replace(Why::Broken(_)));

        assert_eq!(decide(&Entries::default(), NAME, at(0)), Decision::Replace(Why::Missing));
        assert_eq!(with(KEY, b""), Decision::Replace(Why::Missing));
        assert!(broken(&with(KEY, other.entry(KEY).unwrap())), "the key of another certificate");
        assert!(broken(&with(CA, other.entry(CA).unwrap())), "another authority");
        assert!(broken(&with(CERTIFICATE, b"not PEM")));
        assert!(broken(&with(CA, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")));
        assert!(broken(&decide(&made, "another.metallb-system.svc", at(0))), "another name");
    }

    #[test]
    fn after_a_renewal_the_old_certificate_is_trusted_and_the_one_before_it_is_not() {
        let first = make(NAME, &Entries::default(), at(0)).unwrap();
        let second = make(NAME, &first, at(280)).unwrap();
        let third = make(NAME, &second, at(290)).unwrap();
        let trusts = |new: &Entries, old: &Entries| {
            verify(new.entry(CA).unwrap(), old.entry(CERTIFICATE).unwrap(), NAME, at(291)).is_ok()
        };

        assert!(trusts(&second, &first) && trusts(&third, &second) && trusts(&third, &third));
        assert!(!trusts(&third, &first));
        assert_eq!(decide(&third, NAME, at(291)), Decision::Keep);
    }

    #[test]
    fn a_broken_authority_is_not_carried_over() {
        let before = Entries([(CA.to_owned(), ByteString(b"rubbish".to_vec()))].into());
        let made = make(NAME, &before, at(0)).unwrap();

        assert_eq!(decide(&made, NAME, at(0)), Decision::Keep);
    }

    fn at(day: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * (20_000 + day)
    }

    const NAME: &str = "metallb-webhook-service.metallb-system.svc";
}
