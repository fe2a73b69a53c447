//! The site as a party of a secure sum: its certificate's key signs, its federation's CA judges the others.

use std::sync::Arc;
use std::time::SystemTime;

use sheaf_common::id::{ClientId, Role};
use sheaf_common::secagg::client::Party;
use sheaf_common::secagg::message::Signature;
use sheaf_transport::authority::Authority;
use sheaf_transport::tls::{CredentialError, Credentials};

/// Our certificate, key and CA.
pub struct SiteParty {
    name: ClientId,
    credentials: Arc<Credentials>,
    authority: Authority,
}

impl SiteParty {
    /// With a site's credentials.
    pub fn new(credentials: Arc<Credentials>) -> Result<Self, CredentialError> {
        let name = ClientId(credentials.identity.name.clone());
        Ok(Self { name, authority: credentials.authority()?, credentials })
    }
}

impl Party for SiteParty {
    fn name(&self) -> &ClientId {
        &self.name
    }

    fn certificate(&self) -> &[u8] {
        self.credentials.certificate()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, String> {
        self.credentials.sign(message).map(Signature::from).map_err(|e| e.to_string())
    }

    fn verify(&self, certificate: &[u8]) -> Result<(ClientId, [u8; 32]), String> {
        let (identity, key) =
            self.authority.verify(certificate, SystemTime::now()).map_err(|e| e.to_string())?;
        if identity.role != Role::Site {
            return Err(format!("it is {identity}, not a site"));
        }
        Ok((ClientId(identity.name), key))
    }

    fn verify_server(&self, certificate: &[u8]) -> Result<[u8; 32], String> {
        let (identity, key) =
            self.authority.verify_server(certificate, SystemTime::now()).map_err(|e| e.to_string())?;
        if identity.role == Role::Server { Ok(key) } else { Err(format!("it is {identity}, not a server")) }
    }
}
