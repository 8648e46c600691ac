//! What workers share: the tier, the coherence state, the client registry, the identities and the upstream's facts.
//!
//! Everything here is safe to use from any thread. Each part says how it is guarded.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::clients::Clients;
use super::complaints::Complaints;
use super::facts::Facts;
use super::handshakes::Handshakes;
use super::identity::{Identities, Identity};
use super::in_force::{InForce, Settings};
use super::memory::Memory;
use super::origins::Origins;
use super::pulse::Pulse;
use super::rates::Rates;
use super::reach::Reach;
use super::registry::Registry;
use super::rest::Rest;
use super::rules::Rules;
use super::stage::StageCell;
use super::stats::{DoorStats, WorkerStats};
use super::steering::Desk;
use super::users::Sight;
use crate::cache::{Clock, TierLimits};
use crate::coherence::broadcast::Broadcasts;
use crate::coherence::{Cause, Coherence, CoherenceLimits};
use crate::command::Table;
use crate::config::Config;
use crate::limits::Limits;
use crate::observe::SlowLog;
use crate::peers::Bus;
use crate::tls::{ClientTls, UpstreamTls};
use crate::upstream::connect::{Address, Connector, Credentials, Login};
use crate::upstream::dedicated::PoolStanding;
use crate::upstream::era::Eras;
use crate::upstream::lane::{LaneStanding, Refusal};
use crate::upstream::pause::Pause;

/// See the head of this file.
pub struct Shared {
    /// The configuration in force, and what follows from it.
    pub in_force: InForce,
    /// Where changes of it are asked for.
    pub desk: Desk,
    /// Whether anything may ever be kept: then writes and reads are followed, even while nothing is (`cache.enabled`).
    pub keeps: bool,
    /// How far the process is.
    pub stage: StageCell,
    /// When the process began to serve.
    pub started: Instant,
    /// Where the upstream is.
    pub address: Arc<Address>,
    /// How clients that speak TLS get in, if they may.
    pub handshakes: Option<Arc<Handshakes>>,
    /// How it is spoken to, if by TLS.
    pub upstream_tls: Option<Arc<UpstreamTls>>,
    /// Every client.
    pub clients: Clients,
    /// Where they come from.
    pub origins: Origins,
    /// How much there is left of it.
    pub memory: Memory,
    /// What is said of those who try one password after the other.
    pub guessing: Complaints,
    /// The workers' lanes.
    pub lanes: Registry<LaneStanding>,
    /// Their pools of dedicated connections.
    pub pools: Registry<PoolStanding>,
    /// How fast it is going.
    pub rates: Rates,
    /// What the acceptor counts.
    pub door: DoorStats,
    /// Every identity.
    pub identities: Identities,
    /// When values may be kept and served; each worker forks its own handle.
    pub coherence: Coherence,
    /// Clients that are told of every change under a prefix.
    pub broadcasts: Arc<Broadcasts>,
    /// Where Redis tells of what sessions of tracking clients read over dedicated connections.
    pub redirects: Arc<Broadcasts>,
    /// The clock that deadlines are on.
    pub clock: Clock,
    /// Identities whose tracker is to be started: at most one for each of the upstream's users.
    pub trackers_wanted: mpsc::UnboundedSender<Arc<Identity>>,
    /// Has the upstream asked about itself at once.
    pub survey_bell: Notify,
    /// Each worker's counters.
    pub stats: Vec<Arc<WorkerStats>>,
    /// Whether each worker's loop turns.
    pub pulses: Box<[Pulse]>,
    /// When each rests.
    pub rests: Box<[Rest]>,
    /// Whether the upstream answers; asked only where somebody may look.
    pub reach: Reach,
    /// Requests that took long.
    pub slow: Arc<SlowLog>,
    touched: AtomicU64,
    scripts: Arc<AtomicUsize>,
    /// What is said and heard on publish and subscribe.
    pub bus: Arc<Bus>,
    /// What clients have asked the upstream to hold back.
    pub pause: Arc<Pause>,
    /// Which server answers.
    pub eras: Arc<Eras>,
    /// A [`Sight`], by number.
    sight: AtomicUsize,
    facts: RwLock<Arc<Facts>>,
    auth_required: AtomicBool,
    table: Mutex<Arc<Table>>,
    table_version: AtomicU64,
}

impl Shared {
    /// For `workers` workers.
    pub fn new(
        config: Config,
        client_tls: Option<ClientTls>,
        upstream_tls: Option<UpstreamTls>,
        workers: usize,
    ) -> (Self, mpsc::UnboundedReceiver<Arc<Identity>>) {
        let address = match &config.upstream.url.address {
            crate::config::Address::Tcp { host, port } => Address::Tcp(host.clone(), *port),
            crate::config::Address::Unix(path) => Address::Unix(path.clone()),
            crate::config::Address::Spawn => unreachable!("the binary replaces spawn: by the child's address"),
        };
        let cache = &config.cache;
        let coherence = Coherence::new(CoherenceLimits {
            tier: TierLimits {
                bytes_max: cache.max_bytes,
                entry_bytes_max: cache.entry_max_bytes,
                views_per_key_max: cache.views_per_key_max,
            },
            admit_after: u8::try_from(cache.admit_after).unwrap_or(u8::MAX),
            interests_max: config.tracking.interests_max,
            ..CoherenceLimits::default()
        });
        let clock = Clock::boot();
        let bus = Bus::new(&config);
        let broadcasts = Broadcasts::of_prefixes(coherence.fork());
        coherence.tell_also(&broadcasts);
        let (trackers_wanted, wanted) = mpsc::unbounded_channel();
        let first = Settings {
            rules: Arc::new(Rules::new(&config.commands)),
            limits: Arc::new(Limits::new(&config.limits, workers, clock.clone())),
            cache_off: false,
            config: Arc::new(config),
        };
        let config = first.config.clone();
        let shared = Self {
            clock,
            trackers_wanted,
            origins: Origins::new(&config.clients),
            memory: Memory::new(config.memory.budget_bytes),
            guessing: Complaints::default(),
            lanes: Registry::default(),
            pools: Registry::default(),
            rates: Rates::default(),
            door: DoorStats::default(),
            slow: Arc::new(SlowLog::new(config.slowlog.slower_than_us, config.slowlog.entries_max)),
            keeps: config.cache.enabled,
            in_force: InForce::new(first, workers),
            desk: Desk::default(),
            stage: StageCell::default(),
            started: Instant::now(),
            address: Arc::new(address),
            handshakes: client_tls.map(|tls| Arc::new(Handshakes::new(tls))),
            upstream_tls: upstream_tls.map(Arc::new),
            clients: Clients::default(),
            identities: Identities::new(&coherence),
            survey_bell: Notify::new(),
            stats: (0..workers).map(|_| Arc::default()).collect(),
            pulses: (0..workers).map(|_| Pulse::default()).collect(),
            rests: (0..workers).map(|_| Rest::new(config.rest_us)).collect(),
            reach: Reach::default(),
            touched: AtomicU64::new(0),
            scripts: Arc::default(),
            bus,
            pause: Arc::default(),
            eras: Arc::default(),
            sight: AtomicUsize::new(Sight::Off as usize),
            facts: RwLock::default(),
            auth_required: AtomicBool::new(false),
            table: Mutex::new(Arc::new(Table::builtin())),
            table_version: AtomicU64::new(0),
            broadcasts,
            redirects: Broadcasts::of_redirects(coherence.fork()),
            coherence,
        };
        (shared, wanted)
    }

    /// The configuration in force. Sessions ask their worker.
    pub fn config(&self) -> Arc<Config> {
        self.in_force.get().config
    }

    /// The operator's rules about commands. Sessions ask their worker.
    pub fn rules(&self) -> Arc<Rules> {
        self.in_force.get().rules
    }

    /// How much clients may ask. Sessions ask their worker.
    pub fn limits(&self) -> Arc<Limits> {
        self.in_force.get().limits
    }

    /// Whether anyone has to be told of writes made through this proxy: its own memory, other proxies, or applications.
    pub fn follows_writes(&self) -> bool {
        self.keeps || self.bus.is_told()
    }

    /// The credentials of `upstream.url`, which are the proxy's own.
    pub fn own_login(&self) -> Option<Arc<Login>> {
        let config = self.config();
        let url = &config.upstream.url;
        let user = url.username.as_deref().unwrap_or("default").as_bytes();
        let login =
            |password: &str| Login::new(Credentials { user: user.into(), password: password.as_bytes().into() });
        url.password().map(|password| Arc::new(login(password)))
    }

    /// A client's script is sent to the upstream.
    pub fn script_begins(&self) -> ScriptRunning {
        self.scripts.fetch_add(1, Ordering::Relaxed);
        ScriptRunning(self.scripts.clone())
    }

    /// Whether a client's script may be running: then the upstream may be busy, and says so to whoever asks it anything.
    pub fn scripts_run(&self) -> bool {
        self.scripts.load(Ordering::Relaxed) > 0
    }

    /// Keys were TOUCHed.
    pub fn note_touched(&self, keys: u64) {
        self.touched.fetch_add(keys, Ordering::Relaxed);
    }

    /// Keys TOUCHed so far.
    pub fn touched(&self) -> u64 {
        self.touched.load(Ordering::Relaxed)
    }

    /// The upstream, as of the last time it was asked.
    pub fn facts(&self) -> Arc<Facts> {
        self.facts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a client that gives no password may run nothing.
    pub fn auth_required(&self) -> bool {
        self.auth_required.load(Ordering::Relaxed)
    }

    /// The upstream has said something of itself.
    pub fn learn(&self, read: impl FnOnce(&mut Facts)) {
        let mut held = self.facts.write().unwrap_or_else(PoisonError::into_inner);
        let mut facts = (**held).clone();
        read(&mut facts);
        self.auth_required.store(facts.auth_required, Ordering::Relaxed);
        *held = Arc::new(facts);
    }

    /// A lane without credentials was let in, or was not.
    pub fn learn_auth_required(&self, required: bool) {
        if self.auth_required() != required {
            self.learn(|facts| facts.auth_required = required);
        }
    }

    /// The command table and its version.
    pub fn table(&self) -> (u64, Arc<Table>) {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        (self.table_version(), table.clone())
    }

    /// Changes whenever the table does.
    pub fn table_version(&self) -> u64 {
        self.table_version.load(Ordering::Acquire)
    }

    /// The upstream has told its commands.
    pub fn set_table(&self, newer: Table) {
        self.limits().look_for_slips(&newer);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        *table = Arc::new(newer);
        self.table_version.fetch_add(1, Ordering::Release);
    }

    /// The server that answers is not, or no longer, the one whose data is in memory (a demoted primary keeps its
    /// connections; redis-facts R15): nothing kept is served any more, and all connections to it are replaced.
    pub fn another_server(&self, why: &str) {
        self.eras.end();
        self.not_to_be_believed(why);
    }

    /// Nothing kept is served any more, and the trackers begin anew.
    fn not_to_be_believed(&self, why: &str) {
        tracing::warn!(reason = why, "the upstream is not what it was");
        self.survey_bell.notify_one();
        // In this order: what was asked of the old server is void, and nothing more is.
        self.identities.all().iter().filter_map(|i| i.tracker.as_ref()).for_each(|tracker| tracker.restart());
        self.coherence.everything(Cause::Push);
        // Ids of connections are those of one server.
        [&self.broadcasts, &self.redirects].into_iter().for_each(|listening| listening.restart());
    }

    /// An error says that the server is not the one to ask. Whether the connection is to be replaced, so that its name is
    /// looked up again.
    ///
    /// The server's own word is believed at once, unless it says what is known: a replica refuses every write, and is still the
    /// server whose data is in memory. Should it have been something else meanwhile, the survey, which is asked in any case, finds
    /// out. A script can say anything: its word counts for nothing, but that the survey is asked.
    pub fn refused(&self, refusal: Refusal, by: SaidBy) -> bool {
        let expected = refusal == Refusal::ReadOnly && self.facts().is_replica();
        match by {
            SaidBy::Server if !expected && refusal == Refusal::ReadOnly => {
                self.eras.refused(Instant::now());
                self.not_to_be_believed("it is a replica");
            }
            // It says so for as long as it loads, on every connection: none is better than another.
            SaidBy::Server if !expected => self.not_to_be_believed("it is loading, or has lost its primary"),
            SaidBy::Server | SaidBy::Script => self.survey_bell.notify_one(),
        }
        by == SaidBy::Server || expected
    }

    /// How to connect as this identity.
    pub fn connector(&self, identity: Option<&Identity>) -> Connector {
        Connector {
            address: self.address.clone(),
            tls: self.upstream_tls.clone(),
            login: identity.and_then(|i| i.login.clone()),
            db: 0,
            timeout: Duration::from_millis(self.config().upstream.timeout_ms),
            pause: self.pause.clone(),
            eras: self.eras.clone(),
        }
    }

    /// A client may have changed users, passwords or databases.
    pub fn rights_changed(&self) {
        self.identities.rights_changed();
        self.survey_bell.notify_one();
    }

    /// A client is gone.
    pub fn client_left(&self, id: u64) {
        if let Some(client) = self.clients.remove(id) {
            client.leave();
            self.origins.leave(client.origin, Instant::now());
            self.memory.note(client.buffers_bytes.load(Ordering::Relaxed), 0);
        }
    }

    /// The user of this identity is gone: Redis closes the connections of such a user, and so do we.
    pub fn close_clients_of(&self, identity: &Identity) {
        let clients = self.clients.all();
        let theirs = clients.iter().filter(|client| client.identity.load(Ordering::Relaxed) == identity.id);
        theirs.for_each(|client| client.kill());
    }

    /// How the upstream's users are seen.
    pub fn sight(&self) -> Sight {
        Sight::ALL[self.sight.load(Ordering::Relaxed)]
    }

    /// They are seen in this way from now on.
    pub(super) fn set_sight(&self, sight: Sight) {
        if self.sight.swap(sight as usize, Ordering::Relaxed) == sight as usize {
            return;
        }
        match sight {
            Sight::Blind => tracing::warn!(
                "changes of users cannot be seen: what is kept in memory is forgotten at each look (upstream.acl_check_ms)"
            ),
            Sight::Off => tracing::info!("changes of users are not looked for"),
            Sight::Listed | Sight::Counted => tracing::info!(sight = sight.as_str(), "changes of users are looked for"),
        }
    }

    /// The upstream has just accepted these credentials.
    pub fn vouched(&self, credentials: Credentials) -> Arc<Identity> {
        let (identity, new) = self.identities.vouched(credentials, &self.coherence);
        if new {
            // The receiver ends with the process.
            let _ = self.trackers_wanted.send(identity.clone());
            if self.facts().run_id.is_empty() {
                // Perhaps this user may ask what nobody could be asked so far.
                self.survey_bell.notify_one();
            }
        }
        identity
    }
}

/// Whose word an error reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaidBy {
    /// The server's: the command was one whose errors are its own.
    Server,
    /// Perhaps that of a script, a function or a command nobody knows.
    Script,
}

/// A script on its way or running; dropped with its reply.
pub struct ScriptRunning(Arc<AtomicUsize>);

impl Drop for ScriptRunning {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
