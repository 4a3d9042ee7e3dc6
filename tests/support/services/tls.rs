//! Certificates for servers on loopback.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

/// An authority and a certificate of its making for 127.0.0.1 and `localhost`, as files.
pub struct Certificates(TempDir);

impl Certificates {
    pub fn make() -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        let name = (DnType::CommonName, "Carillon test authority");
        authority.distinguished_name.push(name.0, name.1);
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_key = KeyPair::generate().unwrap();
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);

        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let server = CertificateParams::new(names).unwrap();
        let server_key = KeyPair::generate().unwrap();
        let server_pem = server.signed_by(&server_key, &issuer).unwrap().pem();

        let files = Self(tempfile::tempdir().unwrap());
        for (file, text) in [
            ("ca.pem", authority_pem),
            ("cert.pem", server_pem),
            ("key.pem", server_key.serialize_pem()),
        ] {
            fs::write(files.0.path().join(file), text).unwrap();
        }
        files
    }

    /// Where `ca.pem`, `cert.pem` and `key.pem` are.
    pub fn folder(&self) -> String {
        self.0.path().display().to_string()
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }
}
