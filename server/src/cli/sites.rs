//! `sheaf site …`

use std::time::Duration;

use serde_json::json;
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

/// A connected site of which nothing came for so many seconds is shown as silent: three signs of life are missing.
const SILENT: u32 = 15;

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
        SiteCommand::Revoke { site, keep_updates } => {
            stand(site, Standing::Revoked, *keep_updates, settings, out).await?;
        }
        SiteCommand::Suspend { site, keep_updates } => {
            stand(site, Standing::Suspended, *keep_updates, settings, out).await?;
        }
        SiteCommand::Resume { site } => stand(site, Standing::Admitted, false, settings, out).await?,
    }
    Ok(())
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
        if let Reply::Stands(site, standing) = reply { Some((site, standing)) } else { None }
    };
    let request = Request::Stand { site: site.clone(), standing, keep_updates };
    let (site, standing) = session.ask(&request, expect).await?;
    session.close().await;
    let text = match standing {
        Standing::Admitted => format!("{site} may take part again"),
        Standing::Suspended => format!("{site} is suspended: `sheaf site resume {site}` lets it come back"),
        Standing::Revoked => format!("{site} is revoked for good"),
    };
    Ok(out.print(text, &json!({ "site": site, "standing": standing }))?)
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
            site.software.clone(),
            site.address.clone(),
        ]
    });
    table(&columns, rows)
}
