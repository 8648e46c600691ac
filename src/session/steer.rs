//! The console's words that change how the proxy goes on, carried out for the client that said them.

use super::request::Flow;
use super::{Session, Verdict};
use crate::admin::console::{Steer, matching};
use crate::resp::encode;

impl Session {
    pub(super) fn steer(&mut self, steer: Steer) -> Flow {
        // What it has asked before is still done under what was in force then.
        if !self.is_settled() {
            return Flow::Hold;
        }
        match steer {
            Steer::Get(patterns) => {
                let config = self.worker.config();
                self.answer(|out, protocol| matching(&config, &patterns, protocol, out));
                Flow::Next
            }
            Steer::Drain => {
                self.answer(|out, _| encode::simple(out, "OK"));
                self.worker.shared.desk.drain();
                Flow::Next
            }
            Steer::Change(change) => {
                // Answered as a request of its own verdict, once it is done.
                if let Some(Verdict::Reply(reply)) = self.verdict.take() {
                    self.answer(|out, _| out.extend_from_slice(&reply));
                    return Flow::Next;
                }
                let shared = self.worker.shared.clone();
                self.operation = Some(Box::pin(async move {
                    let mut reply = Vec::new();
                    match shared.desk.ask(change).await {
                        Ok(what) => encode::simple(&mut reply, format!("OK {what}")),
                        Err(why) => encode::error(&mut reply, format!("ERR anteroom: nothing is changed: {why}")),
                    }
                    Verdict::Reply(reply)
                }));
                Flow::Hold
            }
        }
    }
}
