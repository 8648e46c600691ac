//! Believing the upstream about its commands: its `COMMAND` reply laid over the table.
//!
//! Two rules. Of a command we know, the upstream may correct the arity, the flags and plain key positions, and may make
//! us more careful, never less: nothing becomes cacheable, and no write becomes a read, because a reply says so. Of a
//! command we do not know, only what its flags and key specifications promise is believed, and where they promise nothing
//! it gets a dedicated connection and all its arguments count as keys.

use std::collections::HashSet;

use super::flags::{Categories, Flags};
use super::keys::{KeyBegin, KeyFind, KeySpec, Keys};
use super::missing::Zero;
use super::model::{Access, Command, Dedicated, Effect, Local, Route};
use super::reply::{Value, read};
use super::rows::PLAIN;
use super::secrets::Secrets;
use super::table::Table;
use super::varies::Varies;
use super::wait::Wait;

/// How many commands a table may hold, subcommands included. Redis 8 with its modules has about 600.
const COMMANDS_MAX: usize = 8192;
/// How long the name of a command may be, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Why a `COMMAND` reply was not merged. The upstream is at fault in every case; the table stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The upstream answered with an error.
    #[error("the upstream refused COMMAND: {0}")]
    Refused(String),
    /// The reply is not what COMMAND answers.
    #[error("the reply to COMMAND is malformed: {0}")]
    Malformed(&'static str),
    /// The reply nests deeper than any COMMAND reply does.
    #[error("the reply to COMMAND nests too deep")]
    TooDeep,
    /// The reply is larger, or has more commands, than any COMMAND reply does.
    #[error("the reply to COMMAND is too large")]
    TooLarge,
}

impl Table {
    /// This table with the upstream's reply to `COMMAND` (one whole RESP2 or RESP3 frame) laid over it. Ids of known
    /// commands stay.
    ///
    /// # Errors
    /// If the reply is an error, or is not what COMMAND answers, or exceeds a bound.
    pub fn merge(&self, reply: &[u8]) -> Result<Table, MergeError> {
        let reply = read(reply)?;
        let rows = reply.list().ok_or(MergeError::Malformed("the reply is no array"))?;
        let mut said = Vec::new();
        for row in rows {
            Said::collect(row, None, &mut said)?;
        }
        let mut commands = self.commands().to_vec();
        let mut added = HashSet::new();
        for said in &said {
            let container = said.name.split_once('|').and_then(|(container, _)| self.by_name(container));
            match self.by_name(&said.name) {
                Some(known) => said.correct(&mut commands[usize::from(known.id)]),
                // Arguments of a command we know as a plain one do not turn into subcommands.
                None if container.is_some_and(|command| !command.container) => {}
                None if !added.insert(&*said.name) => {}
                None if commands.len() == COMMANDS_MAX => return Err(MergeError::TooLarge),
                None => commands.push(said.command()),
            }
        }
        Ok(Table::of(commands))
    }
}

/// What the upstream says about one command.
struct Said {
    name: Box<str>,
    arity: i32,
    flags: Flags,
    categories: Categories,
    keys: SaidKeys,
    has_subcommands: bool,
}

/// What it says about the command's keys.
enum SaidKeys {
    /// These are all of them.
    All(Keys),
    /// They cannot be told from the reply.
    Untold,
}

impl Said {
    /// Reads one row, then its subcommands.
    fn collect(row: &Value<'_>, container: Option<&str>, into: &mut Vec<Said>) -> Result<(), MergeError> {
        if *row == Value::Null {
            return Ok(());
        }
        let malformed = MergeError::Malformed;
        let columns = row.list().ok_or(malformed("a command is no array"))?;
        let column = |at: usize| columns.get(at).ok_or(malformed("a command lacks a column"));
        let name =
            column(0)?.text().and_then(|text| str::from_utf8(text).ok()).ok_or(malformed("a name is no text"))?;
        let name = name.to_ascii_lowercase();
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(malformed("a name is empty or too long"));
        }
        let belongs = match container {
            None => !name.contains('|'),
            Some(container) => name.strip_prefix(container).is_some_and(|rest| rest.starts_with('|')),
        };
        if !belongs {
            return Err(malformed("a subcommand is not named after its container"));
        }
        let arity = column(1)?.integer().filter(|arity| *arity != 0).and_then(|arity| i32::try_from(arity).ok());
        let flags = words(column(2)?, Flags::empty(), Flags::of_word)?;
        let categories = match columns.get(6) {
            Some(column) => words(column, Categories::empty(), |word| Categories::of_word(word.strip_prefix(b"@")?))?,
            None => Categories::implied_by(flags, Categories::empty()),
        };
        let mut triple = [0; 3];
        for (at, position) in triple.iter_mut().enumerate() {
            let number = column(3 + at)?.integer().and_then(|number| i32::try_from(number).ok());
            *position = number.ok_or(malformed("a key position is no number"))?;
        }
        let specs =
            columns.get(8).map(|specs| specs.list().ok_or(malformed("key specifications are no list"))).transpose()?;
        let keys = SaidKeys::of(triple, flags, specs)?;
        let subcommands = match columns.get(9) {
            Some(list) => list.list().ok_or(malformed("subcommands are no list"))?,
            None => &[],
        };
        if into.len() == COMMANDS_MAX {
            return Err(MergeError::TooLarge);
        }
        let arity = arity.ok_or(malformed("an arity is no number"))?;
        into.push(Said {
            name: name.as_str().into(),
            arity,
            flags,
            categories,
            keys,
            has_subcommands: !subcommands.is_empty(),
        });
        subcommands.iter().try_for_each(|row| Said::collect(row, Some(&name), into))
    }

    /// Corrects a row we have.
    fn correct(&self, known: &mut Command) {
        // What stands behind a container is described by its subcommands' rows; servers before 7.0 have only the container.
        if known.container || matches!(known.route, Route::Local(Local::Proxy(_))) {
            return;
        }
        let known_flags = known.flags;
        known.arity = self.arity;
        known.flags = self.flags;
        known.categories = self.categories;
        let keys = match &self.keys {
            SaidKeys::All(keys) => Some(keys.clone()),
            SaidKeys::Untold if known_flags.contains(Flags::MOVABLEKEYS) => None,
            SaidKeys::Untold => Some(Keys::Every { from: 1 }),
        };
        // The irregular shapes stay: they say more than key specifications can.
        if let (Keys::None | Keys::Range { .. }, Some(keys)) = (&known.keys, keys)
            && known.keys != keys
        {
            known.keys = keys;
            known.effect = careful(known.effect, self.flags);
        }
        if self.flags.contains(Flags::WRITE) && known.access == Access::Read {
            known.access = Access::Write;
            known.effect = careful(known.effect, self.flags);
            known.varies = Varies::No;
        }
        let blocks = self.flags.contains(Flags::BLOCKING) && known.varies != Varies::Streams;
        if blocks && known.route == Route::Lane {
            known.route = Route::Dedicated(Dedicated::Blocking);
        }
    }

    /// Makes a row of a command we do not have.
    fn command(&self) -> Command {
        let access = match () {
            () if self.flags.contains(Flags::WRITE) => Access::Write,
            () if self.flags.contains(Flags::READONLY) => Access::Read,
            () => Access::Unknown,
        };
        let keys = match &self.keys {
            SaidKeys::All(Keys::None) | SaidKeys::Untold => {
                Keys::Every { from: 1 + usize::from(self.name.contains('|')) }
            }
            SaidKeys::All(keys) => keys.clone(),
        };
        let told = !matches!(keys, Keys::Every { .. });
        Command {
            id: 0,
            name: self.name.clone(),
            arity: self.arity,
            keys,
            access,
            route: self.route(access, told),
            effect: match access {
                Access::Read => Effect::Nothing,
                // Modules write keys they do not declare (TS.ADD its compactions), and movable keys are a guess.
                Access::Write if told && !self.flags.intersects(Flags::MODULE | Flags::MOVABLEKEYS) => Effect::DropKeys,
                _ => Effect::DropKeysAndFence,
            },
            resp2: PLAIN,
            zero: Zero::Place,
            flags: self.flags,
            categories: self.categories,
            secrets: if access == Access::Unknown { Secrets::From(1) } else { Secrets::None },
            container: false,
            since: None,
            wait: Wait::Untold,
            varies: Varies::No,
        }
    }

    fn route(&self, access: Access, told: bool) -> Route {
        let own_state = Categories::CONNECTION | Categories::TRANSACTION | Categories::PUBSUB | Categories::SCRIPTING;
        let lane = told
            && access != Access::Unknown
            && !self.has_subcommands
            && !self.flags.intersects(Flags::NOSCRIPT | Flags::NO_MULTI | Flags::PUBSUB)
            && !self.categories.intersects(own_state);
        match () {
            () if self.flags.contains(Flags::BLOCKING) => Route::Dedicated(Dedicated::Blocking),
            () if lane => Route::Lane,
            () => Route::Dedicated(Dedicated::Unknown),
        }
    }
}

/// The more careful effect of a command whose row and whose server disagree.
fn careful(known: Effect, flags: Flags) -> Effect {
    match known {
        Effect::DropEverything => Effect::DropEverything,
        _ if known.drops() || flags.contains(Flags::WRITE) => Effect::DropKeysAndFence,
        _ => Effect::Nothing,
    }
}

impl SaidKeys {
    fn of([first, last, step]: [i32; 3], flags: Flags, specs: Option<&[Value<'_>]>) -> Result<SaidKeys, MergeError> {
        let mut read = Vec::new();
        let mut complete = true;
        let mut channels = 0;
        for spec in specs.unwrap_or_default() {
            let said = |flag: &str| {
                let flags = spec.field("flags").and_then(Value::list).unwrap_or_default();
                flags.iter().any(|word| word.text().is_some_and(|word| word.eq_ignore_ascii_case(flag.as_bytes())))
            };
            // The channel of a shard is located like a key and is none.
            if said("not_key") {
                channels += 1;
                continue;
            }
            let spec = key_spec(spec)?;
            complete &= spec.is_some() && !said("incomplete");
            read.extend(spec);
        }
        let movable = flags.contains(Flags::MOVABLEKEYS);
        let plain = Keys::Range { first: first.max(0) as usize, last, step: step.max(1) as usize };
        Ok(match () {
            () if read.is_empty() && channels > 0 && complete => SaidKeys::All(Keys::None),
            () if movable && (read.is_empty() || !complete) => SaidKeys::Untold,
            () if movable => SaidKeys::All(Keys::Specs(read.into())),
            () if first > 0 => SaidKeys::All(plain),
            () => SaidKeys::All(Keys::None),
        })
    }
}

/// One key specification; `None` if the server itself cannot say (its type is "unknown", or one we do not know).
fn key_spec(value: &Value<'_>) -> Result<Option<KeySpec>, MergeError> {
    let malformed = MergeError::Malformed("a key specification lacks a field");
    let part = |name: &str| {
        let part = value.field(name)?;
        Some((part.field("type")?.text()?, part.field("spec")?))
    };
    let (begin_type, begin) = part("begin_search").ok_or(malformed.clone())?;
    let (find_type, find) = part("find_keys").ok_or(malformed.clone())?;
    let number = |of: &Value<'_>, name: &str| {
        of.field(name).and_then(Value::integer).and_then(|n| i32::try_from(n).ok()).ok_or(malformed.clone())
    };
    let position = |of: &Value<'_>, name: &str| {
        number(of, name)
            .and_then(|n| usize::try_from(n).map_err(|_| MergeError::Malformed("a key position is negative")))
    };
    let begin = match begin_type {
        b"index" => KeyBegin::Index(position(begin, "index")?),
        b"keyword" => KeyBegin::Keyword {
            word: begin.field("keyword").and_then(Value::text).ok_or(malformed.clone())?.into(),
            from: number(begin, "startfrom")?,
        },
        _ => return Ok(None),
    };
    let find = match find_type {
        b"range" => KeyFind::Range {
            last: number(find, "lastkey")?,
            step: position(find, "keystep")?,
            limit: position(find, "limit")?,
        },
        b"keynum" => KeyFind::Counted {
            count: position(find, "keynumidx")?,
            first: position(find, "firstkey")?,
            step: position(find, "keystep")?,
        },
        _ => return Ok(None),
    };
    Ok(Some(KeySpec { begin, find }))
}

fn words<S>(value: &Value<'_>, none: S, of_word: impl Fn(&[u8]) -> Option<S>) -> Result<S, MergeError>
where
    S: std::ops::BitOr<Output = S>,
{
    let words = value.list().ok_or(MergeError::Malformed("flags are no list"))?;
    Ok(words.iter().filter_map(Value::text).filter_map(of_word).fold(none, S::bitor))
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
