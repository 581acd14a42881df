//! plyfs as container engines call it, without an engine.

mod ids;
mod stage;
mod stated;
