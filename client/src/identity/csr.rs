//! `sheaf-client csr`: a key that stays here, and a request that can be carried to whoever signs.

use std::io::Write;
use std::path::PathBuf;

use sheaf_common::id::{ClientId, Federation};
use sheaf_transport::enrolment::request;
use sheaf_transport::files;

use super::{Files, IdentityError, discard, fingerprint, own_key};

/// What can be typed.
#[derive(Clone, Debug, clap::Args)]
pub struct CsrArgs {
    /// Name of the site.
    #[arg(long)]
    name: ClientId,
    /// Name of the federation: writes into the request all that an authority of your own must put into the certificate.
    #[arg(long, value_name = "NAME")]
    federation: Option<Federation>,
    /// Folder for the key and the request.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// Makes the key and the request.
pub fn csr(args: &CsrArgs, out: &mut dyn Write) -> Result<(), IdentityError> {
    let files = Files::of(&args.name, &args.out);
    if files.certificate.exists() {
        return Err(IdentityError::HasOne(files.certificate, args.name.clone()));
    }
    let key = own_key(&files)?;
    let written = request(&key.key, &args.name.0, args.federation.as_ref())
        .and_then(|request| request.pem())
        .map_err(IdentityError::from)
        .and_then(|pem| Ok(files::write_new(&files.request, &pem)?));
    written.inspect_err(|_| discard(&key, &files))?;
    let (csr, certificate) = (files.request.display(), files.certificate.display());
    writeln!(out, "{csr}  for whoever signs: sheaf pki sign, or an authority of your own")?;
    writeln!(
        out,
        "{}  keep it here; its public half has SHA-256 {}",
        files.key.display(),
        fingerprint(&key.key)
    )?;
    writeln!(
        out,
        "put what comes back to {certificate}, and the authority's certificate to {}",
        files.ca.display()
    )?;
    Ok(())
}
