//! What a write sets off.

use super::Session;
use super::attached::Transaction;
use super::request::Flow;
use super::then::Then;
use crate::command::Command;
use crate::resp::Args;

impl Session {
    pub(super) fn on_lane(&mut self, _command: &Command, args: &Args<'_>) -> Flow {
        self.pass(args, Then::Nothing)
    }
    pub(super) fn after_write(&mut self, _command: &Command, _args: &Args<'_>) -> Then {
        Then::Nothing
    }
    pub(super) fn fence_only(&mut self) -> Then {
        Then::Nothing
    }
    pub(super) fn after_transaction(&mut self, _transaction: &Transaction) -> Then {
        Then::Nothing
    }
}
