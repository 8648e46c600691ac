//! Passwords out of text that is about to be printed, however badly the URL that holds them is written.

/// `text` with `***` for what may be a secret in a URL, well-formed or not: all between `://` and the last `@`, a port that
/// is not a number (a password whose `@host` was forgotten), and everything after `?`.
pub fn redact(text: &str) -> String {
    text.lines().map(redact_line).collect::<Vec<_>>().join("\n")
}

fn redact_line(line: &str) -> String {
    let (scheme, rest) = match line.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), line),
    };
    if let Some((_, host)) = rest.rsplit_once('@') {
        return format!("{scheme}***@{}", without_options(host));
    }
    if scheme.is_empty() {
        return line.to_owned();
    }
    let is_port = |port: &str| {
        let digits = port.trim_start_matches(|c: char| c.is_ascii_digit());
        port.len() - digits.len() <= 5 && !digits.starts_with(char::is_alphanumeric)
    };
    match rest.rsplit_once(':') {
        Some((host, port)) if !is_port(port) => format!("{scheme}{host}:***"),
        _ => format!("{scheme}{}", without_options(rest)),
    }
}

fn without_options(rest: &str) -> String {
    rest.split_once('?').map_or_else(|| rest.to_owned(), |(before, _)| format!("{before}?***"))
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn no_spelling_of_a_password_survives() {
        for url in [
            "redis://:hunter2@h",
            "redis://u:hunter2@h:1",
            "redis://u:hun/ter2@h",
            "redis://u:p@ss@hunter2@h",
            "redis://:hunter2",
            "redis://u:hunter2/0",
            "\"redis://u:12hunter2\"",
            "unix:///p?user=u&pass=hunter2",
            "u:hunter2@h:6379",
            "error: 'redis://u:hunter2@h' found\n\nUsage: x",
        ] {
            let shown = redact(url);
            assert!(!shown.contains("ter2") && shown.contains("***"), "{shown}");
        }
    }

    #[test]
    fn what_holds_no_secret_stays_as_it_is() {
        for text in ["redis://127.0.0.1:6379", "\"redis://[::1]:6379/1\"", "unix:///run/redis.sock", "64MiB", "spawn:"]
        {
            assert_eq!(redact(text), text);
        }
    }
}
