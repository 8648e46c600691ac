//! The command line and the environment: which flags there are, and what they say instead of the file.
//!
//! Values are taken as text and judged in `load.rs`, so that a bad flag is listed together with what is wrong in the file.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgMatches, CommandFactory, Parser, Subcommand, parser::ValueSource};

use super::{Key, Loaded, Override, Problems, Sources, load, redact};

/// The variable hosting platforms set; weaker than `ANTEROOM_UPSTREAM`.
const REDIS_URL: &str = "REDIS_URL";

const EXIT_CODES: &str = "Every flag is also an environment variable; flags win over variables, variables over the file, \
    the file over the defaults. REDIS_URL names the upstream where nothing stronger does.\n\n\
    Exit codes: 0 clean, 64 bad configuration, 69 cannot bind or reach what it was told to require, 70 internal error.";

// No Debug: the upstream may hold a password.
#[derive(Parser)]
#[command(name = "anteroom", version, about = "A Redis-protocol caching proxy", after_help = EXIT_CODES)]
struct Flags {
    /// Configuration file; see proxy.toml for every key and its default
    #[arg(long, value_name = "FILE", env = "ANTEROOM_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// IP address and port that clients connect to [default: 127.0.0.1:6380]
    #[arg(long, value_name = "ADDR", env = "ANTEROOM_LISTEN", global = true)]
    listen: Option<String>,
    /// redis://[user:password@]host[:port], rediss:// for TLS, unix:///path, or spawn: for a private throw-away redis-server
    /// [default: redis://127.0.0.1:6379]
    #[arg(long, value_name = "URL", env = "ANTEROOM_UPSTREAM", hide_env_values = true, global = true)]
    upstream: Option<String>,
    /// Worker threads; 0 is one per core [default: 0]
    #[arg(long, value_name = "N", env = "ANTEROOM_WORKERS", global = true)]
    workers: Option<String>,
    /// How log lines are written to stderr: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "ANTEROOM_LOG_FORMAT", global = true)]
    log_format: Option<String>,
    /// IP address and port of metrics, health and the page, or off [default: 127.0.0.1:9380]
    #[arg(long, value_name = "ADDR", env = "ANTEROOM_ADMIN", global = true)]
    admin: Option<String>,
    /// What those must show who look in there; better given as a variable or in the file, where ps does not show it
    #[arg(long, value_name = "TOKEN", env = "ANTEROOM_ADMIN_TOKEN", hide_env_values = true, global = true)]
    admin_token: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Say what is wrong with the configuration, all of it, and exit with 0 or 64
    Check,
    /// Show how a running proxy is doing, as it tells on its admin address
    Status {
        /// Show it again every second, until interrupted
        #[arg(long)]
        watch: bool,
        /// As JSON, for scripts
        #[arg(long)]
        json: bool,
    },
}

/// What the process is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// To be the proxy.
    Serve,
    /// To check the configuration.
    Check,
    /// To show how a running proxy is doing.
    Status {
        /// Again and again.
        watch: bool,
        /// For scripts.
        json: bool,
    },
}

/// What the command line and the environment ask for.
pub struct Arguments {
    /// What is asked for.
    pub task: Task,
    /// Where the configuration is read from.
    pub sources: Sources,
}

/// Why there are no arguments: they cannot be understood, or they ask for help.
pub struct Usage {
    /// What to print: to stderr if `is_error`, else to stdout. Without secrets.
    pub text: String,
    /// Whether something was wrong.
    pub is_error: bool,
}

impl Arguments {
    /// Understands `arguments` (the program's name first) and the process's environment.
    ///
    /// # Errors
    /// What to print instead of going on.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Usage> {
        let matches = Flags::command().try_get_matches_from(arguments).map_err(|error| {
            let (text, is_error) = (error.render().to_string(), error.use_stderr());
            Usage { text: if is_error { redact(&text) } else { text }, is_error }
        })?;
        let mut overrides = Vec::new();
        if let Some(value) = std::env::var_os(REDIS_URL) {
            // What is not UTF-8 is no URL either; the lossy text is refused by the same words.
            let value = value.to_string_lossy().into_owned();
            overrides.push(Override { key: Key::UpstreamUrl, origin: REDIS_URL, value });
        }
        overrides.extend(Key::ALL.into_iter().filter_map(|key| given(&matches, key)));
        let file = matches.get_one::<PathBuf>("config").cloned();
        let task = match matches.subcommand() {
            Some(("status", chosen)) => Task::Status { watch: chosen.get_flag("watch"), json: chosen.get_flag("json") },
            Some(_) => Task::Check,
            None => Task::Serve,
        };
        Ok(Self { task, sources: Sources { file, overrides } })
    }

    /// Reads and checks what they ask for.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(&self) -> Result<Loaded, Problems> {
        load(&self.sources)
    }
}

fn given(matches: &ArgMatches, key: Key) -> Option<Override> {
    let (id, flag, variable) = match key {
        Key::Listen => ("listen", "--listen", "ANTEROOM_LISTEN"),
        Key::UpstreamUrl => ("upstream", "--upstream", "ANTEROOM_UPSTREAM"),
        Key::Workers => ("workers", "--workers", "ANTEROOM_WORKERS"),
        Key::LogFormat => ("log_format", "--log-format", "ANTEROOM_LOG_FORMAT"),
        Key::AdminListen => ("admin", "--admin", "ANTEROOM_ADMIN"),
        Key::AdminToken => ("admin_token", "--admin-token", "ANTEROOM_ADMIN_TOKEN"),
    };
    let origin = if matches.value_source(id) == Some(ValueSource::EnvVariable) { variable } else { flag };
    matches.get_one::<String>(id).map(|value| Override { key, origin, value: value.clone() })
}
