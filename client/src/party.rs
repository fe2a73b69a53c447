//! The site as a party of a secure sum: its certificate's key signs, its federation's CA judges the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sheaf_common::id::{ClientId, Role};
use sheaf_common::secagg::client::Party;
use sheaf_common::secagg::message::Signature;
use sheaf_transport::reload::Current;
use sheaf_transport::tls::Credentials;

/// Our certificate, key and CA.
pub struct SiteParty {
    name: ClientId,
    current: Current,
    /// What we last showed: what we say afterwards is signed with the same key, also when there is a newer one.
    shown: Mutex<Arc<Credentials>>,
}

impl SiteParty {
    /// With a site's credentials.
    pub fn new(current: Current) -> Self {
        let shown = current.borrow().clone();
        Self { name: ClientId(shown.identity.name.clone()), current, shown: Mutex::new(shown) }
    }

    fn shown(&self) -> MutexGuard<'_, Arc<Credentials>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Party for SiteParty {
    fn name(&self) -> &ClientId {
        &self.name
    }

    fn certificate(&self) -> Vec<u8> {
        let current = self.current.borrow().clone();
        let certificate = current.certificate();
        *self.shown() = current;
        certificate
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, String> {
        self.shown().sign(message).map(Signature::from).map_err(|e| e.to_string())
    }

    fn verify(&self, certificate: &[u8]) -> Result<(ClientId, [u8; 32]), String> {
        let judged = self.current.borrow().authority().verify(certificate, SystemTime::now());
        let (identity, key) = judged.map_err(|e| e.to_string())?;
        if identity.role != Role::Site {
            return Err(format!("it is {identity}, not a site"));
        }
        Ok((ClientId(identity.name), key))
    }

    fn verify_server(&self, certificate: &[u8]) -> Result<[u8; 32], String> {
        let judged = self.current.borrow().authority().verify_server(certificate, SystemTime::now());
        let (identity, key) = judged.map_err(|e| e.to_string())?;
        if identity.role == Role::Server { Ok(key) } else { Err(format!("it is {identity}, not a server")) }
    }
}
