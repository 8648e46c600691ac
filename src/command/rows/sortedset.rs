//! Sorted sets.
//!
//! ZRANK takes WITHSCORE since 7.2, and with it a missing member is a null array.

use super::{ALL_BUT_LAST, COUNTED, COUNTED_AT_2, ONE, Row, TO_COUNTED, TWO, row};
use crate::command::model::Dedicated;
use crate::command::varies::Varies;
use crate::command::wait::Wait;

#[rustfmt::skip] // One command, one line.
pub(super) const ROWS: &[Row] = &[
    row("bzmpop",            -5, COUNTED_AT_2, "write blocking movablekeys",   "sortedset").dedicated(Dedicated::Blocking).null_array().wait(Wait::SecondsFirst),
    row("bzpopmax",          -3, ALL_BUT_LAST, "write noscript blocking fast", "sortedset").dedicated(Dedicated::Blocking).null_array().wait(Wait::SecondsLast),
    row("bzpopmin",          -3, ALL_BUT_LAST, "write noscript blocking fast", "sortedset").dedicated(Dedicated::Blocking).null_array().wait(Wait::SecondsLast),
    row("zadd",              -4, ONE,          "write denyoom fast",           "sortedset"),
    row("zcard",              2, ONE,          "readonly fast",                "sortedset").serve(),
    row("zcount",             4, ONE,          "readonly fast",                "sortedset").serve(),
    row("zdiff",             -3, COUNTED,      "readonly movablekeys",         "sortedset").varies(Varies::WithPairsAfterKeys),
    row("zdiffstore",        -4, TO_COUNTED,   "write denyoom movablekeys",    "sortedset"),
    row("zincrby",            4, ONE,          "write denyoom fast",           "sortedset"),
    row("zinter",            -3, COUNTED,      "readonly movablekeys",         "sortedset").varies(Varies::WithPairsAfterKeys),
    row("zintercard",        -3, COUNTED,      "readonly movablekeys",         "sortedset"),
    row("zinterstore",       -4, TO_COUNTED,   "write denyoom movablekeys",    "sortedset"),
    row("zlexcount",          4, ONE,          "readonly fast",                "sortedset").serve(),
    row("zmpop",             -4, COUNTED,      "write movablekeys",            "sortedset").null_array(),
    row("zmscore",           -3, ONE,          "readonly fast",                "sortedset").serve(),
    row("zpopmax",           -2, ONE,          "write fast",                   "sortedset").varies(Varies::CountedPairs),
    row("zpopmin",           -2, ONE,          "write fast",                   "sortedset").varies(Varies::CountedPairs),
    row("zrandmember",       -2, ONE,          "readonly",                     "sortedset").varies(Varies::WithPairs(3)),
    row("zrange",            -4, ONE,          "readonly",                     "sortedset").serve().varies(Varies::WithPairs(4)),
    row("zrangebylex",       -4, ONE,          "readonly",                     "sortedset").serve(),
    row("zrangebyscore",     -4, ONE,          "readonly",                     "sortedset").serve().varies(Varies::WithPairs(4)),
    row("zrangestore",       -5, TWO,          "write denyoom",                "sortedset"),
    row("zrank",             -3, ONE,          "readonly fast",                "sortedset").serve().counts_places().varies(Varies::WithScore),
    row("zrem",              -3, ONE,          "write fast",                   "sortedset"),
    row("zremrangebylex",     4, ONE,          "write",                        "sortedset"),
    row("zremrangebyrank",    4, ONE,          "write",                        "sortedset"),
    row("zremrangebyscore",   4, ONE,          "write",                        "sortedset"),
    row("zrevrange",         -4, ONE,          "readonly",                     "sortedset").serve().varies(Varies::WithPairs(4)),
    row("zrevrangebylex",    -4, ONE,          "readonly",                     "sortedset").serve(),
    row("zrevrangebyscore",  -4, ONE,          "readonly",                     "sortedset").serve().varies(Varies::WithPairs(4)),
    row("zrevrank",          -3, ONE,          "readonly fast",                "sortedset").serve().counts_places().varies(Varies::WithScore),
    row("zscan",             -3, ONE,          "readonly",                     "sortedset"),
    row("zscore",             3, ONE,          "readonly fast",                "sortedset").serve(),
    row("zunion",            -3, COUNTED,      "readonly movablekeys",         "sortedset").varies(Varies::WithPairsAfterKeys),
    row("zunionstore",       -4, TO_COUNTED,   "write denyoom movablekeys",    "sortedset"),
];
