//! Appends frames to a byte vector: what the proxy says itself, to clients and to the upstream.
//!
//! Knows how each type is written in each protocol, not what is said. Replies passed through are never re-encoded.

use super::protocol::Protocol;

fn header(out: &mut Vec<u8>, mark: u8, number: impl itoa::Integer) {
    out.push(mark);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A text on one line. A CR or LF would end it, so both become spaces, and those at the end are dropped, as Redis does.
fn line(out: &mut Vec<u8>, mark: u8, text: &[u8]) {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    let text = &text[..end.map_or(0, |last| last + 1)];
    out.push(mark);
    out.extend(text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// A simple string, such as `OK`.
pub fn simple(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    line(out, b'+', text.as_ref());
}

/// An error; `text` begins with its code word, such as `ERR`.
pub fn error(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    line(out, b'-', text.as_ref());
}

/// An integer.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    header(out, b':', value);
}

/// A bulk string: any bytes.
pub fn bulk(out: &mut Vec<u8>, value: &[u8]) {
    header(out, b'$', value.len());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The absence of a value: a null bulk string in RESP2.
pub fn null(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// The absence of a list: a null array in RESP2.
pub fn null_array(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// The beginning of an array; `len` frames must follow.
pub fn array_header(out: &mut Vec<u8>, len: usize) {
    header(out, b'*', len);
}

/// The beginning of a map; `pairs` keys, each followed by its value, must follow. A flat array in RESP2.
pub fn map_header(out: &mut Vec<u8>, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', pairs * 2),
        Protocol::Resp3 => header(out, b'%', pairs),
    }
}

/// The beginning of a set; `len` frames must follow. An array in RESP2.
pub fn set_header(out: &mut Vec<u8>, protocol: Protocol, len: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', len),
        Protocol::Resp3 => header(out, b'~', len),
    }
}

/// The beginning of a push; `len` frames must follow. An array in RESP2, where only pub/sub messages may be pushed.
pub fn push_header(out: &mut Vec<u8>, protocol: Protocol, len: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', len),
        Protocol::Resp3 => header(out, b'>', len),
    }
}

/// A double, with the fewest digits that read back the same. A bulk string in RESP2.
pub fn double(out: &mut Vec<u8>, protocol: Protocol, value: f64) {
    let text = if value.is_nan() {
        "nan".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "inf" } else { "-inf" }.to_owned()
    } else if value != 0.0 && !(1e-5..1e17).contains(&value.abs()) {
        format!("{value:e}")
    } else {
        format!("{value}")
    };
    match protocol {
        Protocol::Resp2 => bulk(out, text.as_bytes()),
        Protocol::Resp3 => line(out, b',', text.as_bytes()),
    }
}

/// True or false; 1 or 0 in RESP2.
pub fn boolean(out: &mut Vec<u8>, protocol: Protocol, value: bool) {
    out.extend_from_slice(match (protocol, value) {
        (Protocol::Resp2, true) => b":1\r\n",
        (Protocol::Resp2, false) => b":0\r\n",
        (Protocol::Resp3, true) => b"#t\r\n",
        (Protocol::Resp3, false) => b"#f\r\n",
    });
}

/// A text for people, which `redis-cli` shows as it is. A bulk string in RESP2.
pub fn verbatim(out: &mut Vec<u8>, protocol: Protocol, text: &[u8]) {
    match protocol {
        Protocol::Resp2 => bulk(out, text),
        Protocol::Resp3 => {
            header(out, b'=', text.len() + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A request: the command name and its arguments.
pub fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    array_header(out, args.len());
    for arg in args {
        bulk(out, arg);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `write` appends, for RESP2 and for RESP3.
    fn both(write: impl Fn(&mut Vec<u8>, Protocol)) -> (String, String) {
        let written = |protocol| {
            let mut out = Vec::new();
            write(&mut out, protocol);
            String::from_utf8(out).unwrap()
        };
        (written(Protocol::Resp2), written(Protocol::Resp3))
    }

    fn same(text: &str) -> (String, String) {
        pair(text, text)
    }

    fn pair(resp2: &str, resp3: &str) -> (String, String) {
        (resp2.to_owned(), resp3.to_owned())
    }

    #[test]
    fn each_type_is_written_as_its_protocol_has_it() {
        assert_eq!(both(|out, _| simple(out, "OK")), same("+OK\r\n"));
        assert_eq!(both(|out, _| integer(out, i64::MIN)), same(":-9223372036854775808\r\n"));
        assert_eq!(both(|out, _| bulk(out, b"")), same("$0\r\n\r\n"));
        assert_eq!(both(|out, _| bulk(out, b"a\r\nb")), same("$4\r\na\r\nb\r\n"));
        assert_eq!(both(null), pair("$-1\r\n", "_\r\n"));
        assert_eq!(both(null_array), pair("*-1\r\n", "_\r\n"));
        assert_eq!(both(|out, _| array_header(out, 3)), same("*3\r\n"));
        assert_eq!(both(|out, p| map_header(out, p, 7)), pair("*14\r\n", "%7\r\n"));
        assert_eq!(both(|out, p| set_header(out, p, 2)), pair("*2\r\n", "~2\r\n"));
        assert_eq!(both(|out, p| push_header(out, p, 3)), pair("*3\r\n", ">3\r\n"));
        assert_eq!(both(|out, p| boolean(out, p, true)), pair(":1\r\n", "#t\r\n"));
        assert_eq!(both(|out, p| boolean(out, p, false)), pair(":0\r\n", "#f\r\n"));
        assert_eq!(both(|out, p| verbatim(out, p, b"hi")), pair("$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"));
        assert_eq!(both(|out, _| command(out, &[b"GET", b"k"])), same("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"));
    }

    #[test]
    fn a_double_reads_back_the_same() {
        for value in [0.0, -0.0, 0.1, 1.0, 3.5e-7, 1e16, 1e20, f64::MAX, f64::MIN_POSITIVE, -2.5] {
            let (resp2, resp3) = both(|out, p| double(out, p, value));
            let text = resp3.trim_start_matches(',').trim_end();
            assert_eq!(text.parse(), Ok(value));
            assert_eq!(resp2, format!("${}\r\n{text}\r\n", text.len()));
        }
        assert_eq!(both(|out, p| double(out, p, f64::INFINITY)), pair("$3\r\ninf\r\n", ",inf\r\n"));
        assert_eq!(both(|out, p| double(out, p, f64::NEG_INFINITY)), pair("$4\r\n-inf\r\n", ",-inf\r\n"));
        assert_eq!(both(|out, p| double(out, p, f64::NAN)), pair("$3\r\nnan\r\n", ",nan\r\n"));
    }

    #[test]
    fn a_text_cannot_break_out_of_its_line() {
        let mut out = Vec::new();
        error(&mut out, "ERR unknown command 'a\r\n+OK\r\n'");
        error(&mut out, "ERR trailing\r\n");
        simple(&mut out, b"\n");
        assert_eq!(out, b"-ERR unknown command 'a  +OK  '\r\n-ERR trailing\r\n+\r\n");
    }
}
