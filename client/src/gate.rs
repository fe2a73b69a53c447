//! What the site's people, its clock and its certificates say of a run, for the session to ask.

use std::time::SystemTime;

use sheaf_common::id::{Name, Role, RunId};
use sheaf_common::message::Job;
use sheaf_transport::authority::Authority;
use sheaf_transport::reload::Current;
use tracing::warn;

use crate::approval::{Approvals, Question};
use crate::config::Policy;
use crate::session::Gate;

/// The gate of a real site.
#[derive(Debug)]
pub struct SiteGate {
    /// The federation's CA is among them, which says who is an operator.
    pub credentials: Current,
    /// The hours, and whether a person is asked.
    pub policy: Policy,
    /// The answers.
    pub approvals: Approvals,
}

/// The operator who asked for a job, if the federation's CA knows one and it is the one who signed.
pub fn author(authority: &Authority, job: &Job) -> Result<Name, String> {
    let author = job.author.as_ref().ok_or("the server shows no operator's word for it")?;
    let verified = authority.verify(&author.certificate, SystemTime::now());
    let (identity, key) = verified.map_err(|e| format!("of the operator's certificate: {e}"))?;
    if identity.role != Role::Operator {
        return Err(format!("it is signed by {identity}, not by an operator"));
    }
    if !author.signed(&key, &job.spec, job.model) {
        return Err(format!("what operator {} signed is not this run", identity.name));
    }
    Ok(identity.name)
}

impl Gate for SiteGate {
    fn author(&self, job: &Job) -> Result<Name, String> {
        author(self.credentials.borrow().authority(), job)
    }

    fn hold(&self, run: &RunId, job: &Job, author: &Name) -> Option<String> {
        if let Some(hours) = self.policy.hours.filter(|hours| !hours.are_now()) {
            return Some(format!("this site begins nothing but at {hours}, by its own clock"));
        }
        if !self.policy.ask {
            return None;
        }
        let question = || {
            warn!(%run, %author, "a run waits for approval: `sheaf-client approve {run}`");
            let site = &self.credentials.borrow().identity.name;
            Question::new(run, job, author, site, &self.policy)
        };
        match self.approvals.ask(run, job, question) {
            Ok(true) => None,
            Ok(false) => Some("it waits for a person at the site to approve of it".into()),
            Err(error) => {
                warn!(%run, %error, "nobody can be asked");
                Some("nobody at the site can be asked; its log says why".into())
            }
        }
    }
}
