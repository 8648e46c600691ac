//! The proxy as its users run it: the binary, in a process of its own, whose memory, processor time and exit code can be
//! looked at.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use super::{Client, PATIENCE, eventually};

/// The running binary; killed on drop.
pub struct Binary {
    child: Child,
    config: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    /// Where it listens; the port for TLS if that is the only one.
    pub addr: SocketAddr,
}

impl Binary {
    /// In front of `upstream`, with `config` (TOML) and two workers.
    pub fn start(upstream: SocketAddr, config: &str) -> Self {
        Self::start_under(&[], upstream, config)
    }

    /// Under another program that becomes the binary, such as `["prlimit", "--nofile=64"]`.
    pub fn start_under(wrapper: &[&str], upstream: SocketAddr, config: &str) -> Self {
        Self::start_before(wrapper, &format!("redis://{upstream}"), config)
    }

    /// In front of the upstream of this URL.
    pub fn start_before(wrapper: &[&str], url: &str, config: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}.toml", std::process::id()));
        fs::write(&path, config).expect("the directory for temporary files exists");
        let mut words = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_anteroom")]);
        // Each test asks for it by itself: the default port is one for the whole machine.
        let admin = (!config.contains("[admin]")).then_some(("ANTEROOM_ADMIN", "off"));
        let mut child = Command::new(words.next().expect("at least the binary"))
            .args(words)
            .args(["--listen", "127.0.0.1:0", "--workers", "2", "--upstream", url])
            .envs(admin)
            .arg("--config")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let log = BufReader::new(child.stderr.take().expect("it is piped"));
        let (tell, told) = mpsc::channel();
        let written = Arc::<Mutex<Vec<String>>>::default();
        let heard = written.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                heard.lock().expect("no panic under the lock").push(line.clone());
                if let Some(at) = line.split_once(" listen=") {
                    let _ = tell.send(at.1.split(' ').next().unwrap_or_default().to_owned());
                }
                if std::env::var_os("ANTEROOM_TEST_LOG").is_some() {
                    eprintln!("{line}");
                }
            }
        });
        let addr = told.recv_timeout(PATIENCE).expect("it says where it listens");
        Self { child, config: path, log: written, addr: addr.parse().expect("an address") }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Another text in its configuration file, which it reads when it is told to.
    pub fn write_config(&self, config: &str) {
        fs::write(&self.config, config).expect("the file is there");
    }

    /// A pipe to which nobody writes in place of its configuration file.
    pub fn make_config_a_pipe(&self) {
        fs::remove_file(&self.config).expect("the file is there");
        assert!(Command::new("mkfifo").arg(&self.config).status().expect("mkfifo runs").success());
    }

    /// What it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no panic under the lock").clone()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.addr)
    }

    /// One number of the proxy's INFO sections.
    pub fn count(&self, field: &str) -> u64 {
        let text = self.client().text(&[
            "INFO",
            "anteroom",
            "anteroom_clients",
            "anteroom_memory",
            "anteroom_cache",
            "anteroom_coherence",
        ]);
        let found = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.parse().ok());
        found.unwrap_or_else(|| panic!("INFO has no number {field}"))
    }

    pub fn wait_armed(&self) {
        eventually("the tracker is armed", || {
            self.client().text(&["INFO", "anteroom_coherence"]).contains("anteroom_tracker_state:armed")
        });
    }

    /// Resident bytes.
    pub fn rss(&self) -> u64 {
        self.status_kib("VmRSS:") * 1024
    }

    /// The most bytes that were ever resident.
    pub fn peak_rss(&self) -> u64 {
        self.status_kib("VmHWM:") * 1024
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("Linux tells");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Processor time used so far, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name in parentheses").1.split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        // A hundred a second on every Linux there is.
        Duration::from_millis(ticks * 10)
    }

    pub fn terminate(&self) {
        let done = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(done.expect("kill runs").success());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the binary exits", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}
