//! What a person typed.
