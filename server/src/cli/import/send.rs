//! An imported model on its way to the server.

use std::fs::File;
use std::io::{self, Seek, Write};

use sheaf_common::blob::BlobId;
use sheaf_common::message::{Reply, Request};
use sheaf_common::model::ModelInfo;
use sheaf_transport::transfer;

use super::super::CliError;
use super::super::screen::transfer_bar;
use super::super::session::{Session, SessionError};
use super::super::settings::Settings;
use super::{ImportError, Model};

/// Gives the server what it does not have yet, and the model's name. Returns the bytes that were sent.
pub(in crate::cli) async fn send(model: &Model, settings: &Settings) -> Result<(ModelInfo, u64), CliError> {
    let mut session = Session::open(settings).await?;
    let mut sent = 0;
    for file in &model.manifest.files {
        let path = model.source.dir().join(&file.path);
        let open = File::open(&path).map_err(|e| ImportError::Read(path, e))?;
        sent += put(&session, open, file.blob, &file.path).await?;
    }
    let manifest = model.manifest.to_json();
    let file = temporary(&manifest).map_err(|e| ImportError::Read("a temporary file".into(), e))?;
    sent += put(&session, file, model.manifest.id(), "manifest").await?;
    let request = Request::ImportModel { name: model.manifest.name.clone(), manifest: model.manifest.id() };
    let expect = |reply| {
        if let Reply::Imported(info) = reply { Some(info) } else { None }
    };
    let info = session.ask(&request, expect).await?;
    session.close().await;
    Ok((info, sent))
}

async fn put(session: &Session, file: File, blob: BlobId, name: &str) -> Result<u64, SessionError> {
    let bar = transfer_bar(name);
    let moved = transfer::put_file(session.connection(), file, blob, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    Ok(moved?)
}

fn temporary(content: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}
