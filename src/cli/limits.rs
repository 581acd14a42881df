//! How much a layer's archive may hold.

use clap::Args;

use crate::builder::apply::Limits;

/// The limits of `image load` and `image import`.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct LimitArgs {
    /// Refuse a layer of more entries than this.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().entries)]
    max_entries: u64,
    /// Refuse a layer that has more bytes than this when it is unpacked.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().bytes)]
    max_bytes: u64,
}

impl From<LimitArgs> for Limits {
    fn from(limits: LimitArgs) -> Self {
        Self {
            entries: limits.max_entries,
            bytes: limits.max_bytes,
        }
    }
}
