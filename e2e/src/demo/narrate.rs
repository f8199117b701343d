//! What the demo prints.

use anyhow::{Context, Result};
use std::time::Instant;

/// Tells the steps of a show, numbered and timed.
#[derive(Debug)]
pub struct Narrator {
    start: Instant,
    step: usize,
    steps: usize,
}

impl Narrator {
    /// For a show of this many steps.
    pub fn new(steps: usize) -> Self {
        Self { start: Instant::now(), step: 0, steps }
    }

    /// Does a step and says how long it took. When it fails, the error says what to do.
    pub async fn step<T>(&mut self, what: &str, way_out: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.step += 1;
        println!("\n[{}/{}] {what}", self.step, self.steps);
        let start = Instant::now();
        let done = work.await.with_context(|| format!("step {} failed: {what}\n{way_out}", self.step))?;
        println!("      {:.1} s", start.elapsed().as_secs_f64());
        Ok(done)
    }

    /// How long it has taken up to now, in seconds.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

/// Prints what a step found.
pub fn say(text: impl std::fmt::Display) {
    for line in text.to_string().lines() {
        println!("      {line}");
    }
}
