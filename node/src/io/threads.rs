//! Threads that serve connections. Each connection stays on the one that it was given to, and each thread sleeps and
//! wakes alone. Threads that take work from each other wake one another for what one of them could do: that costs
//! more than the work itself where many connections have little to do.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes of entries for which there is one thread at most: each keeps memory that it has freed and has no use for.
const BYTES_A_THREAD: u64 = 256 << 20;
/// Between two looks at what other threads ask of one that is busy, in turns of its connections.
const OTHERS_EVERY: u32 = 2;

/// How many threads a node has whose entries may take `max_bytes`. With several cores: one for each that this process
/// may use, at most one for each 256 MiB, and at least one; with more the process would pass its memory limit where the
/// sizes of values shift. With one core: 0.
pub fn fitting(max_bytes: u64) -> usize {
    match thread::available_parallelism().map_or(1, NonZeroUsize::get) {
        1 => 0,
        cores => cores.min((max_bytes / BYTES_A_THREAD) as usize).max(1),
    }
}

/// Threads, until this is dropped.
pub struct Threads {
    threads: Vec<Thread>,
    _stop: DropGuard,
}

struct Thread {
    handle: Handle,
    /// It was asked for something that [`Threads::each`] has and has not done it yet.
    asked: Arc<AtomicBool>,
}

impl Thread {
    fn new(handle: Handle) -> Self {
        Self { handle, asked: Arc::default() }
    }
}

impl Threads {
    /// Starts so many threads. Where there are none the runtime in which this is called serves all connections.
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut threads = Self { threads: Vec::new(), _stop: stop.clone().drop_guard() };
        if count == 0 {
            threads.threads.push(Thread::new(Handle::current()));
            return Ok(threads);
        }
        for number in 0..count {
            let (started, handle) = mpsc::sync_channel(1);
            let stop = stop.clone();
            // Made where it is dropped: elsewhere a runtime may not be.
            let build = || Builder::new_current_thread().global_queue_interval(OTHERS_EVERY).enable_all().build();
            let serve = move || match build() {
                Ok(runtime) => {
                    let _ = started.send(Ok(runtime.handle().clone()));
                    runtime.block_on(stop.cancelled());
                }
                Err(error) => drop(started.send(Err(error))),
            };
            thread::Builder::new().name(format!("connections-{number}")).spawn(serve)?;
            let handle = handle.recv().map_err(|_| io::Error::other("a thread ended as it began"))??;
            threads.threads.push(Thread::new(handle));
        }
        Ok(threads)
    }

    /// How many there are, the caller's own included where it serves.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Lets each thread do this, between two pieces of work for its connections, and waits until all have. A thread that
    /// was asked before and has not done it yet is not asked again.
    pub async fn each(&self, work: fn()) {
        let ask = |Thread { handle, asked }: &Thread| {
            let asked = asked.clone();
            (!asked.swap(true, Ordering::AcqRel)).then(|| {
                handle.spawn(async move {
                    work();
                    asked.store(false, Ordering::Release);
                })
            })
        };
        let begun: Vec<_> = self.threads.iter().filter_map(ask).collect();
        for done in begun {
            let _ = done.await;
        }
    }

    /// Serves a connection that was accepted, as one of these tasks.
    pub fn serve<F: Future<Output = ()> + Send + 'static>(
        &self,
        tasks: &mut JoinSet<()>,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) {
        let taken_out = stream.into_std();
        let served = async {
            // On the thread that serves it.
            match taken_out.and_then(TcpStream::from_std) {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::debug!(%error, "a connection could not be given to its thread"),
            }
        };
        tasks.spawn_on(served, self.next());
    }

    /// Where the next connection is served: where there are fewest now.
    pub fn next(&self) -> &Handle {
        let handles = self.threads.iter().map(|thread| &thread.handle);
        let fewest = handles.min_by_key(|handle| handle.metrics().num_alive_tasks());
        fewest.unwrap_or_else(|| unreachable!("there is at least one"))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::atomic::AtomicU32, time::Duration};

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    /// Connections that stay, by their threads.
    async fn connect(threads: &Threads, connections: usize) -> (BTreeMap<String, usize>, Vec<oneshot::Receiver<()>>) {
        let (mut names, mut ends) = (BTreeMap::new(), Vec::new());
        for _ in 0..connections {
            let (named, hear) = oneshot::channel();
            let (held, end) = oneshot::channel();
            threads.next().spawn(async move {
                named.send(name()).unwrap();
                std::future::pending::<()>().await;
                drop(held);
            });
            *names.entry(timeout(LIMIT, hear).await.unwrap().unwrap()).or_default() += 1;
            ends.push(end);
        }
        (names, ends)
    }

    #[tokio::test]
    async fn connections_are_shared_out_and_end_with_their_threads() {
        let threads = Threads::start(3).unwrap();
        let (names, ends) = connect(&threads, 6).await;
        assert_eq!(names, (0..3).map(|number| (format!("connections-{number}"), 2)).collect());
        drop(threads);
        for end in ends {
            assert!(timeout(LIMIT, end).await.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn each_thread_has_its_turn_before_the_wait_ends() {
        static TURNS: AtomicU32 = AtomicU32::new(0);
        fn work() {
            let number: u32 = name().rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(8);
            TURNS.fetch_add(1 << number, Ordering::Relaxed);
        }
        timeout(LIMIT, Threads::start(3).unwrap().each(work)).await.unwrap();
        assert_eq!(TURNS.load(Ordering::Relaxed), 0b111);
    }

    #[tokio::test]
    async fn a_busy_thread_is_asked_once() {
        static TURNS: AtomicU32 = AtomicU32::new(0);
        let threads = Threads::start(2).unwrap();
        let (begun, (go, wait)) = (oneshot::channel(), mpsc::channel());
        threads.threads[0].handle.spawn(async move {
            begun.0.send(()).unwrap();
            wait.recv().unwrap();
        });
        timeout(LIMIT, begun.1).await.unwrap().unwrap();
        for _ in 0..3 {
            let each = threads.each(|| {
                TURNS.fetch_add(1, Ordering::Relaxed);
            });
            let _ = timeout(Duration::from_millis(1), each).await;
        }
        go.send(()).unwrap();
        timeout(LIMIT, threads.threads[0].handle.spawn(async {})).await.unwrap().unwrap();
        // The other one was perhaps busy with the first turn when the next came.
        assert!((2..=4).contains(&TURNS.load(Ordering::Relaxed)));
    }

    #[test]
    fn a_small_cache_has_one_thread_and_a_large_one_as_many_as_cores() {
        let cores = thread::available_parallelism().unwrap().get();
        let expected = |fits: usize| if cores == 1 { 0 } else { fits.min(cores) };
        let limits = [0, BYTES_A_THREAD, 2 * BYTES_A_THREAD - 1, 2 * BYTES_A_THREAD, u64::MAX];
        assert_eq!(limits.map(fitting), [1, 1, 1, 2, cores].map(expected));
    }

    #[tokio::test]
    async fn without_threads_the_one_that_is_there_serves() {
        let (names, _ends) = connect(&Threads::start(0).unwrap(), 2).await;
        assert_eq!(names, [(name(), 2)].into());
        let (names, _ends) = connect(&Threads::start(1).unwrap(), 2).await;
        assert_eq!(names, [("connections-0".to_owned(), 2)].into());
    }
}
