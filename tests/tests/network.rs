//! Sites in networks that do not like QUIC, or lose what it sends: whatever the way, the model is the same.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use sheaf_common::id::Role;
use sheaf_common::message::{Reply, Request};
use sheaf_common::params::from_bytes;
use sheaf_common::status::{RunState, Transport};
use sheaf_server::pki::{self, IssueOptions};
use sheaf_tests::network::{Firewall, Proxy};
use sheaf_tests::{Federation, Operator, credential_paths, wait_for};
use sheaf_transport::dial::{ConnectError, Dialer};
use sheaf_transport::network::{Choice, Network, WrittenProxy};
use sheaf_transport::tls::{CredentialPaths, Credentials};

const SITES: [&str; 3] = ["open", "walled", "proxied"];

/// What the test's proxy wants to hear: `ada:s3cret`, in base64.
const LOGIN: &str = "YWRhOnMzY3JldA==";

/// Two clouds of points, of which site `site` sees mostly one.
fn csv(site: usize) -> String {
    let mut text = String::from("x,z,label\n");
    for i in 0..60 {
        let positive = (i + site).is_multiple_of(3);
        let wave = (i * 37 % 101) as f64 / 101.0 - 0.5;
        let centre = if positive { 1.0 } else { -1.0 };
        let label = if positive { "yes" } else { "no" };
        text += &format!("{:.4},{:.4},{label}\n", centre + wave, site as f64 * 0.1 - wave);
    }
    text
}

/// A secure run over `sites` sites.
fn run(rounds: u32, sites: usize) -> String {
    format!(
        r#"
name = "toy"
rounds = {rounds}
seed = 7
model = {{ architecture = "softmax" }}

[task]
type = "tabular-classification"
dataset = "data"
label = "label"
labels = ["no", "yes"]
features = [{{ column = "x", type = "numeric" }}, {{ column = "z", type = "numeric" }}]

[training]
optimizer = "sgd"
learning_rate = 0.5
batch_size = 16
local_epochs = 2
validation_split = 0.2

[cohort]
min_sites = {sites}
min_updates = {sites}
round_timeout = "100s"
max_examples = 64
"#
    )
}

/// The final model's values, and what carried each site.
async fn learn(
    federation: &Federation,
    operator: &mut Operator,
) -> Result<(Vec<f32>, BTreeMap<String, Transport>)> {
    let id = operator.submit(&run(3, SITES.len())).await?;
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    let model = operator.export(&id, &federation.path().join("export")).await?;
    let Reply::Sites(sites) = operator.ask(&Request::Sites).await? else { panic!("no list of sites") };
    let transports = sites
        .into_iter()
        .map(|site| Ok((site.site.to_string(), site.connection.context("it is still connected")?.transport)));
    Ok((from_bytes(&model), transports.collect::<Result<_>>()?))
}

#[tokio::test]
async fn a_federation_learns_the_same_through_firewall_and_proxy() -> Result<()> {
    let mut plain = Federation::new()?;
    plain.start_server()?;
    for (number, site) in SITES.iter().enumerate() {
        plain.start_site(site, &csv(number))?;
    }
    let mut operator = plain.connect(Role::Operator, "op").await?;
    let (expected, transports) = learn(&plain, &mut operator).await?;
    assert!(transports.values().all(|transport| *transport == Transport::Quic), "{transports:?}");
    drop(plain);

    let mut federation = Federation::new()?;
    let server = federation.start_server()?;
    let (firewall, proxy) = (Firewall::before(server)?, Proxy::to(server, LOGIN)?);
    federation.start_site(SITES[0], &csv(0))?;
    let straight = "\n[network]\nproxy = \"none\"\n";
    federation.start_site_at(&firewall.address.to_string(), "", SITES[1], &csv(1), straight)?;
    // The site cannot even look the server's name up: only the proxy knows the way.
    let through = format!("\n[network]\nproxy = \"http://ada:s3cret@{}\"\n", proxy.address);
    federation.start_site_at("hub.invalid:4433", "", SITES[2], &csv(2), &through)?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let (model, transports) = learn(&federation, &mut operator).await?;
    // Encoding an update for a secure sum rounds at random.
    let apart = model.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(model.len() == expected.len() && apart < 1e-3, "the model does not depend on the way: {apart}");
    let by: Vec<Transport> = SITES.iter().map(|site| transports[*site]).collect();
    assert_eq!(by, [Transport::Quic, Transport::Tcp, Transport::Tcp]);
    assert!(
        proxy.asked().iter().all(|line| line == "CONNECT hub.invalid:4433 HTTP/1.1"),
        "{:?}",
        proxy.asked()
    );
    assert!(federation.sheaf(&["site", "list"])?.contains("TRANSPORT"));
    assert!(!federation.log(SITES[2]).contains("s3cret"));

    // A server that stops tells everybody why, by either way.
    federation.terminate_server()?;
    for site in SITES {
        wait_for("the site to hear it", || {
            federation.log(site).contains("the server is shutting down").then_some(())
        })?;
    }
    Ok(())
}

#[tokio::test]
async fn a_site_that_is_sent_away_is_cut_and_kept_out_over_tcp_as_well() -> Result<()> {
    let mut federation = Federation::new()?;
    let server = federation.start_server()?;
    let firewall = Firewall::before(server)?;
    let network = "\n[network]\ntransport = \"tcp\"\nproxy = \"none\"\n";
    federation.start_site_at(&firewall.address.to_string(), "", "walled", &csv(1), network)?;
    wait_for("the site to connect", || federation.log("walled").contains("connected").then_some(()))?;
    federation.sheaf(&["site", "suspend", "walled"])?;
    wait_for("the site to be refused", || {
        federation.log("walled").contains("the server refused us").then_some(())
    })?;
    Ok(())
}

/// Who would dial `server`, and what it hears.
async fn refusal(server: String, transport: Choice, paths: &CredentialPaths) -> Result<ConnectError> {
    let network = Network { transport, proxy: WrittenProxy::None, ..Network::default() };
    let credentials = Credentials::load(paths)?;
    let outcome = Dialer::new(server, network).connect(&credentials).await;
    outcome.err().context("the connection stands")
}

#[tokio::test]
async fn whoever_looks_into_tls_is_named() -> Result<()> {
    let mut federation = Federation::new()?;
    let server = federation.start_server()?.to_string();
    let ours = federation.path().join("ours");
    pki::init(&ours, &"hearts".parse()?)?;
    pki::issue(&ours, Role::Site, &"a".parse()?, &IssueOptions::default())?;
    let paths = credential_paths(&ours, Role::Site, "a");
    for transport in [Choice::Quic, Choice::Tcp, Choice::Auto] {
        let error = refusal(server.clone(), transport, &paths).await?;
        assert!(matches!(error, ConnectError::Stranger { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("was made by \"O=test, CN=certificate authority\""), "{text}");
        assert!(text.contains("have it leave"), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_way_that_leads_nowhere_is_told() -> Result<()> {
    let federation = Federation::new()?;
    federation.issue(Role::Site, "a")?;
    let paths = credential_paths(&federation.path().join("pki"), Role::Site, "a");
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let address = nobody.local_addr()?;
    let error = refusal(address.to_string(), Choice::Auto, &paths).await?.to_string();
    assert!(error.starts_with(&format!("no answer from {address} over UDP, nor over TCP (")), "{error}");
    assert!(error.ends_with("does the firewall let either out?"), "{error}");
    let proxy = Proxy::to(address, LOGIN)?;
    let network = Network {
        transport: Choice::Tcp,
        proxy: WrittenProxy::Proxy(format!("http://{}", proxy.address).parse()?),
        ..Network::default()
    };
    let dialer = Dialer::new(address.to_string(), network);
    let error = dialer.connect(&Credentials::load(&paths)?).await.err().context("it stands")?.to_string();
    assert!(error.contains("it wants a login (407)"), "{error}");
    Ok(())
}
