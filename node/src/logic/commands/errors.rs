//! Texts of errors. Where Redis or Olric has one for the case, it is the same.

use super::Words;
use crate::logic::resp::Reply;

/// Longest part of the arguments that an unknown command's error repeats.
const MAX_REPEATED: usize = 128;

pub(super) fn syntax() -> Reply {
    Reply::error("ERR syntax error")
}

pub(super) fn not_an_integer() -> Reply {
    Reply::error("ERR value is not an integer or out of range")
}

pub(super) fn not_a_float() -> Reply {
    Reply::error("ERR value is not a valid float")
}

pub(super) fn invalid_expire(command: &str) -> Reply {
    Reply::error(format!("ERR invalid expire time in '{command}' command"))
}

pub(super) fn arity(command: &str) -> Reply {
    Reply::error(format!("ERR wrong number of arguments for '{command}' command"))
}

/// Olric's form of the former names all words, in lower case.
pub(super) fn arity_of_words(words: &Words<'_>) -> Reply {
    let all = words.iter().flat_map(|word| [&b" "[..], &word[..]]).flatten().skip(1).take(MAX_REPEATED);
    arity(&printable(&all.map(u8::to_ascii_lowercase).collect::<Vec<_>>()))
}

pub(super) fn unknown_command(words: &Words<'_>) -> Reply {
    let mut arguments = String::new();
    for word in words.iter().skip(1) {
        if arguments.len() >= MAX_REPEATED {
            break;
        }
        let shown = &word[..word.len().min(MAX_REPEATED - arguments.len())];
        arguments.extend(["'", &printable(shown), "' "]);
    }
    let name = words.first().map(|name| printable(&name[..name.len().min(MAX_REPEATED)])).unwrap_or_default();
    Reply::error(format!("ERR unknown command '{name}', with args beginning with: {arguments}"))
}

pub(super) fn unknown_subcommand(command: &str, sub: &[u8]) -> Reply {
    let sub = printable(&sub[..sub.len().min(MAX_REPEATED)]);
    Reply::error(format!("ERR unknown subcommand '{sub}'. Try {} HELP.", command.to_ascii_uppercase()))
}

pub(super) fn key_too_long(limit: usize) -> Reply {
    Reply::error(format!("KEYTOOLARGE key is longer than {limit} bytes"))
}

pub(super) fn value_too_long() -> Reply {
    Reply::error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
}

pub(super) fn not_for_a_partition(command: &str) -> Reply {
    Reply::error(format!("ERR '{command}' is not executed by a partition"))
}

/// Of Olric: its client knows them by their first word.
pub(super) fn key_found() -> Reply {
    Reply::error("KEYFOUND key found")
}

pub(super) fn key_not_found() -> Reply {
    Reply::error("KEYNOTFOUND key not found")
}

/// Redis prints words as C strings: up to the first zero byte.
pub(super) fn printable(bytes: &[u8]) -> String {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
