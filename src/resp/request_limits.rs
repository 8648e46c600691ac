//! How much a client may declare in one request, in Redis's numbers. The scanner enforces them; who has authenticated is
//! the session's knowledge.

/// What a client may declare before it is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// The most arguments in one request, the command name included.
    pub args_max: usize,
    /// The longest argument, in bytes; Redis's `proto-max-bulk-len`.
    pub bulk_max_bytes: usize,
    /// The longest inline request or header line, in bytes up to the LF (inline) or CR (header) that ends it.
    pub inline_max_bytes: usize,
    /// Whether the client has authenticated (or need not). Decides only the words a limit is refused with.
    pub authenticated: bool,
}

impl RequestLimits {
    /// Redis's limits by default.
    pub const AUTHENTICATED: Self = Self {
        args_max: i32::MAX as usize,
        bulk_max_bytes: 512 * 1024 * 1024,
        inline_max_bytes: 64 * 1024,
        authenticated: true,
    };

    /// Redis's limits on a client that must authenticate and has not: enough for `HELLO` with `AUTH` and `SETNAME`.
    pub const UNAUTHENTICATED: Self =
        Self { args_max: 10, bulk_max_bytes: 16 * 1024, inline_max_bytes: 64 * 1024, authenticated: false };
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self::AUTHENTICATED
    }
}
