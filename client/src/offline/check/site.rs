//! The site's own configuration: identity, state directory, device, data sets.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sheaf_common::id::Role;
use sheaf_transport::issuer::Issuers;
use sheaf_transport::tls::{CredentialPaths, Credentials};

use super::CheckReport;
use crate::config::SiteConfig;
use crate::data::survey;
use crate::device::{DeviceChoice, resolve};

/// A certificate that ends sooner than this should be renewed.
const SOON_DAYS: i64 = 30;

pub(super) fn check(config: &SiteConfig, report: &mut CheckReport) {
    report.add("certificate", certificate(&config.identity));
    report.add("state_dir", state_dir(&config.state_dir));
    report.add("device", device(config.device));
    for (name, dataset) in &config.datasets {
        let found = survey(dataset, name).map_err(|error| error.to_string());
        let found = found.map(|survey| format!("{} rows, {} columns", survey.rows, survey.columns.len()));
        report.add(format!("data set {name}"), found);
    }
    if config.datasets.is_empty() {
        report.add("data sets", Err("there is none: add a [datasets.NAME] to site.toml".to_owned()));
    }
}

/// Whether certificate, key and authority can be used together, by a site, today.
fn certificate(paths: &CredentialPaths) -> Result<String, String> {
    let credentials = Credentials::load(paths).map_err(|error| error.to_string())?;
    credentials.client_config(&Issuers::default()).map_err(|error| error.to_string())?;
    let identity = &credentials.identity;
    if identity.role != Role::Site {
        return Err(format!("it is that of {identity}: issue a site's with `sheaf pki issue site NAME`"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let left = credentials.not_after.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    let days = left / 86_400;
    match left {
        ..=0 => {
            Err(format!("that of {identity} has expired: issue a new one with `sheaf pki issue site NAME`"))
        }
        _ if days < SOON_DAYS => Ok(format!("{identity}, expires in {days} days: ask for a new one")),
        _ => Ok(format!("{identity}, valid for {days} days")),
    }
}

/// Whether the daemon could write there. Its nearest ancestor counts where it is not there yet.
fn state_dir(path: &Path) -> Result<String, String> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    tempfile::tempfile_in(existing)
        .and_then(|_| fs::metadata(existing))
        .map_err(|reason| format!("{} cannot be written to: {reason}", existing.display()))?;
    let made = if existing == path { "can be written to" } else { "will be made" };
    Ok(format!("{} {made}", path.display()))
}

fn device(choice: DeviceChoice) -> Result<String, String> {
    let device = resolve(choice).map_err(|error| error.to_string())?;
    Ok(match device {
        tch::Device::Cpu => format!("`{choice}` is the CPU, {} threads", tch::get_num_threads()),
        tch::Device::Cuda(index) => format!("`{choice}` is the GPU {index}"),
        other @ (tch::Device::Mps | tch::Device::Vulkan) => format!("`{choice}` is {other:?}"),
    })
}
