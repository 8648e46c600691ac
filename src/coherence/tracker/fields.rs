//! Whether fields of hashes expire: what is asked of a server, and what its answers mean.
//!
//! A field's own expiry (Redis 7.4) tells nobody until Redis deletes the field, which may be late. That one is given is a write like any other, and
//! told. So a hash may be kept if no field of it had an expiry when it was read; and since nobody says that of one hash, if none of any has.

/// Asked once of each connection: only a server whose fields can expire knows it.
pub(super) const MAY_THEY_EXPIRE: [&[u8]; 5] = [b"HPTTL", b"anteroom:tracker", b"FIELDS", b"1", b"anteroom"];
/// Asked between PTTL, from which on the key is tracked, and the read of a hash.
pub(super) const DO_ANY_EXPIRE: [&[u8]; 2] = [b"INFO", b"keyspace"];
/// Milliseconds for which no hash is filled while fields of some expire, or nobody may say.
pub(super) const NO_HASHES_MS: u64 = 10_000;

/// What the answer to [`MAY_THEY_EXPIRE`] means. Any but this one comes from a server that knows the command.
pub(super) fn may_expire(answer: &[u8]) -> bool {
    !answer.starts_with(b"-ERR unknown command")
}

/// How many hashes have fields that expire, in all databases, by the answer to [`DO_ANY_EXPIRE`] (`subexpiry=`, Redis 7.4;
/// `keys_with_volatile_items=`, Valkey 9). Nothing if it does not say: it is refused.
pub(super) fn hashes_with_expiring(answer: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(answer).ok().filter(|text| text.contains("# Keyspace"))?;
    let of = |field: &str| {
        let count = field.strip_prefix("subexpiry=").or(field.strip_prefix("keys_with_volatile_items="))?;
        count.parse::<u64>().ok()
    };
    Some(text.lines().flat_map(|line| line.split(',')).filter_map(of).fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_whose_fields_expire_are_counted_in_all_databases() {
        for (info, count) in [
            ("$12\r\n# Keyspace\r\n\r\n", Some(0)),
            ("$60\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n\r\n", Some(0)),
            ("$60\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0,subexpiry=0\r\n\r\n", Some(0)),
            (
                "=60\r\ntxt:# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0,subexpiry=0\r\ndb3:keys=2,expires=0,avg_ttl=0,subexpiry=2\r\n\r\n",
                Some(2),
            ),
            ("$60\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0,keys_with_volatile_items=1\r\n\r\n", Some(1)),
            ("-NOPERM this user has no permissions to run the 'info' command\r\n", None),
        ] {
            assert_eq!(hashes_with_expiring(info.as_bytes()), count, "{info}");
        }
    }

    #[test]
    fn only_a_server_that_does_not_know_the_question_has_no_such_fields() {
        assert!(!may_expire(b"-ERR unknown command 'HPTTL', with args beginning with: 'anteroom:tracker' \r\n"));
        for answer in ["*1\r\n:-2\r\n", "-NOPERM No permissions to access a key\r\n", "-BUSY Redis is busy\r\n"] {
            assert!(may_expire(answer.as_bytes()), "{answer}");
        }
    }
}
