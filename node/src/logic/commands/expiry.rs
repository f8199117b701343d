//! Deadlines of keys that are there.

use bytes::Bytes;

use super::{
    call::{Call, Found, Outcome},
    errors,
};
use crate::logic::resp::Reply;

/// Which old deadlines a new one may replace.
#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

/// EXPIRE key seconds [NX | XX | GT | LT]
pub(super) fn expire(call: &mut Call<'_>) -> Outcome {
    expire_at_time(call, true, false)
}

/// PEXPIRE key milliseconds [NX | XX | GT | LT]
pub(super) fn p_expire(call: &mut Call<'_>) -> Outcome {
    expire_at_time(call, false, false)
}

/// EXPIREAT key unix-seconds [NX | XX | GT | LT]
pub(super) fn expire_at(call: &mut Call<'_>) -> Outcome {
    expire_at_time(call, true, true)
}

/// PEXPIREAT key unix-milliseconds [NX | XX | GT | LT]
pub(super) fn p_expire_at(call: &mut Call<'_>) -> Outcome {
    expire_at_time(call, false, true)
}

fn expire_at_time(call: &mut Call<'_>, seconds: bool, absolute: bool) -> Outcome {
    let conditions = Conditions::parse(&call.words[3..])?;
    let invalid = || errors::invalid_expire(call.name);
    let amount = call.integer(2)?;
    let ms = if seconds { amount.checked_mul(1000).ok_or_else(invalid)? } else { amount };
    let unix = if absolute { ms } else { ms.checked_add(call.wall()).ok_or_else(invalid)? };
    let key = call.word(1);
    let Some(found) = call.find(&key) else { return Ok(Reply::Integer(0)) };
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
    fn parse(words: &[Bytes]) -> Result<Self, Reply> {
        let mut conditions = Self::default();
        for word in words {
            match &word.to_ascii_uppercase()[..] {
                b"NX" => conditions.nx = true,
                b"XX" => conditions.xx = true,
                b"GT" => conditions.gt = true,
                b"LT" => conditions.lt = true,
                _ => return Err(Reply::error(format!("ERR Unsupported option {}", errors::printable(word)))),
            }
        }
        if conditions.nx && (conditions.xx || conditions.gt || conditions.lt) {
            return Err(Reply::error("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if conditions.gt && conditions.lt {
            return Err(Reply::error("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// No deadline counts as one that is infinitely far.
    fn allow(&self, old: Option<i64>, new: i64) -> bool {
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && old.is_none_or(|old| new <= old)
            || self.lt && old.is_some_and(|old| new >= old))
    }
}

/// TTL key
pub(super) fn ttl(call: &mut Call<'_>) -> Outcome {
    Ok(left(call, |call, found| found.expires.map(|at| seconds(at.since(call.now()) as i64))))
}

/// PTTL key
pub(super) fn p_ttl(call: &mut Call<'_>) -> Outcome {
    Ok(left(call, |call, found| found.expires.map(|at| at.since(call.now()) as i64)))
}

/// EXPIRETIME key
pub(super) fn expire_time(call: &mut Call<'_>) -> Outcome {
    Ok(left(call, |call, found| found.expires.map(|at| seconds(call.unix(at)))))
}

/// PEXPIRETIME key
pub(super) fn p_expire_time(call: &mut Call<'_>) -> Outcome {
    Ok(left(call, |call, found| found.expires.map(|at| call.unix(at))))
}

/// -2: no key; -1: it does not expire.
fn left(call: &mut Call<'_>, of: impl Fn(&Call<'_>, &Found) -> Option<i64>) -> Reply {
    let found = call.glance(&call.word(1));
    Reply::Integer(found.map_or(-2, |found| of(call, &found).unwrap_or(-1)))
}

/// Redis rounds to the nearest second.
fn seconds(ms: i64) -> i64 {
    ms.saturating_add(500) / 1000
}

/// PERSIST key
pub(super) fn persist(call: &mut Call<'_>) -> Outcome {
    let key = call.word(1);
    let found = call.find(&key).filter(|found| found.expires.is_some());
    let expired = found.is_some();
    if let Some(found) = found {
        call.put(key, found.value, None);
    }
    Ok(Reply::Integer(expired.into()))
}
