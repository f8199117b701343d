//! Mounts that containers and volumes leave below the state folder.

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use std::fs;
use std::path::{Path, PathBuf};

/// The mount points below `root`, the latest first.
pub fn below(root: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_points(&table).filter(|point| point.starts_with(root)).collect()
}

/// Unmounts everything below `root`.
pub fn remove_below(root: &Path) -> Result<()> {
    for point in below(root) {
        umount2(&point, MntFlags::MNT_DETACH).with_context(|| format!("can't unmount {}", point.display()))?;
    }
    Ok(())
}

/// The mount points of `/proc/self/mountinfo`, proc(5): the fifth field, the latest mount's first.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    let points = table.lines().rev().filter_map(|line| line.split(' ').nth(4));
    // Spaces are written as octal escapes; the others can't be in our paths.
    points.map(|point| point.replace("\\040", " ").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_come_latest_first_and_unescaped() {
        let table = "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /a\\040b rw,nosuid - tmpfs tmpfs rw\n";
        assert_eq!(mount_points(table).collect::<Vec<_>>(), [PathBuf::from("/a b"), PathBuf::from("/")]);
    }
}
