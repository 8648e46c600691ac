//! Positions, kept in sorted sets.
//!
//! GEORADIUS and GEORADIUSBYMEMBER are flagged as writes for their STORE; without it they read, untracked.

use super::{ONE, Row, TWO, row};
use crate::command::keys::Keys;
use crate::command::varies::Varies;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("geoadd",                -5, ONE,          "write denyoom",             "geo"),
    row("geodist",               -4, ONE,          "readonly",                  "geo").serve(),
    row("geohash",               -2, ONE,          "readonly",                  "geo").serve(),
    row("geopos",                -2, ONE,          "readonly",                  "geo").serve().nested_null_array(),
    row("georadius",             -6, Keys::GeoRadius { options: 6 }, "write denyoom movablekeys", "geo").varies(Varies::GeoRadius(6)),
    row("georadius_ro",          -6, ONE,          "readonly",                  "geo").serve(),
    row("georadiusbymember",     -5, Keys::GeoRadius { options: 5 }, "write denyoom movablekeys", "geo").varies(Varies::GeoRadius(5)),
    row("georadiusbymember_ro",  -5, ONE,          "readonly",                  "geo").serve(),
    row("geosearch",             -7, ONE,          "readonly",                  "geo").serve(),
    row("geosearchstore",        -8, TWO,          "write denyoom",             "geo"),
];
