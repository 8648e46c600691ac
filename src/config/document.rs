//! `proxy.toml` from text to [`Config`], complaining about every key at once.
//!
//! serde stops at its first error, so each key is first offered to it alone. What it refuses is reported and taken out,
//! and the rest is then read whole. serde stays the only judge of types; nothing here repeats the schema.

use serde::de::DeserializeOwned;
use toml::{
    Spanned, Table,
    de::{DeArray, DeTable, DeValue, Deserializer},
};

use super::{
    CommandRule, Config, UpstreamUrl,
    policy::PolicyKeys,
    problem::{Problem, Report, Source},
    rate::RateKeys,
    schema,
};

/// One of an array of tables, as it is written: every key optional.
trait Keys: DeserializeOwned + Default {
    /// How the table is headed, and where it is among the keys.
    const HEADER: &'static str;
    /// Its keys, with examples.
    fn known() -> Table;
    /// What is missing or superfluous: the key, and what would be right.
    fn problems(&self) -> Vec<(&'static str, &'static str)>;
    /// Has what could be read of it checked.
    fn note(self, report: &mut Report);
}

impl Keys for PolicyKeys {
    const HEADER: &'static str = "cache.policy";

    fn known() -> Table {
        schema::policy()
    }

    fn problems(&self) -> Vec<(&'static str, &'static str)> {
        self.problems()
    }

    fn note(self, report: &mut Report) {
        report.policies.push(self);
    }
}

impl Keys for CommandRule {
    const HEADER: &'static str = "commands.rule";

    fn known() -> Table {
        schema::command_rule()
    }

    fn problems(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    fn note(self, report: &mut Report) {
        report.command_rules.push(self);
    }
}

impl Keys for RateKeys {
    const HEADER: &'static str = "limits.rate";

    fn known() -> Table {
        schema::rate()
    }

    fn problems(&self) -> Vec<(&'static str, &'static str)> {
        self.problems()
    }

    fn note(self, report: &mut Report) {
        report.rates.push(self);
    }
}

/// Reads `text`, found in `file`. Whatever cannot be read keeps its default and is in the report.
pub(super) fn read(file: &str, text: &str, report: &mut Report) -> Config {
    let (mut document, errors) = DeTable::parse_recoverable(text);
    let broken: Vec<usize> =
        errors.iter().map(|error| line_of(text, error.span().map_or(0, |span| span.start))).collect();
    for (error, line) in errors.iter().zip(&broken) {
        report.problems.push(Problem {
            origin: file.to_owned(),
            line: Some(*line),
            key: String::new(),
            value: None,
            // The message alone: the error's own Display quotes the line, which may hold a password.
            expected: format!("not TOML: {}", error.message().replace('\n', "; ")),
        });
    }
    let mut walk = Walk { file, text, broken, report };
    walk.config(document.get_mut());
    deserialize(document).unwrap_or_else(|error| {
        // Not reachable while every key has been offered alone; said rather than silently ignored.
        let expected = super::redact(error.message());
        report.problems.push(Problem {
            origin: file.to_owned(),
            line: None,
            key: String::new(),
            value: None,
            expected,
        });
        Config::default()
    })
}

struct Walk<'a> {
    file: &'a str,
    text: &'a str,
    /// Lines that are not TOML: what was recovered from them is not complained about a second time.
    broken: Vec<usize>,
    report: &'a mut Report,
}

impl Walk<'_> {
    fn config(&mut self, document: &mut DeTable) {
        let known = schema::config();
        keep(document, |name, value| match (value.get_mut(), known.get(name)) {
            (DeValue::Table(section), Some(toml::Value::Table(keys))) => {
                self.section(name, section, keys);
                true
            }
            _ => self.key::<Config>(None, name, value, &known),
        });
    }

    fn section(&mut self, section: &str, table: &mut DeTable, known: &Table) {
        keep(table, |name, value| match (value.get_mut(), format!("{section}.{name}").as_str()) {
            (DeValue::Array(all), PolicyKeys::HEADER) => {
                self.tables::<PolicyKeys>(all);
                true
            }
            (DeValue::Array(all), RateKeys::HEADER) => {
                self.tables::<RateKeys>(all);
                true
            }
            (DeValue::Array(all), CommandRule::HEADER) => {
                self.tables::<CommandRule>(all);
                true
            }
            _ => self.key::<Config>(Some(section), name, value, known),
        });
    }

    /// Keeps of an array of tables those that can be read; what is wrong with the others has been reported.
    fn tables<K: Keys>(&mut self, tables: &mut DeArray) {
        let all = std::mem::replace(tables, DeArray::new()).into_iter().enumerate();
        *tables = all.filter_map(|(index, table)| self.table::<K>(index, table)).collect();
    }

    fn table<'i, K: Keys>(&mut self, index: usize, mut whole: Spanned<DeValue<'i>>) -> Option<Spanned<DeValue<'i>>> {
        let path = format!("{}[{index}]", K::HEADER);
        let span = whole.span();
        let DeValue::Table(table) = whole.get_mut() else {
            let source = self.source(span);
            self.report.refuse(&path, source, format!("expected a [[{}]] table", K::HEADER));
            return None;
        };
        let (known, before) = (K::known(), self.report.problems.len());
        keep(table, |name, value| self.key::<K>(Some(&path), name, value, &known));
        let document = Spanned::new(span.clone(), table.clone());
        let keys = deserialize::<K>(document).unwrap_or_default();
        let incomplete = keys.problems();
        let is_whole = incomplete.is_empty();
        for (name, expected) in incomplete {
            let key = format!("{path}.{name}");
            if !self.report.has_refused(&key) {
                let source = self.report.sources.get(&key).cloned();
                let source = source.unwrap_or_else(|| Source::bare(self.file, Some(self.line(span.start))));
                self.report.refuse(&key, source, expected);
            }
        }
        keys.note(self.report);
        (is_whole && self.report.problems.len() == before).then_some(whole)
    }

    /// Whether serde takes this one key alone; if not, it has been reported.
    fn key<T: DeserializeOwned>(
        &mut self,
        at: Option<&str>,
        name: &str,
        value: &Spanned<DeValue>,
        known: &Table,
    ) -> bool {
        let path = at.map_or_else(|| name.to_owned(), |at| format!("{at}.{name}"));
        let span = value.span();
        if self.broken.contains(&self.line(span.start)) {
            self.report.doubt(&path);
            return false;
        }
        let Some(example) = known.get(name) else {
            let source = Source::bare(self.file, Some(self.line(span.start)));
            self.report.refuse(&path, source, schema::expected_key(known));
            return false;
        };
        let source = self.source(span);
        // One of an array of tables is a document of its own; a section is a table in one.
        let section = at.filter(|at| !at.ends_with(']'));
        if deserialize::<T>(alone(section, name, value)).is_ok() {
            self.report.accept(&path, source);
            return true;
        }
        let not_a_url = value.get_ref().as_str().filter(|_| path == "upstream.url").map(str::parse::<UpstreamUrl>);
        let expected = match not_a_url {
            Some(Err(why)) => why.to_string(),
            _ => schema::expected_value(&path, example),
        };
        self.report.refuse(&path, source, expected);
        false
    }

    fn line(&self, at: usize) -> usize {
        line_of(self.text, at)
    }

    fn source(&self, span: std::ops::Range<usize>) -> Source {
        Source::new(self.file, Some(self.line(span.start)), self.text.get(span).unwrap_or_default())
    }
}

fn deserialize<T: DeserializeOwned>(document: Spanned<DeTable>) -> Result<T, toml::de::Error> {
    T::deserialize(Deserializer::from(document))
}

/// Takes out of `table` what is not `wanted`.
fn keep<'i>(table: &mut DeTable<'i>, mut wanted: impl FnMut(&str, &mut Spanned<DeValue<'i>>) -> bool) {
    let all = std::mem::take(table).into_iter();
    *table = all.filter_map(|(name, mut value)| wanted(name.get_ref(), &mut value).then_some((name, value))).collect();
}

/// A document holding nothing but this key.
fn alone<'i>(section: Option<&str>, name: &str, value: &Spanned<DeValue<'i>>) -> Spanned<DeTable<'i>> {
    let mut table = DeTable::new();
    table.insert(Spanned::new(0..0, name.to_owned().into()), value.clone());
    if let Some(section) = section {
        let inner = Spanned::new(0..0, DeValue::Table(std::mem::take(&mut table)));
        table.insert(Spanned::new(0..0, section.to_owned().into()), inner);
    }
    Spanned::new(0..0, table)
}

/// The line, from 1, that byte `at` of `text` is on.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
