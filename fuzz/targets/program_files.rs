//! A `site.toml` or a `server.toml` from anybody: a configuration, or one sentence that names the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_client::config::SiteConfig;
use sheaf_server::config::ServerConfig;

fuzz_target!(|text: &str| {
    for error in [
        SiteConfig::parse("some.toml", text).err().map(|error| error.to_string()),
        ServerConfig::parse("some.toml", text).err().map(|error| error.to_string()),
    ]
    .into_iter()
    .flatten()
    {
        assert!(error.starts_with("some.toml"), "{error}");
    }
});
