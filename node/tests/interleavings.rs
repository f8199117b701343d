//! Lock-free code under every order in which threads can meet (loom).

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

// What `account.rs` takes from the module above it is loom's here.
use loom::sync::atomic;

#[allow(dead_code)]
#[path = "../src/logic/node/account.rs"]
mod account;

use account::Account;
use loom::{sync::Arc, thread};

/// Writes `added` bytes into a partition that has `held`, and frees what does not fit. Returns what it has then.
fn write(account: &Account, held: i64, added: i64) -> i64 {
    let mut now = held + added;
    account.book_or_free(added, |over| {
        now -= (over as i64).min(now);
        Some(now - held)
    });
    now
}

#[test]
fn threads_that_book_at_once_do_not_pass_the_budget_and_lose_no_byte() {
    loom::model(|| {
        let account = Arc::new(Account::new(10));
        account.book(8);
        let other = thread::spawn({
            let account = account.clone();
            move || {
                let held = write(&account, 4, 3);
                assert!(account.bytes() <= 10, "{}", account.bytes());
                held
            }
        });
        let held = write(&account, 4, 2);
        assert!(account.bytes() <= 10, "{}", account.bytes());
        let held = held + other.join().unwrap();
        assert_eq!(account.bytes(), held as u64);
    });
}

#[test]
fn a_budget_that_is_cut_meanwhile_is_not_passed_by_what_is_booked_later() {
    loom::model(|| {
        let account = Arc::new(Account::new(10));
        account.book(4);
        let cut = thread::spawn({
            let account = account.clone();
            move || account.set_budget(6)
        });
        let held = write(&account, 4, 5);
        cut.join().unwrap();
        assert!(held == 6 || held == 9, "{held}");
        assert_eq!((account.bytes(), account.excess()), (held as u64, held as u64 - 6));
        assert_eq!(write(&account, held, 2), 6);
    });
}
