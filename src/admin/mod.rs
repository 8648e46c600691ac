//! Looking into the proxy: INFO's own sections, the console, and what is told by HTTP.
//!
//! | file | question |
//! | --- | --- |
//! | `figures` | what is there to tell? |
//! | `info`, `metrics`, `snapshot` | how is it told: to redis-cli, to Prometheus, to the page and `anteroom status`? |
//! | `health` | does it live, and can it serve? |
//! | `history` | how was it a moment ago? |
//! | `http` | who may ask on the admin address, and where does the question go? |
//! | `status` | what does `anteroom status` show? |
//! | `console` | what does a `PROXY` command come to? |

pub mod console;
pub mod figures;
mod health;
mod history;
pub mod http;
pub mod info;
mod metrics;
mod snapshot;
pub mod status;
