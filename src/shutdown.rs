//! Being asked to stop: one flag that goes up once, and the signals that raise it.
//!
//! Does not own draining, which is the server's.

use std::{io, sync::Arc, thread};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
};

/// Whether the proxy has been asked to stop. Clones see the same request.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// The one who can ask. Dropping it asks too, so that nobody waits for a request that can no longer come.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

impl Shutdown {
    /// A request yet to be made, and the means to make it.
    pub fn new() -> (ShutdownTrigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (ShutdownTrigger(sender), Self(receiver))
    }

    /// Requested by the first SIGTERM or SIGINT. At the second, `exit` is called with the conventional exit code (128 plus
    /// the signal's number), from the thread that listens for signals; it should end the process. `hangups` is told of each SIGHUP,
    /// which would end the process otherwise.
    ///
    /// # Errors
    /// The handlers or their thread cannot be installed.
    pub fn on_signals(hangups: Arc<Notify>, exit: impl FnOnce(i32) + Send + 'static) -> io::Result<Self> {
        let (trigger, shutdown) = Self::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut terminate, mut interrupt, mut hangup) = {
            let _guard = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?)
        };
        let mut next = async move || {
            loop {
                tokio::select! {
                    _ = terminate.recv() => return 15,
                    _ = interrupt.recv() => return 2,
                    _ = hangup.recv() => hangups.notify_one(),
                }
            }
        };
        // Ends with the process: between the signals there is nothing to end it for.
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                next().await;
                trigger.request();
                exit(128 + next().await);
            });
        })?;
        Ok(shutdown)
    }

    /// Resolves once asked to stop; at once if that has been.
    pub async fn requested(&mut self) {
        // An error means that the trigger is gone, which asks as well.
        let _ = self.0.wait_for(|requested| *requested).await;
    }

    /// Whether it has been asked to stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

impl ShutdownTrigger {
    /// Asks to stop. Asking again changes nothing.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::Shutdown;

    #[tokio::test]
    async fn a_request_reaches_every_clone_once_and_for_all() {
        let (trigger, mut shutdown) = Shutdown::new();
        let mut other = shutdown.clone();
        assert!(!shutdown.is_requested());
        trigger.request();
        trigger.request();
        shutdown.requested().await;
        shutdown.requested().await;
        other.requested().await;
        assert!(other.is_requested());
    }

    #[tokio::test]
    async fn a_trigger_that_is_gone_has_asked() {
        let (trigger, mut shutdown) = Shutdown::new();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
