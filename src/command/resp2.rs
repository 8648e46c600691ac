//! How a RESP3 reply becomes RESP2, for one command.
//!
//! Temporary: `crate::resp` gets an identical type; this file then becomes one `pub use`.

/// How a RESP3 null is written for a RESP2 client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NullAs {
    /// `$-1`
    Bulk,
    /// `*-1`
    Array,
}

/// What the reply's own bytes do not say about its RESP2 form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resp2Rule {
    /// A null that is the whole reply.
    pub null: NullAs,
    /// A null inside the reply.
    pub nested_null: NullAs,
    /// Whether an array of pairs is flattened (`WITHSCORES` and kin).
    pub flatten_pairs: bool,
}
