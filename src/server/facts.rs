//! What the upstream says about itself, as of the last time it was asked.

/// Facts about the upstream server that decide how the proxy treats it and what it tells its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `redis_version`.
    pub version: String,
    /// `master` or `slave`, as HELLO and INFO say it.
    pub role: String,
    /// Whether a client that gives no password may run nothing.
    pub auth_required: bool,
    /// Whether the upstream was ever reached; until then the rest is assumed.
    pub known: bool,
    /// `run_id`: another one means another process, whose data is another history.
    pub run_id: String,
    /// `master_replid`: the history a replica follows. Another one means that it was promoted, or follows someone else.
    pub replid: String,
    /// `maxmemory_policy`.
    pub maxmemory_policy: String,
}

impl Default for Facts {
    /// What is assumed of an upstream that was never reached.
    fn default() -> Self {
        Self {
            version: "7.0.0".into(),
            role: "master".into(),
            auth_required: false,
            known: false,
            run_id: String::new(),
            replid: String::new(),
            maxmemory_policy: String::new(),
        }
    }
}

impl Facts {
    /// Whether the default user has no password, so that AUTH with a password alone is an error of the client's.
    pub fn default_user_is_open(&self) -> bool {
        self.known && !self.auth_required
    }

    /// Reads what INFO says; what it does not say stays.
    pub fn read_info(&mut self, info: &str) {
        for line in info.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            match name {
                "redis_version" => self.version = value.to_owned(),
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
        let mut parts = self.version.split('.').map(|p| p.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }
}
