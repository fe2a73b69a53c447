//! A server whose sites are connected and have nothing to do.

use std::time::Duration;

use anyhow::Result;
use sheaf_common::id::Role;
use sheaf_tests::{Federation, ScriptedSite};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::case::{Case, Group, Sample};
use crate::process::Watch;
use crate::settings::Settings;

/// So long it is watched: four signs of life of every site.
const WHILE: Duration = Duration::from_secs(20);

pub(crate) fn groups(settings: &Settings) -> Vec<Group> {
    let sites = settings.idle;
    let run = move || Runtime::new()?.block_on(watch(sites));
    vec![vec![Case {
        workload: "idle sites",
        contestant: "Sheaf",
        size_mb: 0.0,
        clients: sites,
        run: Box::new(run),
    }]]
}

async fn watch(count: u32) -> Result<Sample> {
    let mut federation = Federation::new()?;
    federation.limit(&format!("connections = {0}\nconnections_per_address = {0}\n", 2 * count.max(1)));
    federation.start_server()?;
    let watch = Watch::over(vec![federation.server_id()?]);
    let mut sites: Vec<ScriptedSite> = Vec::new();
    for number in 0..count {
        let name = format!("site-{number}");
        federation.issue(Role::Site, &name)?;
        sites.push(federation.connect_site(&name).await?);
    }
    // What connecting took is over.
    sleep(Duration::from_secs(2)).await;
    let cpu = watch.cpu_seconds();
    sleep(WHILE).await;
    Ok(Sample {
        seconds: vec![WHILE.as_secs_f64()],
        server_rss_mb: Some(watch.peak_mb()),
        cpu_seconds: Some(watch.cpu_seconds() - cpu),
        wire: None,
    })
}
