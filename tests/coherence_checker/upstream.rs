//! What the proxies stand before: a primary and its replica, at an address that leads to whichever is the primary.
//!
//! Each proxy has a [`Middleman`] of its own as that address, which also tampers with what peers tell it. Whoever writes beside the proxies asks
//! [`Upstream::addr`] again after every move.
//!
//! Redis replicates asynchronously: what it has acknowledged may be lost when it fails over, with and without a proxy. So before anything moves
//! here, nobody writes, and the replica has everything (WAIT).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::support::scripted::{Middleman, Tamper};
use super::support::{Client, Redis, eventually};

/// A replica that connects is served at once.
const ARGS: [&str; 4] = ["--repl-diskless-sync-delay", "0", "--repl-timeout", "5"];

/// See the head of this file.
pub(crate) struct Upstream {
    servers: Mutex<[Redis; 2]>,
    /// Which of them is the primary.
    primary: AtomicUsize,
    moves: AtomicUsize,
    men: Vec<Middleman>,
}

impl Upstream {
    /// With the addresses of so many proxies.
    pub(crate) fn start(proxies: usize) -> Self {
        let servers = [Redis::start_with(&ARGS), Redis::start_with(&ARGS)];
        let men = (0..proxies).map(|_| Middleman::before(servers[0].addr())).collect();
        let upstream =
            Self { servers: Mutex::new(servers), primary: AtomicUsize::new(0), moves: AtomicUsize::new(0), men };
        upstream.replicate();
        upstream
    }

    fn servers(&self) -> MutexGuard<'_, [Redis; 2]> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn primary(&self) -> usize {
        self.primary.load(Ordering::SeqCst)
    }

    /// Where the primary is now.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.servers()[self.primary()].addr()
    }

    /// How often that has changed, or another process has come to answer there.
    pub(crate) fn moves(&self) -> usize {
        self.moves.load(Ordering::SeqCst)
    }

    /// Where this proxy finds it.
    pub(crate) fn before_proxy(&self, proxy: usize) -> SocketAddr {
        self.men[proxy].addr
    }

    /// A client of the primary.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr())
    }

    /// What becomes of the next message to this proxy's subscription.
    pub(crate) fn tamper(&self, proxy: usize, tamper: Tamper) {
        self.men[proxy].tamper(tamper);
    }

    /// The primary answers nothing for as long as `meanwhile` takes.
    pub(crate) fn stop_while(&self, meanwhile: impl FnOnce()) {
        let servers = self.servers();
        servers[self.primary()].pause();
        meanwhile();
        servers[self.primary()].resume();
    }

    /// The primary dies and comes back, with all its data or with none. To be called while nobody writes.
    pub(crate) fn restart(&self, with_data: bool) {
        if with_data {
            // Refused while a replica is given everything, as it may be for a moment after it had to begin anew.
            eventually("it saves", || self.client().text(&["SAVE"]) == "+OK\r\n");
        }
        self.men.iter().for_each(Middleman::cut_all);
        self.servers()[self.primary()].restart(with_data);
        self.moves.fetch_add(1, Ordering::SeqCst);
    }

    /// The primary dies, the replica takes its place, and whoever was connected is cut off. To be called while nobody writes.
    pub(crate) fn fail_over(&self) {
        self.settle();
        self.servers()[self.primary()].kill();
        self.promote();
        self.men.iter().for_each(Middleman::cut_all);
    }

    /// What died comes back as the replica. Others may write meanwhile.
    pub(crate) fn revive(&self) {
        self.servers()[1 - self.primary()].restart(false);
        self.replicate();
    }

    /// The two change places. Whoever is connected stays connected to the one that was the primary, which answers. To be called while nobody
    /// writes.
    pub(crate) fn change_places(&self) {
        self.settle();
        self.promote();
        self.replicate_from_now();
    }

    /// Returns when no proxy hears of changes from the one that was the primary before.
    pub(crate) fn is_left_by_all(&self) {
        let addr = self.servers()[1 - self.primary()].addr();
        let mut demoted = Client::connect(addr);
        eventually("nobody listens to the demoted server", || {
            let list = demoted.text(&["CLIENT", "LIST"]);
            // While it loads what the other has, it answers an error.
            list.starts_with('$') && !list.contains("name=anteroom:tracker ")
        });
    }

    fn promote(&self) {
        let next = 1 - self.primary();
        let addr = self.servers()[next].addr();
        assert_eq!(Client::connect(addr).text(&["REPLICAOF", "NO", "ONE"]), "+OK\r\n");
        self.primary.store(next, Ordering::SeqCst);
        self.moves.fetch_add(1, Ordering::SeqCst);
        self.men.iter().for_each(|man| man.lead_to(addr));
    }

    /// Returns when the replica has everything.
    fn settle(&self) {
        let mut client = self.client();
        eventually("the replica has everything", || {
            client.ask(&["SET", "settled", "x"]);
            client.text(&["WAIT", "1", "1000"]) == ":1\r\n"
        });
    }

    fn replicate_from_now(&self) {
        let (port, replica) = (self.addr().port().to_string(), self.servers()[1 - self.primary()].addr());
        assert_eq!(Client::connect(replica).text(&["REPLICAOF", "127.0.0.1", &port]), "+OK\r\n");
    }

    fn replicate(&self) {
        self.replicate_from_now();
        self.settle();
    }
}
