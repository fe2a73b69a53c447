//! The metrics against plain references.
