//! How much memory this process may use and uses: the container's limit (control groups, version 1 and 2) and the
//! kernel's figures (`proc(5)`).

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};

use super::{log::Quiet, threads::Threads};
use crate::logic::{
    clock::Millis,
    node::{Headroom, Node},
};

/// Share of the container's limit that entries may take; the rest is for connections, buffers and the allocator.
const SHARE_PERCENT: u64 = 70;
/// What a process may have beside its entries where only their budget is known, at least: a node at rest takes 30 MiB.
const BESIDE: u64 = 128 << 20;
/// Between two looks at what the process has.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// And where it is short of memory.
const LOOK_OFTEN: Duration = Duration::from_millis(5);
/// Between two times that what is free is given back, where the process has not grown much since.
const GIVE_BACK_EVERY: Duration = Duration::from_millis(200);
/// How long threads may take to give back what is free before the budget is looked at.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_millis(5);
/// What all who send much may send while the process nears its limit: bytes in a pause, and how long that is. About
/// 64 MB/s.
const SLOWLY: (usize, Duration) = (256 << 10, Duration::from_millis(4));
/// Between two lines of one kind in the log about the process's memory.
const MEMORY_EVERY: Duration = Duration::from_mins(10);
/// The allocator's option `generic_collect`: its number, which its crate does not name, what it is at first, and what it
/// may be at most. So many of its slower calls pass between two looks of a thread at every page that it holds.
const GENERIC_COLLECT: (libmimalloc_sys::mi_option_t, i64, i64) = (34, 10_000, 1_000_000);
/// Budget where no limit is known.
const FALLBACK: u64 = 1 << 30;
/// Version 1 writes a huge number where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// The budget for entries, and a sentence when it is a guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes.
    pub bytes: u64,
    /// Why it is a guess.
    pub warning: Option<String>,
}

/// Slows those who send much while the process nears its limit: memory comes back only when whole pages are free, and
/// while small entries are evicted for large ones the large ones come faster than that.
pub struct Throttle {
    is_on: watch::Sender<bool>,
    /// Bytes that were read and not waited for.
    owed: Mutex<usize>,
    waits: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { is_on: watch::Sender::new(false), owed: Mutex::default(), waits: AtomicU64::new(0) }
    }
}

impl Throttle {
    /// Whether those who send much must wait.
    pub fn is_on(&self) -> bool {
        *self.is_on.borrow()
    }

    /// How often a client was made to wait.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Waits for `bytes` that were read: one connection after the other, 4 ms for each 256 KiB, or until all may go on.
    /// If this is cancelled nothing is paid.
    pub async fn wait(&self, bytes: usize) {
        let mut owed = self.owed.lock().await;
        let sum = *owed + bytes;
        let (pause, left) = pause(sum);
        if self.is_on() && !pause.is_zero() {
            let _ = timeout(pause, self.is_on.subscribe().wait_for(|is_on| !is_on)).await;
            self.waits.fetch_add(1, Ordering::Relaxed);
        }
        *owed = left;
    }
}

/// How long to wait for so many bytes, and how many are left to be waited for with the next ones.
fn pause(bytes: usize) -> (Duration, usize) {
    (SLOWLY.1 * (bytes / SLOWLY.0) as u32, bytes % SLOWLY.0)
}

/// Lets the budget of a node's entries follow the memory that the process has.
pub struct Watch {
    headroom: Headroom,
    /// What the process had when all that was free was given back last, and when that was.
    kept: u64,
    gave_back: Millis,
    quiet: Quiet,
    quiet_slow: Quiet,
}

impl Watch {
    /// For a node whose entries may take `max_bytes`.
    pub fn new(max_bytes: u64) -> Self {
        let headroom = Headroom::new(process_limit(max_bytes), max_bytes);
        Self { headroom, kept: 0, gave_back: Millis::default(), quiet: Quiet::default(), quiet_slow: Quiet::default() }
    }

    /// Looks what the process has. Returns when to do so again.
    pub async fn look(&mut self, node: &Node, threads: &Threads, throttle: &Throttle, now: Millis) -> Duration {
        let mut resident = resident_anonymous();
        let short = self.headroom.is_short(resident);
        let grew = self.headroom.is_growth(resident.saturating_sub(self.kept));
        let due = now >= self.gave_back + GIVE_BACK_EVERY;
        let creeps = resident > self.kept && self.headroom.is_near_limit(resident);
        if short && (grew || due || creeps) {
            // Most is in the memory of the threads that serve connections. A busy one does it later.
            let _ = timeout(GIVE_BACK_TIMEOUT, threads.each(give_back)).await;
            give_back();
            resident = resident_anonymous();
            (self.kept, self.gave_back) = (resident, now);
        }
        let slow = self.headroom.is_near_limit(resident);
        if throttle.is_on.send_if_modified(|is_on| std::mem::replace(is_on, slow) != slow)
            && slow
            && self.quiet_slow.may_speak(now, MEMORY_EVERY)
        {
            tracing::warn!(
                process_mib = resident >> 20,
                limit_mib = self.headroom.limit() >> 20,
                "clients that send much at a time are read slowly while the process is so near its memory limit: raise the \
                 limit of the container, or lower max_memory"
            );
        }
        let (accounted, before) = (node.bytes(), node.budget());
        let budget = self.headroom.look(resident, accounted);
        node.set_budget(budget);
        if budget < before && accounted > budget && self.quiet.may_speak(now, MEMORY_EVERY) {
            tracing::warn!(
                process_mib = resident >> 20,
                limit_mib = self.headroom.limit() >> 20,
                entries_mib = accounted >> 20,
                budget_mib = budget >> 20,
                max_memory_mib = node.config().max_bytes >> 20,
                "entries are evicted below max_memory because the process nears its memory limit: values of shifting \
                 sizes leave gaps, or connections hold much; raise the limit of the container, or lower max_memory"
            );
        }
        if short { LOOK_OFTEN } else { LOOK_EVERY }
    }
}

/// Whether this process may take memory in huge pages. They make lookups faster, but the kernel clears one while whoever
/// touched it first waits: milliseconds where a virtual machine has to get the memory from its host. What was taken in
/// small pages is joined in the background once huge pages are allowed again (`khugepaged`).
pub fn take_huge_pages(allowed: bool) {
    if let Err(error) = nix::sys::prctl::set_thp_disable(!allowed) {
        tracing::debug!(%error, "huge pages stay as they are");
    }
}

/// Lets the allocator look through all pages of a thread rarely: with a gigabyte of entries one such look holds up
/// whoever made the call for several milliseconds, and the default is one in 10,000 slower calls. What is freed by the
/// thread that owns it, or in a page that was full, comes back without it. The option `MIMALLOC_GENERIC_COLLECT` of the
/// environment goes first. For a process of its own, before its work begins.
#[allow(unsafe_code)] // as for `give_back`
pub fn look_through_rarely() {
    let (option, at_first, rarely) = GENERIC_COLLECT;
    // SAFETY: both calls only read and write one word of the allocator's options.
    unsafe {
        if libmimalloc_sys::mi_option_get(option) == at_first {
            libmimalloc_sys::mi_option_set(option, rarely);
        }
    }
}

/// The budget that holds when the settings name none.
pub fn budget() -> Budget {
    budget_of(own_limit())
}

/// What this process may have, when entries may take `max_bytes`: the container's limit; without one, what would give
/// entries that budget, and 128 MiB beside them at least. A budget far below the container's limit does not lower it:
/// then the container was given room for other things.
pub fn process_limit(max_bytes: u64) -> u64 {
    own_limit().unwrap_or_else(|| implied_limit(max_bytes))
}

fn implied_limit(max_bytes: u64) -> u64 {
    (u128::from(max_bytes) * 100 / u128::from(SHARE_PERCENT)).max(u128::from(max_bytes) + u128::from(BESIDE)) as u64
}

fn own_limit() -> Option<u64> {
    limit(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
}

fn budget_of(limit: Option<u64>) -> Budget {
    match limit {
        Some(limit) => Budget { bytes: limit / 100 * SHARE_PERCENT, warning: None },
        None => Budget {
            bytes: FALLBACK,
            warning: Some(format!(
                "no max_memory in the settings and no memory limit of a container: entries may take {} MiB; set max_memory",
                FALLBACK >> 20
            )),
        },
    }
}

/// The lowest limit of the group that this process is in and of the groups above it. Inside a container the group's
/// own files are at the root.
fn limit(root: &Path, groups: &str) -> Option<u64> {
    let mut files = vec![root.join("memory.max"), root.join("memory/memory.limit_in_bytes")];
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (base, name) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|controller| controller == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let own = base.join(path.trim_start_matches('/'));
        files.extend(own.ancestors().take_while(|group| group.starts_with(&base)).map(|group| group.join(name)));
    }
    let read = |file: &std::path::PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    files.iter().filter_map(read).filter(|limit| *limit < NO_LIMIT).min()
}

/// Bytes of memory that this process holds (resident set).
pub fn resident() -> u64 {
    status_line("VmRSS:")
}

/// Bytes of it that only the end of the process or its allocator gives back: neither files nor the program itself. Takes
/// about 5 µs.
fn resident_anonymous() -> u64 {
    status_line("RssAnon:")
}

/// The program's allocator gives back what is free: of this thread also what others freed, of the process all that it
/// keeps for a second. Costs some milliseconds when that is much.
#[allow(unsafe_code)] // the allocator's own crate offers this as an `extern` function only
fn give_back() {
    // SAFETY: any thread may call this at any time; what is in use stays as it is.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

fn status_line(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let kibibytes = line.split_ascii_whitespace().next().and_then(|number| number.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn seventy_percent_of_the_lowest_limit_above_this_process() {
        let gib = (1_u64 << 30).to_string();
        let cases = [
            (vec![("memory.max", "1000000\n")], "0::/", Some(700_000)),
            (
                vec![("memory.max", "max\n"), ("pod/memory.max", "2000000"), ("pod/c/memory.max", "max")],
                "0::/pod/c",
                Some(1_400_000),
            ),
            (vec![("pod/memory.max", "1000"), ("pod/c/memory.max", &gib)], "0::/pod/c", Some(700)),
            (vec![("memory/memory.limit_in_bytes", "9223372036854771712")], "4:memory:/", None),
            (vec![("memory/docker/x/memory.limit_in_bytes", "1000")], "4:cpu,memory:/docker/x\n0::/", Some(700)),
            (vec![], "", None),
        ];
        for (files, groups, expected) in cases {
            let root = with(&files);
            let budget = budget_of(limit(root.path(), groups));
            assert_eq!(budget.bytes, expected.unwrap_or(FALLBACK), "{files:?}");
            assert_eq!(budget.warning.is_none(), expected.is_some());
        }
        assert!(resident() > resident_anonymous());
        assert!(resident_anonymous() > 0);
    }

    #[test]
    #[allow(unsafe_code)]
    fn the_allocator_has_the_option_under_this_number() {
        let (option, at_first, rarely) = GENERIC_COLLECT;
        let get = || unsafe { libmimalloc_sys::mi_option_get(option) };
        assert_eq!(get(), at_first);
        look_through_rarely();
        assert_eq!(get(), rarely);
    }

    #[tokio::test]
    async fn who_sends_much_waits_in_turns_for_what_was_read_and_until_all_may_go_on() {
        const LIMIT: Duration = Duration::from_secs(20);
        const HOURS: usize = SLOWLY.0 * 250 * 36_000;
        let (throttle, order) = (Throttle::default(), std::sync::Mutex::new(Vec::new()));
        timeout(LIMIT, throttle.wait(HOURS)).await.unwrap();
        throttle.is_on.send_replace(true);
        // Little is paid together with what comes next.
        assert_eq!(throttle.wait(SLOWLY.0 - 1).now_or_never(), Some(()));
        assert_eq!(throttle.wait(1).now_or_never(), None);
        let waits = async |bytes: usize| {
            throttle.wait(bytes).await;
            order.lock().unwrap().push(bytes);
        };
        timeout(LIMIT, async { tokio::join!(waits(9 * SLOWLY.0), waits(0)) }).await.unwrap();
        assert_eq!(*order.lock().unwrap(), [9 * SLOWLY.0, 0]);
        assert_eq!(throttle.waits(), 1);
        assert_eq!(pause(9 * SLOWLY.0 + 5), (Duration::from_millis(36), 5));
        let goes_off = async {
            tokio::task::yield_now().await;
            throttle.is_on.send_replace(false);
        };
        timeout(LIMIT, async { tokio::join!(waits(HOURS), waits(HOURS), goes_off) }).await.unwrap();
    }

    #[test]
    fn a_budget_implies_a_limit() {
        assert_eq!(implied_limit(700 << 20), 1000 << 20);
        assert_eq!(implied_limit(64 << 20), 192 << 20);
        assert_eq!(implied_limit(0), BESIDE);
    }
}
