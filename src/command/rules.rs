//! What the operator's rules refuse: names, subcommands and ACL categories, laid over the table.
//!
//! Owns the reading of one word of a rule ([`Named`]), what a whole rule says about a command ([`Rule`]), and that answer
//! worked out for every id of a table ([`Denied`]), so that a request costs one bit. Whom a rule is for, and what a refusal
//! looks like, is not decided here.
//!
//! The narrower word wins: a subcommand over a command, a command over a category, a category over `@all`. Between equals,
//! refusal. What neither the table nor the upstream describes may be in any category, and may write.

use super::flags::{Categories, Flags};
use super::model::{Access, Command, Dedicated, Effect, Local, Route};
use super::table::Table;
use crate::resp::Args;

/// One word of `deny` or `allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// `@all`
    All,
    /// `@dangerous`
    Category(Categories),
    /// `flushall`; with subcommands, all of them.
    Command(Box<str>),
    /// `config|set`
    Subcommand(Box<str>),
}

impl Named {
    /// Reads one word, in any letter case.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(word: &str) -> Result<Self, String> {
        let word = word.to_ascii_lowercase();
        if let Some(category) = word.strip_prefix('@') {
            if category == "all" {
                return Ok(Self::All);
            }
            return Categories::of_word(category.as_bytes()).map(Self::Category).ok_or_else(|| {
                let known: Vec<_> = Categories::every().map(|word| format!("@{word}")).collect();
                format!("@{category} is no ACL category; there are @all, {}", known.join(", "))
            });
        }
        let parts: Vec<_> = word.split('|').collect();
        // A sign is how ACL rules are written; here it would be part of a name that does not exist.
        let is_name = |part: &&str| {
            !part.is_empty() && !part.starts_with(['+', '-']) && part.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match parts.as_slice() {
            parts if !parts.iter().all(is_name) || parts.len() > 2 => Err(
                "expected names of commands (\"flushall\"), subcommands (\"config|set\") and ACL categories (\"@dangerous\")"
                    .to_owned(),
            ),
            [name] => Ok(Self::Command((*name).into())),
            _ => Ok(Self::Subcommand(word.into())),
        }
    }

    /// Whether it names a command that no rule can refuse; such a word would be believed to do something.
    pub fn is_never_refused(&self) -> bool {
        matches!(self, Self::Command(name) if Table::builtin().by_name(name).is_some_and(is_never_refused))
    }

    /// How narrowly it covers the command of this name, if it does. `is_in` says whether that is in a category.
    fn covers(&self, name: &str, is_in: impl Fn(Categories) -> bool) -> Option<Narrowness> {
        let container = name.split_once('|').map_or(name, |(container, _)| container);
        let (covers, narrowness) = match self {
            Self::All => (true, Narrowness::All),
            Self::Category(category) => (is_in(*category), Narrowness::Category),
            Self::Command(own) => (**own == *container, Narrowness::Command),
            Self::Subcommand(own) => (**own == *name, Narrowness::Subcommand),
        };
        covers.then_some(narrowness)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Narrowness {
    /// Not named at all, where only what is allowed may run.
    Unnamed,
    All,
    Category,
    Command,
    Subcommand,
}

/// What one rule refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What is refused.
    pub deny: Vec<Named>,
    /// What is not refused all the same; without any `deny`, all that is not.
    pub allow: Vec<Named>,
    /// Whatever may write is refused, allowed or not.
    pub read_only: bool,
}

impl Rule {
    /// The rule worked out for every command of `table`.
    pub fn resolve(&self, table: &Table) -> Denied {
        let mut bits = vec![0; table.ids().div_ceil(64)].into_boxed_slice();
        for command in table.iter().filter(|command| self.refuses(&command.name, Some(command))) {
            bits[usize::from(command.id) / 64] |= 1 << (command.id % 64);
        }
        Denied { bits, rule: self.clone() }
    }

    /// Names in it that `table` does not have.
    pub fn names_unknown_to(&self, table: &Table) -> Vec<&str> {
        let named = self.deny.iter().chain(&self.allow).filter_map(|named| match named {
            Named::Command(name) | Named::Subcommand(name) => Some(&**name),
            Named::All | Named::Category(_) => None,
        });
        named.filter(|name| table.by_name(name).is_none()).collect()
    }

    /// `command` is absent if nobody knows what `name` is.
    fn refuses(&self, name: &str, command: Option<&Command>) -> bool {
        if command.is_some_and(is_never_refused) {
            return false;
        }
        if self.read_only && command.is_none_or(may_write) {
            return true;
        }
        let narrowest = |list: &[Named], unknown: bool| {
            let is_in = |category| command.map_or(unknown, |command| command.categories.intersects(category));
            list.iter().filter_map(|named| named.covers(name, is_in)).max()
        };
        let only = self.deny.is_empty() && !self.allow.is_empty();
        let denied = if only { Some(Narrowness::Unnamed) } else { narrowest(&self.deny, true) };
        let allowed = narrowest(&self.allow, false);
        let refuses_any = !self.deny.is_empty() || (only && !self.allow.contains(&Named::All));
        if refuses_any && command.is_some_and(is_tunnel) {
            return denied.max(Some(Narrowness::Category)) >= allowed;
        }
        denied.is_some() && denied >= allowed
    }
}

/// A rule worked out for one table.
#[derive(Debug)]
pub struct Denied {
    /// One bit a command, by id.
    bits: Box<[u64]>,
    rule: Rule,
}

impl Denied {
    /// Whether a request for `command`, as the table found it, is refused.
    #[inline]
    pub fn refuses(&self, command: &Command, args: &Args<'_>) -> bool {
        if command.id == 0 {
            return self.refuses_unknown(args);
        }
        let word = self.bits.get(usize::from(command.id) / 64).copied().unwrap_or(u64::MAX);
        word >> (command.id % 64) & 1 != 0
    }

    /// Whether a request that the table does not know is refused.
    #[cold]
    fn refuses_unknown(&self, args: &Args<'_>) -> bool {
        self.rule.refuses(&name_of(args), None)
    }
}

/// The name of a request that the table does not know: with its second word, which may be a subcommand.
fn name_of(args: &Args<'_>) -> String {
    let text = |word: &[u8]| String::from_utf8_lossy(word).to_ascii_lowercase();
    match args.get(1) {
        Some(second) => format!("{}|{}", text(args.name()), text(second)),
        None => text(args.name()),
    }
}

/// Every user may run these, whatever its rights (acl.c, `CMD_NO_AUTH`): without them no client could become another user.
fn is_never_refused(command: &Command) -> bool {
    matches!(command.route, Route::Local(Local::Auth | Local::Hello | Local::Quit | Local::Reset))
}

/// Replication: what a client sends once that has begun is passed on unread, and Redis runs it. So a rule that refuses anything
/// refuses this too, unless it is allowed by name.
fn is_tunnel(command: &Command) -> bool {
    command.route == Route::Dedicated(Dedicated::Tunnel)
}

/// Whether it may change data, or the server so that its data may change (CONFIG SET, DEBUG, REPLICAOF). PFCOUNT, which
/// Redis lets a read-only replica run too, only changes how a value is written down.
fn may_write(command: &Command) -> bool {
    matches!(command.access, Access::Write | Access::Unknown)
        || command.flags.contains(Flags::WRITE)
        || is_tunnel(command)
        || command.effect == Effect::DropEverything
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Found;
    use crate::command::testing::Reply::{Int, List, Word};
    use crate::command::testing::{Request, list};

    fn rule(deny: &[&str], allow: &[&str], read_only: bool) -> Rule {
        let named = |words: &[&str]| words.iter().map(|word| Named::parse(word).unwrap()).collect();
        Rule { deny: named(deny), allow: named(allow), read_only }
    }

    /// Which of these requests it refuses.
    fn refused<'a>(rule: &Rule, requests: &[&'a str]) -> Vec<&'a str> {
        let table = Table::builtin();
        let denied = rule.resolve(&table);
        let is_refused = |line: &&&str| {
            let request = Request::new(line);
            let command = match table.find(&request.args()) {
                Found::Command(command) | Found::WrongArity(command) => command,
                Found::Unknown | Found::UnknownSubcommand(_) => table.unknown(),
            };
            denied.refuses(command, &request.args())
        };
        requests.iter().filter(is_refused).copied().collect()
    }

    #[test]
    fn the_narrower_word_wins_and_between_equals_refusal() {
        let rule =
            rule(&["@dangerous", "config", "get", "client|kill"], &["CONFIG|GET", "info", "get", "@read"], false);
        let asked = [
            "CONFIG GET x",
            "config set x y",
            "CONFIG",
            "INFO",
            "KEYS *",
            "GET k",
            "CLIENT KILL x",
            "client list",
            "CLIENT ID",
            "STRLEN k",
            "SET k v",
        ];
        let expected = ["config set x y", "CONFIG", "KEYS *", "GET k", "CLIENT KILL x", "client list"];
        assert_eq!(refused(&rule, &asked), expected);
    }

    #[test]
    fn what_is_allowed_without_a_denial_is_all_that_is_allowed() {
        let asked = ["GET k", "PING", "SET k v", "CONFIG GET x", "AUTH p", "HELLO 3", "QUIT", "RESET", "FROB"];
        assert_eq!(refused(&rule(&[], &["@read", "ping"], false), &asked), ["SET k v", "CONFIG GET x", "FROB"]);
        assert_eq!(refused(&rule(&["@all"], &["@read", "ping"], false), &asked), ["SET k v", "CONFIG GET x", "FROB"]);
        assert_eq!(refused(&Rule::default(), &asked), [""; 0]);
        assert_eq!(refused(&rule(&["@connection"], &[], false), &asked), ["PING", "FROB"]);
    }

    #[test]
    fn read_only_refuses_whatever_may_write_allowed_or_not() {
        let reads = ["GET k", "PFCOUNT k", "SORT_RO k", "EVAL_RO s 0", "FCALL_RO f 0", "PUBLISH c m", "MULTI", "INFO"];
        let writes = [
            "SET k v",
            "SORT k",
            "GETEX k",
            "EVAL s 0",
            "EVALSHA s 0",
            "FCALL f 0",
            "FUNCTION LOAD x",
            "FUNCTION FROB",
            "FLUSHALL",
            "XREADGROUP GROUP g c STREAMS s >",
            "CONFIG SET x y",
            "DEBUG RELOAD",
            "REPLICAOF h 1",
            "MIGRATE h 1 k 0 1",
            "FROB k",
        ];
        let rule = rule(&[], &["@all", "set", "eval"], true);
        assert_eq!(refused(&rule, &[&reads[..], &writes].concat()), writes);
    }

    #[test]
    fn what_nobody_knows_may_be_in_any_category_and_has_only_its_name() {
        let asked = ["FROB", "FROB SUB x", "CONFIG FROB", "CLIENT FROB"];
        assert_eq!(refused(&rule(&["@geo"], &[], false), &asked), asked);
        assert_eq!(refused(&rule(&["@geo"], &["frob", "@connection"], false), &asked), ["CONFIG FROB", "CLIENT FROB"]);
        assert_eq!(refused(&rule(&["get"], &[], false), &asked), [""; 0]);
        assert_eq!(refused(&rule(&["frob|sub", "config"], &[], false), &asked), ["FROB SUB x", "CONFIG FROB"]);
    }

    #[test]
    fn what_would_carry_anything_past_a_rule_is_refused_with_it_unless_it_is_allowed_by_name() {
        let asked = ["PSYNC ? -1", "SYNC", "GET k"];
        assert_eq!(refused(&rule(&["flushall"], &[], false), &asked), ["PSYNC ? -1", "SYNC"]);
        assert_eq!(refused(&rule(&["flushall"], &["psync", "@admin"], false), &asked), ["SYNC"]);
        assert_eq!(refused(&rule(&[], &["psync", "@all"], true), &asked), ["PSYNC ? -1", "SYNC"]);
        assert_eq!(refused(&rule(&[], &["@admin", "sync"], false), &asked), ["PSYNC ? -1", "GET k"]);
        assert_eq!(refused(&rule(&[], &["@all"], false), &asked), [""; 0]);
        assert_eq!(refused(&Rule::default(), &asked), [""; 0]);
    }

    #[test]
    fn every_word_redis_has_for_a_category_is_known_and_a_slip_is_told() {
        assert_eq!(Named::parse("@ALL"), Ok(Named::All));
        assert_eq!(Named::parse("Config|Set"), Ok(Named::Subcommand("config|set".into())));
        assert!(Named::parse("@dangerous").is_ok() && Named::parse("json.set").is_ok());
        for slip in ["@dangerus", "", "@", "config set", "|set", "config|", "a|b|c", "-get"] {
            assert!(Named::parse(slip).is_err(), "{slip}");
        }
        assert!(Named::parse("@dangerus").unwrap_err().contains("@dangerous"));
        assert!(Named::parse("hello").unwrap().is_never_refused() && !Named::parse("ping").unwrap().is_never_refused());
    }

    #[test]
    fn a_module_s_command_is_in_the_categories_the_upstream_says() {
        let row = |name, categories| {
            let [arity, first, last, step] = [-2, 1, 1, 1].map(Int);
            List(vec![Word(name), arity, list("module"), first, last, step, list(categories)])
        };
        let rows = vec![row("json.clear", "@write @slow"), row("json.debug", "@dangerous"), row("get", "@read @admin")];
        let table = Table::builtin().merge(&List(rows).bytes()).unwrap();
        let denied = rule(&["@dangerous", "@admin"], &[], false).resolve(&table);
        let refused = ["json.clear", "json.debug", "get", "keys"].map(|name| {
            let request = Request::new(&format!("{name} k"));
            denied.refuses(table.by_name(name).unwrap(), &request.args())
        });
        assert_eq!(refused, [false, true, true, true]);
    }

    #[test]
    fn names_that_a_table_does_not_have_are_told() {
        let rule = rule(&["config|set", "frob", "config|frob", "@all"], &["json.get", "get"], false);
        assert_eq!(rule.names_unknown_to(&Table::builtin()), ["frob", "config|frob", "json.get"]);
    }
}
