//! `sheaf pki …`: certificates, without a server.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::CliError;
use super::args::PkiCommand;
use super::output::Output;
use super::table::card;
use super::units;
use crate::pki::{self, CA_KEY, Card, Holder, ISSUING_KEY, IssueOptions, PkiError, SigningRequest};

pub(super) fn execute(command: PkiCommand, out: Output) -> Result<(), CliError> {
    match command {
        PkiCommand::Init { federation, out: dir } => {
            let ca = pki::init(&dir, &federation)?;
            let key = dir.join(CA_KEY);
            let text = format!(
                "made federation {federation}\n  {}  give it to every party\n  {}  keep it here, offline if you can: who has it can be anybody",
                ca.display(),
                key.display()
            );
            out.print(text, &json!({ "federation": federation, "ca": ca, "key": key }))?;
        }
        PkiCommand::Issue { role, name, pki: dir, hosts, days, out: to } => {
            let issued = pki::issue(&dir, role, &name, &IssueOptions { hosts, days, out: to })?;
            let card = Card::read(&issued.certificate)?;
            let text = format!(
                "made {}, valid until {}\n  {}\n  {}  for {name} alone",
                card.holder,
                units::date_and_time(card.until, ' '),
                issued.certificate.display(),
                issued.key.display()
            );
            let files = json!({ "certificate": issued.certificate, "key": issued.key, "ca": issued.ca });
            out.print(text, &files)?;
        }
        PkiCommand::Issuing { pki: dir, days, out: to } => {
            let certificate = pki::issuing(&dir, &to, days)?;
            let card = Card::read(&certificate)?;
            let text = format!(
                "made an authority for sites, valid until {}\n  {}  for the server that issues with it: [enrolment] authority in server.toml",
                units::date_and_time(card.until, ' '),
                to.display()
            );
            out.print(text, &json!({ "certificate": certificate, "key": to.join(ISSUING_KEY) }))?;
        }
        PkiCommand::Sign { file, pki: dir, role, name, days, out: to } => {
            let request = SigningRequest::read(&file).map_err(PkiError::from)?;
            let name = name.or_else(|| request.name()).ok_or_else(|| CliError::Nameless(file.clone()))?;
            let options = IssueOptions { hosts: Vec::new(), days, out: to };
            let issued = pki::sign(&dir, &request, role, &name, &options)?;
            let card = Card::read(&issued.certificate)?;
            let text = format!(
                "made {}, valid until {}\n  {}\n  {}  give both back to {name}",
                card.holder,
                units::date_and_time(card.until, ' '),
                issued.certificate.display(),
                issued.ca.display()
            );
            out.print(text, &json!({ "certificate": issued.certificate, "ca": issued.ca }))?;
        }
        PkiCommand::Show { file } => {
            let card = Card::read(&file)?;
            let now = OffsetDateTime::now_utc();
            out.print(text(&card, now), &json(&card, now))?;
        }
    }
    Ok(())
}

fn text(certificate: &Card, now: OffsetDateTime) -> String {
    let days = days_left(certificate, now);
    let left = match (days, now < certificate.from) {
        (_, true) => "not valid yet: check this machine's clock".to_owned(),
        (days, _) if days < 0 || now >= certificate.until => "EXPIRED".to_owned(),
        (days, _) => format!("{} left", units::plural(days.unsigned_abs(), "day")),
    };
    let date = |at| units::date_and_time(at, ' ');
    let mut lines = vec![
        ("identity", certificate.holder.to_string()),
        ("role", role(&certificate.holder).to_owned()),
        ("valid", format!("{} to {} UTC ({left})", date(certificate.from), date(certificate.until))),
        ("issuer", certificate.issuer.clone()),
        ("authority key", certificate.authority_key.clone().unwrap_or_else(|| "-".to_owned())),
        ("sha256", hex(&certificate.fingerprint)),
    ];
    if !certificate.hosts.is_empty() {
        lines.push(("hosts", certificate.hosts.join(", ")));
    }
    card(&lines)
}

fn json(card: &Card, now: OffsetDateTime) -> Value {
    let date = |at| format!("{}Z", units::date_and_time(at, 'T'));
    json!({
        "identity": card.holder.to_string(),
        "role": role(&card.holder),
        "not_before": date(card.from),
        "not_after": date(card.until),
        "days_left": days_left(card, now),
        "issuer": card.issuer,
        "authority_key": card.authority_key,
        "sha256": hex(&card.fingerprint),
        "hosts": card.hosts,
    })
}

/// Whole days until it expires; negative when it has.
fn days_left(card: &Card, now: OffsetDateTime) -> i64 {
    (card.until - now).whole_days()
}

fn role(holder: &Holder) -> &'static str {
    match holder {
        Holder::Authority(_) => "certificate authority",
        Holder::Issuing(..) => "issuing authority for sites",
        Holder::Party(identity) => identity.role.as_str(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
