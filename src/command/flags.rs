//! Command flags and ACL categories as bit sets, in the words of Redis's `COMMAND` reply.
//!
//! The words are the notation: the rows of the table and the upstream's reply are read by the same two parsers.

use std::ops::BitOr;

macro_rules! word_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $bit:literal, $word:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(u32);

        impl $name {
            $($(#[$item_doc])* pub const $item: Self = Self(1 << $bit);)*

            const WORDS: &'static [(Self, &'static str)] = &[$((Self::$item, $word)),*];

            /// The empty set.
            pub const fn empty() -> Self {
                Self(0)
            }

            /// The one element this word names, in any letter case; `None` for a word this proxy does not know.
            pub fn of_word(word: &[u8]) -> Option<Self> {
                Self::WORDS.iter().find(|(_, w)| w.as_bytes().eq_ignore_ascii_case(word)).map(|(set, _)| *set)
            }

            /// Whether every element of `other` is in this set.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any element of `other` is in this set.
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// The words of all elements there are, in a fixed order.
            pub fn every() -> impl Iterator<Item = &'static str> {
                Self::WORDS.iter().map(|(_, word)| *word)
            }

            /// The words of the elements, in a fixed order.
            pub fn words(self) -> impl Iterator<Item = &'static str> {
                Self::WORDS.iter().filter(move |(set, _)| self.contains(*set)).map(|(_, word)| *word)
            }
        }

        impl BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    };
}

word_set! {
    /// The flags of a command, as `COMMAND` reports them.
    Flags {
        /// Changes, or may change, the data set.
        WRITE = 0, "write";
        /// Only reads the data set.
        READONLY = 1, "readonly";
        /// Refused when the server is out of memory.
        DENYOOM = 2, "denyoom";
        /// Comes from a module.
        MODULE = 3, "module";
        /// Administrative.
        ADMIN = 4, "admin";
        /// About channels, not keys.
        PUBSUB = 5, "pubsub";
        /// Not allowed in scripts.
        NOSCRIPT = 6, "noscript";
        /// May block its client.
        BLOCKING = 7, "blocking";
        /// Allowed while the server loads its data.
        LOADING = 8, "loading";
        /// Allowed on a replica with stale data.
        STALE = 9, "stale";
        /// Not shown by MONITOR.
        SKIP_MONITOR = 10, "skip_monitor";
        /// Not kept in the slow log.
        SKIP_SLOWLOG = 11, "skip_slowlog";
        /// Accepted for a slot that is being imported.
        ASKING = 12, "asking";
        /// O(1) or O(log n).
        FAST = 13, "fast";
        /// Allowed before authentication.
        NO_AUTH = 14, "no_auth";
        /// May be called without any key though it declares key positions.
        NO_MANDATORY_KEYS = 15, "no_mandatory_keys";
        /// Allowed while a script keeps the server busy.
        ALLOW_BUSY = 16, "allow_busy";
        /// Refused while the server loads asynchronously.
        NO_ASYNC_LOADING = 17, "no_async_loading";
        /// Refused inside MULTI.
        NO_MULTI = 18, "no_multi";
        /// The first, last and step positions do not tell every key.
        MOVABLEKEYS = 19, "movablekeys";
    }
}

word_set! {
    /// The ACL categories of a command, without the `@`.
    Categories {
        /// `@keyspace`
        KEYSPACE = 0, "keyspace";
        /// `@read`
        READ = 1, "read";
        /// `@write`
        WRITE = 2, "write";
        /// `@set`
        SET = 3, "set";
        /// `@sortedset`
        SORTEDSET = 4, "sortedset";
        /// `@list`
        LIST = 5, "list";
        /// `@hash`: what a hash-field expiry (7.4 and later) may change without the key expiring.
        HASH = 6, "hash";
        /// `@string`
        STRING = 7, "string";
        /// `@bitmap`
        BITMAP = 8, "bitmap";
        /// `@hyperloglog`
        HYPERLOGLOG = 9, "hyperloglog";
        /// `@geo`
        GEO = 10, "geo";
        /// `@stream`
        STREAM = 11, "stream";
        /// `@pubsub`
        PUBSUB = 12, "pubsub";
        /// `@admin`
        ADMIN = 13, "admin";
        /// `@fast`
        FAST = 14, "fast";
        /// `@slow`
        SLOW = 15, "slow";
        /// `@blocking`
        BLOCKING = 16, "blocking";
        /// `@dangerous`
        DANGEROUS = 17, "dangerous";
        /// `@connection`
        CONNECTION = 18, "connection";
        /// `@transaction`
        TRANSACTION = 19, "transaction";
        /// `@scripting`
        SCRIPTING = 20, "scripting";
    }
}

impl Categories {
    /// The categories Redis derives from a command's flags (`setImplicitACLCategories` in its server.c).
    pub fn implied_by(flags: Flags, listed: Self) -> Self {
        let rules = [
            (Flags::WRITE, Self::WRITE),
            (Flags::ADMIN, Self::ADMIN | Self::DANGEROUS),
            (Flags::PUBSUB, Self::PUBSUB),
            (Flags::FAST, Self::FAST),
            (Flags::BLOCKING, Self::BLOCKING),
        ];
        let mut all = listed;
        for (flag, category) in rules {
            if flags.contains(flag) {
                all = all | category;
            }
        }
        if flags.contains(Flags::READONLY) && !listed.contains(Self::SCRIPTING) {
            all = all | Self::READ;
        }
        if !flags.contains(Flags::FAST) {
            all = all | Self::SLOW;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_sets_mirror_each_other() {
        let set = Flags::of_word(b"Write").unwrap() | Flags::FAST;
        assert_eq!(set.words().collect::<Vec<_>>(), ["write", "fast"]);
        assert!(set.contains(Flags::WRITE) && !set.contains(Flags::READONLY | Flags::WRITE));
        assert_eq!(Flags::of_word(b"writes"), None);
    }

    #[test]
    fn a_read_only_script_is_not_in_the_read_category() {
        let script = Categories::implied_by(Flags::READONLY, Categories::SCRIPTING);
        assert_eq!(script, Categories::SCRIPTING | Categories::SLOW);
        assert_eq!(
            Categories::implied_by(Flags::READONLY | Flags::FAST, Categories::empty()),
            Categories::READ | Categories::FAST
        );
    }
}
