//! Where a command that goes on for long asks: one connection, made anew when it is lost.

use std::time::Duration;

use sheaf_common::id::RunId;
use sheaf_common::message::{Reply, Request};
use sheaf_common::status::{RunStatus, RunSummary, SiteStatus};
use tokio::time::sleep;

use super::session::{Session, SessionError};
use super::settings::Settings;

/// A server that does not answer so long was probably restarted: a new connection finds it sooner than the old one.
const PATIENCE: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Questions that change nothing, and can so be asked again. Once one was answered, a server that is away is waited
/// for.
pub(super) struct Source<'a> {
    settings: &'a Settings,
    session: Option<Session>,
    answered: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, session: None, answered: false }
    }

    /// A run as it is now. `notice` is told when the server is away, and when it is back.
    pub(super) async fn status(
        &mut self,
        run: &RunId,
        notice: &(dyn Fn(&str) + Sync),
    ) -> Result<Box<RunStatus>, SessionError> {
        let expect = |reply| {
            if let Reply::Run(status) = reply { Some(status) } else { None }
        };
        self.ask(&Request::Run(run.clone()), expect, notice).await
    }

    /// All runs.
    pub(super) async fn runs(
        &mut self,
        notice: &(dyn Fn(&str) + Sync),
    ) -> Result<Vec<RunSummary>, SessionError> {
        let expect = |reply| {
            if let Reply::Runs(runs) = reply { Some(runs) } else { None }
        };
        self.ask(&Request::Runs, expect, notice).await
    }

    /// All sites.
    pub(super) async fn sites(
        &mut self,
        notice: &(dyn Fn(&str) + Sync),
    ) -> Result<Vec<SiteStatus>, SessionError> {
        let expect = |reply| {
            if let Reply::Sites(sites) = reply { Some(sites) } else { None }
        };
        self.ask(&Request::Sites, expect, notice).await
    }

    /// Says good-bye.
    pub(super) async fn close(self) {
        if let Some(session) = self.session {
            session.close().await;
        }
    }

    async fn ask<T>(
        &mut self,
        question: &Request,
        expect: fn(Reply) -> Option<T>,
        notice: &(dyn Fn(&str) + Sync),
    ) -> Result<T, SessionError> {
        let mut backoff = BACKOFF_FIRST;
        let mut away = false;
        loop {
            match self.try_ask(question, expect).await {
                Ok(answer) => {
                    self.answered = true;
                    if away {
                        notice("the server is back");
                    }
                    return Ok(answer);
                }
                Err(error) if self.answered && error.is_passing() => {
                    self.session = None;
                    if !away {
                        notice(&format!("{error}; waiting for it to come back"));
                    }
                    away = true;
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_ask<T>(
        &mut self,
        question: &Request,
        expect: fn(Reply) -> Option<T>,
    ) -> Result<T, SessionError> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(Session::open(self.settings).await?.with_patience(PATIENCE)),
        };
        session.ask(question, expect).await
    }
}
