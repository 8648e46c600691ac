//! Redis's glob patterns (`stringmatchlen`, as KEYS and ACL use it), case-sensitive, in bounded time.
//!
//! Redis matches by recursion; here the pattern is compiled once into steps of one byte each and stars, and matching goes back
//! to the last star only, which decides the same language in at most pattern length times key length steps.

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    steps: Box<[Step]>,
    /// Redis's callers take the pattern `*` alone as "every key"; its matcher would not give it the empty key.
    everything: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Star,
    Any,
    Byte(u8),
    /// A bitmap of the 256 bytes: `[a-z]`, `[^x]`.
    Class(Box<[u64; 4]>),
}

impl Step {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Step::Star => false,
            Step::Any => true,
            Step::Byte(b) => *b == byte,
            Step::Class(bits) => bits[byte as usize / 64] >> (byte % 64) & 1 == 1,
        }
    }
}

impl Glob {
    /// Every pattern is valid, as in Redis: an unclosed class ends with the pattern, a last backslash stands for itself.
    pub fn new(pattern: &[u8]) -> Glob {
        let mut steps = Vec::new();
        let mut rest = pattern;
        while let [first, after @ ..] = rest {
            rest = after;
            let step = match (first, after) {
                (b'*', _) if steps.last() == Some(&Step::Star) => continue,
                (b'*', _) => Step::Star,
                (b'?', _) => Step::Any,
                (b'[', _) => {
                    let (class, after) = class(after);
                    rest = after;
                    class
                }
                (b'\\', [literal, after @ ..]) => {
                    rest = after;
                    Step::Byte(*literal)
                }
                (byte, _) => Step::Byte(*byte),
            };
            steps.push(step);
        }
        Glob { steps: steps.into(), everything: pattern == b"*" }
    }

    /// Whether `text` as a whole matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        if self.everything {
            return true;
        }
        // Redis does not enter its loop for an empty text, so not even `**` matches it.
        if text.is_empty() {
            return self.steps.is_empty();
        }
        let (mut step, mut at) = (0, 0);
        // Where to resume after the last star: the step behind it, and the first byte it has not swallowed yet.
        let mut resume = None;
        while at < text.len() {
            match self.steps.get(step) {
                Some(Step::Star) => {
                    step += 1;
                    resume = Some((step, at));
                }
                Some(one) if one.takes(text[at]) => {
                    step += 1;
                    at += 1;
                }
                _ => {
                    let Some((behind, from)) = resume else {
                        return false;
                    };
                    (step, at) = (behind, from + 1);
                    resume = Some((behind, at));
                }
            }
        }
        self.steps[step..].iter().all(|s| *s == Step::Star)
    }
}

/// Compiles the class whose `[` has just been read, and gives what follows it. The order of the cases is Redis's.
fn class(mut rest: &[u8]) -> (Step, &[u8]) {
    let mut bits = [0u64; 4];
    let mut add = |byte: u8| bits[byte as usize / 64] |= 1 << (byte % 64);
    let negated = rest.first() == Some(&b'^');
    if negated {
        rest = &rest[1..];
    }
    loop {
        rest = match rest {
            [b'\\', literal, after @ ..] => {
                add(*literal);
                after
            }
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [] => break,
            [from, b'-', to, after @ ..] => {
                // Redis compares `char`s, which are signed where it is measured: a class like [a-\xff] runs from -1 to 97.
                let (from, to) = (*from as i8, *to as i8);
                (from.min(to)..=from.max(to)).for_each(|c| add(c as u8));
                after
            }
            [byte, after @ ..] => {
                add(*byte);
                after
            }
        };
    }
    if negated {
        bits = bits.map(|word| !word);
    }
    (Step::Class(Box::new(bits)), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern.as_bytes()).matches(text.as_bytes())
    }

    #[test]
    fn patterns_match_as_in_redis() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("user:*", &["user:", "user:1", "user:1:x"], &["user", "User:1", "xuser:1"]),
            ("h?llo", &["hello", "hallo"], &["hllo", "heello"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo"]),
            ("h[^e]llo", &["hallo", "hbllo"], &["hello", "hllo"]),
            ("h[a-c]llo", &["hallo", "hbllo"], &["hdllo", "h-llo"]),
            ("h[c-a]llo", &["hbllo"], &["hdllo"]),
            ("*a*b*", &["ab", "xaxbx"], &["ba", "a"]),
            ("a**b", &["ab", "axxb"], &["a"]),
            ("\\*", &["*"], &["x", "\\*"]),
            ("a\\", &["a\\"], &["a"]),
            ("[\\]]", &["]"], &["\\"]),
            ("[abc", &["a", "c"], &["d", "["]),
            ("[^", &["x"], &["", "xx"]),
            ("[", &[], &["[", ""]),
            ("[]a", &[], &["]a", "a"]),
            ("[a-", &["a", "-"], &["b"]),
            ("*", &["", "anything"], &[]),
            ("**", &["x"], &[""]),
            ("", &[""], &["x"]),
        ];
        for (pattern, yes, no) in table {
            yes.iter().for_each(|t| assert!(matches(pattern, t), "{pattern} should match {t}"));
            no.iter().for_each(|t| assert!(!matches(pattern, t), "{pattern} should not match {t}"));
        }
    }

    #[test]
    fn many_stars_over_a_long_key_do_not_blow_up() {
        let pattern = "a*".repeat(60) + "b";
        let started = std::time::Instant::now();
        assert!(!matches(&pattern, &"a".repeat(20_000)));
        assert!(started.elapsed().as_secs() < 5, "exponential matching would never end");
    }
}
