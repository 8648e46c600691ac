//! INFO: the upstream's own text, with the proxy's sections behind it.

use std::fmt::Write as _;

use crate::resp::{Args, Protocol, encode};
use crate::server::worker::Worker;

/// Which sections an INFO asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    own: Vec<Section>,
    upstream: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Proxy,
}

const SECTIONS: [(Section, &str); 1] = [(Section::Proxy, "anteroom")];

impl Asked {
    /// Reads the arguments: no section or one of Redis's collective names means all of ours too.
    pub fn new(args: &Args<'_>) -> Self {
        let names: Vec<String> = args.iter().skip(1).map(|a| String::from_utf8_lossy(a).to_lowercase()).collect();
        let all = names.is_empty() || names.iter().any(|n| matches!(n.as_str(), "all" | "everything" | "default"));
        let named = |name: &str| names.iter().any(|n| n == name);
        let own = SECTIONS.iter().filter(|(_, name)| all || named(name)).map(|&(section, _)| section).collect();
        let upstream = names.is_empty() || !names.iter().all(|n| SECTIONS.iter().any(|(_, name)| n == name));
        Self { own, upstream }
    }

    /// Whether the upstream has to be asked.
    pub fn of_upstream(&self) -> bool {
        self.upstream
    }

    /// Writes the reply: `upstream` is the frame it answered, empty when it could not be asked.
    pub fn answer(&self, worker: &Worker, upstream: &[u8], out: &mut Vec<u8>, protocol: Protocol) {
        if upstream.starts_with(b"-") && !upstream.starts_with(b"-LOADING") {
            return out.extend_from_slice(upstream);
        }
        let mut text = payload(upstream).to_vec();
        for &section in &self.own {
            if !text.is_empty() {
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(write_section(worker, section).as_bytes());
        }
        encode::verbatim(out, protocol, &text);
    }
}

fn payload(frame: &[u8]) -> &[u8] {
    let Some(end) = frame.iter().position(|b| *b == b'\n') else { return b"" };
    let body = frame[end + 1..].strip_suffix(b"\r\n").unwrap_or(&frame[end + 1..]);
    if frame.starts_with(b"=") { body.get(4..).unwrap_or_default() } else { body }
}

fn write_section(worker: &Worker, section: Section) -> String {
    let mut text = String::new();
    let shared = &worker.shared;
    // Writing to a String cannot fail.
    let _ = match section {
        Section::Proxy => write!(
            text,
            "# Anteroom\r\nanteroom_version:{}\r\nanteroom_uptime_in_seconds:{}\r\nanteroom_workers:{}\r\nanteroom_clients:{}\r\n",
            env!("CARGO_PKG_VERSION"),
            shared.started.elapsed().as_secs(),
            shared.stats.len(),
            shared.clients.len(),
        ),
    };
    text
}
