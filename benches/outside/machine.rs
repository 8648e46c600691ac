//! Where and with what it was measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::cpu;

/// For the head of the table and the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor, as the kernel names it.
    pub processor: String,
    /// How many cores there are.
    pub cores: usize,
    /// The kernel.
    pub kernel: String,
    /// What each program says its version is.
    pub versions: Vec<String>,
    /// How this was called.
    pub command: String,
    /// Who ran on which core.
    pub placement: String,
    /// Where processor time was read from.
    pub cpu_from: &'static str,
}

impl Machine {
    /// Asks the kernel and the programs; `bench` is what this one is called.
    pub fn here(bench: &str, proxy: &Path, placement: &str) -> Machine {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let asked = [(proxy.to_string_lossy().into_owned(), "--version"), ("redis-server".into(), "--version")];
        let peers = [("nutcracker".into(), "--version"), ("haproxy".into(), "-v")];
        let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        Machine {
            processor: name.map_or("unknown", |(_, name)| name).to_owned(),
            cores: info.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            versions: asked.iter().chain(&peers).filter_map(|(program, flag)| version(program, flag)).collect(),
            command: [format!("cargo bench --bench {bench} --")]
                .into_iter()
                .chain(arguments)
                .collect::<Vec<_>>()
                .join(" "),
            placement: placement.to_owned(),
            cpu_from: cpu::source(),
        }
    }

    /// Prints it.
    pub fn print(&self) {
        println!("{}, {} cores, Linux {}; {}", self.processor, self.cores, self.kernel, self.versions.join("; "));
        println!("{}; processor time from {}", self.placement, self.cpu_from);
        println!("{}", self.command);
    }
}

/// The first line of what the program prints. Some print it to stderr.
fn version(program: &str, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).lines().next()?.trim().chars().take(60).collect())
}
