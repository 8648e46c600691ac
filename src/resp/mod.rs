//! Bytes to frames and back: the request scanner, the reply splitter, encoding, and RESP3 to RESP2.
//!
//! Everything here is pure: no I/O, no async, no knowledge of commands. Everything is iterative and resumable, works in
//! time linear in the bytes however they were cut up, and allocates nothing from a length a peer merely declared.
//!
//! | question | file |
//! |---|---|
//! | where does a client's request end, what are its arguments | `request`, with `inline` for quoting, `request_limits`, and `protocol_error` for the refusals |
//! | where does an upstream's reply end | `reply`, over `element` |
//! | how is something said in RESP2 or RESP3 | `encode`, `protocol` |
//! | what did the upstream say to the proxy itself | `understand` |
//! | what would a RESP2 client have got for this RESP3 reply | `convert`, over `element` |

mod args;
mod convert;
mod decimal;
mod element;
pub mod encode;
mod inline;
mod protocol;
mod protocol_error;
mod reply;
mod request;
mod request_limits;
mod understand;

pub use args::{ArgRange, Args};
pub use convert::{NullAs, Resp2Rule, same_in_resp2, to_resp2};
pub(crate) use decimal::decimal;
pub use element::{FrameError, HEADER_LINE_MAX_BYTES, LINE_MAX_BYTES};
pub use protocol::Protocol;
pub use protocol_error::ProtocolError;
pub use reply::{Frame, FrameKind, ReplySplitter};
pub use request::{RequestScanner, Scanned};
pub use request_limits::RequestLimits;
pub use understand::Understood;
