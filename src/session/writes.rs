//! A client's socket, and the writes of one round of its worker, which leave together at its end.
//!
//! A write costs more than all else that is done for a small request, and nearly all of it is the kernel's: code and data that push a
//! session's out of the processor's caches, and are pushed out by the next one's. So the sessions that have their turn in one round of the
//! worker's event loop read and run, one after the other, and what they answer is written after them, one after the other. (So does Redis,
//! networking.c, `handleClientsWithPendingWrites`.) Hits of 50 clients by pipelines of 16 and 64: 0.88 and 0.84 of the CPU.
//!
//! Waits for nobody: a socket that takes no more is its session's business, and so is whatever leaves with more ado than a reply.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use tokio::sync::Notify;

use super::Outbox;
use crate::server::clients::Client;
use crate::server::worker::Worker;
use crate::socket::Socket;

/// Clients that are written to together, at most: the first is not to wait for thousands of others, nor is there to be a buffer for each.
const TOGETHER_MAX: usize = 64;
/// What is as large as this, in bytes, leaves at once.
const TOGETHER_MAX_BYTES: usize = 64 * 1024;

/// A client's socket, and what is to be written to it.
pub(super) struct Output {
    socket: RefCell<Socket>,
    outbox: Rc<Outbox>,
    client: Arc<Client>,
    /// It is among those that are written to at the end of this round.
    is_due: Cell<bool>,
    /// Its socket took no more then, or is gone.
    is_stuck: Cell<bool>,
}

impl Output {
    pub(super) fn new(socket: Socket, outbox: Rc<Outbox>, client: Arc<Client>) -> Rc<Self> {
        let socket = RefCell::new(socket);
        Rc::new(Self { socket, outbox, client, is_due: Cell::default(), is_stuck: Cell::default() })
    }

    /// See [`Socket::poll_read`].
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        self.socket.borrow_mut().poll_read(cx, buf)
    }

    /// See [`Socket::poll_read_ready`].
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.borrow().poll_read_ready(cx)
    }

    /// See [`Socket::is_read_closed`].
    pub(super) fn is_read_closed(&self) -> bool {
        self.socket.borrow().is_read_closed()
    }

    /// See [`Socket::poll_write_ready`].
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.borrow().poll_write_ready(cx)
    }

    /// See [`Socket::is_unsent`].
    pub(super) fn is_unsent(&self) -> bool {
        self.socket.borrow().is_unsent()
    }

    /// See [`Socket::shut_write`].
    pub(super) fn shut_write(&self) {
        self.socket.borrow().shut_write();
    }

    /// Whether what there is to write may be written with others'.
    pub(super) fn may_wait(&self) -> bool {
        !self.is_stuck.get() && (1..TOGETHER_MAX_BYTES).contains(&self.outbox.unwritten_bytes())
    }

    /// Whether something is to be written at the end of this round.
    pub(super) fn waits(&self) -> bool {
        self.is_due.get() && self.outbox.unwritten_bytes() > 0
    }

    /// Writes what there is to write, as far as the socket takes it: how many bytes, and why there is something left, if there is.
    pub(super) fn write(&self, worker: &Worker) -> (usize, io::Result<()>) {
        let mut socket = self.socket.borrow_mut();
        let mut bytes = 0;
        loop {
            let written = self
                .outbox
                .with_unwritten(|unwritten| (!unwritten.is_empty()).then(|| socket.try_write(unwritten)))
                .transpose();
            match written {
                Ok(Some(n)) => {
                    bytes += n;
                    self.outbox.written(n);
                }
                ended => {
                    self.is_stuck.set(ended.is_err());
                    if bytes > 0 {
                        worker.stats.figures.bytes.clients_sent.add(bytes as u64);
                        if worker.config().clients.idle_timeout_ms > 0 {
                            self.client.active.store(worker.now().0, Relaxed);
                        }
                    }
                    return (bytes, ended.map(|_| ()));
                }
            }
        }
    }

    /// The round is at its end. What its session would have done after writing is done here, where it is not looked at any more.
    fn leave(&self, worker: &Worker) {
        self.is_due.set(false);
        let held = self.outbox.buffers_bytes() as u64;
        if self.write(worker).1.is_err() {
            return self.outbox.task().wake();
        }
        if let Some(spare) = self.outbox.take_spare() {
            worker.keep_spare(spare);
        }
        self.client.show_output(self.outbox.held_bytes());
        if worker.shared.memory.is_bounded() {
            let before = self.client.buffers_bytes.load(Relaxed);
            let now = before.saturating_sub(held.saturating_sub(self.outbox.buffers_bytes() as u64));
            self.client.buffers_bytes.store(now, Relaxed);
            worker.shared.memory.note(before, now);
        }
    }
}

/// The clients of a worker to which something is to be written at the end of this round.
#[derive(Default)]
pub struct Writes {
    due: RefCell<Vec<Rc<Output>>>,
    bell: Notify,
}

impl Writes {
    /// Writes to this client once the sessions that are ready now have had their turn, or [`TOGETHER_MAX`] of them.
    pub(super) fn add(&self, output: &Rc<Output>, worker: &Worker) {
        if output.is_due.replace(true) {
            return;
        }
        let mut due = self.due.borrow_mut();
        due.push(output.clone());
        match due.len() {
            1 => self.bell.notify_one(),
            TOGETHER_MAX => {
                drop(due);
                self.write_all(worker);
            }
            _ => {}
        }
    }

    fn write_all(&self, worker: &Worker) {
        let mut due = self.due.take();
        due.drain(..).for_each(|output| output.outbox.contain(|| output.leave(worker)));
        // Nothing has been added meanwhile: whom it woke has not had its turn. Its room is kept.
        self.due.replace(due);
        worker.observer.round_ended(|| worker.now_ns());
    }

    /// Writes at the end of each round. Ends when aborted, with the worker.
    pub async fn keep(&self, worker: &Worker) {
        loop {
            self.bell.notified().await;
            self.write_all(worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use tokio::net::UnixStream;

    use super::super::outbox::tests::outbox;
    use super::*;
    use crate::config::Config;
    use crate::server::clients::Clients;
    use crate::server::shared::Shared;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }

    /// Nobody else would look at it again.
    #[tokio::test]
    async fn a_socket_that_takes_no_more_is_its_sessions_business_again() {
        let worker = Worker::new(0, Arc::new(Shared::new(Config::default(), None, None, 1).0));
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let nobody = ([127, 0, 0, 1], 1).into();
        let client = Clients::default().add(nobody, nobody, worker.now());
        let (woken, outbox) = (Arc::<Woken>::default(), Rc::new(outbox()));
        outbox.set_task(&woken.clone().into());
        let output = Output::new(Socket::Unix(ours), outbox.clone(), client);
        let mut rounds = 0;
        while !woken.0.load(Relaxed) {
            rounds += 1;
            assert!(rounds < 1000, "it took everything, or nobody is told");
            outbox.reply(|out| out.extend_from_slice(&[b'x'; TOGETHER_MAX_BYTES / 2]));
            assert!(output.may_wait(), "what is written leaves nothing behind");
            worker.writes.add(&output, &worker);
            assert!(output.waits());
            worker.writes.write_all(&worker);
            assert!(!output.waits());
        }
        assert!(outbox.unwritten_bytes() > 0 && !output.may_wait());
        // Its session writes the rest once there is room, and then it is one among others.
        let mut buf = vec![0; 1 << 20];
        while outbox.unwritten_bytes() > 0 {
            theirs.readable().await.expect("it is open");
            while theirs.try_read(&mut buf).is_ok_and(|n| n > 0) {}
            std::future::poll_fn(|cx| output.poll_write_ready(cx)).await.expect("it is open");
            let _ = output.write(&worker);
        }
        outbox.reply(|out| out.push(b'x'));
        assert!(output.may_wait());
    }
}
