//! What `anteroom status` shows. Pure: from JSON to text.

use serde_json::Value as Json;

use crate::server::origins::Refused;

/// How it may look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// With colours.
    pub colours: bool,
}

/// Characters of a bar.
const BAR: usize = 30;
/// Keys that are listed, at most.
const KEYS_MAX: usize = 10;

/// One screen.
pub(super) fn draw(status: &Json, look: Look) -> String {
    let drawing = Drawing { status, look };
    let mut lines = vec![drawing.head()];
    lines.extend([drawing.upstream(), drawing.tracker(), drawing.clients(), drawing.requests(), drawing.latency()]);
    lines.extend(drawing.cache());
    lines.push(drawing.memory());
    lines.push(drawing.peers());
    lines.extend(drawing.limits());
    lines.extend(drawing.keys());
    lines.join("\n") + "\n"
}

struct Drawing<'a> {
    status: &'a Json,
    look: Look,
}

#[derive(Clone, Copy)]
enum Colour {
    Good,
    Bad,
    Dim,
}

impl Drawing<'_> {
    fn text(&self, name: &str) -> String {
        printable(self.status["figures"][name].as_str().unwrap_or_default())
    }

    fn number(&self, name: &str) -> f64 {
        self.status["figures"][name].as_f64().unwrap_or_default()
    }

    fn rate(&self, name: &str) -> f64 {
        self.status["rates"][name].as_f64().unwrap_or_default()
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.look.colours {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Good => "32",
            Colour::Bad => "31;1",
            Colour::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    fn row(&self, title: &str, text: &str) -> String {
        format!("{}{text}", self.paint(Colour::Dim, &format!("{title:<11}")))
    }

    fn head(&self) -> String {
        let reason = printable(self.status["reason"].as_str().unwrap_or_default());
        let state = match (self.status["alive"] == true, self.status["ready"] == true) {
            (false, _) => self.paint(Colour::Bad, "STUCK"),
            (true, true) => self.paint(Colour::Good, "ready"),
            (true, false) => self.paint(Colour::Bad, &format!("NOT READY: {reason}")),
        };
        format!("anteroom {}   up {}   {state}", self.text("version"), span(self.number("uptime_in_seconds")))
    }

    fn upstream(&self) -> String {
        let url = printable(self.status["upstream"].as_str().unwrap_or_default());
        let reached = self.text("upstream_reachable");
        let word = match reached.as_str() {
            "yes" => self.paint(Colour::Good, "answers"),
            "no" => self.paint(Colour::Bad, "does not answer"),
            _ => "not asked yet".to_owned(),
        };
        let losses = self.number("lane_losses");
        let text = format!(
            "{url}   {} {}   {word}   {} lost",
            self.text("upstream_version"),
            self.text("upstream_role"),
            count(losses)
        );
        self.row("upstream", &text)
    }

    fn tracker(&self) -> String {
        let (state, why) = (self.text("tracker_state"), self.text("tracker_reason"));
        let colour = if state == "armed" || state == "disabled" { Colour::Good } else { Colour::Bad };
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        let losses = count(self.number("tracker_losses"));
        let text = format!("{}{why}   by {}   {losses} lost", self.paint(colour, &state), self.text("tracker_signal"));
        self.row("tracker", &text)
    }

    fn clients(&self) -> String {
        let refused: f64 =
            Refused::ALL.iter().map(|why| self.number(&format!("clients_refused_{}", why.as_str()))).sum();
        let text = format!(
            "{} of {}   {} accepted   {} refused",
            count(self.number("clients")),
            count(self.number("clients_max")),
            count(self.number("connections_accepted")),
            count(refused)
        );
        self.row("clients", &text)
    }

    fn requests(&self) -> String {
        let text = format!("{}/s   {} so far", count(self.rate("requests")), count(self.number("requests")));
        self.row("requests", &text)
    }

    fn latency(&self) -> String {
        let side = |side: &str| {
            let of = |share: &str| self.status["latency"][side][share].as_f64().map_or("–".to_owned(), duration);
            format!("{} / {} / {}", of("p50"), of("p99"), of("p999"))
        };
        let text = format!("clients {}   Redis {}   (p50 / p99 / p99.9)", side("client"), side("upstream"));
        self.row("latency", &text)
    }

    fn cache(&self) -> Vec<String> {
        if self.number("cache_enabled") == 0.0 {
            return vec![self.row("cache", "off")];
        }
        let ratio = |hits: f64, others: f64| if hits + others > 0.0 { Some(hits / (hits + others)) } else { None };
        let now = ratio(self.rate("hits"), self.rate("misses"));
        let ever = ratio(self.number("cache_hits"), self.number("cache_misses"));
        let filled = ratio(self.number("cache_bytes"), self.number("cache_max_bytes") - self.number("cache_bytes"));
        vec![
            self.row("hit ratio", &format!("{}   this second", self.bar(now))),
            self.row("", &format!("{}   since the start", self.bar(ever))),
            self.row(
                "kept",
                &format!(
                    "{}   {} of {} in {} keys",
                    self.bar(filled),
                    bytes(self.number("cache_bytes")),
                    bytes(self.number("cache_max_bytes")),
                    count(self.number("cache_entries"))
                ),
            ),
        ]
    }

    fn bar(&self, part: Option<f64>) -> String {
        let Some(part) = part.map(|part| part.clamp(0.0, 1.0)) else {
            return format!("{}      –", self.paint(Colour::Dim, &"·".repeat(BAR)));
        };
        let full = (part * BAR as f64).round() as usize;
        let bar = format!("{}{}", "█".repeat(full), self.paint(Colour::Dim, &"░".repeat(BAR - full)));
        format!("{bar} {:>5.1} %", part * 100.0)
    }

    fn memory(&self) -> String {
        let (state, budget) = (self.text("memory_state"), self.number("memory_budget_bytes"));
        let colour = if state == "calm" { Colour::Good } else { Colour::Bad };
        let of = if budget > 0.0 { format!(" of {}", bytes(budget)) } else { String::new() };
        let text = format!("{}{of}   {}", bytes(self.number("memory_resident_bytes")), self.paint(colour, &state));
        self.row("memory", &text)
    }

    fn peers(&self) -> String {
        let (state, why) = (self.text("peers_state"), self.text("peers_reason"));
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        let colour = if state == "down" { Colour::Bad } else { Colour::Good };
        let peers = count(self.number("peers"));
        self.row("peers", &format!("{}{why}   {peers} other proxies heard", self.paint(colour, &state)))
    }

    fn limits(&self) -> Vec<String> {
        let limits = self.status["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
        let line = |(at, limit): (usize, &Json)| {
            let number = |name: &str| count(limit[name].as_f64().unwrap_or_default());
            let name = printable(limit["name"].as_str().unwrap_or_default());
            let text = format!("{name}: {} allowed   {} refused", number("allowed"), number("refused"));
            self.row(if at == 0 { "limits" } else { "" }, &text)
        };
        limits.iter().enumerate().map(line).collect()
    }

    fn keys(&self) -> Vec<String> {
        let keys = self.status["hot_keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let line = |(at, key): (usize, &Json)| {
            let number = |name: &str| count(key[name].as_f64().unwrap_or_default());
            let name = printable(key["key"].as_str().unwrap_or_default());
            let text = format!("{:>8} reads/s {:>8} writes/s   {name}", number("reads"), number("writes"));
            self.row(if at == 0 { "hot keys" } else { "" }, &text)
        };
        keys.iter().take(KEYS_MAX).enumerate().map(line).collect()
    }
}

/// Text from elsewhere, so that it cannot steer a terminal, nor turn around what stands beside it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

/// JSON as one line that may be printed: what [`printable`] replaces is escaped, which only strings have.
pub(super) fn printable_json(status: &Json) -> String {
    let mut text = String::new();
    for c in status.to_string().chars() {
        if steers(c) {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

/// A control character, or one that is not seen and changes the direction of others. None is beyond U+FFFF.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn count(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e5 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}

fn bytes(n: f64) -> String {
    match n {
        n if n >= 1_073_741_824.0 => format!("{:.1} GiB", n / 1_073_741_824.0),
        n if n >= 1_048_576.0 => format!("{:.1} MiB", n / 1_048_576.0),
        n if n >= 1024.0 => format!("{:.1} KiB", n / 1024.0),
        n => format!("{n:.0} B"),
    }
}

fn span(seconds: f64) -> String {
    let seconds = seconds as u64;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Json {
        json!({
            "alive": true, "ready": true, "reason": "", "upstream": "redis://127.0.0.1:6379",
            "rates": {"requests": 12_345.6, "hits": 900.0, "misses": 50.0, "bypasses": 50.0},
            "limits": [{"name": "per-client", "allowed": 10, "refused": 2}],
            "figures": {
                "version": "0.1.0", "uptime_in_seconds": 11_520, "tracker_state": "down", "tracker_reason": "a\u{1b}[2Jb",
                "cache_enabled": 1, "cache_hits": 1, "cache_misses": 3, "cache_max_bytes": 1024, "cache_bytes": 512,
                "memory_state": "calm", "upstream_reachable": "yes",
            },
        })
    }

    #[test]
    fn a_screen_has_no_colours_unless_asked_for_and_lets_nobody_steer_the_terminal() {
        let plain = draw(&status(), Look { colours: false });
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert!(plain.contains("anteroom 0.1.0   up 3 h 12 min   ready\n"), "{plain}");
        assert!(
            plain.contains("requests   12346/s") && plain.contains(" 94.7 %") && plain.contains(" 25.0 %"),
            "{plain}"
        );
        assert!(plain.contains("per-client: 10 allowed   2 refused"), "{plain}");
        let coloured = draw(&status(), Look { colours: true });
        assert!(coloured.contains("\u{1b}[32mready") && !coloured.contains("\u{1b}[2Jb"), "{coloured}");
    }

    #[test]
    fn what_is_not_seen_and_changes_how_others_look_is_neither_on_the_screen_nor_in_printed_json() {
        let status = json!({"hot_keys": [{"key": "a\u{9b}31m\u{202e}b\u{7f}\u{feff}\n\"é", "reads": 1.0}]});
        let (screen, text) = (draw(&status, Look { colours: false }), printable_json(&status));
        assert!(screen.contains("a\u{fffd}31m\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\"é"), "{screen}");
        assert!(text.contains(r#"a\u009b31m\u202eb\u007f\ufeff\n\"é"#), "{text}");
        assert_eq!(serde_json::from_str::<Json>(&text).ok(), Some(status));
    }

    #[test]
    fn nothing_known_is_no_ratio_and_no_panic() {
        let empty = draw(&json!({"figures": {"cache_enabled": 1}}), Look { colours: false });
        assert!(empty.contains('–') && empty.contains("STUCK"), "{empty}");
    }
}
