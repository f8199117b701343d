//! The zone that a file names, which may be written only after the process has started (rule O13).

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::time::sleep;

/// What the file says of a machine without a zone: no zone has this name in Kubernetes.
pub const NONE: &str = "-";
/// How long a member waits for its zone before it joins without one.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until the file says something, at most `limit`. Empty: there is no zone, or nobody told in time.
pub async fn read(file: &Path, limit: Duration) -> String {
    let began = Instant::now();
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        match text.trim() {
            "" if began.elapsed() < limit => {}
            "" => {
                tracing::warn!(
                    file = %file.display(),
                    "nobody told the zone within {} s: copies are placed as if this member were a zone of its own",
                    limit.as_secs()
                );
                return String::new();
            }
            NONE => return String::new(),
            zone => return zone.to_owned(),
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_read_once_it_is_there_and_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("zone");
        assert_eq!(read(&file, Duration::ZERO).await, "");
        let waits = tokio::spawn({
            let file = file.clone();
            async move { read(&file, TIMEOUT).await }
        });
        sleep(LOOK_EVERY * 3).await;
        std::fs::write(&file, "").unwrap();
        sleep(LOOK_EVERY * 3).await;
        assert!(!waits.is_finished());
        std::fs::write(&file, "zone-a\n").unwrap();
        assert_eq!(waits.await.unwrap(), "zone-a");
        std::fs::write(&file, NONE).unwrap();
        assert_eq!(read(&file, TIMEOUT).await, "");
    }
}
