//! Who leads: one operator of several acts (rule O7). The decision is made from what the Lease says and from how long
//! this process has seen it unchanged, so that clocks of different machines are never compared.

use std::time::Duration;

/// How long a Lease holds after its last renewal.
pub const DURATION: Duration = Duration::from_secs(15);
/// Between two renewals.
pub const RENEW_EVERY: Duration = Duration::from_secs(4);
/// A leader that could not renew for this long stops, well before another may take over.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// Between two looks of one who does not lead.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty when it was given back.
    pub holder: String,
    /// When it was renewed, as its holder's clock had it: only compared for equality.
    pub renewed: String,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is ours: write a new time of renewal.
    Renew,
    /// Nobody holds it, or its holder is gone: take it.
    Acquire,
    /// Another holds it: look again later.
    Wait,
}

/// Decides for `me`, who has seen the record unchanged for `unchanged`.
pub fn decide(me: &str, record: Option<&Record>, unchanged: Duration) -> Decision {
    match record {
        Some(record) if record.holder == me => Decision::Renew,
        Some(record) if !record.holder.is_empty() && unchanged < DURATION => Decision::Wait,
        _ => Decision::Acquire,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_only_when_free_given_back_or_silent_for_its_whole_duration() {
        let held = |holder: &str| Some(Record { holder: holder.into(), renewed: "t".into() });
        let just_below = DURATION.checked_sub(Duration::from_millis(1)).unwrap();
        let cases = [
            (None, Duration::ZERO, Decision::Acquire),
            (held(""), Duration::ZERO, Decision::Acquire),
            (held("me"), DURATION, Decision::Renew),
            (held("other"), Duration::ZERO, Decision::Wait),
            (held("other"), just_below, Decision::Wait),
            (held("other"), DURATION, Decision::Acquire),
        ];
        for (record, unchanged, expected) in cases {
            assert_eq!(decide("me", record.as_ref(), unchanged), expected, "{record:?} {unchanged:?}");
        }
    }

    #[test]
    fn a_leader_gives_up_before_another_may_take_over() {
        assert!(GIVE_UP_AFTER + RENEW_EVERY < DURATION);
    }
}
