//! Looking whether the files of TLS have changed.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;

/// Looks for as long as the process runs; ends when aborted.
pub(super) async fn keep(shared: Arc<Shared>) {
    if shared.upstream_tls.is_none() && shared.handshakes.is_none() {
        return;
    }
    let mut changes = shared.in_force.changes();
    loop {
        changes.pause(|config| Duration::from_millis(config.tls.reload_check_ms)).await;
        let shared = shared.clone();
        // A disk may be slow, and this thread accepts clients. Ends with the look; a panic in it was printed.
        let looked = tokio::task::spawn_blocking(move || {
            if let Some(handshakes) = &shared.handshakes {
                handshakes.tls.look();
            }
            if let Some(upstream) = &shared.upstream_tls {
                upstream.look();
            }
        });
        let _ = looked.await;
    }
}
