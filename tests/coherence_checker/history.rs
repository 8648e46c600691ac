//! What happened: writes with the number they wrote, reads with the number they returned, and when each was called and over.

use std::time::Instant;

/// Microseconds since the run began.
pub(crate) type Micros = u64;

/// The instant from which everything is counted.
#[derive(Clone, Copy)]
pub(crate) struct Epoch(Instant);

impl Epoch {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// Never 0: that is when everything was still absent.
    pub(crate) fn now(self) -> Micros {
        self.0.elapsed().as_micros() as Micros + 1
    }
}

/// A register: a key or several that are only ever written together.
pub(crate) type Register = usize;

/// Which way a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// Straight to Redis.
    Beside,
    /// Through the proxy of this number.
    Proxy(u8),
}

/// One write. Its number says what it wrote; per register, numbers are unique, and greater than those of all writes executed
/// before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) number: u64,
    /// The register is absent afterwards.
    pub(crate) absent: bool,
    /// It expires this long after it was executed.
    pub(crate) ttl: Option<Micros>,
    pub(crate) called: Micros,
    pub(crate) over: Micros,
    pub(crate) via: Via,
    /// It was acknowledged. If not, it was executed before `over` or never.
    pub(crate) certain: bool,
}

impl Write {
    /// Before anything was written.
    pub(crate) const NOTHING: Write =
        Write { number: 0, absent: true, ttl: None, called: 0, over: 0, via: Via::Beside, certain: true };
}

/// All that was written to one register.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) writes: Vec<Write>,
    /// Increments whose replies were lost: so many numbers may be read, at most, that no write in `writes` has.
    pub(crate) unknown: usize,
    /// Kept under a policy `ttl`: only proxies' words to each other end it.
    pub(crate) is_timed: bool,
}

/// One thing one client did, in its program order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// It looked at what it had kept itself.
    Held { register: Register, number: u64, at: Micros },
    /// It read a number, or that there is none.
    Read { register: Register, key: u8, number: Option<u64>, called: Micros, over: Micros },
    /// Its own write was acknowledged.
    Wrote { register: Register, number: u64 },
    /// It connected again, so it is another client.
    Reconnected,
}
