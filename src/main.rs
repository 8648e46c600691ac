//! The binary: arguments, logging, exit code, nothing else. What it does lives in [`anteroom::run`].

use std::{
    io::{self, IsTerminal},
    net::TcpListener,
    panic::{self, AssertUnwindSafe},
    process::{self, ExitCode},
    sync::{Arc, Mutex, PoisonError},
};

use anteroom::{
    HandedOver, Host, ListenError, Listeners, RunError, Shutdown,
    config::{Address, Arguments, Config, Key, Loaded, Log, LogFormat, Sources},
    host::{SetLogLevel, Supervisor},
    upstream::spawn::SpawnedRedis,
};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

const BAD_CONFIGURATION: u8 = 64;
const UNAVAILABLE: u8 = 69;
const INTERNAL: u8 = 70;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => ExitCode::from(code),
    }
}

fn start() -> Result<(), u8> {
    let arguments = Arguments::parse(std::env::args_os()).or_else(|usage| {
        if usage.is_error {
            eprintln!("{}", usage.text);
            return Err(BAD_CONFIGURATION);
        }
        println!("{}", usage.text);
        process::exit(0)
    })?;
    let loaded = arguments.load().map_err(|problems| {
        eprintln!("{problems}");
        BAD_CONFIGURATION
    })?;
    if arguments.check {
        report(&loaded);
        return Ok(());
    }
    let set_log_level = log_to_stderr(&loaded.config.log);
    serve(loaded, arguments.sources, set_log_level).map_err(|failure| {
        error!("{failure}");
        match failure {
            RunError::Unavailable { .. } => UNAVAILABLE,
            RunError::Internal(_) => INTERNAL,
        }
    })
}

/// `anteroom check`, nothing being wrong: what is in force of that which several places can say.
fn report(loaded: &Loaded) {
    let Config { listen, workers, upstream, log, .. } = &loaded.config;
    println!("ok");
    for key in Key::ALL {
        let value = match key {
            Key::Listen => listen.to_string(),
            Key::UpstreamUrl => upstream.url.to_string(),
            Key::Workers => workers.to_string(),
            Key::LogFormat => format!("{:?}", log.format).to_lowercase(),
        };
        println!("{} = {value} ({})", key.path(), loaded.origin(key));
    }
    for warning in anteroom::tls::warnings(&loaded.config) {
        println!("warning: {warning}");
    }
}

fn serve(loaded: Loaded, sources: Sources, set_log_level: SetLogLevel) -> Result<(), RunError> {
    let mut config = loaded.config;
    // Before any thread: they are taken out of the environment, which threads share.
    let handed_over = HandedOver::of_environment().map_err(no_listener)?;
    // The private Redis has two who may end it: this function when done, and the second signal.
    let child: Arc<Mutex<Option<SpawnedRedis>>> = Arc::default();
    let end = |child: &Mutex<Option<SpawnedRedis>>| drop(child.lock().unwrap_or_else(PoisonError::into_inner).take());
    let at_second_signal = Arc::clone(&child);
    let host = Host {
        sources: Some(sources),
        set_log_level: Some(set_log_level),
        hangups: Arc::default(),
        supervisor: Supervisor::of_environment(),
    };
    let shutdown = Shutdown::on_signals(Arc::clone(&host.hangups), move |code| {
        end(&at_second_signal);
        process::exit(code);
    })
    .map_err(|error| RunError::Internal(format!("no signal handlers: {error}")))?;

    let listeners = Listeners::open(&config, handed_over).map_err(no_listener)?;
    if config.upstream.url.address == Address::Spawn {
        let redis = SpawnedRedis::start().map_err(|failure| RunError::Unavailable {
            what: "--upstream spawn:".to_owned(),
            source: io::Error::other(failure),
        })?;
        config.upstream.url = redis.url();
        *child.lock().unwrap_or_else(PoisonError::into_inner) = Some(redis);
    }
    if let Err(room) = anteroom::descriptors::raise_for(config.clients.max) {
        warn!(
            clients_max = config.clients.max,
            room, "the limit of open files (ulimit -n) leaves room for fewer clients"
        );
    }
    let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|listener| listener.local_addr().ok());
    if let Some(address) = address(&listeners.plain) {
        info!(listen = %address, upstream = %config.upstream.url, "listening");
    }
    if let Some(address) = address(&listeners.tls) {
        info!(listen = %address, upstream = %config.upstream.url, "listening for TLS");
    }

    let outcome = panic::catch_unwind(AssertUnwindSafe(|| anteroom::run_under(config, listeners, shutdown, host)));
    end(&child);
    outcome.unwrap_or_else(|_| Err(RunError::Internal("a panic, reported above".to_owned())))
}

fn no_listener(error: ListenError) -> RunError {
    let what = error.to_string();
    let source = match error {
        ListenError::Address(_, source) => source,
        ListenError::HandedOver(_) => io::ErrorKind::InvalidInput.into(),
    };
    RunError::Unavailable { what, source }
}

/// Returns how the level is changed later.
fn log_to_stderr(log: &Log) -> SetLogLevel {
    // The level was checked with the configuration; the fallback cannot be reached.
    let filter = |level: &str| EnvFilter::try_new(level).unwrap_or_default();
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt().with_ansi(colours).with_writer(io::stderr as fn() -> io::Stderr);
    let level = filter(&log.level);
    // It fails only without the subscriber, and then there is no log.
    match log.format {
        LogFormat::Text => {
            let lines = lines.with_env_filter(level).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.init();
            Box::new(move |level| drop(handle.reload(filter(level))))
        }
        LogFormat::Json => {
            let lines = lines.json().with_env_filter(level).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.init();
            Box::new(move |level| drop(handle.reload(filter(level))))
        }
    }
}
