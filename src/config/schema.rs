//! What keys there are and what each takes, read off the defaults so that there is no second list to keep.

use toml::{Table, Value};

use super::{CommandRule, Config, Glob, Mode, Policy, rate::RateKeys};

/// What `admin.token` may be.
pub(super) const TOKEN: &str =
    "expected 16 to 512 letters, digits and other visible characters of ASCII, or \"\" for none";

/// The tree of keys with their defaults.
pub(super) fn config() -> Table {
    Table::try_from(Config::default()).expect("the defaults are tables of plain values")
}

/// The keys of one `[[cache.policy]]`, with examples.
pub(super) fn policy() -> Table {
    let example = Policy { pattern: Glob::new("stock:*"), mode: Mode::Ttl { ttl_ms: 1000 } };
    Table::try_from(example).expect("a policy is a table of plain values")
}

/// The keys of one `[[limits.rate]]`, with examples.
pub(super) fn rate() -> Table {
    Table::try_from(RateKeys::example()).expect("a limit is a table of plain values")
}

/// The keys of one `[[commands.rule]]`, with examples.
pub(super) fn command_rule() -> Table {
    let example =
        CommandRule { deny: vec!["@dangerous".to_owned()], allow: vec!["info".to_owned()], ..Default::default() };
    Table::try_from(example).expect("a rule is a table of plain values")
}

/// What would be right for the key `name`, which is not in `known`.
pub(super) fn expected_key(known: &Table) -> String {
    let names: Vec<_> = known.keys().map(String::as_str).collect();
    format!("no such key here; there are {}", names.join(", "))
}

/// What would be right for the key at `path` of [`config`].
pub(super) fn expected_at(path: &str) -> String {
    let root = Value::Table(config());
    let example = path.split('.').try_fold(&root, |at, name| at.get(name));
    example.map_or_else(String::new, |example| expected_value(path, example))
}

/// What would be right for the key at `path`, given its default or an example.
pub(super) fn expected_value(path: &str, example: &Value) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    let what = match (name, example) {
        ("listen", _) if path == "tls.listen" => {
            return "expected an IP address and a port, such as \"127.0.0.1:6390\", or \"\" for none".to_owned();
        }
        ("listen", _) if path == "admin.listen" => {
            return "expected an IP address and a port, such as \"127.0.0.1:9380\", or \"off\"".to_owned();
        }
        ("token", _) => return TOKEN.to_owned(),
        ("min_version", _) => return "expected \"1.2\" or \"1.3\"".to_owned(),
        ("client_certificates", _) => return "expected \"none\", \"optional\" or \"required\"".to_owned(),
        ("listen", _) => "expected an IP address and a port",
        ("format", _) => return "expected \"text\" or \"json\"".to_owned(),
        ("mode", _) => return "expected \"strict\", \"tracked\" or \"ttl\"".to_owned(),
        ("policy" | "rate" | "rule", _) => return format!("expected [[{path}]] tables"),
        ("keys", _) => return "expected a list of patterns of keys, such as [\"product:*\"]".to_owned(),
        ("deny" | "allow", _) => "expected a list of commands and ACL categories",
        ("by", _) => {
            return "expected \"ip\", \"user\", \"client-name\", \"connection\" or \"key-prefix\"".to_owned();
        }
        ("scope", _) => return "expected \"proxy\" or \"shared\"".to_owned(),
        ("algorithm", _) => return "expected \"token-bucket\", \"sliding-window\" or \"fixed-window\"".to_owned(),
        ("match", _) => {
            return "expected user and command (a word or a list of them), such as { user = \"app-*\", command = \"@write\" }"
                .to_owned();
        }
        ("bytes_per_second", _) => {
            return "expected a whole number of bytes, or a size such as \"10MiB\"; 0 does not limit them".to_owned();
        }
        (_, Value::Table(_)) => return format!("expected a table, [{path}]"),
        (name, _) if name.ends_with("_file") => return "expected the path of a file, or \"\" for none".to_owned(),
        ("tls_server_name", _) => return "expected a host name, or \"\" for that of upstream.url".to_owned(),
        (name, _) if name.ends_with("_bytes") => {
            return "expected a whole number of bytes, or a size such as \"64MiB\"".to_owned();
        }
        (name, _) if name.ends_with("_ms") => "expected a whole number of milliseconds",
        (_, Value::Integer(_)) => "expected a whole number",
        (_, Value::Boolean(_)) => "expected true or false",
        _ => "expected a string",
    };
    format!("{what}, such as {example}")
}
