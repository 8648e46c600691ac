//! Which arguments are secret: passwords and the like, which must not appear in logs, traces or the console.
//!
//! Only says where they are. A request that does not parse is treated as the secret it may have been meant to be.

use super::keys::migrate_options;
use super::options::{is, option_words};
use crate::resp::Args;

/// Where a command's secret arguments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Nowhere.
    None,
    /// Everything from this position on.
    From(usize),
    /// HELLO: the user and password behind AUTH.
    Hello,
    /// CONFIG SET: the value of a parameter that holds a password.
    ConfigSet,
    /// MIGRATE: what stands behind AUTH and AUTH2.
    Migrate,
}

impl Secrets {
    pub(super) fn covers(self, args: &Args<'_>, index: usize) -> bool {
        match self {
            Secrets::None => false,
            Secrets::From(first) => index >= first,
            Secrets::Hello => {
                let auth = hello_auth(args);
                auth.is_some_and(|at| index > at && index <= at + 2)
            }
            Secrets::ConfigSet => index > 2 && index % 2 == 1 && args.get(index - 1).is_some_and(parameter_is_secret),
            Secrets::Migrate => migrate_options(args).any(|(at, word)| {
                (is(word, "auth") && index == at + 1) || (is(word, "auth2") && (at + 1..=at + 2).contains(&index))
            }),
        }
    }
}

fn hello_auth(args: &Args<'_>) -> Option<usize> {
    option_words(args, 2, |word| usize::from(is(word, "setname"))).find(|(_, word)| is(word, "auth")).map(|(at, _)| at)
}

/// `requirepass`, `masterauth`, `tls-key-file-pass` and whatever newer parameter is named like them.
fn parameter_is_secret(name: &[u8]) -> bool {
    const HINTS: [&[u8]; 5] = [b"pass", b"auth", b"secret", b"token", b"user"];
    let name = name.to_ascii_lowercase();
    HINTS.iter().any(|hint| name.windows(hint.len()).any(|part| part == *hint))
}

#[cfg(test)]
mod tests {
    use crate::command::Table;
    use crate::command::table::Found;
    use crate::command::testing::Request;

    fn shown(line: &str) -> String {
        let request = Request::new(line);
        let args = request.args();
        let table = Table::builtin();
        let command = match table.find(&args) {
            Found::Command(c) | Found::WrongArity(c) | Found::UnknownSubcommand(c) => c,
            Found::Unknown => table.unknown(),
        };
        let words = args.iter().enumerate();
        let words: Vec<&str> = words
            .map(|(at, w)| if command.is_secret(&args, at) { "***" } else { str::from_utf8(w).unwrap() })
            .collect();
        words.join(" ")
    }

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        for (request, expected) in [
            ("AUTH pw", "AUTH ***"),
            ("auth user pw", "auth *** ***"),
            ("AUTH user pw more", "AUTH *** *** ***"),
            ("HELLO 3 AUTH u p SETNAME n", "HELLO 3 AUTH *** *** SETNAME n"),
            ("HELLO 3 SETNAME auth AUTH u p", "HELLO 3 SETNAME auth AUTH *** ***"),
            ("CONFIG SET maxmemory 1 requirepass pw", "CONFIG SET maxmemory 1 requirepass ***"),
            ("config set MasterAuth pw", "config set MasterAuth ***"),
            ("CONFIG SET tls-key-file-pass pw save x", "CONFIG SET tls-key-file-pass *** save x"),
            ("ACL SETUSER bob >pw on", "ACL SETUSER bob *** ***"),
            ("MIGRATE h 1 k 0 9 AUTH pw", "MIGRATE h 1 k 0 9 AUTH ***"),
            ("MIGRATE h 1 \"\" 0 9 COPY AUTH2 u p KEYS auth k", "MIGRATE h 1  0 9 COPY AUTH2 *** *** KEYS auth k"),
            ("SET k v", "SET k v"),
            ("AUHT pw", "AUHT ***"),
            ("ACL SETUSR bob >pw", "ACL SETUSR *** ***"),
        ] {
            assert_eq!(shown(request), expected);
        }
    }
}
