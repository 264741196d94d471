//! Whom `rediss://` trusts, and who we say that we are.

use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The certificate authorities, the system's or those of one file, and a certificate of our own, perhaps. Read once; clones share
/// what is made of them.
#[derive(Clone, Default)]
pub(crate) struct Trust {
    /// The system's, if there are none.
    authorities: Option<Arc<RootCertStore>>,
    identity: Option<Arc<Identity>>,
    made: Arc<OnceLock<Arc<ClientConfig>>>,
}

struct Identity {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Trust {
    /// The same with the authorities in `pem`, and no others; `None` if there is none in it. What cannot be read is passed over.
    pub(crate) fn with_authorities(&self, pem: &[u8]) -> Option<Self> {
        let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
        Some(Self {
            authorities: Some(Arc::new(roots(certificates)?)),
            identity: self.identity.clone(),
            made: Arc::default(),
        })
    }

    /// The same with a certificate of our own and its key; `None` if they cannot be read or do not belong together.
    pub(crate) fn with_identity(&self, certificate: &[u8], key: &[u8]) -> Option<Self> {
        let certificates = CertificateDer::pem_slice_iter(certificate);
        let identity = Identity {
            certificates: certificates.collect::<Result<_, _>>().ok()?,
            key: PrivateKeyDer::from_pem_slice(key).ok()?,
        };
        let it = Self {
            authorities: self.authorities.clone(),
            identity: Some(Arc::new(identity)),
            made: Arc::default(),
        };
        // Whether the key is the certificate's is found out when it is used.
        it.client_of(&RootCertStore::empty())?;
        Some(it)
    }

    /// The settings of each connection; `None` if the system has no authority that can be read.
    pub(crate) fn client(&self) -> Option<Arc<ClientConfig>> {
        if let Some(made) = self.made.get() {
            return Some(made.clone());
        }
        let made = match &self.authorities {
            Some(authorities) => self.client_of(authorities)?,
            // One certificate that cannot be read is no reason to trust none.
            None => self.client_of(&roots(rustls_native_certs::load_native_certs().certs)?)?,
        };
        Some(self.made.get_or_init(|| Arc::new(made)).clone())
    }

    fn client_of(&self, roots: &RootCertStore) -> Option<ClientConfig> {
        // Named, because a process may have two providers compiled in and none chosen.
        let provider = Arc::new(ring::default_provider());
        let client =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        // The versions are rustls's own choice for its own provider.
        let client = client.ok()?.with_root_certificates(roots.clone());
        match &self.identity {
            None => Some(client.with_no_client_auth()),
            Some(identity) => client
                .with_client_auth_cert(identity.certificates.clone(), identity.key.clone_key())
                .ok(),
        }
    }
}

fn roots<'a>(certificates: impl IntoIterator<Item = CertificateDer<'a>>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (added, _ignored) = roots.add_parsable_certificates(certificates);
    (added > 0).then_some(roots)
}
