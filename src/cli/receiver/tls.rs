//! The certificate and key that a receiver serves HTTPS with.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};
use tokio_rustls::TlsAcceptor;

/// How long a certificate made here is valid; some clients refuse more than 398 days.
const VALID_DAYS: i64 = 365;

/// A certificate chain with its private key.
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for TlsIdentity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsIdentity({} certificates)", self.chain.len())
    }
}

impl TlsIdentity {
    /// Makes a certificate for `names` (host names and IP addresses), signed by an
    /// authority that is made for it and forgotten. Returns that authority's certificate
    /// too: the one to trust.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn self_signed<N: Into<String>>(
        names: impl IntoIterator<Item = N>,
    ) -> io::Result<(Self, CertificateDer<'static>)> {
        let names = names.into_iter().map(Into::into).collect();
        Self::make(names).map_err(io::Error::other)
    }

    fn make(names: Vec<String>) -> Result<(Self, CertificateDer<'static>), rcgen::Error> {
        let mut authority = params(Vec::new(), "Carillon test authority")?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_key = KeyPair::generate()?;
        let trusted = authority.self_signed(&authority_key)?.der().clone();
        let issuer = Issuer::new(authority, authority_key);

        let mut leaf = params(names, "Carillon test receiver")?;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf_key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&leaf_key, &issuer)?.der().clone();
        let identity = Self {
            chain: vec![certificate],
            key: PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into()),
        };
        Ok((identity, trusted))
    }

    /// Reads a certificate chain (leaf first) and its key from PEM files.
    ///
    /// # Errors
    /// When a file cannot be read, or has no certificate or key.
    pub fn from_pem_files(certificates: &Path, key: &Path) -> io::Result<Self> {
        let wrong = |path: &Path, problem: &dyn fmt::Display| {
            io::Error::other(format!("{}: {problem}", path.display()))
        };
        let chain = CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(certificates, &error))?;
        if chain.is_empty() {
            return Err(wrong(certificates, &"no certificate in it"));
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
        Ok(Self { chain, key })
    }

    pub(super) fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn params(names: Vec<String>, title: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, title);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(VALID_DAYS);
    Ok(params)
}
