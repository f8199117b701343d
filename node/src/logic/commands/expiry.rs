//! Deadlines of keys that are there.

use std::cmp::Ordering;

use super::{
    Words,
    call::{Call, Found, Outcome},
    errors,
};
use crate::logic::resp::Reply;

/// Which old deadlines a new one may replace.
#[derive(Default)]
struct Conditions {
    /// NX: none; XX: only one that is there.
    present: Option<bool>,
    /// GT: only earlier ones; LT: only later ones.
    order: Option<Ordering>,
}

/// EXPIRE key seconds [NX | XX | GT | LT]
pub(super) fn expire(call: &mut Call<'_, '_>) -> Outcome {
    expire_at_time(call, true, false)
}

/// PEXPIRE key milliseconds [NX | XX | GT | LT]
pub(super) fn p_expire(call: &mut Call<'_, '_>) -> Outcome {
    expire_at_time(call, false, false)
}

/// EXPIREAT key unix-seconds [NX | XX | GT | LT]
pub(super) fn expire_at(call: &mut Call<'_, '_>) -> Outcome {
    expire_at_time(call, true, true)
}

/// PEXPIREAT key unix-milliseconds [NX | XX | GT | LT]
pub(super) fn p_expire_at(call: &mut Call<'_, '_>) -> Outcome {
    expire_at_time(call, false, true)
}

fn expire_at_time(call: &mut Call<'_, '_>, seconds: bool, absolute: bool) -> Outcome {
    let conditions = Conditions::parse(&call.words[3..])?;
    let invalid = || errors::invalid_expire(call.name);
    let amount = call.integer(2)?;
    let ms = if seconds { amount.checked_mul(1000).ok_or_else(invalid)? } else { amount };
    let unix = if absolute { ms } else { ms.checked_add(call.wall()).ok_or_else(invalid)? };
    let key = call.word(1);
    let Some(found) = call.find(key) else { return Ok(Reply::Integer(0)) };
    if !conditions.allow(found.expires.map(|at| call.unix(at)), unix) {
        return Ok(Reply::Integer(0));
    }
    match call.deadline(unix) {
        Some(deadline) => call.put(key, found.value, Some(deadline)),
        None => call.remove(key),
    }
    Ok(Reply::Integer(1))
}

impl Conditions {
    fn parse(words: &Words<'_>) -> Result<Self, Reply> {
        let said: Vec<Vec<u8>> = words.iter().map(|word| word.to_ascii_uppercase()).collect();
        let known = |word: &&Vec<u8>| [b"NX", b"XX", b"GT", b"LT"].iter().any(|name| name[..] == word[..]);
        if let Some(unknown) = said.iter().position(|word| !known(&word)) {
            return Err(Reply::error(format!("ERR Unsupported option {}", errors::printable(words[unknown]))));
        }
        let has = |name: &[u8]| said.iter().any(|word| *word == name);
        if has(b"NX") && (has(b"XX") || has(b"GT") || has(b"LT")) {
            return Err(Reply::error("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if has(b"GT") && has(b"LT") {
            return Err(Reply::error("ERR GT and LT options at the same time are not compatible"));
        }
        let present = if has(b"NX") { Some(false) } else { has(b"XX").then_some(true) };
        let order = if has(b"GT") { Some(Ordering::Greater) } else { has(b"LT").then_some(Ordering::Less) };
        Ok(Self { present, order })
    }

    /// No deadline counts as one that is infinitely far.
    fn allow(&self, old: Option<i64>, new: i64) -> bool {
        self.present.is_none_or(|present| present == old.is_some())
            && self.order.is_none_or(|order| old.map_or(Ordering::Less, |old| new.cmp(&old)) == order)
    }
}

/// TTL key
pub(super) fn ttl(call: &mut Call<'_, '_>) -> Outcome {
    Ok(left(call, |call, found| found.expires.map(|at| seconds(at.since(call.now()) as i64))))
}

/// PTTL key
pub(super) fn p_ttl(call: &mut Call<'_, '_>) -> Outcome {
    Ok(left(call, |call, found| found.expires.map(|at| at.since(call.now()) as i64)))
}

/// EXPIRETIME key
pub(super) fn expire_time(call: &mut Call<'_, '_>) -> Outcome {
    Ok(left(call, |call, found| found.expires.map(|at| seconds(call.unix(at)))))
}

/// PEXPIRETIME key
pub(super) fn p_expire_time(call: &mut Call<'_, '_>) -> Outcome {
    Ok(left(call, |call, found| found.expires.map(|at| call.unix(at))))
}

/// -2: no key; -1: it does not expire.
fn left(call: &mut Call<'_, '_>, of: impl Fn(&Call<'_, '_>, &Found) -> Option<i64>) -> Reply {
    let found = call.glance(call.word(1));
    Reply::Integer(found.map_or(-2, |found| of(call, &found).unwrap_or(-1)))
}

/// Redis rounds to the nearest second.
fn seconds(ms: i64) -> i64 {
    ms.saturating_add(500) / 1000
}

/// PERSIST key
pub(super) fn persist(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.word(1);
    let found = call.find(key).filter(|found| found.expires.is_some());
    let expired = found.is_some();
    if let Some(found) = found {
        call.put(key, found.value, None);
    }
    Ok(Reply::Integer(expired.into()))
}
