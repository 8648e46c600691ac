//! Every client of the proxy: what CLIENT LIST shows and CLIENT KILL reaches.
//!
//! Owns the registry and each client's shared record. The session is the only one to write its record (besides the kill switch, and
//! that it has been named upstream); readers on other workers see values that may be a moment old.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;

use super::asking::Asking;
use super::origins::Origin;
use crate::cache::Millis;
use crate::coherence::listener::{Inbox, Letter};
use crate::session::End;

/// The number of no command.
const NO_COMMAND: u16 = u16::MAX;

/// What one client lets others know of itself.
#[derive(Debug)]
pub struct Client {
    /// Unique for the life of the process; CLIENT ID.
    pub id: u64,
    /// `ip:port` of the client.
    pub addr: String,
    /// `ip:port` it connected to.
    pub laddr: String,
    /// What its address counts as.
    pub origin: Origin,
    /// When it connected.
    pub since: Millis,
    /// When it last asked something, on the same clock.
    pub active: AtomicU64,
    /// When the request began of which only part has come, on the same clock; 0 for none.
    pub half_since: AtomicU64,
    /// Its selected database.
    pub db: AtomicU32,
    /// The id of its identity.
    pub identity: AtomicU32,
    /// 2 or 3.
    pub protocol: AtomicU8,
    /// The id of the last command's row in the command table.
    pub command: AtomicU16,
    /// What kind of client it is at the moment; see [`Mode`].
    pub mode: AtomicU8,
    /// Channels, patterns and shard channels subscribed to.
    pub subscribed: [AtomicU32; 3],
    /// Commands queued since MULTI, or -1.
    pub queued: AtomicI64,
    /// Bytes of requests waiting to be understood or sent on.
    pub input_bytes: AtomicU64,
    /// Bytes of replies waiting for the client to read them.
    pub output_bytes: AtomicU64,
    /// Bytes of memory that its buffers take, both ways; known only where memory has a budget.
    pub buffers_bytes: AtomicU64,
    /// How much it asks.
    pub asking: Asking,
    /// Requests in flight, as of its session's last turn.
    pub inflight: AtomicU64,
    /// Requests that rate limits have refused.
    pub refused: AtomicU64,
    /// Its dedicated upstream connection.
    pub upstream: AtUpstream,
    /// NO-EVICT and NO-TOUCH, which only show in the flags: bit 0 and 1.
    pub switches: AtomicU8,
    /// Name, user, library.
    pub labels: Mutex<Labels>,
    /// CLIENT TRACKING, as CLIENT LIST shows it: bits of [`tracking_flag`].
    pub tracking: AtomicU8,
    /// The client its invalidations go to; 0 for itself.
    pub redirect: AtomicU64,
    inbox: OnceLock<Arc<Inbox>>,
    arrived: AtomicBool,
    /// How the session is asked to end, by number and 1; 0 while it is not.
    asked: AtomicU8,
    task: Mutex<Option<Waker>>,
}

/// Who a client is upstream: the id of its dedicated connection, while it has one.
///
/// What another client tells the upstream of that id goes over another connection, and may arrive long after this client has let go
/// of its own. So naming and letting go exclude each other: either nobody can be named any more, or who lets go hears of it and does
/// not let the connection be lent again.
#[derive(Debug, Default)]
pub struct AtUpstream(Mutex<Option<Named>>);

#[derive(Debug)]
struct Named {
    id: i64,
    to_the_upstream: bool,
}

impl AtUpstream {
    /// It has a dedicated connection now, with this id; 0 if the upstream has told none.
    pub fn attach(&self, id: i64) {
        *self.lock() = (id != 0).then_some(Named { id, to_the_upstream: false });
    }

    /// The id, for a request of another client's that names it; nothing without a connection.
    pub fn name(&self) -> Option<i64> {
        self.lock().as_mut().map(|named| {
            named.to_the_upstream = true;
            named.id
        })
    }

    /// It has none any more. Whether the one it had has been named.
    pub fn detach(&self) -> bool {
        self.lock().take().is_some_and(|named| named.to_the_upstream)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Named>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The texts a client gave itself or was given.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// The ACL user, as the client gave it; `default` until then.
    pub user: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub lib_ver: Vec<u8>,
}

/// What a client is doing, as the flags of CLIENT LIST tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Asks and is answered.
    Normal = 0,
    /// Waits in a blocking command.
    Blocked = 1,
    /// Between MULTI and EXEC.
    Transaction = 2,
    /// Listens to channels.
    Subscribed = 3,
    /// MONITOR.
    Monitor = 4,
    /// SYNC or PSYNC: it follows the upstream as a replica does.
    Replica = 5,
}

/// What CLIENT LIST shows of CLIENT TRACKING.
pub mod tracking_flag {
    /// ON.
    pub const ON: u8 = 1;
    /// BCAST.
    pub const BROADCAST: u8 = 2;
    /// REDIRECT leads nowhere.
    pub const BROKEN: u8 = 4;
}

impl Mode {
    /// From the stored number; what is not known is normal.
    pub fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Blocked,
            2 => Self::Transaction,
            3 => Self::Subscribed,
            4 => Self::Monitor,
            5 => Self::Replica,
            _ => Self::Normal,
        }
    }
}

impl Client {
    fn new(id: u64, peer: SocketAddr, local: SocketAddr, now: Millis) -> Self {
        Self {
            id,
            addr: peer.to_string(),
            laddr: local.to_string(),
            origin: Origin::of(peer.ip()),
            since: now,
            active: AtomicU64::new(now.0),
            half_since: AtomicU64::new(0),
            db: AtomicU32::new(0),
            identity: AtomicU32::new(0),
            protocol: AtomicU8::new(2),
            command: AtomicU16::new(NO_COMMAND),
            mode: AtomicU8::new(0),
            subscribed: Default::default(),
            queued: AtomicI64::new(-1),
            input_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            buffers_bytes: AtomicU64::new(0),
            asking: Asking::default(),
            inflight: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            upstream: AtUpstream::default(),
            switches: AtomicU8::new(0),
            labels: Mutex::new(Labels { user: b"default".to_vec(), ..Labels::default() }),
            tracking: AtomicU8::new(0),
            redirect: AtomicU64::new(0),
            inbox: OnceLock::new(),
            arrived: AtomicBool::new(false),
            asked: AtomicU8::new(0),
            task: Mutex::new(None),
        }
    }

    /// The labels, for reading or writing.
    pub fn labels(&self) -> std::sync::MutexGuard<'_, Labels> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is told of changes; absent while its session has not begun.
    pub fn inbox(&self) -> Option<Arc<Inbox>> {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(self.inbox.get_or_init(|| Arc::new(Inbox::new(task))).clone())
    }

    /// What has been told since this was last asked, without making an inbox. `None` if some of it was lost.
    pub fn take_letters(&self) -> Option<Vec<Letter>> {
        match self.inbox.get().filter(|inbox| inbox.has_letters()) {
            Some(inbox) => inbox.take(),
            None => Some(Vec::new()),
        }
    }

    /// So many bytes of replies wait for it to read them.
    pub fn show_output(&self, bytes: usize) {
        // Others may look at it: it is written to only if it changes.
        if self.output_bytes.load(Ordering::Relaxed) != bytes as u64 {
            self.output_bytes.store(bytes as u64, Ordering::Relaxed);
        }
    }

    /// It is gone: nobody may write to it any more.
    pub fn leave(&self) {
        self.inbox.get().into_iter().for_each(|inbox| inbox.leave());
    }

    /// Whether a whole request has come.
    pub fn has_asked(&self) -> bool {
        self.command.load(Ordering::Relaxed) != NO_COMMAND
    }

    /// Whether it has been seen to be in, which is asked once in its life.
    pub fn has_arrived(&self) -> bool {
        self.arrived.load(Ordering::Relaxed)
    }

    /// It has been seen to be in.
    pub fn arrived(&self) {
        self.arrived.store(true, Ordering::Relaxed);
    }

    /// Asks the session to end at once.
    pub fn kill(&self) {
        self.end_with(End::Killed);
    }

    /// Asks the session to end at once, for this reason.
    pub fn end_with(&self, end: End) {
        self.asked.store(end as u8 + 1, Ordering::Release);
        self.wake();
    }

    /// Suggests to the session that it end in this way, unless it has been asked to already.
    pub fn suggest(&self, end: End) {
        if self.asked.compare_exchange(0, end as u8 + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.wake();
        }
    }

    /// The session had a reason not to.
    pub fn take_back(&self, end: End) {
        let _ = self.asked.compare_exchange(end as u8 + 1, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Has the session look around.
    pub fn wake(&self) {
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }

    /// How the session is asked to end.
    pub fn asked_to_end(&self) -> Option<End> {
        match self.asked.load(Ordering::Acquire) {
            0 => None,
            number => End::ALL.get(usize::from(number) - 1).copied(),
        }
    }

    /// Whom to wake for the kill; set once by the session's task.
    pub fn set_task(&self, waker: &Waker) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }
}

/// All clients, by id.
#[derive(Debug, Default)]
pub struct Clients {
    table: Mutex<BTreeMap<u64, Arc<Client>>>,
    next: AtomicU64,
}

impl Clients {
    /// Registers a client that has connected `now`; its record leaves with [`Clients::remove`].
    pub fn add(&self, peer: SocketAddr, local: SocketAddr, now: Millis) -> Arc<Client> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client::new(id, peer, local, now));
        self.lock().insert(id, client.clone());
        client
    }

    /// The client is gone. Says who it was, once.
    pub fn remove(&self, id: u64) -> Option<Arc<Client>> {
        self.lock().remove(&id)
    }

    /// Shows each of them, oldest first. Nobody comes or goes meanwhile: to be brief.
    pub fn each(&self, mut show: impl FnMut(&Client)) {
        self.lock().values().for_each(|client| show(client));
    }

    /// One client.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.lock().get(&id).cloned()
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
