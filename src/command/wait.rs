//! How long a blocking command may wait, in its own words.
//!
//! A row names where the time stands; nothing here looks at a command's name. What cannot be read as a time Redis refuses,
//! or is newer than we are: then nothing is claimed.

use std::time::Duration;

use super::keys::stream_options;
use super::options::is;
use crate::resp::Args;

/// Where a blocking command says how long it may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nowhere that is known.
    Untold,
    /// Seconds, with decimals, in the first argument.
    SecondsFirst,
    /// Seconds, with decimals, in the last argument.
    SecondsLast,
    /// Whole milliseconds in the last argument.
    MillisLast,
    /// Whole milliseconds after BLOCK, before STREAMS.
    Block,
}

impl Wait {
    /// The longest it waits; `None` for ever, or not known.
    pub(super) fn of(self, args: &Args<'_>) -> Option<Duration> {
        let (word, seconds) = match self {
            Self::Untold => return None,
            Self::SecondsFirst => (args.get(1), 1.0),
            Self::SecondsLast => (args.get(args.len().checked_sub(1)?), 1.0),
            Self::MillisLast => (args.get(args.len().checked_sub(1)?), 0.001),
            Self::Block => {
                let options = stream_options(args).take_while(|(_, word)| !is(word, "streams"));
                // The last of several counts.
                (options.filter(|(_, word)| is(word, "block")).last().and_then(|(at, _)| args.get(at + 1)), 0.001)
            }
        };
        let number: f64 = std::str::from_utf8(word?).ok()?.parse().ok()?;
        if number > 0.0 { Duration::try_from_secs_f64(number * seconds).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Table;
    use crate::command::testing::Request;

    #[test]
    fn every_blocking_row_says_where_its_time_stands() {
        use crate::command::{Dedicated, Flags, Route};
        for command in Table::builtin().iter() {
            let blocks = command.flags.contains(Flags::BLOCKING) || command.route == Route::Dedicated(Dedicated::Wait);
            assert_eq!(command.wait != Wait::Untold, blocks, "{}", command.name);
        }
    }

    #[test]
    fn each_blocking_command_says_where_its_time_stands() {
        let table = Table::builtin();
        for (request, ms) in [
            ("BLPOP a b 0.25", Some(250)),
            ("BRPOP a 1", Some(1000)),
            ("BRPOPLPUSH a b 2", Some(2000)),
            ("BLMOVE a b LEFT RIGHT 3", Some(3000)),
            ("BLMPOP 1.5 1 a LEFT", Some(1500)),
            ("BZMPOP 2 1 a MIN", Some(2000)),
            ("BZPOPMIN a 1", Some(1000)),
            ("BZPOPMAX a 1", Some(1000)),
            ("XREAD BLOCK 7 STREAMS a $", Some(7)),
            ("XREAD COUNT 1 BLOCK 7 BLOCK 9 STREAMS block 5", Some(9)),
            ("XREADGROUP GROUP g c BLOCK 8 STREAMS a >", Some(8)),
            ("WAIT 1 100", Some(100)),
            ("WAITAOF 1 0 100", Some(100)),
            ("BLPOP a 0", None),
            ("BLPOP a -1", None),
            ("BLPOP a nan", None),
            ("BLPOP a 1e300", None),
            ("BLPOP a soon", None),
            ("XREAD STREAMS block 5", None),
            ("GET k", None),
        ] {
            let asked = Request::new(request);
            let name = String::from_utf8_lossy(asked.args().name()).into_owned();
            let command = table.by_name(&name).expect("it is in the table");
            assert_eq!(command.waits_for(&asked.args()), ms.map(Duration::from_millis), "{request}");
        }
    }
}
