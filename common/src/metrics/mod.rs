//! Metrics that can be pooled over sites without losing anything: integer counts, merged by addition.
//!
//! A pooled metric is computed from the merged counts, as if all examples lay in one place. It is never an
//! average of the sites' metrics.

use serde::{Deserialize, Serialize};

/// What a site sends: counts over its validation split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {}

/// What is read off counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {}
