//! Whom TLS trusts: the system's root certificates and those of `egress.ca_file`.
//!
//! TLS 1.2 and later with the `ring` provider, named here and not taken from the
//! process, so that nothing depends on what was installed first. There is no setting
//! that skips verification.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::HttpsError;

/// Why a file of root certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// It cannot be read, or its PEM is damaged.
    #[error("the CA file {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// It holds no certificate.
    #[error(
        "the CA file {path} holds no certificate: expected PEM blocks that begin with \
         `-----BEGIN CERTIFICATE-----`"
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// One of its certificates cannot be used.
    #[error("the certificate number {number} of the CA file {path} cannot be used: {source}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Its place in the file, from 1.
        number: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
}

/// Reads the certificates of a PEM file, for `HttpsSettings::extra_roots`.
///
/// What else the file holds, such as a private key, is passed over. A server's own
/// self-signed certificate can be trusted this way unless it says that it is an
/// authority (`CA:TRUE`); then verification refuses it as a server's.
///
/// # Errors
/// [`CaFileError`], with the path, and the number of the certificate where one is at
/// fault. A file without any certificate is an error.
pub fn read_ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaFileError> {
    let read = |source| CaFileError::Read {
        path: path.to_owned(),
        source,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<_, _>>()
        .map_err(read)?;
    if certificates.is_empty() {
        return Err(CaFileError::Empty {
            path: path.to_owned(),
        });
    }
    add_all(&mut RootCertStore::empty(), &certificates).map_err(|(number, source)| {
        CaFileError::Certificate {
            path: path.to_owned(),
            number,
            source,
        }
    })?;
    Ok(certificates)
}

/// How many root certificates of the system can be used.
pub fn system_root_count() -> usize {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs).0
}

/// The TLS configuration of the client: system roots plus `extra_roots`.
pub(super) fn client_config(
    extra_roots: &[CertificateDer<'static>],
) -> Result<ClientConfig, HttpsError> {
    let mut roots = system_roots();
    add_all(&mut roots, extra_roots)
        .map_err(|(number, source)| HttpsError::ExtraRoot { number, source })?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(HttpsError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // The client speaks whichever the server picks.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The system's roots. Having none is not fatal, as an installation may trust its own
/// authority alone; each request over HTTPS then says that the issuer is unknown.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        tracing::warn!(
            errors = errors.join("; "),
            "the system has no root certificates; HTTPS trusts those of egress.ca_file alone"
        );
    }
    roots
}

/// Adds `certificates`; the error names the place, from 1, of one that cannot be used.
fn add_all(
    roots: &mut RootCertStore,
    certificates: &[CertificateDer<'static>],
) -> Result<(), (usize, rustls::Error)> {
    for (index, certificate) in certificates.iter().enumerate() {
        roots
            .add(certificate.clone())
            .map_err(|error| (index + 1, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file
    }

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["hooks.example".to_owned()])
            .unwrap()
            .cert
            .pem()
    }

    #[test]
    fn a_ca_file_gives_all_its_certificates() {
        let two = format!("# ours\n{}\n{}", certificate(), certificate());
        assert_eq!(read_ca_file(file(&two).path()).unwrap().len(), 2);
    }

    #[test]
    fn a_ca_file_that_cannot_be_used_says_why() {
        let missing = read_ca_file(Path::new("/no/such/file.pem")).unwrap_err();
        assert!(matches!(missing, CaFileError::Read { .. }));
        assert!(missing.to_string().contains("/no/such/file.pem"));

        let empty = read_ca_file(file("nothing here").path()).unwrap_err();
        assert!(matches!(empty, CaFileError::Empty { .. }));

        let cut = certificate().replace("-----END CERTIFICATE-----", "");
        let cut = read_ca_file(file(&cut).path()).unwrap_err();
        assert!(matches!(cut, CaFileError::Read { .. }), "{cut:?}");

        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let second = format!("{}{nonsense}", certificate());
        let second = read_ca_file(file(&second).path()).unwrap_err();
        assert!(matches!(second, CaFileError::Certificate { number: 2, .. }));
    }

    #[test]
    fn an_extra_root_that_is_none_is_an_error() {
        let error = client_config(&[CertificateDer::from(vec![0; 4])]).unwrap_err();
        assert!(matches!(error, HttpsError::ExtraRoot { number: 1, .. }));
    }
}
