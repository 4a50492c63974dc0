//! The certificates of a cluster, and a kubeconfig for each of its programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use serde_json::json;

/// The authority of a cluster and the directory of what it has signed.
pub(super) struct Pki {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes an authority, and a key for ServiceAccounts.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = params(&[], Subject { organization: None, name: "garpike-lab" })?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).context("cannot sign")?;
        let pki = Self { directory: directory.to_owned(), issuer: Issuer::new(params, key) };
        pki.write("ca.crt", &certificate.pem())?;
        let accounts = KeyPair::generate().context("cannot make a key")?;
        pki.write("accounts.key", &accounts.serialize_pem())?;
        pki.write("accounts.pub", &accounts.public_key_pem())?;
        Ok(pki)
    }

    /// Where a file of it is.
    pub(super) fn path(&self, file: &str) -> String {
        self.directory.join(file).display().to_string()
    }

    /// A certificate `NAME.crt` and its key `NAME.key` for a server with these names.
    pub(super) fn server(&self, name: &str, names: &[String]) -> Result<()> {
        self.sign(name, names, Subject { organization: None, name }, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// The same for somebody who asks servers.
    pub(super) fn client(&self, name: &str, subject: Subject<'_>) -> Result<()> {
        self.sign(name, &[], subject, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A kubeconfig file `NAME.kubeconfig` for somebody who is known by this subject.
    pub(super) fn kubeconfig(&self, name: &str, subject: Subject<'_>, server: &str) -> Result<()> {
        self.client(name, subject)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": self.path("ca.crt")}}],
            "users": [{"name": "lab", "user": {
                "client-certificate": self.path(&format!("{name}.crt")),
                "client-key": self.path(&format!("{name}.key")),
            }}],
        });
        self.write(&format!("{name}.kubeconfig"), &config.to_string())
    }

    fn sign(&self, name: &str, names: &[String], subject: Subject<'_>, usage: ExtendedKeyUsagePurpose) -> Result<()> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = params(names, subject)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).context("cannot sign")?;
        self.write(&format!("{name}.crt"), &certificate.pem())?;
        self.write(&format!("{name}.key"), &key.serialize_pem())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.directory.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Who holds a certificate: Kubernetes takes the organization for a group and the name for a user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) organization: Option<&'a str>,
    pub(super) name: &'a str,
}

fn params(names: &[String], subject: Subject<'_>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("a name is none")?;
    let mut whole = DistinguishedName::new();
    if let Some(organization) = subject.organization {
        whole.push(DnType::OrganizationName, organization);
    }
    whole.push(DnType::CommonName, subject.name);
    params.distinguished_name = whole;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    Ok(params)
}
