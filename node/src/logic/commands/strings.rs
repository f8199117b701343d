//! Reading and writing values.

use bytes::{Bytes, BytesMut};

use super::{
    MAX_VALUE_BYTES,
    call::{Call, Found, Outcome},
    errors,
    set_options::{Condition, Expiry, Options, Taker, Time},
};
use crate::logic::{clock::Millis, resp::Reply, store::NewValue};

fn value_or_nil(found: Option<Found>) -> Reply {
    found.map_or(Reply::Nil, |found| Reply::Bulk(found.value))
}

/// GET key
pub(super) fn get(call: &mut Call<'_, '_>) -> Outcome {
    Ok(call.answer_value(call.word(1)))
}

/// SET key value [NX | XX] [GET] [EX s | PX ms | EXAT unix-s | PXAT unix-ms | KEEPTTL]
pub(super) fn set(call: &mut Call<'_, '_>) -> Outcome {
    let (key, value) = (call.word(1), call.word(2));
    let options = Options::parse(&call.words[3..], Taker::Set)?;
    if options == Options::default() {
        call.put(key, value, None);
        return Ok(Reply::OK);
    }
    let old = if options.get { call.read(key) } else { call.find(key) };
    let unix = match &options.expiry {
        Expiry::At(time) => Some(time.unix(call)?),
        _ => None,
    };
    let kept = old.as_ref().and_then(|found| found.expires).filter(|_| options.expiry == Expiry::Keep);
    let present = old.is_some();
    let done = options.condition.is_none_or(|condition| present == (condition == Condition::Present));
    if done {
        match unix {
            Some(unix) => put_until(call, key, value, unix, present),
            None => call.put(key, value, kept),
        }
    }
    Ok(match (options.get, done) {
        (true, _) => value_or_nil(old),
        (false, true) => Reply::OK,
        (false, false) => Reply::Nil,
    })
}

/// A deadline that is over already means that the key goes, or does not come.
fn put_until<'a>(call: &mut Call<'a, '_>, key: &'a [u8], value: impl Into<NewValue<'a>>, unix: i64, present: bool) {
    match call.deadline(unix) {
        Some(deadline) => call.put(key, value, Some(deadline)),
        None if present => call.remove(key),
        None => {}
    }
}

/// SETNX key value
pub(super) fn set_nx(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.word(1);
    let absent = call.find(key).is_none();
    if absent {
        call.put(key, call.word(2), None);
    }
    Ok(Reply::Integer(absent.into()))
}

/// SETEX key seconds value
pub(super) fn set_ex(call: &mut Call<'_, '_>) -> Outcome {
    set_for(call, true)
}

/// PSETEX key milliseconds value
pub(super) fn p_set_ex(call: &mut Call<'_, '_>) -> Outcome {
    set_for(call, false)
}

fn set_for(call: &mut Call<'_, '_>, seconds: bool) -> Outcome {
    let unix = Time { amount: call.word(2), seconds, absolute: false }.unix(call)?;
    put_until(call, call.word(1), call.word(3), unix, true);
    Ok(Reply::OK)
}

/// GETSET key value
pub(super) fn get_set(call: &mut Call<'_, '_>) -> Outcome {
    let old = call.read(call.word(1));
    call.put(call.word(1), call.word(2), None);
    Ok(value_or_nil(old))
}

/// GETDEL key
pub(super) fn get_del(call: &mut Call<'_, '_>) -> Outcome {
    let old = call.read(call.word(1));
    if old.is_some() {
        call.remove(call.word(1));
    }
    Ok(value_or_nil(old))
}

/// GETEX key [EX s | PX ms | EXAT unix-s | PXAT unix-ms | PERSIST]
pub(super) fn get_ex(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.word(1);
    let options = Options::parse(&call.words[2..], Taker::GetEx)?;
    let Some(found) = call.read(key) else { return Ok(Reply::Nil) };
    match options.expiry {
        Expiry::At(time) => put_until(call, key, found.value.clone(), time.unix(call)?, true),
        Expiry::Persist if found.expires.is_some() => call.put(key, found.value.clone(), None),
        _ => {}
    }
    Ok(Reply::Bulk(found.value))
}

/// MGET key [key ...]
pub(super) fn m_get(call: &mut Call<'_, '_>) -> Outcome {
    Ok(call.answer_values(&call.words[1..]))
}

/// MSET key value [key value ...]
pub(super) fn m_set(call: &mut Call<'_, '_>) -> Outcome {
    let (pairs, rest) = call.words[1..].as_chunks();
    if !rest.is_empty() {
        return Err(errors::arity(call.name));
    }
    for [key, value] in pairs {
        call.put(key, *value, None);
    }
    Ok(Reply::OK)
}

/// APPEND key value
pub(super) fn append(call: &mut Call<'_, '_>) -> Outcome {
    let (key, more) = (call.word(1), call.word(2));
    let (old, expires): (Bytes, Option<Millis>) =
        call.find(key).map_or((Bytes::new(), None), |found| (found.value, found.expires));
    if old.len() + more.len() > MAX_VALUE_BYTES {
        return Err(errors::value_too_long());
    }
    let mut value = BytesMut::with_capacity(old.len() + more.len());
    value.extend_from_slice(&old);
    value.extend_from_slice(more);
    let length = value.len();
    call.put(key, value.freeze(), expires);
    Ok(Reply::Integer(length as i64))
}

/// STRLEN key
pub(super) fn str_len(call: &mut Call<'_, '_>) -> Outcome {
    Ok(Reply::Integer(call.read(call.word(1)).map_or(0, |found| found.value.len() as i64)))
}
