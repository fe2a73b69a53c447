//! Who may do what, over the real protocol: every request there is, with the certificate of every role.

use anyhow::{Context, Result, bail};
use sheaf_common::author::Author;
use sheaf_common::blob::BlobId;
use sheaf_common::enrolment::Pin;
use sheaf_common::id::Role;
use sheaf_common::message::{Reply, Request};
use sheaf_common::status::Standing;
use sheaf_common::time::Timestamp;
use sheaf_tests::Federation;
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::transfer;

/// One of each. A new request is added here before this compiles again, and to [`place`].
fn every_request() -> Result<Vec<Request>> {
    let (file, text) = ("run.toml".to_owned(), String::new());
    let author = Author { certificate: Vec::new(), signed_at: Timestamp(0), signature: [0; 64].into() };
    Ok(vec![
        Request::Submit { file: file.clone(), text: text.clone(), author: author.clone() },
        Request::Runs,
        Request::Run("toy".parse()?),
        Request::Stop("toy".parse()?),
        Request::Sites,
        Request::ImportModel { name: "m".into(), manifest: BlobId::of(b"m") },
        Request::Models,
        Request::Export { run: "toy".parse()?, round: None },
        Request::Stand { site: "a".parse()?, standing: Standing::Revoked, keep_updates: false },
        Request::Survey { file, text, author },
        Request::Invite { site: "a".parse()?, valid_ms: 1000, pin: Pin([0; 32]) },
        Request::Waiting,
        Request::Approve { site: "a".parse()?, chain: Vec::new() },
    ])
}

/// The place of a request in [`every_request`], and whether a viewer may ask it.
fn place(request: &Request) -> (usize, bool) {
    match request {
        Request::Submit { .. } => (0, false),
        Request::Runs => (1, true),
        Request::Run(_) => (2, true),
        Request::Stop(_) => (3, false),
        Request::Sites => (4, true),
        Request::ImportModel { .. } => (5, false),
        Request::Models => (6, true),
        Request::Export { .. } => (7, true),
        Request::Stand { .. } => (8, false),
        Request::Survey { .. } => (9, false),
        Request::Invite { .. } => (10, false),
        Request::Waiting => (11, true),
        Request::Approve { .. } => (12, false),
    }
}

#[test]
fn the_list_is_complete() -> Result<()> {
    let places: Vec<usize> = every_request()?.iter().map(|request| place(request).0).collect();
    assert_eq!(places, (0..places.len()).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_may_ask_every_question_and_change_nothing() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let mut viewer = federation.connect(Role::Viewer, "eye").await?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    for request in every_request()? {
        let sentence = "a viewer may look but not touch: use an operator's certificate";
        let refused = |reply: Reply| matches!(reply, Reply::Refused(why) if why == sentence);
        assert_eq!(refused(viewer.ask(&request).await?), !place(&request).1, "{request:?}");
        assert!(!refused(operator.ask(&request).await?), "{request:?}");
    }
    // Nor does it fill the server's disk.
    let dir = BlobDir::open(federation.path().join("blobs-of-a-viewer"))?;
    let blob = dir.insert(b"anything")?;
    let put = transfer::put(&viewer.link.connection, &dir, blob, &mut |_, _| {}).await;
    let error = put.err().context("a viewer gave the server a blob")?.to_string();
    assert!(error.contains("your role may not send blobs"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_asks_nothing_of_what_operators_ask() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let Err(error) = federation.connect(Role::Site, "a").await else { bail!("a site is an operator") };
    assert!(error.to_string().contains("a certificate of role site may not do that"), "{error}");
    Ok(())
}
