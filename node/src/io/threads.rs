//! Threads that serve connections. Each connection stays on the one that it was given to, and each thread sleeps and wakes
//! alone. Threads that take work from each other wake one another for what one of them could do: that costs more than the
//! work itself where many connections have little to do.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Threads, until this is dropped.
pub struct Threads {
    handles: Vec<Handle>,
    /// Connections that were given to them.
    given: AtomicUsize,
    _stop: DropGuard,
}

impl Threads {
    /// Starts so many threads. Fewer than two are none: then the runtime in which this is called serves all connections.
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut threads = Self { handles: Vec::new(), given: AtomicUsize::new(0), _stop: stop.clone().drop_guard() };
        if count < 2 {
            threads.handles.push(Handle::current());
            return Ok(threads);
        }
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            threads.handles.push(runtime.handle().clone());
            let stop = stop.clone();
            let serve = move || runtime.block_on(stop.cancelled());
            thread::Builder::new().name(format!("connections-{number}")).spawn(serve)?;
        }
        Ok(threads)
    }

    /// Lets each thread do this, between two pieces of work for its connections, and waits until all have.
    pub async fn each(&self, work: fn()) {
        let begun: Vec<_> = self.handles.iter().map(|thread| thread.spawn(async move { work() })).collect();
        for done in begun {
            let _ = done.await;
        }
    }

    /// Where the next connection is served.
    pub fn next(&self) -> &Handle {
        &self.handles[self.given.fetch_add(1, Ordering::Relaxed) % self.handles.len()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::sync::oneshot;

    use super::*;

    async fn names(threads: &Threads, connections: usize) -> BTreeSet<Option<String>> {
        let mut names = BTreeSet::new();
        for _ in 0..connections {
            let name = threads.next().spawn(async { thread::current().name().map(str::to_owned) });
            names.insert(name.await.unwrap());
        }
        names
    }

    #[tokio::test]
    async fn connections_are_shared_out_and_end_with_their_threads() {
        let threads = Threads::start(3).unwrap();
        let expected = (0..3).map(|number| Some(format!("connections-{number}"))).collect();
        assert_eq!(names(&threads, 6).await, expected);
        let (held, ended) = oneshot::channel::<()>();
        threads.next().spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        drop(threads);
        assert!(ended.await.is_err());
    }

    #[tokio::test]
    async fn each_thread_has_its_turn_before_the_wait_ends() {
        static TURNS: AtomicUsize = AtomicUsize::new(0);
        fn work() {
            let name = thread::current().name().map(str::to_owned).unwrap_or_default();
            let number: u32 = name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(8);
            TURNS.fetch_add(1 << number, Ordering::Relaxed);
        }
        Threads::start(3).unwrap().each(work).await;
        assert_eq!(TURNS.load(Ordering::Relaxed), 0b111);
    }

    #[tokio::test]
    async fn one_thread_is_the_one_that_is_there() {
        let own = thread::current().name().map(str::to_owned);
        for count in [0, 1] {
            assert_eq!(names(&Threads::start(count).unwrap(), 2).await, [own.clone()].into());
        }
    }
}
