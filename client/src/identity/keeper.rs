//! Asks for the next certificate in time, and warns while there is none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sheaf_common::enrolment::EnrollReply;
use sheaf_transport::reload::Current;
use sheaf_transport::tls::CredentialPaths;
use tokio::time::Instant;
use tracing::{info, warn};

use super::renewal::{self, WARN_SECONDS};

/// The clock is looked at so often, however far the end is.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// A warning is not repeated within this time.
const DAY: Duration = Duration::from_secs(86_400);

/// Keeps the certificate from ending.
#[derive(Debug)]
pub(crate) struct Keeper {
    paths: CredentialPaths,
    current: Current,
    /// The end of the certificate in whose place another was asked for, and when to ask again.
    again: Option<(i64, Instant)>,
    warned: Option<Instant>,
}

impl Keeper {
    /// Of the certificate in these files.
    pub(crate) fn new(paths: CredentialPaths, current: Current) -> Self {
        Self { paths, current, again: None, warned: None }
    }

    /// Waits until it is time to ask, and returns the request. It never is while there is nobody to ask.
    pub(crate) async fn request(&mut self, connected: bool) -> Vec<u8> {
        loop {
            let credentials = self.current.borrow_and_update().clone();
            let end = credentials.not_after;
            self.warn(end.saturating_sub(seconds()));
            let wait = match self.again {
                Some((of, again)) if of == end => again.saturating_duration_since(Instant::now()),
                Some(_) | None => renewal::due(&credentials, seconds()),
            };
            if wait.is_zero() && connected {
                self.again = Some((end, Instant::now() + renewal::again(&credentials, seconds())));
                match renewal::next_request(&self.paths, &credentials) {
                    Ok(request) => return request,
                    Err(error) => warn!(%error, "no new certificate can be asked for"),
                }
                continue;
            }
            let wait = if wait.is_zero() { LOOK_EVERY } else { wait.min(LOOK_EVERY) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // There may be another certificate, with a life of its own.
                Ok(()) = self.current.changed() => {}
            }
        }
    }

    /// The server's answer.
    pub(crate) fn answered(&mut self, reply: EnrollReply) {
        let credentials = self.current.borrow().clone();
        match reply {
            EnrollReply::Issued(chain) => {
                match renewal::install(&self.paths, &credentials, &chain, SystemTime::now()) {
                    Ok(()) => {
                        info!("renewed this site's certificate");
                        // The new one is read from its file in a moment.
                        self.again = Some((credentials.not_after, Instant::now() + LOOK_EVERY));
                    }
                    Err(error) => warn!(%error, "the new certificate cannot be used"),
                }
            }
            EnrollReply::Pending => {
                info!("asked for a new certificate; an operator must approve it (`sheaf site approve`)");
            }
            EnrollReply::Refused(why) => warn!(%why, "the server gives no new certificate"),
            EnrollReply::Welcome(_) => warn!("the server said something out of turn"),
        }
    }

    fn warn(&mut self, left: i64) {
        if left > WARN_SECONDS || self.warned.is_some_and(|at| at.elapsed() < DAY) {
            return;
        }
        self.warned = Some(Instant::now());
        let days = left.div_euclid(86_400);
        warn!(
            days,
            "this site's certificate ends soon: unless it is renewed, the site will be let in no more"
        );
    }
}

fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
