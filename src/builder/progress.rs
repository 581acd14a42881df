//! Telling a person how far long work has come.

/// Listens to long work. Called from several threads, and often: must be quick.
pub trait Progress: Sync {
    /// A new step begins, of `total` units where that is known: bytes read, or entries done.
    fn begin(&self, what: &str, total: Option<u64>);

    /// So many more units of the present step are done.
    fn advance(&self, units: u64);

    /// True when the work is to end before it is done, with [`super::BuildError::Interrupted`]. Asked for every few
    /// entries.
    fn stopped(&self) -> bool {
        false
    }
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total: Option<u64>) {}

    fn advance(&self, _units: u64) {}
}
