//! Every client of the proxy: what CLIENT LIST shows and CLIENT KILL reaches.
//!
//! Owns the registry and each client's shared record. The session is the only one to write its record (besides the
//! kill switch); readers on other workers see values that may be a moment old.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use crate::cache::Millis;

/// What one client lets others know of itself.
#[derive(Debug)]
pub struct Client {
    /// Unique for the life of the process; CLIENT ID.
    pub id: u64,
    /// `ip:port` of the client.
    pub addr: String,
    /// `ip:port` it connected to.
    pub laddr: String,
    /// When it connected.
    pub since: Millis,
    /// When it last asked something, on the same clock.
    pub active: AtomicU64,
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
    /// The id of its dedicated upstream connection, 0 without one.
    pub upstream_id: AtomicI64,
    /// NO-EVICT and NO-TOUCH, which only show in the flags: bit 0 and 1.
    pub switches: AtomicU8,
    /// Name, user, library.
    pub labels: Mutex<Labels>,
    kill: AtomicU8,
    task: Mutex<Option<Waker>>,
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
    fn new(id: u64, addr: String, laddr: String, now: Millis) -> Self {
        Self {
            id,
            addr,
            laddr,
            since: now,
            active: AtomicU64::new(now.0),
            db: AtomicU32::new(0),
            identity: AtomicU32::new(0),
            protocol: AtomicU8::new(2),
            command: AtomicU16::new(u16::MAX),
            mode: AtomicU8::new(0),
            subscribed: Default::default(),
            queued: AtomicI64::new(-1),
            input_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            upstream_id: AtomicI64::new(0),
            switches: AtomicU8::new(0),
            labels: Mutex::new(Labels { user: b"default".to_vec(), ..Labels::default() }),
            kill: AtomicU8::new(0),
            task: Mutex::new(None),
        }
    }

    /// The labels, for reading or writing.
    pub fn labels(&self) -> std::sync::MutexGuard<'_, Labels> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the session to end at once.
    pub fn kill(&self) {
        self.kill.store(1, Ordering::Release);
        self.wake();
    }

    /// Has the session look around.
    pub fn wake(&self) {
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }

    /// Whether someone asked the session to end.
    pub fn is_killed(&self) -> bool {
        self.kill.load(Ordering::Acquire) != 0
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
    pub fn add(&self, addr: String, laddr: String, now: Millis) -> Arc<Client> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client::new(id, addr, laddr, now));
        self.lock().insert(id, client.clone());
        client
    }

    /// The client is gone.
    pub fn remove(&self, id: u64) {
        self.lock().remove(&id);
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
