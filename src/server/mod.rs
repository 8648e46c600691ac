//! The process: one acceptor, the workers, what they share, and the drain.
//!
//! | file | question |
//! | --- | --- |
//! | `acceptor` | who gets in, and to which worker? |
//! | `origins`, `allowance` | how many, and how fast, from one address? |
//! | `overdue` | who has taken too long? |
//! | `memory` | who must make room when memory is short? |
//! | `worker` | what do the sessions of one thread share? |
//! | `fences` | which replies wait until the trackers have caught up? |
//! | `registry` | what may others look at while it lives? |
//! | `rates` | how fast is it going? |
//! | `kept` | which upstream connections are kept for the next who asks? |
//! | `shared` | what do all threads share? |
//! | `in_force`, `steering` | what is everybody going by, and how does it change? |
//! | `stage` | how far is the process? |
//! | `rules` | which of the operator's rules about commands is whose? |
//! | `clients`, `asking`, `identity`, `facts`, `stats` | who is connected, as whom, to what, and how is it going? |
//! | `rest` | when does a worker wait before it looks at its sockets? |
//! | `pulse`, `reach` | do the workers, and does the upstream, answer at this moment? |
//! | `survey`, `users`, `swaps`, `touch`, `trackers` | what is asked of the upstream on the proxy's own account? |
//! | `handshakes`, `certificates` | who gets in by TLS, and have its files changed? |

mod acceptor;
pub mod allowance;
pub mod asking;
mod certificates;
pub mod clients;
pub mod complaints;
pub mod facts;
pub mod fences;
pub mod handshakes;
pub mod identity;
pub mod in_force;
mod kept;
pub mod memory;
pub mod origins;
pub mod overdue;
pub mod pulse;
pub mod rates;
pub mod reach;
pub mod registry;
pub mod rest;
pub mod rules;
pub mod shared;
pub mod stage;
pub mod stats;
pub mod steering;
mod survey;
mod swaps;
mod touch;
mod trackers;
pub mod users;
pub mod worker;

use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::RunError;
use crate::config::Config;
use crate::contained::kept_up;
use crate::host::Host;
use crate::listen::Listeners;
use crate::peers;
use crate::session::{End, Session};
use crate::shutdown::{Shutdown, ShutdownTrigger};
use crate::socket::Socket;
use crate::tls::{ClientTls, Flaw, UpstreamTls};
use crate::upstream::connect::Connector;
use crate::upstream::control::Control;
use acceptor::Arrival;
use rest::Rest;
use shared::Shared;
use stage::Stage;
use trackers::Waiting;
use worker::Worker;

/// What the process takes to end once everyone has gone, at most.
const AFTER_DRAIN: Duration = Duration::from_secs(2);
/// How often what was evicted or flushed is taken out.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// And in how many steps its memory is: 250,000 entries a second.
const COLLECTIONS_PER_TIDY: usize = 32;
/// Accepted connections waiting for their worker to take them.
const ARRIVALS_MAX: usize = 1024;

/// Serves clients of `listeners` until `shutdown` is requested and the drain is over. Blocks. The listeners may be
/// blocking or not; `config` has been checked, and its upstream is no longer `spawn:`.
///
/// # Errors
/// What it was told to require is not there, or a fault of its own. An upstream that is down is neither.
pub fn run(config: Config, listeners: impl Into<Listeners>, shutdown: Shutdown) -> Result<(), RunError> {
    run_under(config, listeners, shutdown, Host::default())
}

/// [`run`], in a process whose host can have the configuration changed and is told how far it is.
///
/// # Errors
/// As [`run`].
pub fn run_under(
    config: Config,
    listeners: impl Into<Listeners>,
    shutdown: Shutdown,
    host: Host,
) -> Result<(), RunError> {
    let (mut listeners, host) = (listeners.into(), Arc::new(host));
    let admin = listeners.admin.take();
    // What workers and the acceptor are asked by: later than the proxy itself, by `drain.delay_ms`.
    let (close, closing) = Shutdown::new();
    let count = match config.workers {
        0 => thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let client_tls = listeners.tls.is_some().then(|| ClientTls::new(&config.tls)).transpose().map_err(unusable)?;
    let upstream_tls = UpstreamTls::new(&config.upstream).map_err(unusable)?;
    if upstream_tls.as_ref().is_some_and(|tls| !tls.verifies()) {
        tracing::warn!(
            "upstream.tls_dangerously_skip_verification: whoever answers is taken for the upstream and given its passwords"
        );
    }
    let (shared, trackers_wanted) = Shared::new(config, client_tls, upstream_tls, count);
    let shared = Arc::new(shared);
    let mut doors = Vec::new();
    let mut threads = Vec::new();
    // Nothing is ever sent: it closes when the last worker has drained.
    let (at_work, all_drained) = watch::channel(());
    let mut trackers = Some(Waiting { wanted: trackers_wanted, all_drained: all_drained.clone() });
    for index in 0..count {
        let (door, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let (shared, at_work, trackers) = (shared.clone(), at_work.clone(), trackers.take());
        // Ends when the drain is over.
        let thread = thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                Rest::begin();
                let (parks, wakes) = (shared.clone(), shared.clone());
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .on_thread_park(move || parks.rests[index].parks())
                    .on_thread_unpark(move || wakes.rests[index].wakes())
                    .build_local(LocalOptions::default());
                runtime.map_err(no_runtime)?.block_on(async {
                    let trackers = trackers.map(|trackers| trackers.begin(&shared));
                    work(index, shared, arrivals).await;
                    drop(at_work);
                    if let Some(trackers) = trackers {
                        trackers.end().await;
                    }
                });
                Ok(())
            })
            .map_err(|e| RunError::Internal(format!("no thread: {e}")))?;
        doors.push(door);
        threads.push(thread);
    }
    drop(at_work);
    shared.stage.advance(Stage::Serving);
    let runtime = Builder::new_current_thread().enable_all().build().map_err(no_runtime)?;
    let outcome = runtime.block_on(async {
        let timeout = Duration::from_millis(shared.config().upstream.timeout_ms);
        let (tls, login) = (shared.upstream_tls.clone(), shared.own_login());
        let eras = shared.eras.clone();
        let control =
            Control::new(&shared.address, tls, login.as_deref(), timeout, eras).map_err(RunError::Internal)?;
        let survey = tokio::spawn(survey::keep(shared.clone()));
        let users = tokio::spawn(users::keep(shared.clone()));
        let limits = tokio::spawn(keep_limits(shared.clone(), control.clone()));
        let steering = tokio::spawn(steering::keep(shared.clone(), host.clone()));
        let ending = tokio::spawn(end(shared.clone(), host.clone(), shutdown, close));
        let pulse = tokio::spawn({
            let (shared, supervisor) = (shared.clone(), host.supervisor);
            async move { pulse::tell(&shared.pulses, supervisor).await }
        });
        let certificates = tokio::spawn(certificates::keep(shared.clone()));
        let touch = tokio::spawn(touch::keep(shared.clone(), control));
        let tidy = tokio::spawn(keep_tier_tidy(shared.clone()));
        let overdue = tokio::spawn(overdue::keep(shared.clone()));
        let memory = tokio::spawn(memory::keep(shared.clone()));
        let rates = tokio::spawn(rates::keep(shared.clone()));
        let bus = begin_bus(&shared, all_drained.clone());
        let reach = tokio::spawn(reach::keep(shared.clone()));
        let answering = admin.map(|listener| tokio::spawn(crate::admin::http::serve(listener, shared.clone())));
        host.supervisor.ready();
        let accepted = acceptor::accept(listeners, shared.clone(), doors, closing).await;
        shared.stage.advance(Stage::Draining);
        steering.abort();
        survey.abort();
        certificates.abort();
        overdue.abort();
        memory.abort();
        rates.abort();
        touch.abort();
        users.abort();
        tidy.abort();
        limits.abort();
        // What clients write while the workers drain is told, too.
        bus.end(all_drained).await;
        pulse.abort();
        ending.abort();
        // It tells that the proxy is draining for as long as it is.
        reach.abort();
        answering.inspect(|answering| answering.abort());
        accepted
    });
    // A disk that does not answer (a file being read again) holds nobody up.
    runtime.shutdown_background();
    for thread in threads {
        thread.join().map_err(|_| RunError::Internal("a worker panicked".into()))??;
    }
    outcome
}

fn begin_bus(shared: &Arc<Shared>, all_drained: watch::Receiver<()>) -> peers::Running {
    let config = shared.config();
    let upstream = &config.upstream;
    let reconnect =
        (Duration::from_millis(upstream.reconnect_min_ms), Duration::from_millis(upstream.reconnect_max_ms));
    let connector = Connector { login: shared.own_login(), ..shared.connector(None) };
    let (coherence, changes) = (shared.coherence.fork(), shared.in_force.changes());
    peers::Running::begin(shared.bus.clone(), coherence, connector, reconnect, all_drained, changes)
}

/// Waits until the proxy is asked to stop; then it is no longer ready, and after `drain.delay_ms` nobody is let in any more. Ends with
/// that.
async fn end(shared: Arc<Shared>, host: Arc<Host>, mut shutdown: Shutdown, close: ShutdownTrigger) {
    tokio::select! {
        () = shutdown.requested() => {}
        () = shared.desk.drain_asked() => {}
    }
    let config = shared.config();
    let (delay, timeout) =
        (Duration::from_millis(config.drain.delay_ms), Duration::from_millis(config.drain.timeout_ms));
    shared.stage.advance(Stage::Draining);
    host.supervisor.stopping(delay + timeout + AFTER_DRAIN);
    tracing::info!(clients = shared.clients.len(), delay_ms = config.drain.delay_ms, "draining");
    tokio::time::sleep(delay).await;
    close.request();
}

/// Keeps the limits that are in force: asks Redis for what proxies share, and forgets what is unused. Begins anew when they are
/// others; ends when aborted.
async fn keep_limits(shared: Arc<Shared>, control: Control) {
    let mut changes = shared.in_force.changes();
    loop {
        let limits = shared.limits();
        let kept = async {
            tokio::join!(
                crate::limits::shared::keep(limits.clone(), control.clone()),
                crate::limits::keep_tidy(limits.clone())
            );
            std::future::pending::<()>().await;
        };
        let others = async {
            while Arc::ptr_eq(&limits, &shared.limits()) {
                changes.changed().await;
            }
        };
        tokio::select! {
            () = kept => {}
            () = others => {}
        }
    }
}

fn no_runtime(error: std::io::Error) -> RunError {
    RunError::Internal(format!("no runtime: {error}"))
}

/// Frees what was evicted or flushed. Not on a worker's thread: it may take milliseconds. Ends when aborted.
async fn keep_tier_tidy(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(TIDY_EVERY);
    loop {
        tick.tick().await;
        shared.coherence.tidy();
        for _ in 0..COLLECTIONS_PER_TIDY {
            shared.coherence.collect();
            // This thread accepts clients.
            tokio::task::yield_now().await;
        }
    }
}

/// The operator's files are not what they have to be. The binary has checked them before.
fn unusable(flaws: Vec<Flaw>) -> RunError {
    let what = flaws.iter().map(Flaw::to_string).collect::<Vec<_>>().join("; ");
    RunError::Unavailable { what, source: std::io::ErrorKind::InvalidInput.into() }
}

/// Begins a task of the worker's own. What its sessions wait for is outside of it, and is there still should it begin anew; of what it had just
/// taken up, whoever may be at fault is contained one by one. Ends when aborted.
fn kept<F>(worker: &Rc<Worker>, task: &'static str, begin: impl Fn(Rc<Worker>) -> F + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + 'static,
{
    let worker = worker.clone();
    tokio::task::spawn_local(kept_up(task, move || begin(worker.clone())))
}

/// A session is over; if by a panic, that was printed when it happened: its client is gone, everyone else goes on.
fn note_fault(worker: &Worker, ended: &Result<End, tokio::task::JoinError>) {
    if let Err(error) = ended {
        worker.stats.ended[End::Fault as usize].add(1);
        tracing::error!(worker = worker.index, %error, "a session panicked");
    }
}

/// One worker's life: sessions come in until the acceptor has let in the last, then have `drain.timeout_ms` to end.
async fn work(index: usize, shared: Arc<Shared>, mut arrivals: mpsc::Receiver<Arrival>) {
    let worker = Worker::new(index, shared.clone());
    // These end below, with the worker.
    let own = [
        kept(&worker, "pulse", |worker| async move { worker.shared.pulses[worker.index].keep().await }),
        kept(&worker, "mail", crate::session::deliver_mail),
        kept(&worker, "tidy", worker::keep_tidy),
        kept(&worker, "near", worker::keep_near),
        kept(&worker, "rounds", worker::keep_rounds),
        kept(&worker, "gathering", worker::keep_gathering),
        kept(&worker, "following", in_force::follow),
    ];
    let (mut entering, mut sessions) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    loop {
        tokio::select! {
            arrival = arrivals.recv() => {
                let Some(arrival) = arrival else { break };
                let Ok(stream) = tokio::net::TcpStream::from_std(arrival.stream) else {
                    shared.client_left(arrival.client.id);
                    worker.stats.clients.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                    continue;
                };
                worker.stats.accepted.add(1);
                match &shared.handshakes {
                    // Ends within its deadline.
                    Some(tls) if arrival.over_tls => {
                        entering.spawn_local(handshakes::enter(worker.clone(), tls.clone(), stream, arrival.client));
                    }
                    // Ends with its client, or with the drain.
                    _ => {
                        let identity = shared.identities.nobody().clone();
                        let session = Session::new(worker.clone(), Socket::Tcp(stream), arrival.client, identity);
                        sessions.spawn_local(session.run());
                    }
                }
            }
            Some(entered) = entering.join_next() => {
                // A panic was printed when it happened.
                if let Ok(Some((socket, entering))) = entered
                    && let Some(session) = entering.into_session(socket)
                {
                    // Ends with its client, or with the drain.
                    sessions.spawn_local(session.run());
                }
            }
            Some(ended) = sessions.join_next() => note_fault(&worker, &ended),
        }
    }
    entering.shutdown().await;
    worker.begin_drain();
    let drain = Duration::from_millis(worker.config().drain.timeout_ms);
    let ended = async {
        while let Some(ended) = sessions.join_next().await {
            note_fault(&worker, &ended);
        }
    };
    if tokio::time::timeout(drain, ended).await.is_err() {
        tracing::warn!(worker = index, sessions = sessions.len(), "drain timed out; closing what is left");
    }
    sessions.shutdown().await;
    worker.stop();
    own.iter().for_each(JoinHandle::abort);
    shared.pulses[index].end();
}
