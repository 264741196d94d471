//! Whom `rediss://` trusts.

use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The certificate authorities: the system's, or those of one file. Read once; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    made: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Trust {
    /// The authorities in `pem`, and no others; `None` if there is none in it. What cannot be read is passed over.
    pub(crate) fn these(pem: &[u8]) -> Option<Self> {
        let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
        let made = client(certificates)?;
        Some(Self {
            made: Arc::new(OnceLock::from(made)),
        })
    }

    /// The settings of each connection; `None` if the system has no authority that can be read.
    pub(crate) fn client(&self) -> Option<Arc<ClientConfig>> {
        if let Some(made) = self.made.get() {
            return Some(made.clone());
        }
        // One certificate that cannot be read is no reason to trust none.
        let found = rustls_native_certs::load_native_certs();
        let made = client(found.certs)?;
        Some(self.made.get_or_init(|| made).clone())
    }
}

fn client<'a>(
    certificates: impl IntoIterator<Item = CertificateDer<'a>>,
) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let (added, _ignored) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return None;
    }
    // Named, because a process may have two providers compiled in and none chosen.
    let provider = Arc::new(ring::default_provider());
    let client =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    // The versions are rustls's own choice for its own provider.
    let client = client.ok()?.with_root_certificates(roots);
    Some(Arc::new(client.with_no_client_auth()))
}
