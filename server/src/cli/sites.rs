//! `sheaf site …`

use sheaf_common::message::{Reply, Request};
use sheaf_common::status::SiteStatus;
use sheaf_common::time::Timestamp;

use super::args::SiteCommand;
use super::output::Output;
use super::session::Session;
use super::settings::Settings;
use super::table::{Align, table};
use super::{CliError, json, units};

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
    }
    Ok(())
}

/// The sites as a table.
pub(super) fn list(sites: &[SiteStatus], now: Timestamp) -> String {
    if sites.is_empty() {
        return "no site has connected yet".into();
    }
    let columns = [
        ("SITE", Align::Left),
        ("STATE", Align::Left),
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
            if site.connected { "connected" } else { "away" }.to_owned(),
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
