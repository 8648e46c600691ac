//! `[tls]`: what is common to TLS on both sides.

use serde::{Deserialize, Serialize};

/// `[tls]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Milliseconds between looks at whether certificates, keys and authorities have changed, here and in `[upstream]`; 0
    /// never looks.
    pub reload_check_ms: u64,
}

impl Default for Tls {
    fn default() -> Self {
        Self { reload_check_ms: 5000 }
    }
}
