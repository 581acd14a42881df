//! Container engines: what they call, and how they are told to.

pub mod setup;
