//! Values that are numbers.

use bytes::Bytes;

use super::{
    call::{Call, Outcome},
    errors,
    long_double::LongDouble,
};
use crate::logic::resp::{Reply, integer};

/// INCR key
pub(super) fn incr(call: &mut Call<'_, '_>) -> Outcome {
    add(call, 1)
}

/// DECR key
pub(super) fn decr(call: &mut Call<'_, '_>) -> Outcome {
    add(call, -1)
}

/// INCRBY key increment
pub(super) fn incr_by(call: &mut Call<'_, '_>) -> Outcome {
    let by = call.integer(2)?;
    add(call, by)
}

/// DECRBY key decrement
pub(super) fn decr_by(call: &mut Call<'_, '_>) -> Outcome {
    let by = call.integer(2)?.checked_neg().ok_or_else(|| Reply::error("ERR decrement would overflow"))?;
    add(call, by)
}

fn add(call: &mut Call<'_, '_>, by: i64) -> Outcome {
    let key = call.word(1);
    let old = call.find(key);
    let expires = old.as_ref().and_then(|found| found.expires);
    let number = old.map_or(Some(0), |found| integer::parse(&found.value)).ok_or_else(errors::not_an_integer)?;
    let sum = number.checked_add(by).ok_or_else(|| Reply::error("ERR increment or decrement would overflow"))?;
    call.put(key, Bytes::copy_from_slice(itoa::Buffer::new().format(sum).as_bytes()), expires);
    Ok(Reply::Integer(sum))
}

/// INCRBYFLOAT key increment
pub(super) fn incr_by_float(call: &mut Call<'_, '_>) -> Outcome {
    let key = call.word(1);
    let old = call.find(key);
    let expires = old.as_ref().and_then(|found| found.expires);
    let zero = Bytes::from_static(b"0");
    let number = LongDouble::parse(&old.map_or(zero, |found| found.value)).ok_or_else(errors::not_a_float)?;
    let by = LongDouble::parse(call.word(2)).ok_or_else(errors::not_a_float)?;
    let sum = number.add(by).ok_or_else(|| Reply::error("ERR increment would produce NaN or Infinity"))?;
    let text = Bytes::from(sum.to_string());
    call.put(key, text.clone(), expires);
    Ok(Reply::Bulk(text))
}
