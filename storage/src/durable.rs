//! Files that survive a crash: a reader sees the old bytes or the new ones, never a mixture.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Head of the names of files that are being written; what a crash leaves behind is removed by [`clean`].
const TMP_PREFIX: &str = ".tmp-";

/// How hard a write is made to stick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives power loss: the file and its folder are synced.
    Durable,
    /// Survives a killed process, not power loss: for what can be made again.
    Volatile,
}

/// Writes `bytes` to `path` in one step: temporary file, sync, rename, sync of the folder.
///
/// # Errors
/// Those of the file system; `path` is then unchanged.
pub fn replace(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    replace_with(path, bytes, durability, OpenOptions::new().write(true).create_new(true))
}

/// As [`replace`], readable by the owner only: for keys.
///
/// # Errors
/// As [`replace`].
pub fn replace_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    replace_with(path, bytes, Durability::Durable, &options)
}

fn replace_with(path: &Path, bytes: &[u8], durability: Durability, options: &OpenOptions) -> io::Result<()> {
    let folder = folder_of(path);
    let tmp = tmp_name(folder);
    let written = write_new(&tmp, bytes, durability, options).and_then(|()| fs::rename(&tmp, path));
    if let Err(error) = written {
        // The write failed already; a leftover is removed at the next start.
        let _ = fs::remove_file(&tmp);
        return Err(error);
    }
    match durability {
        Durability::Durable => sync_folder(folder),
        Durability::Volatile => Ok(()),
    }
}

fn write_new(tmp: &Path, bytes: &[u8], durability: Durability, options: &OpenOptions) -> io::Result<()> {
    let mut file = options.open(tmp)?;
    file.write_all(bytes)?;
    match durability {
        Durability::Durable => file.sync_all(),
        Durability::Volatile => Ok(()),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name that no other thread or process uses: a data folder has one process at a time, but its pid may come again.
fn tmp_name(folder: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    folder.join(format!("{TMP_PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Makes creations, renames and removals in `folder` survive power loss.
///
/// # Errors
/// Those of the file system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes what unfinished writes left in `folder`; returns how many files.
///
/// # Errors
/// Those of the file system.
pub fn clean(folder: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TMP_PREFIX) {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_in_one_step_and_cleans_leftovers() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a");
        for (bytes, durability) in [(b"old".as_slice(), Durability::Durable), (b"new", Durability::Volatile)] {
            replace(&path, bytes, durability)?;
            assert_eq!(fs::read(&path)?, bytes);
        }
        fs::write(dir.path().join(".tmp-1-1"), b"torn")?;
        assert_eq!(clean(dir.path())?, 1);
        assert_eq!(fs::read_dir(dir.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(replace(&dir.path().join("missing/a"), b"x", Durability::Durable).is_err());
        fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(replace(&dir.path().join("taken"), b"x", Durability::Durable).is_err(), "a folder is in the way");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn secrets_are_the_owners_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        replace_secret(&path, b"x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
