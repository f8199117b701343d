//! Files that are whole or not there: written beside, put on disk, and renamed. These calls block.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

fn unfinished(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.new"))
}

/// Writes a file in place of the one that is there, which stays if anything goes wrong.
pub fn replace<T>(folder: &Path, name: &str, write: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let beside = unfinished(folder, name);
    let result = (|| {
        let mut file = File::create(&beside)?;
        let result = write(&mut file)?;
        file.sync_all()?;
        fs::rename(&beside, folder.join(name))?;
        sync(folder)?;
        Ok(result)
    })();
    if result.is_err() {
        // On a full disk its blocks are needed.
        let _ = fs::remove_file(&beside);
    }
    result
}

/// Gives a file another name, in place of an earlier one that was set aside. Returns where it is now.
pub fn set_aside(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let aside = folder.join(format!("{name}.unreadable"));
    fs::rename(folder.join(name), &aside)?;
    sync(folder)?;
    Ok(aside)
}

/// Removes a file and what was begun of it.
pub fn remove(folder: &Path, name: &str) -> io::Result<()> {
    for path in [unfinished(folder, name), folder.join(name)] {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    sync(folder)
}

/// Removes what was begun and never finished.
pub fn remove_unfinished(folder: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(unfinished(folder, name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Names are on disk only when their folder is.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
