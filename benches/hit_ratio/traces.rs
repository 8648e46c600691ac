//! Where reads come from: made up, or replayed from a file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Zipf};

/// Different keys in what is made up, but for scans.
const KEYS: u32 = 100_000;
/// Keys read by one scan, in order.
const SCAN_KEYS: u32 = 10_000;
/// How often the hot set moves.
const SHIFTS: usize = 10;

/// Reads in their order; equal keys have equal numbers.
pub struct Trace {
    /// For the table.
    pub name: String,
    /// The keys read.
    pub reads: Vec<u32>,
    /// How many different ones.
    pub keys: usize,
}

impl Trace {
    fn new(name: impl Into<String>, reads: Vec<u32>) -> Trace {
        let mut different = reads.clone();
        different.sort_unstable();
        different.dedup();
        Trace { name: name.into(), reads, keys: different.len() }
    }

    /// Reads a file of one key per line; empty lines are no keys.
    pub fn read(path: &Path) -> io::Result<Trace> {
        let file = File::open(path)?;
        let is_gzip = path.extension().is_some_and(|ending| ending == "gz");
        let text: Box<dyn Read> = if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut numbers: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut reads = Vec::new();
        // Keys need not be UTF-8.
        for line in BufReader::new(text).split(b'\n') {
            let line = line?;
            let key = line.strip_suffix(b"\r").unwrap_or(&line);
            if !key.is_empty() {
                let fresh = numbers.len() as u32;
                reads.push(*numbers.entry(key.to_vec()).or_insert(fresh));
            }
        }
        Ok(Trace::new(path.file_name().unwrap_or_default().to_string_lossy(), reads))
    }
}

/// Traces of `reads` reads each: Zipf of several exponents, one with scans in between, one whose hot keys change.
pub fn made_up(reads: usize) -> impl Iterator<Item = Trace> {
    let even = [0.7, 0.9, 0.99, 1.2].into_iter().map(move |exponent| {
        let mut ranks = Ranks::new(exponent);
        Trace::new(format!("Zipf {exponent}"), (0..reads).map(|_| ranks.next()).collect())
    });
    even.chain([scanned(reads), shifting(reads)])
}

/// Half of the reads are scans over keys that nothing else reads, each read once.
fn scanned(reads: usize) -> Trace {
    let mut ranks = Ranks::new(0.99);
    let half = |at: usize| (at / SCAN_KEYS as usize).is_multiple_of(2);
    let all = (0..reads).map(|at| if half(at) { ranks.next() } else { KEYS + at as u32 });
    Trace::new("Zipf 0.99, half scans", all.collect())
}

/// The hot keys are others after each tenth of the trace.
fn shifting(reads: usize) -> Trace {
    let mut ranks = Ranks::new(0.99);
    let each = (reads / SHIFTS).max(1);
    let all = (0..reads).map(|at| (ranks.next() + (at / each) as u32 * (KEYS / SHIFTS as u32)) % KEYS);
    Trace::new("Zipf 0.99, hot set shifts", all.collect())
}

struct Ranks {
    zipf: Zipf<f64>,
    random: StdRng,
}

impl Ranks {
    fn new(exponent: f64) -> Ranks {
        let zipf = Zipf::new(f64::from(KEYS), exponent).expect("a positive exponent");
        Ranks { zipf, random: StdRng::seed_from_u64(7) }
    }

    fn next(&mut self) -> u32 {
        (self.zipf.sample(&mut self.random) as u32).saturating_sub(1)
    }
}
