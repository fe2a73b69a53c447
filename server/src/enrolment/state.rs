//! The server's loop handing out certificates: to those who show a token, and to sites whose own ends.

use std::collections::BTreeMap;

use rcgen::PublicKeyData;
use sheaf_common::enrolment::{Chain, EnrollReply, Pin, Waiting, secret};
use sheaf_common::id::{ClientId, Name};
use sheaf_common::message::{Reply, ServerMessage};
use sheaf_common::status::Standing;
use sheaf_transport::tls::Credentials;
use time::{Duration, OffsetDateTime};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::desk::Shown;
use super::{Invitation, Refusal};
use crate::pki::{Authority, SigningRequest, Wanted};
use crate::server::now;
use crate::state::State;
use crate::store::Write;

/// Longest life of an invitation.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

/// What the loop needs to hand out certificates.
#[derive(Debug, Default)]
pub(crate) struct Registrar {
    /// Whether strangers are let in to show a token.
    pub(crate) open: bool,
    /// What signs at once; without it an operator must.
    pub(crate) authority: Option<Authority>,
    /// How long certificates are valid.
    pub(crate) lifetime: Option<Duration>,
    pub(crate) invitations: BTreeMap<ClientId, Invitation>,
    /// Requests of connected sites for a new certificate that wait for an operator.
    pub(crate) renewals: BTreeMap<ClientId, Waiting>,
    /// Replies that must wait until the batch is durable.
    pub(crate) replies: Vec<(oneshot::Sender<EnrollReply>, EnrollReply)>,
}

impl State {
    /// Makes a token's secret. The operator's authorities must be the server's: the token pins them.
    pub(crate) fn invite(
        &mut self,
        site: ClientId,
        valid_ms: u64,
        pin: Pin,
        by: &Name,
        credentials: &Credentials,
    ) -> Reply {
        let objection = if !self.registrar.open {
            Some(
                "the server invites nobody: add the table [enrolment] to server.toml and restart it"
                    .to_owned(),
            )
        } else if pin != Pin::of(credentials.authorities()) {
            Some("your file of authorities (ca.crt) is not the server's: take the same, so that the token can say which are right".to_owned())
        } else if valid_ms == 0 || std::time::Duration::from_millis(valid_ms) > LONGEST {
            Some("an invitation is valid for at most 30 days: give --expires a time such as 24h".to_owned())
        } else {
            self.welcomes(&site).err().filter(|_| self.standing(&site) == Standing::Revoked)
        };
        if let Some(why) = objection {
            return Reply::Refused(why);
        }
        let secret = secret(&mut rand::rng());
        let expires = now().after(std::time::Duration::from_millis(valid_ms));
        info!(%site, %by, "invited");
        self.keep_invitation(&site, Invitation::new(&secret, expires, by.clone()));
        Reply::Invited { site, secret, expires, at_once: self.registrar.authority.is_some() }
    }

    fn keep_invitation(&mut self, site: &ClientId, invitation: Invitation) {
        self.writes.push(Write::Invitation(site.clone(), Box::new(invitation.clone())));
        self.registrar.invitations.insert(site.clone(), invitation);
    }

    pub(crate) fn on_enroll(&mut self, shown: Shown, reply: oneshot::Sender<EnrollReply>) {
        let (site, address) = (shown.site.clone(), shown.address);
        let answer = match self.enroll(shown) {
            Ok(answer) => answer,
            Err(why) => {
                warn!(%address, %site, %why, "enrolment refused");
                EnrollReply::Refused(why)
            }
        };
        self.registrar.replies.push((reply, answer));
    }

    fn enroll(&mut self, shown: Shown) -> Result<EnrollReply, String> {
        let Shown { address, site, secret, request } = shown;
        let mut invitation =
            self.registrar.invitations.get(&site).cloned().ok_or_else(|| Refusal::Unknown.to_string())?;
        let key = SigningRequest::parse(&request).map(|request| request.public_key());
        let key = key.map_err(|e| e.to_string())?;
        let before = invitation.clone();
        let used = invitation
            .show(&secret, &request, &key, &address.to_string(), now())
            .map_err(|refusal| refusal.to_string())?;
        if let Some(chain) = &used.chain {
            return Ok(EnrollReply::Issued(chain.clone()));
        }
        self.welcomes(&site)?;
        let reply = match self.sign(&site, &request)? {
            Some(chain) => {
                info!(%site, %address, "enrolled");
                invitation.issue(chain.clone());
                EnrollReply::Issued(chain)
            }
            None => EnrollReply::Pending,
        };
        if invitation != before {
            if reply == EnrollReply::Pending {
                info!(%site, %address, "asks for a certificate: `sheaf site approve {site}` signs it");
            }
            self.keep_invitation(&site, invitation);
        }
        Ok(reply)
    }

    /// Signs a site's request, if the server has what it takes.
    fn sign(&self, site: &ClientId, request: &[u8]) -> Result<Option<Chain>, String> {
        let Some(authority) = &self.registrar.authority else { return Ok(None) };
        let request = SigningRequest::parse(request).map_err(|e| e.to_string())?;
        let now = OffsetDateTime::now_utc();
        // The authority's own last year brings shorter ones.
        let lifetime = self.registrar.lifetime.map(|lifetime| lifetime.min(authority.left(now)));
        let chain = authority.issue(request.key(), &Wanted::site(&site.0, lifetime), now);
        chain.map(Some).map_err(|error| {
            warn!(%site, %error, "no certificate can be issued");
            "the server cannot issue certificates at the moment; its log says why".into()
        })
    }

    /// A site with a certificate asks for the next one.
    pub(crate) fn renew(&mut self, site: &ClientId, request: Vec<u8>) {
        let answer = match self.sign(site, &request) {
            Ok(Some(chain)) => {
                info!(%site, "renewed its certificate");
                EnrollReply::Issued(chain)
            }
            Ok(None) => match SigningRequest::parse(&request) {
                Ok(_) => {
                    info!(%site, "asks for a new certificate: `sheaf site approve {site}` signs it");
                    let address = self.registry.sites().get(site).map(|entry| entry.address.clone());
                    let (address, since) = (address.unwrap_or_default(), now());
                    let waiting = Waiting { site: site.clone(), request, address, since, renewal: true };
                    self.registrar.renewals.insert(site.clone(), waiting);
                    EnrollReply::Pending
                }
                Err(error) => EnrollReply::Refused(error.to_string()),
            },
            Err(why) => EnrollReply::Refused(why),
        };
        self.registry.send(site, ServerMessage::Certificate(answer));
    }

    /// Everything that waits for an operator.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        let invited = self.registrar.invitations.iter().filter_map(|(site, invitation)| {
            let used = invitation.waiting()?;
            Some(Waiting {
                site: site.clone(),
                request: used.request.clone(),
                address: used.address.clone(),
                since: used.at,
                renewal: false,
            })
        });
        invited.chain(self.registrar.renewals.values().cloned()).collect()
    }

    /// An operator signed a request. `vouched` is whose the chain is, as the server's own authorities judge it.
    pub(crate) fn approve(
        &mut self,
        site: ClientId,
        chain: Chain,
        vouched: Result<(ClientId, [u8; 32]), String>,
        by: &Name,
    ) -> Reply {
        let key = match vouched {
            Ok((named, key)) if named == site => key,
            Ok((named, _)) => return Reply::Refused(format!("the certificate is of {named}, not of {site}")),
            Err(why) => return Reply::Refused(why),
        };
        let is_asked = |waiting: &&Waiting| {
            SigningRequest::parse(&waiting.request).is_ok_and(|request| request.key().der_bytes() == key)
        };
        let waiting = self.waiting();
        let Some(found) = waiting.iter().filter(|waiting| waiting.site == site).find(is_asked) else {
            return Reply::Refused(format!(
                "no request of {site} with this key waits any more: see `sheaf site requests`"
            ));
        };
        info!(%site, %by, "approved");
        if found.renewal {
            self.registrar.renewals.remove(&site);
            self.registry.send(&site, ServerMessage::Certificate(EnrollReply::Issued(chain)));
        } else if let Some(mut invitation) = self.registrar.invitations.get(&site).cloned() {
            invitation.issue(chain);
            self.keep_invitation(&site, invitation);
        }
        Reply::Approved(site)
    }
}
