//! Sites behind bad lines, with real processes: whatever the lines do, the run ends right, and no round is tried twice.

use std::time::Duration;

use anyhow::Result;
use sheaf_common::id::{Role, RunId};
use sheaf_common::status::{Answer, Phase};
use sheaf_tests::network::{Line, Relay};
use sheaf_tests::{Federation, Operator, assert_undisturbed};

const SITES: [&str; 4] = ["a", "b", "c", "d"];

/// How long a line stays cut; `SHEAF_PARTITION_SECONDS` for the patient.
fn partition() -> Duration {
    let seconds = std::env::var("SHEAF_PARTITION_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

/// Two rounds of updates of 800 kB.
const RUN: &str = r#"
name = "toy"
rounds = 2
seed = 7
secure_aggregation = "off"
model = { architecture = "constant", parameters = 200000 }

[task]
type = "none"
dataset = "data"

[cohort]
min_sites = 4
min_updates = 4
round_timeout = "110s"
"#;

/// A line of `bits` per second and 50 ms there and back, whose queue holds a quarter of a second.
fn line(bits: f64) -> Line {
    let queue = Duration::from_millis(250);
    Line { delay: Duration::from_millis(25), rate: Some(bits / 8.0), queue, loss: 0.0 }
}

/// 200 ms there and back, of which one datagram in fifty is lost.
fn far() -> Line {
    Line { delay: Duration::from_millis(100), loss: 0.02, ..line(20e6) }
}

/// Waits until the site has given its update to the line, and the server has not got it.
async fn uploads(operator: &mut Operator, run: &RunId, site: &str, round: u32) -> Result<()> {
    operator
        .wait_until(run, |status| {
            status.current.iter().any(|current| {
                current.round == round
                    && current.members.iter().any(|member| {
                        let uploading =
                            member.progress.is_some_and(|progress| progress.phase == Phase::Uploading);
                        member.site.as_str() == site && uploading && member.answer == Answer::Pending
                    })
            })
        })
        .await
        .map(drop)
}

/// The model that comes of straight lines.
async fn reference() -> Result<Vec<u8>> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for site in SITES {
        federation.start_site(site, "x\n1\n")?;
    }
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let id = operator.submit(RUN).await?;
    assert_undisturbed(&operator.wait_for_end(&id).await?, 2, SITES.len());
    operator.export(&id, &federation.path().join("export")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_over_four_bad_lines_ends_right() -> Result<()> {
    let expected = reference().await?;
    for seed in [1, 2] {
        let mut federation = Federation::new()?;
        let server = federation.start_server()?;
        let lines = [
            Relay::to(server, far(), far(), seed)?,
            Relay::to(server, line(1e6), line(10e6), seed)?,
            Relay::to(server, line(2e6), line(10e6), seed)?,
            Relay::to(server, Line::default(), Line::default(), seed)?,
        ];
        // Which site has which line is the seed's.
        let site = |line: usize| SITES[(line + seed as usize) % SITES.len()];
        for (number, relay) in lines.iter().enumerate() {
            federation.start_site_at(&relay.address.to_string(), "", site(number), "x\n1\n", "")?;
        }
        let mut operator = federation.connect(Role::Operator, "op").await?;
        let id = operator.submit(RUN).await?;
        let [_, slow, cut, _] = &lines;
        uploads(&mut operator, &id, site(2), 1).await?;
        cut.cut(true);
        slow.change_address();
        tokio::time::sleep(partition()).await;
        cut.cut(false);
        uploads(&mut operator, &id, site(1), 2).await?;
        slow.change_address();
        assert_undisturbed(&operator.wait_for_end(&id).await?, 2, SITES.len());
        assert_eq!(operator.export(&id, &federation.path().join("export")).await?, expected, "seed {seed}");
        // A router that forgets a flow costs no connection.
        assert_eq!(federation.log(site(1)).matches(" connected ").count(), 1);
    }
    Ok(())
}
