//! The table `[compression]`.

use serde::Deserialize;

use super::forbid;
use crate::compression::{Compression, Encoding};
use crate::config::Invalid;
use crate::run::SecureAggregation;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompressionFile {
    encoding: Option<String>,
    share: Option<f64>,
    #[serde(default)]
    zstd: bool,
}

pub(super) fn compression(
    file: Option<CompressionFile>,
    secure_aggregation: SecureAggregation,
) -> Result<Compression, Invalid> {
    let Some(file) = file else { return Ok(Compression::default()) };
    forbid(
        "compression",
        secure_aggregation != SecureAggregation::Off,
        "is of updates that the server sees: with secure aggregation set secagg.quantization_bits instead, from 8 to 24",
    )?;
    let encoding = match file.encoding.as_deref() {
        None | Some("f32") => Encoding::F32,
        Some("bf16") => Encoding::Bf16,
        Some("int8") => Encoding::Int8,
        Some("top-k") => return top_k(file.share, file.zstd),
        Some(other) => {
            let problem = format!("`{other}` is unknown; write \"f32\", \"bf16\", \"int8\" or \"top-k\"");
            return Err(Invalid::new("compression.encoding", problem));
        }
    };
    forbid("compression.share", file.share.is_some(), "goes with encoding = \"top-k\" only")?;
    Ok(Compression { encoding, zstd: file.zstd })
}

fn top_k(share: Option<f64>, zstd: bool) -> Result<Compression, Invalid> {
    match share {
        Some(share) if share > 0.0 && share <= 1.0 => {
            Ok(Compression { encoding: Encoding::TopK(share), zstd })
        }
        Some(share) => {
            Err(Invalid::new("compression.share", format!("{share} is not above 0 and at most 1")))
        }
        None => Err(Invalid::new(
            "compression.share",
            "is missing: it says which share of the values is sent, as 0.1",
        )),
    }
}
