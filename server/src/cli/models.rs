//! `sheaf model …`

use serde_json::Value;
use sheaf_common::message::{Reply, Request};
use sheaf_common::model::ModelInfo;

use super::args::ModelCommand;
use super::output::Output;
use super::session::Session;
use super::settings::{Settings, SettingsError};
use super::table::{Align, table};
use super::{CliError, export, import, json, units};

/// `settings` is looked up when it is needed: a folder that is no model is found without a server.
pub(super) async fn execute(
    command: ModelCommand,
    settings: &impl Fn() -> Result<Settings, SettingsError>,
    out: Output,
) -> Result<(), CliError> {
    match command {
        ModelCommand::Import { path, kind, name, script } => {
            let model = import::read(&path, kind, &script, &name)?;
            let (info, sent) = import::send(&model, &settings()?).await?;
            let mut value = json::model(&info);
            if let Value::Object(fields) = &mut value {
                fields.insert("bytes_sent".to_owned(), sent.into());
                if let Some(module) = model.module() {
                    fields.insert("module".to_owned(), module.to_string().into());
                }
            }
            out.print(import::card(&model, &info, sent), &value)?;
        }
        ModelCommand::List => {
            let mut session = Session::open(&settings()?).await?;
            let expect = |reply| {
                if let Reply::Models(models) = reply { Some(models) } else { None }
            };
            let models = session.ask(&Request::Models, expect).await?;
            session.close().await;
            out.print(list(&models), &models.iter().map(json::model).collect())?;
        }
        ModelCommand::Export { run, round, adapter, out: dir } => {
            let exported = export::export(run, round, adapter, &dir, &settings()?).await?;
            out.print(exported.text(), &exported.json())?;
        }
    }
    Ok(())
}

/// The models as a table.
pub(super) fn list(models: &[ModelInfo]) -> String {
    if models.is_empty() {
        return "no models yet: `sheaf model import PATH --name NAME` brings one".into();
    }
    let columns = [
        ("MODEL", Align::Left),
        ("TYPE", Align::Left),
        ("PARAMETERS", Align::Right),
        ("SIZE", Align::Right),
        ("ID", Align::Left),
    ];
    let rows = models.iter().map(|model| {
        [
            model.name.clone(),
            model.model_type.clone(),
            units::count(model.num_params),
            units::bytes(model.bytes),
            model.manifest.short(),
        ]
    });
    table(&columns, rows)
}
