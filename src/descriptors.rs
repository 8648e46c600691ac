//! The process's limit of open descriptors: a connection takes one, and a shell's default is 1024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not clients': upstream connections, listeners, the workers' own.
const BESIDES_CLIENTS: u64 = 128;

/// Raises the limit to what `clients` connections take, as far as the process may. Returns how many clients there is room
/// for if that is fewer.
pub fn raise_for(clients: usize) -> Result<(), u64> {
    let wanted = clients as u64 + BESIDES_CLIENTS;
    let limit = getrlimit(Resource::Nofile);
    // No number means no limit.
    let Some(current) = limit.current else { return Ok(()) };
    let possible = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = current.max(possible);
    if raised > current && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_err() {
        return Err(current.saturating_sub(BESIDES_CLIENTS));
    }
    if raised < wanted { Err(raised.saturating_sub(BESIDES_CLIENTS)) } else { Ok(()) }
}
