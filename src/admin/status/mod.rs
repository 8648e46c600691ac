//! `anteroom status`: what a running proxy tells on its admin address, on one screen.
//!
//! | file | question |
//! | --- | --- |
//! | `client` | how is it asked? |
//! | `screen` | what is shown? (pure) |

mod client;
mod screen;

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value as Json;

use crate::config::Admin;
pub use screen::Look;

/// Between two looks of `--watch`.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody can be asked, as things are configured.
    #[error("{0}")]
    Usage(String),
    /// The proxy does not answer, or not with its status.
    #[error("{0}")]
    Unreachable(String),
}

/// Shows on stdout how the proxy is doing whose admin address `admin` says; with `watch` until stdout is closed. Blocks.
///
/// # Errors
/// There is nobody to ask, or no answer; with `watch`, only if there was none at first.
pub fn show(admin: &Admin, watch: bool, json: bool) -> Result<(), Failure> {
    let Some(address) = admin.listen.map(reachable) else {
        return Err(Failure::Usage("admin.listen is off: there is nobody to ask".to_owned()));
    };
    if address.port() == 0 {
        return Err(Failure::Usage("admin.listen has port 0: say which it has become with --admin".to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Unreachable(format!("no runtime: {error}")))?;
    let mut stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let look = Look { colours: is_terminal && std::env::var_os("NO_COLOR").is_none() };
    let mut was_reached = false;
    loop {
        let answer =
            runtime.block_on(client::get(address, "/status", admin.token.secret())).and_then(|text| read(&text));
        let text = match &answer {
            Ok(status) if json => screen::printable_json(status) + "\n",
            Ok(status) => screen::draw(status, look),
            Err(why) if watch && was_reached => format!("anteroom at {address}: {why}\n"),
            Err(why) => return Err(Failure::Unreachable(format!("the proxy at {address}: {why}"))),
        };
        was_reached |= answer.is_ok();
        let clear = if watch && is_terminal && !json { "\x1b[H\x1b[2J" } else { "" };
        // Whoever read this has seen enough.
        if write!(stdout, "{clear}{text}").and_then(|()| stdout.flush()).is_err() || !watch {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn read(text: &str) -> Result<Json, String> {
    match serde_json::from_str::<Json>(text) {
        Ok(status) if status.get("figures").is_some() => Ok(status),
        _ => Err("what answers there is not an anteroom".to_owned()),
    }
}

/// Where to ask whoever listens there: "any address" is this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
