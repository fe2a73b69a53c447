//! `sheaf site …`

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use sheaf_common::enrolment::{Pin, Token, Waiting};
use sheaf_common::id::ClientId;
use sheaf_common::message::{Reply, Request};
use sheaf_common::status::{SiteConnection, SiteStatus, Standing};
use sheaf_common::time::Timestamp;

use super::args::SiteCommand;
use super::output::Output;
use super::session::Session;
use super::settings::Settings;
use super::table::{Align, table};
use super::{CliError, json, units};
use crate::pki::{Authority, PkiError, SigningRequest, Wanted};

/// A connected site of which nothing came for so many seconds is shown as silent: three signs of life are missing.
const SILENT: u32 = 45;

pub(super) async fn execute(command: &SiteCommand, settings: &Settings, out: Output) -> Result<(), CliError> {
    match command {
        SiteCommand::List => {
            let mut session = Session::open(settings).await?;
            let expect = |reply| {
                if let Reply::Sites(sites) = reply { Some(sites) } else { None }
            };
            let sites = session.ask(&Request::Sites, expect).await?;
            session.close().await;
            out.print(list(&sites, units::now()), &sites.iter().map(json::site).collect())?;
        }
        SiteCommand::Revoke { site, keep_updates, .. } => {
            stand(site, Standing::Revoked, *keep_updates, settings, out).await?;
        }
        SiteCommand::Suspend { site, keep_updates, .. } => {
            stand(site, Standing::Suspended, *keep_updates, settings, out).await?;
        }
        SiteCommand::Resume { site } => stand(site, Standing::Admitted, false, settings, out).await?,
        SiteCommand::Invite { site, expires } => invite(site, *expires, settings, out).await?,
        SiteCommand::Requests => {
            let mut session = Session::open(settings).await?;
            let waiting = session.ask(&Request::Waiting, waiting).await?;
            session.close().await;
            out.print(requests(&waiting, units::now()), &waiting.iter().map(json::waiting).collect())?;
        }
        SiteCommand::Approve { site, pki, days } => approve(site, pki, *days, settings, out).await?,
    }
    Ok(())
}

/// A certificate was not signed.
#[derive(Debug, thiserror::Error)]
pub enum ApproveError {
    /// Nobody asks.
    #[error("{0} waits for no certificate: see `sheaf site requests`")]
    Nobody(ClientId),
}

async fn invite(
    site: &ClientId,
    expires: Duration,
    settings: &Settings,
    out: Output,
) -> Result<(), CliError> {
    let mut session = Session::open(settings).await?;
    let pin = Pin::of(settings.credentials.authorities());
    let valid_ms = u64::try_from(expires.as_millis()).unwrap_or(u64::MAX);
    let expect = |reply| {
        if let Reply::Invited { site, secret, expires, at_once } = reply {
            Some((site, secret, expires, at_once))
        } else {
            None
        }
    };
    let request = Request::Invite { site: site.clone(), valid_ms, pin };
    let (site, secret, until, at_once) = session.ask(&request, expect).await?;
    session.close().await;
    let federation = settings.credentials.identity.federation.clone();
    let then = if at_once {
        String::new()
    } else {
        format!("\nand here, when it has asked:\n  sheaf site approve {site} --pki DIR")
    };
    let token = Token { federation, site, secret, pin }.to_string();
    let text = format!(
        "{token}\n\nthis works once, for {}. At the site:\n  sheaf-client enroll --server {} --token TOKEN{then}",
        units::coarse(expires),
        settings.server,
    );
    let json = json!({ "token": token, "expires": units::rfc3339(until), "signed_at_once": at_once });
    Ok(out.print(text, &json)?)
}

fn waiting(reply: Reply) -> Option<Vec<Waiting>> {
    if let Reply::Waiting(waiting) = reply { Some(waiting) } else { None }
}

async fn approve(
    site: &ClientId,
    pki: &Path,
    days: Option<u32>,
    settings: &Settings,
    out: Output,
) -> Result<(), CliError> {
    let authority = Authority::open(pki)?;
    let mut session = Session::open(settings).await?;
    let waiting = session.ask(&Request::Waiting, waiting).await?;
    let found = waiting.into_iter().find(|waiting| waiting.site == *site);
    let found = found.ok_or_else(|| ApproveError::Nobody(site.clone()))?;
    let request = SigningRequest::parse(&found.request).map_err(PkiError::from)?;
    let lifetime = days.map(|days| time::Duration::days(i64::from(days)));
    let wanted = Wanted::site(&site.0, lifetime);
    let chain = authority.issue(request.key(), &wanted, time::OffsetDateTime::now_utc())?;
    let expect = |reply| {
        if let Reply::Approved(site) = reply { Some(site) } else { None }
    };
    let site = session.ask(&Request::Approve { site: site.clone(), chain }, expect).await?;
    session.close().await;
    let text = format!("{site} gets its certificate for key {}", json::key(&found));
    Ok(out.print(text, &json!({ "site": site, "key": json::key(&found) }))?)
}

/// Who waits, as a table.
fn requests(waiting: &[Waiting], now: Timestamp) -> String {
    if waiting.is_empty() {
        return "no site waits for a certificate".into();
    }
    let columns = [
        ("SITE", Align::Left),
        ("FOR", Align::Left),
        ("SINCE", Align::Right),
        ("ADDRESS", Align::Left),
        ("KEY (SHA-256)", Align::Left),
    ];
    let rows = waiting.iter().map(|waiting| {
        [
            waiting.site.to_string(),
            if waiting.renewal { "renewal" } else { "enrolment" }.to_owned(),
            units::age(waiting.since, now),
            waiting.address.clone(),
            json::key(waiting),
        ]
    });
    table(&columns, rows)
}

async fn stand(
    site: &ClientId,
    standing: Standing,
    keep_updates: bool,
    settings: &Settings,
    out: Output,
) -> Result<(), CliError> {
    let mut session = Session::open(settings).await?;
    let expect = |reply| {
        if let Reply::Stands { site, standing, counted } = reply {
            Some((site, standing, counted))
        } else {
            None
        }
    };
    let request = Request::Stand { site: site.clone(), standing, keep_updates };
    let (site, standing, counted) = session.ask(&request, expect).await?;
    session.close().await;
    let mut text = match standing {
        Standing::Admitted => format!("{site} may take part again"),
        Standing::Suspended => format!("{site} is suspended: `sheaf site resume {site}` lets it come back"),
        Standing::Revoked => format!("{site} is revoked for good"),
    };
    for run in &counted {
        text.push_str(&format!(
            "\nits update in the round of {run} in progress counts: masks were asked for, and the sum cannot be formed again without it"
        ));
    }
    Ok(out.print(text, &json!({ "site": site, "standing": standing, "counted_in": counted }))?)
}

const DAY: u64 = 86_400;

/// Whole days until a site's certificate ends, if that is so soon that somebody should see to it.
pub(super) fn days_left(site: &SiteStatus, now: Timestamp) -> Option<u64> {
    let days = site.expires.since(now).as_secs() / DAY;
    (days <= 30).then_some(days)
}

/// The sites as a table.
pub(super) fn list(sites: &[SiteStatus], now: Timestamp) -> String {
    if sites.is_empty() {
        return "no site has connected yet".into();
    }
    let columns = [
        ("SITE", Align::Left),
        ("STATE", Align::Left),
        ("TRANSPORT", Align::Left),
        ("SINCE", Align::Right),
        ("RUN", Align::Left),
        ("FETCHED", Align::Right),
        ("SENT", Align::Right),
        ("CERTIFICATE", Align::Left),
        ("VERSION", Align::Left),
        ("ADDRESS", Align::Left),
    ];
    let rows = sites.iter().map(|site| {
        [
            site.site.to_string(),
            match site.standing {
                Standing::Admitted => match site.connection {
                    Some(SiteConnection { silent_secs: silent @ SILENT.., .. }) => {
                        format!("silent {}", units::coarse(Duration::from_secs(silent.into())))
                    }
                    Some(_) => "connected".to_owned(),
                    None => "away".to_owned(),
                },
                Standing::Suspended | Standing::Revoked => site.standing.to_string(),
            },
            site.connection.map_or_else(|| "-".to_owned(), |connection| connection.transport.to_string()),
            units::age(site.since, now),
            site.run.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            units::bytes(site.bytes_down),
            units::bytes(site.bytes_up),
            match site.expires.since(now).as_secs() {
                0 => "EXPIRED".to_owned(),
                left if left < DAY => "ends today".to_owned(),
                left => format!("{} left", units::plural(left / DAY, "day")),
            },
            site.software.clone(),
            site.address.clone(),
        ]
    });
    table(&columns, rows)
}
