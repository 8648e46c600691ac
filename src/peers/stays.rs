//! From one stay on the channels to the next: connecting, subscribing, and again when it has ended.
//!
//! What happens during a stay is `line.rs`'s business.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::half::Half;
use super::line::{LISTENS, Line, SPEAKS};
use super::{Bus, State};
use crate::coherence::Coherence;
use crate::resp::{Protocol, encode};
use crate::server::complaints::Complaints;
use crate::server::in_force::Changes;
use crate::upstream::connect::{Connection, Connector, reason};

/// Says and hears until everyone has drained.
pub(super) async fn keep(
    bus: Arc<Bus>,
    coherence: Coherence,
    connector: Connector,
    reconnect: (Duration, Duration),
    mut drained: watch::Receiver<()>,
    mut changes: Changes,
) {
    let stays = async {
        let (complaints, mut pause) = (Complained::default(), reconnect.0);
        loop {
            let stay = connect(&bus, &coherence, &connector, &complaints);
            let why = tokio::select! {
                connected = stay => match connected {
                    Ok(mut line) => {
                        pause = reconnect.0;
                        match line.pump(&mut drained, &mut changes).await {
                            Ok(()) => return,
                            Err(error) => reason(&error),
                        }
                    }
                    Err(why) => {
                        pause = (pause * 2).min(reconnect.1);
                        why
                    }
                },
                _ = drained.changed() => return,
            };
            bus.standing.set_state(State::Down(why));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = drained.changed() => return,
            }
        }
    };
    tokio::select! {
        () = stays => {}
        () = bus.walks.keep(&coherence) => {}
        () = bus.sweeps.keep(&connector, &coherence) => {}
    }
}

/// What the log need not hear each time, whichever stay it is.
#[derive(Default)]
pub(super) struct Complained {
    pub(super) of_peers: Complaints,
    pub(super) out_of_order: Complaints,
    pub(super) of_applications: Complaints,
}

/// Opens both connections and subscribes.
async fn connect<'a>(
    bus: &'a Bus,
    coherence: &'a Coherence,
    connector: &Connector,
    complaints: &'a Complained,
) -> Result<Line<'a>, String> {
    let open = async |name| {
        let connection: Connection = connector.open(Protocol::Resp2, name).await.map_err(|error| error.to_string())?;
        if connection.authenticated {
            Ok((Half::new(connection.socket), connection.era))
        } else {
            Err("upstream.url has no password".to_owned())
        }
    };
    let (speaks, era) = open(SPEAKS).await?;
    let channels = bus.channels();
    let mut listens = None;
    if !channels.is_empty() {
        let (mut half, _) = open(LISTENS).await?;
        let mut command: Vec<&[u8]> = vec![b"SUBSCRIBE"];
        command.extend(channels.iter().map(|channel| channel.as_bytes()));
        encode::command(&mut half.out, &command);
        let confirmed = half.confirmed(channels.len());
        timeout(connector.timeout, confirmed)
            .await
            .map_err(|_| "the subscription is not confirmed".to_owned())?
            .map_err(|error| reason(&error))?;
        listens = Some(half);
    }
    Ok(Line::new(bus, coherence, (listens, speaks, era), complaints))
}
