//! What a client can send that ends its connection, and the words Redis ends it with.
//!
//! Only the wording lives here; the scanner decides, the session closes.

use super::encode;

/// A request Redis would not have parsed. The connection cannot go on: what follows has no known beginning.
///
/// The texts are those of Redis 7.0.15 (`networking.c`); `Display` prints what follows `-ERR Protocol error: `.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The number after `*` is not one, or is past `i32::MAX`.
    #[error("invalid multibulk length")]
    InvalidMultibulkLength,
    /// The number after `$` is not one, is negative, or is past the server's `proto-max-bulk-len`.
    #[error("invalid bulk length")]
    InvalidBulkLength,
    /// More arguments than a client may send before it has authenticated.
    #[error("unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// A longer argument than a client may send before it has authenticated.
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An argument began with another byte than `$`. Any byte but NUL is possible, so `Display` may be lossy where
    /// [`ProtocolError::reply`] is exact.
    #[error("expected '$', got '{}'", one_line(*.0) as char)]
    ExpectedDollar(u8),
    /// An inline request did not end in time.
    #[error("too big inline request")]
    TooBigInline,
    /// A line beginning with `*` did not end in time.
    #[error("too big mbulk count string")]
    TooBigMultibulkCount,
    /// The header line of an argument did not end in time.
    #[error("too big bulk count string")]
    TooBigBulkCount,
    /// An inline request whose quotes do not match.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// A TLS client hello. Redis would wait for the end of the line, and the client for an answer.
    #[error("TLS is not spoken on this port")]
    Tls,
    /// The command is `POST` or `Host:`: a browser was made to talk to this port. Redis closes without a reply, and
    /// drops replies not yet written.
    #[error("POST or Host: command, possibly cross protocol scripting")]
    CrossProtocol,
}

impl ProtocolError {
    /// Appends the error reply Redis sends before it closes; nothing for [`ProtocolError::CrossProtocol`].
    pub fn reply(&self, out: &mut Vec<u8>) {
        match self {
            Self::CrossProtocol => {}
            Self::ExpectedDollar(byte) => {
                out.extend_from_slice(b"-ERR Protocol error: expected '$', got '");
                out.push(one_line(*byte));
                out.extend_from_slice(b"'\r\n");
            }
            other => encode::error(out, format!("ERR Protocol error: {other}")),
        }
    }
}

/// Redis puts the offending byte into its reply as it came, but for the two that would end the line.
fn one_line(byte: u8) -> u8 {
    match byte {
        b'\r' | b'\n' => b' ',
        other => other,
    }
}
