//! Real processes on free ports of the loopback, each with a directory of its own, all gone when dropped.
//!
//! Owns how each program is started and told where to listen; does not know what it is asked.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::ClientConfig;

use crate::ask::Ask;
use crate::cpu;
use crate::wire;

/// How long a process may take to listen, or a proxy to be ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// Clients every process is told to allow.
const CLIENTS_MAX: u32 = 12_000;

/// A running server; killed on drop.
pub struct Process {
    child: Child,
    directory: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens for TLS, and how to shake hands there, if it is asked by it.
    pub tls: Option<(SocketAddr, Arc<ClientConfig>)>,
}

/// Which cores a process may use, as `taskset -c` takes it; `None` for all.
pub type Cores = Option<String>;

impl Process {
    /// A Redis that persists nothing.
    pub fn redis(cores: &Cores) -> Process {
        retried("redis-server", |port, directory| {
            let mut command = on(cores, "redis-server");
            command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", &port.to_string()]);
            // Redis forgets whom to tell beyond a million keys unless told otherwise; the sweep over keys goes further.
            command
                .args(["--maxclients", &CLIENTS_MAX.to_string(), "--tracking-table-max-keys", "0", "--dir"])
                .arg(directory);
            command
        })
    }

    /// The same, asked by TLS.
    pub fn redis_tls(cores: &Cores) -> Process {
        let (tls_port, certificates) = (free_port(), directory());
        wire::certify(&certificates);
        let mut process = retried("redis-server", |port, directory| {
            let mut command = on(cores, "redis-server");
            command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", &port.to_string()]);
            command
                .args(["--maxclients", &CLIENTS_MAX.to_string(), "--tls-auth-clients", "no", "--dir"])
                .arg(directory);
            command
                .args(["--tls-port", &tls_port.to_string(), "--tls-cert-file"])
                .arg(certificates.join("certificate.pem"));
            command.arg("--tls-key-file").arg(certificates.join("key.pem"));
            command.arg("--tls-ca-cert-file").arg(certificates.join("certificate.pem"));
            command
        });
        process.tls = Some((SocketAddr::from(([127, 0, 0, 1], tls_port)), wire::trust(&certificates)));
        // It has read them.
        let _ = fs::remove_dir_all(&certificates);
        process
    }

    /// The proxy at `binary` in front of `upstream`, with one worker unless said, `config` (TOML), and a
    /// port for TLS too if so.
    pub fn proxy(
        binary: &Path,
        cores: &Cores,
        upstream: SocketAddr,
        workers: usize,
        config: &str,
        over_tls: bool,
    ) -> Process {
        let directory = directory();
        let path = directory.join("proxy.toml");
        let tls = if over_tls {
            wire::certify(&directory);
            let file = |name: &str| directory.join(name).display().to_string();
            let (certificate, key) = (file("certificate.pem"), file("key.pem"));
            format!("[tls]\nlisten = \"127.0.0.1:0\"\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n")
        } else {
            String::new()
        };
        fs::write(&path, format!("clients.max = {CLIENTS_MAX}\n{config}{tls}"))
            .expect("a directory for temporary files");
        let mut command = on(cores, &binary.to_string_lossy());
        // Several proxies run beside each other.
        let free = "127.0.0.1:0";
        command.args(["--listen", free, "--admin", free, "--upstream", &format!("redis://{upstream}")]);
        command.args(["--workers", &workers.to_string(), "--config"]).arg(&path);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the proxy starts");
        let log = BufReader::new(child.stderr.take().expect("it is piped"));
        let (tell, told) = mpsc::channel();
        // Ends with the process.
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once(" listen=") {
                    let _ = tell.send(rest.split(' ').next().unwrap_or_default().to_owned());
                }
                // What a proxy complains of while it is measured, its reader must know.
                if line.contains(" WARN ") || line.contains(" ERROR ") {
                    eprintln!("the proxy: {line}");
                }
            }
        });
        let address = || -> SocketAddr {
            let told = told.recv_timeout(PATIENCE).expect("the proxy says where it listens");
            told.parse().expect("an address")
        };
        let (address, tls) = (address(), over_tls.then(|| (address(), wire::trust(&directory))));
        let process = Process { child, directory, address, tls };
        process.wait_settled();
        process
    }

    /// twemproxy.
    pub fn nutcracker(cores: &Cores, upstream: SocketAddr) -> Process {
        retried("nutcracker", |port, directory| {
            let config = directory.join("nutcracker.yml");
            let text = format!(
                "bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  preconnect: true\n  servers:\n   - {upstream}:1\n"
            );
            fs::write(&config, text).expect("a directory for temporary files");
            let mut command = on(cores, "nutcracker");
            command.arg("-c").arg(config).args(["-s", &free_port().to_string()]);
            command
        })
    }

    /// HAProxy, passing TCP on, with one thread.
    pub fn haproxy(cores: &Cores, upstream: SocketAddr) -> Process {
        retried("haproxy", |port, directory| {
            let config = directory.join("haproxy.cfg");
            let text = format!(
                "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  \
                 timeout server 1m\nlisten redis\n  bind 127.0.0.1:{port}\n  server redis {upstream}\n"
            );
            fs::write(&config, text).expect("a directory for temporary files");
            let mut command = on(cores, "haproxy");
            command.arg("-db").arg("-f").arg(config);
            command
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time used so far, in nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        cpu::of_process_ns(self.pid())
    }

    /// The ticks among it, by where they fell.
    pub fn cpu_ticks(&self) -> cpu::Ticks {
        cpu::ticks_of_process(self.pid())
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        cpu::resident_bytes(self.pid())
    }

    /// Until a proxy serves from memory, or says that it will not.
    fn wait_settled(&self) {
        let start = Instant::now();
        let mut ask = Ask::connect(self.address);
        while start.elapsed() < PATIENCE {
            match ask.field("anteroom_coherence", "anteroom_tracker_state").as_deref() {
                Some("armed" | "disabled") => return,
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
        panic!("the proxy's tier is not ready after {PATIENCE:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).chain([PathBuf::from("/usr/sbin")]).any(|path| path.join(program).is_file())
}

fn on(cores: &Cores, program: &str) -> Command {
    match cores {
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cores, program]);
            command
        }
        None => Command::new(program),
    }
}

/// Starts a program that is told its port, until it listens: another process may take the port first.
fn retried(name: &str, command: impl Fn(u16, &Path) -> Command) -> Process {
    for _ in 0..10 {
        let (port, directory) = (free_port(), directory());
        let log = fs::File::create(directory.join("log")).expect("a directory for temporary files");
        let mut command = command(port, &directory);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut process = Process { child, directory, address: SocketAddr::from(([127, 0, 0, 1], port)), tls: None };
        let start = Instant::now();
        while start.elapsed() < PATIENCE && process.child.try_wait().is_ok_and(|status| status.is_none()) {
            if TcpStream::connect(process.address).is_ok() {
                return process;
            }
            thread::sleep(Duration::from_millis(5));
        }
        eprintln!("{name}: {}", fs::read_to_string(process.directory.join("log")).unwrap_or_default());
    }
    panic!("{name} does not start");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn directory() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}-{number}", std::process::id()));
    fs::create_dir_all(&path).expect("the target directory is writable");
    path
}
