//! What the user sees while something takes long, and waits that end.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Time between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(100);

/// Does one named step and prints how long it took.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    eprintln!("→ {name}");
    let done = work()?;
    let took = start.elapsed();
    if took >= Duration::from_secs(1) {
        eprintln!("  {name}: {:.1} s", took.as_secs_f64());
    }
    Ok(done)
}

/// Looks until `look` answers something.
///
/// # Errors
/// When `look` fails, or when nothing came in `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() > limit {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}
