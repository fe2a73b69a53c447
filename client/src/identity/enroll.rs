//! `sheaf-client enroll`: from a token to a site that can connect.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sheaf_common::enrolment::{Chain, EnrollReply, Token};
use sheaf_common::id::{Identity, Role};
use sheaf_transport::dial::Dialer;
use sheaf_transport::enrolment::{Desk, EnrollError, request};
use sheaf_transport::files;
use sheaf_transport::network::Network;

use super::{Files, IdentityError, Key, discard, fingerprint, own_key};

const SOFTWARE: &str = concat!("sheaf-client ", env!("CARGO_PKG_VERSION"));

/// How often a server that waits for its operator is asked.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What can be typed.
#[derive(Clone, Debug, clap::Args)]
pub struct EnrollArgs {
    /// The server's UDP port.
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// The token that the operator made with `sheaf site invite`.
    #[arg(long, env = "SHEAF_TOKEN", hide_env_values = true)]
    token: String,
    /// Folder for the key, the certificate, ca.crt and the beginnings of site.toml.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// Gets a certificate, waiting for the operator if need be, and writes what the site needs.
pub fn enroll(args: &EnrollArgs, out: &mut dyn Write) -> Result<(), IdentityError> {
    let token: Token = args.token.parse()?;
    let files = Files::of(&token.site, &args.out);
    if files.certificate.exists() {
        return Err(IdentityError::HasOne(files.certificate, token.site));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ask(args, &token, &files, out))
}

async fn ask(
    args: &EnrollArgs,
    token: &Token,
    files: &Files,
    out: &mut dyn Write,
) -> Result<(), IdentityError> {
    let dialer = Dialer::new(args.server.clone(), Network::default());
    // Nothing is made before the server has proved to be the right one.
    let mut desk = Desk::open(&dialer, token, SOFTWARE).await?;
    let key = own_key(files)?;
    let chain = match wait(&mut desk, token, &key, out).await {
        Ok(chain) => chain,
        Err(IdentityError::Enroll(error @ (EnrollError::Connect(_) | EnrollError::Lost(_)))) => {
            return Err(IdentityError::Interrupted(error, files.key.clone()));
        }
        Err(error) => {
            discard(&key, files);
            return Err(error);
        }
    };
    check(&desk, token, &key, &chain).inspect_err(|_| discard(&key, files))?;
    files::ensure(&files.ca, &files::pem(&desk.authorities))?;
    files::write_new(&files.certificate, &files::pem(&chain))?;
    desk.close().await;
    let config = match files::write_new(&files.config, &site_toml(&args.server, files)) {
        Ok(()) => format!("{}  add your data sets to it", files.config.display()),
        Err(_) => format!("{} is left as it was: name these files in its [identity]", files.config.display()),
    };
    writeln!(out, "{} may take part\n  {}", token.site, files.certificate.display())?;
    writeln!(out, "  {}  keep it here\n  {}\n  {config}", files.key.display(), files.ca.display())?;
    Ok(())
}

async fn wait(
    desk: &mut Desk,
    token: &Token,
    key: &Key,
    out: &mut dyn Write,
) -> Result<Chain, IdentityError> {
    let request = request(&key.key, &token.site.0, Some(&token.federation))?;
    let mut told = false;
    loop {
        match desk.present(token, request.der()).await? {
            EnrollReply::Issued(chain) => return Ok(chain),
            EnrollReply::Refused(why) => return Err(EnrollError::Refused(why).into()),
            EnrollReply::Welcome(_) => {
                return Err(EnrollError::Lost("the server said something out of turn".into()).into());
            }
            EnrollReply::Pending if told => {}
            EnrollReply::Pending => {
                told = true;
                writeln!(
                    out,
                    "waiting for the operator (sheaf site approve {}) to sign for the key with SHA-256\n  {}",
                    token.site,
                    fingerprint(&key.key)
                )?;
                out.flush()?;
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Whether the certificate is of our key and says who the token says that we are.
fn check(desk: &Desk, token: &Token, key: &Key, chain: &Chain) -> Result<(), IdentityError> {
    let useless = |why: String| IdentityError::Useless(why);
    let judged = desk.authority.verify(&chain.concat(), SystemTime::now());
    let (identity, certified) = judged.map_err(|e| useless(e.to_string()))?;
    let name = token.site.0.clone();
    let expected = Identity { federation: token.federation.clone(), role: Role::Site, name };
    if identity != expected {
        return Err(useless(format!("it is of {identity}, not of {expected}")));
    }
    if !key.key.public_key().ends_with(&certified) {
        return Err(useless("it is for another key".into()));
    }
    Ok(())
}

fn site_toml(server: &str, files: &Files) -> String {
    let name =
        |path: &Path| path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    format!(
        "# Made by `sheaf-client enroll`. docs/configuration.md has every key.
server = {server:?}
state_dir = \"state\"

[identity]
certificate = {:?}
key = {:?}
ca = {:?}

# What this site offers: one table for each data set, called as runs call it.
# [datasets.NAME]
# path = \"data.csv\"
",
        name(&files.certificate),
        name(&files.key),
        name(&files.ca)
    )
}
