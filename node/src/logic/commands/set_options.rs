//! The options that `SET` and `GETEX` share.

use super::{Words, call::Call, errors};
use crate::logic::resp::{Reply, integer};

/// Which of the options a command takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Taker {
    Set,
    GetEx,
}

/// When only it should be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// NX
    Absent,
    /// XX
    Present,
}

/// A time as it is written: `EX PX EXAT PXAT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Time<'a> {
    pub(super) amount: &'a [u8],
    pub(super) seconds: bool,
    /// Unix time; else from now on.
    pub(super) absolute: bool,
}

/// What happens to the deadline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Expiry<'a> {
    /// Nothing was said.
    #[default]
    Unsaid,
    /// KEEPTTL
    Keep,
    /// PERSIST
    Persist,
    /// One of the four times.
    At(Time<'a>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options<'a> {
    pub(super) condition: Option<Condition>,
    pub(super) get: bool,
    pub(super) expiry: Expiry<'a>,
}

impl<'a> Options<'a> {
    /// Reads the words after key and value. The same time may be repeated, and the last one counts.
    pub(super) fn parse(words: &Words<'a>, taker: Taker) -> Result<Self, Reply> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let name = word.to_ascii_uppercase();
            match (&name[..], taker) {
                (b"NX", Taker::Set) => options.only_if(Condition::Absent)?,
                (b"XX", Taker::Set) => options.only_if(Condition::Present)?,
                (b"GET", Taker::Set) => options.get = true,
                (b"KEEPTTL", Taker::Set) => options.expire(Expiry::Keep)?,
                (b"PERSIST", Taker::GetEx) => options.expire(Expiry::Persist)?,
                (b"EX" | b"PX" | b"EXAT" | b"PXAT", _) => {
                    let amount = *words.next().ok_or_else(errors::syntax)?;
                    let (seconds, absolute) = (name[0] == b'E', name.len() == 4);
                    options.expire(Expiry::At(Time { amount, seconds, absolute }))?;
                }
                _ => return Err(errors::syntax()),
            }
        }
        Ok(options)
    }

    fn only_if(&mut self, condition: Condition) -> Result<(), Reply> {
        if self.condition.is_some_and(|other| other != condition) {
            return Err(errors::syntax());
        }
        self.condition = Some(condition);
        Ok(())
    }

    fn expire(&mut self, expiry: Expiry<'a>) -> Result<(), Reply> {
        let again = match (&self.expiry, &expiry) {
            (Expiry::Unsaid, _) => true,
            (Expiry::At(old), Expiry::At(new)) => (old.seconds, old.absolute) == (new.seconds, new.absolute),
            (old, new) => old == new,
        };
        if !again {
            return Err(errors::syntax());
        }
        self.expiry = expiry;
        Ok(())
    }
}

impl Time<'_> {
    /// As Unix time in milliseconds. Zero, negative and overflowing times are errors.
    pub(super) fn unix(&self, call: &Call<'_, '_>) -> Result<i64, Reply> {
        let amount = integer::parse(self.amount).ok_or_else(errors::not_an_integer)?;
        let invalid = || errors::invalid_expire(call.name);
        if amount <= 0 {
            return Err(invalid());
        }
        let ms = if self.seconds { amount.checked_mul(1000).ok_or_else(invalid)? } else { amount };
        if self.absolute { Ok(ms) } else { ms.checked_add(call.wall()).ok_or_else(invalid) }
    }
}
