//! Flag over environment over file over default, then the check of the result.

use std::path::{Path, PathBuf};

use super::{
    Config, LogFormat, Problems, UpstreamUrl, check, document,
    problem::{Problem, Report, Source, place},
    schema,
};

/// Where a configuration is read from.
#[derive(Clone, Default)]
pub struct Sources {
    /// `proxy.toml`, if there is one.
    pub file: Option<PathBuf>,
    /// What flags and the environment say instead, the weaker first.
    pub overrides: Vec<Override>,
}

/// One value from outside the file.
#[derive(Clone)]
pub struct Override {
    /// The key it replaces.
    pub key: Key,
    /// The flag or environment variable it came from, for messages.
    pub origin: &'static str,
    /// The value as it was given.
    pub value: String,
}

/// The keys that can be given outside the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `listen`
    Listen,
    /// `upstream.url`
    UpstreamUrl,
    /// `workers`
    Workers,
    /// `log.format`
    LogFormat,
}

impl Key {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Listen, Self::UpstreamUrl, Self::Workers, Self::LogFormat];

    /// The key's path in `proxy.toml`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::UpstreamUrl => "upstream.url",
            Self::Workers => "workers",
            Self::LogFormat => "log.format",
        }
    }
}

/// A configuration that makes sense, and where its values came from.
#[derive(Debug)]
pub struct Loaded {
    /// The values in force.
    pub config: Config,
    report: Report,
}

impl Loaded {
    /// The values, and what is known of where they came from.
    pub(super) fn into_parts(self) -> (Config, Report) {
        (self.config, self.report)
    }

    /// Where the value of `key` came from: a flag, a variable, a file with its line, or `default`.
    pub fn origin(&self, key: Key) -> String {
        let source = self.report.sources.get(key.path());
        source.map_or_else(|| "default".to_owned(), |source| place(&source.origin, source.line))
    }
}

/// Reads, overrides and checks.
///
/// # Errors
/// Everything that is wrong, in the order of the file and then the rest. What cannot be read is wrong even if overridden.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut report = Report::default();
    let mut config = match &sources.file {
        Some(file) => read(file, &mut report),
        None => Config::default(),
    };
    for value in &sources.overrides {
        replace(&mut config, value, &mut report);
    }
    check::check(&config, &mut report);
    if report.problems.is_empty() { Ok(Loaded { config, report }) } else { Err(report.into_problems()) }
}

fn read(file: &Path, report: &mut Report) -> Config {
    let name = file.display().to_string();
    match std::fs::read_to_string(file) {
        Ok(text) => document::read(&name, &text, report),
        Err(error) => {
            let expected = format!("cannot be read ({error}); expected a file in TOML");
            report.problems.push(Problem { origin: name, line: None, key: String::new(), value: None, expected });
            Config::default()
        }
    }
}

fn replace(config: &mut Config, from: &Override, report: &mut Report) {
    let (path, text) = (from.key.path(), from.value.as_str());
    let taken = match from.key {
        Key::Listen => text.parse().map(|listen| config.listen = listen).map_err(|_| None),
        Key::Workers => text.parse().map(|workers| config.workers = workers).map_err(|_| None),
        Key::UpstreamUrl => {
            text.parse::<UpstreamUrl>().map(|url| config.upstream.url = url).map_err(|why| Some(why.to_string()))
        }
        Key::LogFormat => text.parse::<LogFormat>().map(|format| config.log.format = format).map_err(|()| None),
    };
    let source = Source::new(from.origin, None, text);
    match taken {
        Ok(()) => report.accept(path, source),
        Err(why) => report.refuse(path, source, why.unwrap_or_else(|| schema::expected_at(path))),
    }
}
