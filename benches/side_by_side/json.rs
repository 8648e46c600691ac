//! Everything that was measured, every single run, for programs to read.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::check::Check;
use crate::greedy::Noticed;
use crate::latency::Waited;
use crate::machine::Machine;
use crate::row::Row;
use crate::sweep::Sweep;

/// The whole document.
#[derive(Serialize)]
pub struct Document<'a> {
    /// Where and with what.
    pub machine: &'a Machine,
    /// The table.
    pub rows: &'a [Row],
    /// The pictures.
    pub sweeps: &'a [Sweep],
    /// What a calm client notices of greedy ones.
    pub greedy: &'a [Noticed],
    /// What clients wait that ask independently of each other.
    pub latency: &'a [Waited],
    /// What does not fit into the table's columns.
    pub checks: &'a [Check],
}

impl Document<'_> {
    /// Writes it.
    pub fn write(&self, path: &Path) {
        let text = serde_json::to_string_pretty(self).expect("numbers and words");
        fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
