//! An address that may be none: written as `""` or `"off"`.

use std::net::{AddrParseError, SocketAddr};

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// Reads one.
///
/// # Errors
/// It is neither an IP address with a port nor a word for none.
pub(super) fn parse(text: &str) -> Result<Option<SocketAddr>, AddrParseError> {
    match text {
        "" | "off" => Ok(None),
        address => address.parse().map(Some),
    }
}

pub(super) fn serialize<S: Serializer>(address: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => to.collect_str(address),
        None => to.serialize_str(""),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    parse(&String::deserialize(from)?).map_err(D::Error::custom)
}
