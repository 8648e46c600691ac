//! Requests that the proxy itself refuses, other than for a rate limit (`limited`): in which words, and what that does to a
//! transaction.

use super::Session;
use super::request::Flow;
use crate::command::{Command, Dedicated, Route};
use crate::observe::{Bypass, Outcome};
use crate::resp::{Args, encode};

/// Bytes of a name nobody knows that a refusal repeats, as Redis does of an unknown command (server.c,
/// `commandCheckExistence`).
const NAME_SHOWN_MAX_BYTES: usize = 128;

impl Session {
    /// The request at hand is answered with this error, and counted as refused.
    #[cold]
    pub(super) fn turn_away(&mut self, text: impl AsRef<[u8]>) -> Flow {
        self.at_hand.came_out(Outcome::Bypass(Bypass::Refused));
        self.answer(|out, _| encode::error(out, text));
        Flow::Next
    }

    /// Refuses what the operator's rules refuse, in Redis's words; inside MULTI that dooms the transaction (server.c,
    /// `processCommand` and `rejectCommand`).
    #[cold]
    pub(super) fn forbid(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        self.note(command);
        self.worker.stats.commands_refused.add(1);
        let name = if command.id == 0 {
            let name = args.name();
            String::from_utf8_lossy(&name[..name.len().min(NAME_SHOWN_MAX_BYTES)])
        } else {
            (&*command.name).into()
        };
        // The words of the server that there is (acl.c, `getAclErrorMessage`).
        let user = if self.worker.shared.facts().version_numbers() >= (7, 2) {
            format!("User {}", String::from_utf8_lossy(self.identity.user()))
        } else {
            "this user".to_owned()
        };
        let text = format!("NOPERM {user} has no permissions to run the '{name}' command");
        if command.route == Route::Dedicated(Dedicated::Exec) {
            self.at_hand.came_out(Outcome::Bypass(Bypass::Refused));
            return self.abort(&format!("EXECABORT Transaction discarded because of: {text}"));
        }
        self.doom();
        self.turn_away(text)
    }

    /// There is no such subcommand, in Redis's words; inside MULTI that dooms the transaction (server.c, `commandCheckExistence` and
    /// `rejectCommand`).
    #[cold]
    pub(super) fn deny_subcommand(&mut self, command: &Command, args: &Args<'_>) -> Flow {
        self.doom();
        let container = command.name.split('|').next().unwrap_or_default().to_uppercase();
        // Its letters are those of the command's name, whatever their case.
        let subcommand = String::from_utf8_lossy(args.get(1).unwrap_or_default());
        self.turn_away(format!("ERR unknown subcommand '{subcommand}'. Try {container} HELP."))
    }

    /// Redis would let it change the connection from inside EXEC, which no shared reply order survives.
    pub(super) fn refuse_in_transaction(&mut self, command: &Command) -> Flow {
        self.doom();
        let name = command.name.replace('|', " ").to_uppercase();
        self.turn_away(format!("ERR anteroom: {name} is not supported inside MULTI"))
    }
}
