//! What the kernel says a process has used: processor time and memory.
//!
//! Processor time is the sum of its threads' `/proc/<pid>/task/*/schedstat`, which counts nanoseconds; where the kernel does
//! not keep it, the ticks of `/proc/<pid>/stat` (10 ms each). It holds user and system time, the loopback's included as far
//! as it runs in the process's own system calls. How much of it was spent in the kernel only the ticks tell, by where the
//! process was at each of them.

use std::fs;

/// Nanoseconds a tick of `/proc/<pid>/stat` lasts on every Linux there is.
const TICK_NS: u64 = 10_000_000;

/// Where processor time is read from, for the output.
pub fn source() -> &'static str {
    if schedstat("self").is_some() { "/proc/<pid>/task/*/schedstat (ns)" } else { "/proc/<pid>/stat (ticks of 10 ms)" }
}

/// Processor time the process has used so far, in nanoseconds.
pub fn of_process_ns(pid: u32) -> u64 {
    let pid = pid.to_string();
    schedstat(&pid).unwrap_or_else(|| ticks(&pid).map_or(0, |ticks| ticks.user + ticks.kernel) * TICK_NS)
}

/// Ticks of 10 ms, by where a process was at each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ticks {
    /// In its own code.
    pub user: u64,
    /// In system calls.
    pub kernel: u64,
}

/// Ticks the process has been seen running so far; none if it is gone.
pub fn ticks_of_process(pid: u32) -> Ticks {
    ticks(&pid.to_string()).unwrap_or_default()
}

/// Processor time the calling thread has used so far, in nanoseconds; 0 where the kernel does not keep it.
pub fn of_this_thread_ns() -> u64 {
    fs::read_to_string("/proc/thread-self/schedstat").ok().and_then(|text| first(&text)).unwrap_or(0)
}

/// Resident memory of the process, in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(first).unwrap_or(0) * 1024
}

fn schedstat(pid: &str) -> Option<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end between being listed and being read.
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        total += first(&text)?;
    }
    (total > 0).then_some(total)
}

fn ticks(pid: &str) -> Option<Ticks> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    Some(Ticks { user: first(fields.next()?)?, kernel: first(fields.next()?)? })
}

fn first(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}
