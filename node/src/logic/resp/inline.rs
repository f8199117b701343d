//! Commands typed by hand: words on one line, with quotes as the Redis protocol allows them.

use bytes::Bytes;

/// The quotes of the line do not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbalanced;

/// Splits a line into words. In double quotes `\n \r \t \b \a \xHH` stand for a byte and any other `\c` for `c`; in
/// single quotes only `\'` does. A closing quote ends the word.
pub fn split(line: &[u8]) -> Result<Vec<Bytes>, Unbalanced> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Ok(words);
        }
        let (word, after) = word(rest)?;
        words.push(Bytes::from(word));
        rest = after;
    }
}

fn word(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), Unbalanced> {
    let mut word = Vec::new();
    while let [byte, after @ ..] = rest {
        match byte {
            b'"' => return closed(double_quoted(after, &mut word)?).map(|after| (word, after)),
            b'\'' => return closed(single_quoted(after, &mut word)?).map(|after| (word, after)),
            b' ' | b'\t' | b'\r' | b'\n' | 0 => break,
            other => word.push(*other),
        }
        rest = after;
    }
    Ok((word, rest.strip_prefix(b"\0").unwrap_or(rest)))
}

fn closed(after: &[u8]) -> Result<&[u8], Unbalanced> {
    match after.first() {
        Some(byte) if !byte.is_ascii_whitespace() => Err(Unbalanced),
        _ => Ok(after),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex(*high) << 4 | hex(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return Err(Unbalanced),
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        rest = match rest {
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return Err(Unbalanced),
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        other => (other | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_and_quotes() {
        let table: [(&str, &[&str]); 8] = [
            ("", &[]),
            ("  \t ", &[]),
            ("set k v", &["set", "k", "v"]),
            (" a  b ", &["a", "b"]),
            (r#"set "a b" '' "#, &["set", "a b", ""]),
            (r#""\x41\n\"\q\xzz""#, &["A\n\"qxzz"]),
            (r"'it\'s \n'", &["it's \\n"]),
            (r#"pre"fix" x"#, &["prefix", "x"]),
        ];
        for (line, expected) in table {
            let expected = expected.iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
            assert_eq!(split(line.as_bytes()), Ok(expected), "{line:?}");
        }
        for line in [r#""a"b"#, "'a'b", "'open", r#"x "open"#] {
            assert_eq!(split(line.as_bytes()), Err(Unbalanced), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_answered(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = split(&line);
        }
    }
}
