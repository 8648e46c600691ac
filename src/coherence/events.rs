//! Keyspace events (`notify-keyspace-events`): what a server says of changes that refuses CLIENT TRACKING.
//!
//! Pure. Every change of any key, by whomever, is published; heard on the connection that fills, it stands in the same wire order as a
//! tracking push. It is less than tracking: a flush is no event (notify.c is not called for it), nor is SWAPDB, and nothing says that the
//! setting was changed and changed back. So it is used only where the operator asks for it (`coherence.keyspace_events`), flushes are looked
//! for in INFO's counts (`server/swaps.rs`), and the setting is read again at each heartbeat.

/// The setting that says which events are published.
pub(super) const SETTING: &str = "notify-keyspace-events";

/// The classes of events without which some change would go unheard (notify.c, `keyspaceEventsStringToFlags`; `A` stands for all of them).
/// Modules' types (`d`) are not kept.
const CLASSES: &str = "g$lshztxe";

/// The channels to listen to under this setting: none if some change would go unheard.
pub(super) fn pattern(setting: &str) -> Option<&'static [u8]> {
    let is_whole = setting.contains('A') || CLASSES.chars().all(|class| setting.contains(class));
    match setting {
        _ if !is_whole => None,
        _ if setting.contains('E') => Some(b"__keyevent@*__:*"),
        _ if setting.contains('K') => Some(b"__keyspace@*__:*"),
        _ => None,
    }
}

/// What a published event says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// This key has changed, or is gone.
    Key(&'a [u8]),
    /// Nothing has changed: a key was looked for and not found.
    Miss,
    /// It is no event.
    Unknown,
}

/// Reads one complete push frame.
pub(super) fn read(frame: &[u8]) -> Event<'_> {
    let Some([channel, payload]) = message(frame) else { return Event::Unknown };
    let split = |prefix: &[u8]| {
        let rest = channel.strip_prefix(prefix)?;
        let at = rest.windows(3).position(|three| three == b"__:")?;
        Some(&rest[at + 3..])
    };
    if let Some(event) = split(b"__keyevent@") {
        return if event == b"keymiss" { Event::Miss } else { Event::Key(payload) };
    }
    match split(b"__keyspace@") {
        Some(_) if payload == b"keymiss" => Event::Miss,
        Some(key) => Event::Key(key),
        None => Event::Unknown,
    }
}

/// Channel and payload of a message that came by a pattern.
fn message(frame: &[u8]) -> Option<[&[u8]; 2]> {
    let mut rest = frame.strip_prefix(b">4\r\n$8\r\npmessage\r\n")?;
    let mut parts = [&[][..]; 3];
    for part in &mut parts {
        let line = rest.strip_prefix(b"$")?;
        let end = line.iter().position(|byte| *byte == b'\r')?;
        let len: usize = std::str::from_utf8(&line[..end]).ok()?.parse().ok()?;
        let (bytes, after) = line.get(end + 2..)?.split_at_checked(len)?;
        *part = bytes;
        rest = after.strip_prefix(b"\r\n")?;
    }
    rest.is_empty().then_some([parts[1], parts[2]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(channel: &str, payload: &str) -> Vec<u8> {
        let pattern = "__key*__:*";
        format!(
            ">4\r\n$8\r\npmessage\r\n${}\r\n{pattern}\r\n${}\r\n{channel}\r\n${}\r\n{payload}\r\n",
            pattern.len(),
            channel.len(),
            payload.len()
        )
        .into_bytes()
    }

    #[test]
    fn an_event_names_its_key_in_the_channel_or_in_the_message() {
        assert_eq!(read(&published("__keyevent@0__:set", "a__:b")), Event::Key(b"a__:b"));
        assert_eq!(read(&published("__keyspace@12__:a__:b", "set")), Event::Key(b"a__:b"));
        assert_eq!(read(&published("__keyevent@0__:keymiss", "a")), Event::Miss);
        assert_eq!(read(&published("__keyspace@0__:a", "keymiss")), Event::Miss);
        assert_eq!(read(&published("news", "a")), Event::Unknown);
        assert_eq!(read(b">2\r\n$10\r\ninvalidate\r\n_\r\n"), Event::Unknown);
    }

    #[test]
    fn a_setting_under_which_some_change_would_go_unheard_is_not_enough() {
        assert_eq!(pattern("AKE"), Some(&b"__keyevent@*__:*"[..]));
        assert_eq!(pattern("g$lshztxeK"), Some(&b"__keyspace@*__:*"[..]));
        for setting in ["", "A", "KE", "g$lshztxK", "Kg$lhztxe"] {
            assert_eq!(pattern(setting), None, "{setting}");
        }
    }
}
