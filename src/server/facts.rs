//! What the upstream says about itself, as of the last time it was asked.

use crate::resp::{Protocol, Understood};

/// Facts about the upstream server that decide how the proxy treats it and what it tells its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `redis_version`; absent until anyone could be asked.
    pub version: Option<String>,
    /// `master` or `slave`, as INFO says it.
    pub role: String,
    /// Whether a client that gives no password may run nothing.
    pub auth_required: bool,
    /// Whether it knows HELLO; before Redis 6 there was none, and no RESP3.
    pub knows_hello: bool,
    /// Whether the upstream was ever reached; until then the rest is assumed.
    pub known: bool,
    /// `run_id`: another one means another process, whose data is another history.
    pub run_id: String,
    /// `master_replid`: the history a replica follows. Another one means that it was promoted, or follows someone else.
    pub replid: String,
    /// `maxmemory_policy`.
    pub maxmemory_policy: String,
    /// What only HELLO says.
    pub greeting: Greeting,
}

/// Who the server says it is when it is greeted. (Valkey says another version to INFO.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// `redis`, or `valkey`.
    pub server: String,
    /// Its version, if HELLO was answered.
    pub version: Option<String>,
    /// The list of its modules, as it is written in RESP2 and in RESP3.
    modules: [Vec<u8>; 2],
}

impl Default for Greeting {
    fn default() -> Self {
        Self { server: "redis".into(), version: None, modules: [b"*0\r\n".to_vec(), b"*0\r\n".to_vec()] }
    }
}

impl Greeting {
    /// The list of its modules, ready to be written.
    pub fn modules(&self, protocol: Protocol) -> &[u8] {
        &self.modules[usize::from(protocol == Protocol::Resp3)]
    }
}

impl Default for Facts {
    /// What is assumed of an upstream that was never reached.
    fn default() -> Self {
        Self {
            version: None,
            role: "master".into(),
            auth_required: false,
            knows_hello: true,
            known: false,
            run_id: String::new(),
            replid: String::new(),
            maxmemory_policy: String::new(),
            greeting: Greeting::default(),
        }
    }
}

/// The version HELLO tells while the upstream's own cannot be known (it was never reached, or it is older than HELLO and
/// nobody who gave a password may run INFO): the oldest whose clients the proxy serves in full.
const ASSUMED_VERSION: &str = "7.0.0";

impl Facts {
    /// What HELLO tells.
    pub fn version(&self) -> &str {
        self.greeting.version.as_ref().or(self.version.as_ref()).map_or(ASSUMED_VERSION, |version| version)
    }

    /// The role as HELLO says it, which is `replica` where INFO says `slave`.
    pub fn role_in_hello(&self) -> &str {
        if self.role == "slave" { "replica" } else { &self.role }
    }

    /// Reads what HELLO says, which every user may run.
    pub fn read_hello(&mut self, reply: &[u8]) {
        self.knows_hello &= !reply.starts_with(b"-ERR unknown command");
        let Some(hello) = Understood::decode(reply) else { return };
        if let Some(version) = hello.text("version") {
            self.greeting.version = Some(version.to_owned());
            // Until INFO can be asked.
            if self.run_id.is_empty() {
                self.version = Some(version.to_owned());
            }
        }
        if let Some(server) = hello.text("server") {
            self.greeting.server = server.to_owned();
        }
        let modules = [Protocol::Resp2, Protocol::Resp3].map(|protocol| hello.flat_maps("modules", protocol));
        if let [Some(resp2), Some(resp3)] = modules {
            self.greeting.modules = [resp2, resp3];
        }
        if let Some(role) = hello.text("role") {
            self.role = if role == "replica" { "slave" } else { role }.to_owned();
        }
    }

    /// Whether the default user has no password, so that AUTH with a password alone is an error of the client's.
    pub fn default_user_is_open(&self) -> bool {
        self.known && !self.auth_required
    }

    /// Reads what INFO says; what it does not say stays.
    pub fn read_info(&mut self, info: &str) {
        for line in info.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            match name {
                "redis_version" => self.version = Some(value.to_owned()),
                "role" => self.role = value.to_owned(),
                "master_replid" => self.replid = value.to_owned(),
                "run_id" => self.run_id = value.to_owned(),
                "maxmemory_policy" => self.maxmemory_policy = value.to_owned(),
                _ => {}
            }
        }
    }

    /// Whether the server was a replica.
    pub fn is_replica(&self) -> bool {
        self.known && self.role == "slave"
    }

    /// Whether these are of the same server with the same data: of the same process, in the same role, and if that is a
    /// replica's, of the same history. (A primary changes the name of its history when its last replica has long gone.)
    pub fn is_same_server(&self, other: &Self) -> bool {
        (&self.run_id, &self.role) == (&other.run_id, &other.role)
            && (!self.is_replica() || self.replid == other.replid)
    }

    /// Whether the server evicts by what was used last or least, so that serving a key from memory hides its use.
    pub fn evicts_by_use(&self) -> bool {
        self.maxmemory_policy.contains("lru") || self.maxmemory_policy.contains("lfu")
    }

    /// The version as numbers; 0.0 if it cannot be read.
    pub fn version_numbers(&self) -> (u32, u32) {
        let mut parts = self.version.as_deref().unwrap_or_default().split('.').map(|p| p.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_assumed_only_until_it_is_heard_and_each_reply_has_its_word_for_a_replica() {
        let mut facts = Facts::default();
        assert_eq!((facts.version(), facts.version_numbers()), ("7.0.0", (0, 0)));
        facts.read_hello(b"*4\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n$4\r\nrole\r\n$7\r\nreplica\r\n");
        assert_eq!((facts.version(), facts.version_numbers()), ("7.2.4", (7, 2)));
        assert_eq!((facts.role.as_str(), facts.role_in_hello()), ("slave", "replica"));
        facts.read_info("redis_version:7.2.4\r\nrole:master\r\nrun_id:1\r\n");
        // As Valkey says it.
        facts.read_hello(
            b"*6\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$7\r\nversion\r\n$5\r\n8.1.1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n",
        );
        assert_eq!((facts.version(), facts.version_numbers(), facts.role_in_hello()), ("8.1.1", (7, 2), "master"));
        assert_eq!(facts.greeting.server, "valkey");
        facts.read_hello(b"-NOAUTH Authentication required.\r\n");
        assert!(facts.version() == "8.1.1" && facts.knows_hello);
        facts.read_hello(b"-ERR unknown command `HELLO`, with args beginning with: \r\n");
        assert!(facts.version() == "8.1.1" && !facts.knows_hello);
    }
}
