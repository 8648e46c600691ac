//! `--upstream spawn:`: a private, throw-away `redis-server` to try the proxy with.
//!
//! It listens on a Unix socket in a directory only this user can enter, so there is no port to race for, and nothing on the
//! machine is disturbed. It keeps nothing on disk and lives no longer than the proxy.

use std::{
    fs::{self, DirBuilder},
    io::{self, Read, Write},
    os::unix::{fs::DirBuilderExt, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::config::{Address, UpstreamUrl};

/// Milliseconds the child may take until it answers PING.
const READY_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds between two attempts to reach it.
const READY_POLL_MS: u64 = 10;
/// Bytes of its log that an error quotes, at most.
const LOG_TAIL_MAX_BYTES: usize = 2048;

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No `redis-server` on the PATH.
    #[error(
        "redis-server is not installed (nothing of that name on the PATH); install it, or name an upstream that runs"
    )]
    NotInstalled,
    /// It did not come up.
    #[error("redis-server did not start: {0}")]
    NotStarted(String),
    /// The directory or the process could not be made.
    #[error("cannot start redis-server: {0}")]
    Io(#[from] io::Error),
}

/// A running `redis-server` child. Killed, and its directory removed, when dropped.
#[derive(Debug)]
pub struct SpawnedRedis {
    child: Child,
    directory: PrivateDirectory,
}

impl SpawnedRedis {
    /// Starts `redis-server` and waits until it answers PING, for ten seconds at most. Blocks.
    ///
    /// Call it from a thread that lives as long as the child should: where `setpriv` exists the kernel kills the child
    /// when that thread ends, however it ends.
    ///
    /// # Errors
    /// It is not installed, cannot be started, or does not answer in time.
    pub fn start() -> Result<Self, SpawnError> {
        let program = program()?;
        let directory = PrivateDirectory::new()?;
        let child = configured(program, &directory.0)?.spawn()?;
        let mut redis = Self { child, directory };
        redis.wait_until_ready()?;
        Ok(redis)
    }

    /// Where it listens.
    pub fn url(&self) -> UpstreamUrl {
        UpstreamUrl::new(Address::Unix(self.socket()))
    }

    fn socket(&self) -> PathBuf {
        self.directory.0.join("redis.sock")
    }

    fn wait_until_ready(&mut self) -> Result<(), SpawnError> {
        let deadline = Instant::now() + Duration::from_millis(READY_TIMEOUT_MS);
        while !answers_ping(&self.socket()) {
            if let Some(status) = self.child.try_wait()? {
                return Err(SpawnError::NotStarted(format!("{status}\n{}", self.log_tail())));
            }
            if Instant::now() >= deadline {
                let waited = format!("no answer to PING within {READY_TIMEOUT_MS} ms\n{}", self.log_tail());
                return Err(SpawnError::NotStarted(waited));
            }
            thread::sleep(Duration::from_millis(READY_POLL_MS));
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.directory.0.join("redis.log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_MAX_BYTES)..]).trim_end().to_owned()
    }
}

impl Drop for SpawnedRedis {
    fn drop(&mut self) {
        // It has nothing to save. That it is gone already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How to call `redis-server`: through `setpriv` where that knows how to have the kernel kill the child with its parent, which
/// from here would take unsafe code. `setpriv` becomes the server, so the process id is the server's either way.
fn program() -> Result<&'static [&'static str], SpawnError> {
    const BOUND: &[&str] = &["setpriv", "--pdeathsig", "KILL", "--", "redis-server"];
    const PLAIN: &[&str] = &["redis-server"];
    for program in [BOUND, PLAIN] {
        match quiet(&mut Command::new(program[0])).args(&program[1..]).arg("--version").status() {
            Ok(status) if status.success() => return Ok(program),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Err(SpawnError::NotInstalled)
}

fn configured(program: &[&str], directory: &Path) -> io::Result<Command> {
    let log = fs::File::create(directory.join("redis.log"))?;
    let mut command = Command::new(program[0]);
    command
        .args(&program[1..])
        .args(["--port", "0", "--daemonize", "no", "--save", "", "--appendonly", "no"])
        .args(["--unixsocketperm", "700", "--unixsocket"])
        .arg(directory.join("redis.sock"))
        .arg("--dir")
        .arg(directory)
        // Whom the proxy tells how far it is must not hear it from its child.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stderr(log.try_clone()?)
        .stdout(log)
        // Its own group: an interrupt typed at the terminal is for the proxy, which still drains through this child.
        .process_group(0);
    Ok(command)
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn answers_ping(socket: &Path) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(READY_TIMEOUT_MS / 10)))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply)?;
        Ok(&reply == b"+PONG\r\n")
    };
    ask().unwrap_or(false)
}

/// A fresh directory that only this user may enter, removed when dropped.
#[derive(Debug)]
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn new() -> io::Result<Self> {
        // `create` fails on what exists, so nobody can have prepared the directory; then the next number is tried.
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for number in 0..100 {
            let path = std::env::temp_dir().join(format!("anteroom-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
