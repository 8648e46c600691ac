//! INFO: the upstream's own text, with the proxy's sections behind it, as `figures` has them.

use std::fmt::Write as _;

use super::figures::{Figures, Section};
use crate::resp::{Args, Protocol, encode};
use crate::server::shared::Shared;
use crate::server::worker::Worker;

/// Which sections an INFO asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    own: Vec<Section>,
    upstream: bool,
}

impl Asked {
    /// Reads the arguments: no section or one of Redis's collective names means all of ours too.
    pub fn new(args: &Args<'_>) -> Self {
        let names: Vec<String> = args.iter().skip(1).map(|a| String::from_utf8_lossy(a).to_lowercase()).collect();
        let all = names.is_empty() || names.iter().any(|n| matches!(n.as_str(), "all" | "everything" | "default"));
        let named = |name: &str| names.iter().any(|n| n == name);
        let own = Section::ALL.into_iter().filter(|section| all || named(section.name())).collect();
        let upstream =
            names.is_empty() || !names.iter().all(|n| Section::ALL.iter().any(|section| n == section.name()));
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
        let mut figures = Figures::default();
        for &section in &self.own {
            if !text.is_empty() {
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(write_section(&mut figures, &worker.shared, section).as_bytes());
        }
        encode::verbatim(out, protocol, &text);
    }
}

fn payload(frame: &[u8]) -> &[u8] {
    let Some(end) = frame.iter().position(|b| *b == b'\n') else { return b"" };
    let body = frame[end + 1..].strip_suffix(b"\r\n").unwrap_or(&frame[end + 1..]);
    if frame.starts_with(b"=") { body.get(4..).unwrap_or_default() } else { body }
}

/// The section as INFO prints it. `figures`: those of the sections before it.
fn write_section(figures: &mut Figures, shared: &Shared, section: Section) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let (first, rest) = section.name().split_at(1);
    let _ = write!(text, "# {}{rest}\r\n", first.to_uppercase());
    let before = figures.fields.len();
    figures.add(section, shared);
    for field in &figures.fields[before..] {
        let _ = write!(text, "anteroom_{}:{}\r\n", field.name, field.value);
    }
    text
}
