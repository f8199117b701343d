//! Entries of named maps, in the forms of Olric (rule C1).
//!
//! Differences on purpose: an option without its value is a syntax error (Olric's process ends), and so is a time that
//! is no number.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    MAX_VALUE_BYTES,
    call::{Call, Found, Outcome},
    errors,
};
use crate::logic::resp::{Reply, integer};

/// Longest key: its length is one byte in an entry's binary form.
const MAX_KEY: usize = 255;

/// Conditions and time of `DM.PUT`.
#[derive(Default)]
struct Options {
    nx: bool,
    xx: bool,
    /// EX, PX, EXAT and PXAT in this order, as Unix time in milliseconds; the first one that is said counts.
    times: [Option<i64>; 4],
}

impl Options {
    /// A time of zero is as if it was not said.
    fn parse(call: &Call<'_, '_>) -> Result<Self, Reply> {
        let mut options = Self::default();
        let mut words = call.words[4..].iter();
        while let Some(word) = words.next() {
            let (place, since) = match &word.to_ascii_uppercase()[..] {
                b"NX" => {
                    options.nx = true;
                    continue;
                }
                b"XX" => {
                    options.xx = true;
                    continue;
                }
                b"EX" => (0, call.wall()),
                b"PX" => (1, call.wall()),
                b"EXAT" => (2, 0),
                b"PXAT" => (3, 0),
                _ => return Err(errors::syntax()),
            };
            let amount = words.next().ok_or_else(errors::syntax)?;
            let ms = if place % 2 == 0 { seconds(amount)? } else { whole(amount)? };
            options.times[place] = (ms != 0).then(|| ms.saturating_add(since));
        }
        Ok(options)
    }
}

/// Seconds with decimals, as milliseconds.
fn seconds(word: &[u8]) -> Result<i64, Reply> {
    let seconds = std::str::from_utf8(word).ok().and_then(|text| text.parse::<f64>().ok()).filter(|n| n.is_finite());
    Ok((seconds.ok_or_else(errors::not_a_float)? * 1000.0) as i64)
}

fn whole(word: &[u8]) -> Result<i64, Reply> {
    integer::parse(word).ok_or_else(errors::not_an_integer)
}

fn key<'a>(call: &Call<'a, '_>) -> Result<&'a [u8], Reply> {
    let key = call.word(2);
    if key.len() > MAX_KEY { Err(Reply::error("KEYTOOLARGE key too large")) } else { Ok(key) }
}

/// DM.PUT map key value [EX s | PX ms | EXAT unix-s | PXAT unix-ms] [NX | XX]
pub(super) fn put(call: &mut Call<'_, '_>) -> Outcome {
    call.use_map(call.word(1));
    let (key, value) = (key(call)?, call.word(3));
    if value.len() > MAX_VALUE_BYTES {
        return Err(Reply::error("ENTRYTOOLARGE entry too large for the configured table size"));
    }
    let options = Options::parse(call)?;
    let present = call.find(key).is_some();
    if options.nx && present {
        return Err(errors::key_found());
    }
    if options.xx && !options.nx && !present {
        return Err(errors::key_not_found());
    }
    match options.times.into_iter().flatten().next().map(|unix| call.deadline(unix)) {
        None => call.put(key, value, None),
        Some(Some(deadline)) => call.put(key, value, Some(deadline)),
        Some(None) if present => call.remove(key),
        Some(None) => {}
    }
    Ok(Reply::OK)
}

/// DM.GET map key [RW]
pub(super) fn get(call: &mut Call<'_, '_>) -> Outcome {
    call.use_map(call.word(1));
    let key = key(call)?;
    let raw = match call.words.get(3) {
        None => false,
        Some(word) if *word == b"RW" => true,
        Some(word) => {
            return Err(Reply::error(format!("INVALIDARGUMENT invalid argument: {}", errors::printable(word))));
        }
    };
    let Some(found) = call.read(key) else { return Ok(errors::key_not_found()) };
    Ok(Reply::Bulk(if raw { entry(call, key, &found) } else { found.value }))
}

/// Key, expiry (Unix ms), time of writing and of last access (Unix ns), value. The two times are not kept and 0.
fn entry(call: &Call<'_, '_>, key: &[u8], found: &Found) -> Bytes {
    let mut out = BytesMut::with_capacity(29 + key.len() + found.value.len());
    out.put_u8(key.len() as u8);
    out.put_slice(key);
    out.put_i64(found.expires.map_or(0, |at| call.unix(at)));
    out.put_u64(0);
    out.put_u64(0);
    out.put_u32(found.value.len() as u32);
    out.put_slice(&found.value);
    out.freeze()
}

/// DM.DEL map key [key ...]: counts the keys that are named, as Olric does.
pub(super) fn del(call: &mut Call<'_, '_>) -> Outcome {
    call.use_map(call.word(1));
    let keys = &call.words[2..];
    call.remove_present(keys);
    Ok(Reply::Integer(keys.len() as i64))
}
