//! The `README.md` of an exported model: what it is, how it was made and how to open it.

use crate::message::ExportPlan;

/// The card of the exported model.
pub fn card(_plan: &ExportPlan) -> String {
    unimplemented!()
}
