//! Lock-free code under every order in which threads can meet (loom).

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

// What `account.rs` takes from the module above it is loom's here.
use loom::sync::atomic;

#[allow(dead_code)]
#[path = "../src/logic/node/account.rs"]
mod account;

use account::Account;
use loom::{sync::Arc, thread};

/// Writes `added` bytes into a partition that has `held`: as `Node::commit_in_budget`, frees what does not fit. Returns
/// what the partition has then.
fn write(account: &Account, budget: u64, held: i64, added: i64) -> i64 {
    let mut now = held + added;
    while let Err(over) = account.book_within(now - held) {
        now -= (over as i64).min(now);
    }
    assert!(account.bytes() <= budget, "{} of {budget}", account.bytes());
    now
}

#[test]
fn threads_that_book_at_once_do_not_pass_the_budget_and_lose_no_byte() {
    loom::model(|| {
        let account = Arc::new(Account::new(10));
        account.book(8);
        let other = thread::spawn({
            let account = account.clone();
            move || write(&account, 10, 4, 3)
        });
        let held = write(&account, 10, 4, 2) + other.join().unwrap();
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
        let held = write(&account, 10, 4, 5);
        cut.join().unwrap();
        let held = write(&account, 10, held, 0);
        assert_eq!(account.book_within(2), if held <= 4 { Ok(()) } else { Err(held as u64 + 2 - 6) });
    });
}
