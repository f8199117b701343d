//! Whether keys are there, and removing them.

use super::{
    call::{Call, Outcome},
    errors,
};
use crate::logic::resp::Reply;

/// DEL key [key ...], UNLINK key [key ...]
pub(super) fn del(call: &mut Call<'_, '_>) -> Outcome {
    let keys = &call.words[1..];
    Ok(Reply::Integer(call.remove_present(keys)))
}

/// EXISTS key [key ...]: a key that is named twice counts twice.
pub(super) fn exists(call: &mut Call<'_, '_>) -> Outcome {
    Ok(Reply::Integer(call.words[1..].iter().filter(|key| call.glance(key).is_some()).count() as i64))
}

/// TOUCH key [key ...]
pub(super) fn touch(call: &mut Call<'_, '_>) -> Outcome {
    Ok(Reply::Integer(call.words[1..].iter().filter(|key| call.read(key).is_some()).count() as i64))
}

/// TYPE key
pub(super) fn r#type(call: &mut Call<'_, '_>) -> Outcome {
    let found = call.glance(call.word(1)).is_some();
    Ok(Reply::Simple(if found { "string" } else { "none" }))
}

/// DBSIZE
pub(super) fn db_size(call: &mut Call<'_, '_>) -> Outcome {
    Ok(Reply::Integer(call.store.map_len(call.map()) as i64))
}

/// FLUSHDB [ASYNC | SYNC]: the default map.
pub(super) fn flush_db(call: &mut Call<'_, '_>) -> Outcome {
    check_flush(call)?;
    let map = call.map();
    if call.store.map_len(map) > 0 {
        call.clear(Some(map));
    }
    Ok(Reply::OK)
}

/// FLUSHALL [ASYNC | SYNC]: every map, as Redis means every database.
pub(super) fn flush_all(call: &mut Call<'_, '_>) -> Outcome {
    check_flush(call)?;
    if !call.store.is_empty() {
        call.clear(None);
    }
    Ok(Reply::OK)
}

fn check_flush(call: &Call<'_, '_>) -> Result<(), Reply> {
    match call.words {
        [_] => Ok(()),
        [_, how] if how.eq_ignore_ascii_case(b"sync") || how.eq_ignore_ascii_case(b"async") => Ok(()),
        _ => Err(errors::syntax()),
    }
}
