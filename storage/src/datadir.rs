//! A node's or coordinator's data folder: who uses it, for what, in which format.
//!
//! It knows the folder's mark (`conun.json`), its lock and its key; what else lies in it belongs to others.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use conun_types::{Error, NodeKey, Result, Rng};
use serde::{Deserialize, Serialize};

use crate::durable::{self, Durability};

/// Format of the folders that this build reads and writes.
const FORMAT: u32 = 1;
const MARK: &str = "conun.json";
const LOCK: &str = "LOCK";
const KEY: &str = "node.key";

/// An open data folder. Its lock is held until this is dropped, and by nobody after the process ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Mark {
    format: u32,
    kind: String,
}

impl DataDir {
    /// Opens the folder at `path`, or creates it, for a `kind` of user (`node` or `coordinator`).
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Usage`] where another process uses it, it is of another kind or format, or it is a
    /// folder with other things in it; [`conun_types::ErrorKind::Data`] where it cannot be written.
    pub fn open(path: &Path, kind: &str) -> Result<Self> {
        fs::create_dir_all(path).map_err(|e| unusable(path, &e))?;
        refuse_foreign(path)?;
        let lock = lock(path)?;
        check_or_write_mark(path, kind)?;
        durable::clean(path).map_err(|e| unusable(path, &e))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder inside it, created where it is missing.
    ///
    /// # Errors
    /// As [`DataDir::open`], where it cannot be written.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(|e| unusable(&path, &e))?;
        Ok(path)
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> Error {
    Error::data(format!("cannot use data folder {}: {error}", path.display()))
        .with_hint("choose a folder that you may write to with --dir")
}

/// A folder without our mark must be empty (or hold our lock only: another process is just creating it).
fn refuse_foreign(path: &Path) -> Result<()> {
    if path.join(MARK).exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(|e| unusable(path, &e))? {
        let name = entry.map_err(|e| unusable(path, &e))?.file_name();
        let name = name.to_string_lossy();
        if name != LOCK && !name.starts_with(".tmp-") {
            return Err(Error::usage(format!("{} is not a Conun data folder: it holds '{name}'", path.display()))
                .with_hint("name an empty or a new folder with --dir"));
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let name = path.join(LOCK);
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
    let mut file = options.open(&name).map_err(|e| unusable(path, &e))?;
    match file.try_lock() {
        Ok(()) => note_pid(&mut file).map_err(|e| unusable(path, &e))?,
        Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut file)),
        Err(TryLockError::Error(error)) => return Err(unusable(path, &error)),
    }
    Ok(file)
}

fn note_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    write!(file, "{}", std::process::id())
}

fn in_use(path: &Path, file: &mut File) -> Error {
    let mut pid = String::new();
    let by = match file.take(20).read_to_string(&mut pid) {
        Ok(_) if !pid.is_empty() => format!(" (pid {pid})"),
        _ => String::new(),
    };
    Error::usage(format!("data folder {} is in use by another process{by}", path.display()))
        .with_hint("stop that process, or choose another folder with --dir")
}

fn check_or_write_mark(path: &Path, kind: &str) -> Result<()> {
    let name = path.join(MARK);
    if !name.exists() {
        let mark = serde_json::json!({ "format": FORMAT, "kind": kind }).to_string();
        return durable::replace(&name, mark.as_bytes(), Durability::Durable).map_err(|e| unusable(path, &e));
    }
    let text = fs::read(&name).map_err(|e| unusable(path, &e))?;
    let mark: Mark =
        serde_json::from_slice(&text).map_err(|e| Error::usage(format!("{} is damaged: {e}", name.display())))?;
    if mark.format != FORMAT {
        return Err(Error::usage(format!(
            "data folder {} has format {}, this build reads format {FORMAT}",
            path.display(),
            mark.format
        ))
        .with_hint("use the version of conun that wrote it, or another folder with --dir"));
    }
    if mark.kind != kind {
        return Err(Error::usage(format!(
            "data folder {} belongs to a {}, not to a {kind}",
            path.display(),
            mark.kind
        ))
        .with_hint("name another folder with --dir"));
    }
    Ok(())
}

/// The folder's secret key, created from `rng` where there is none.
///
/// # Errors
/// [`conun_types::ErrorKind::Data`] where the key file is damaged or unreadable; it is never overwritten.
pub fn load_or_create_key(dir: &DataDir, rng: &dyn Rng) -> Result<NodeKey> {
    let path = dir.path().join(KEY);
    if path.exists() {
        return load_key(&path);
    }
    let key = NodeKey::generate(rng);
    let text: String = key.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    durable::replace_secret(&path, text.as_bytes()).map_err(|e| unusable(dir.path(), &e))?;
    Ok(key)
}

/// The key of the data folder at `dir`, which may be in use by its process.
///
/// # Errors
/// [`conun_types::ErrorKind::Data`] where there is none, or it is damaged.
pub fn read_key(dir: &Path) -> Result<NodeKey> {
    load_key(&dir.join(KEY))
}

fn load_key(path: &Path) -> Result<NodeKey> {
    let damaged = || {
        Error::data(format!("key file {} is damaged", path.display()))
            .with_hint("restore it from a copy; without it this folder's identity is lost")
    };
    let text = fs::read(path).map_err(|e| Error::from(e).context(path.display()))?;
    let bytes = parse_hex(text.trim_ascii()).ok_or_else(damaged)?;
    NodeKey::from_bytes(&bytes).map_err(|_| damaged())
}

fn parse_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|d| d as u8);
    text.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SeededRng;

    fn refused(path: &Path, kind: &str) -> Error {
        let error = DataDir::open(path, kind).expect_err("refused");
        assert!(error.hint.is_some() && error.message.contains(&path.display().to_string()), "{error}");
        error
    }

    #[test]
    fn opens_locks_and_opens_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/node");
        let dir = DataDir::open(&path, "node").unwrap();
        let error = refused(&path, "node");
        assert!(error.message.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(dir);
        DataDir::open(&path, "node").unwrap();
        assert!(refused(&path, "coordinator").message.contains("belongs to a node"));
    }

    #[test]
    fn refuses_other_formats_foreign_folders_and_files() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.txt"), "precious").unwrap();
        assert!(refused(root.path(), "node").message.contains("thesis.txt"));
        assert!(!root.path().join(LOCK).exists(), "a foreign folder stays untouched");

        let newer = root.path().join("newer");
        fs::create_dir(&newer).unwrap();
        fs::write(newer.join(MARK), r#"{"format":2,"kind":"node"}"#).unwrap();
        assert!(refused(&newer, "node").message.contains("format 2"));
        fs::write(newer.join(MARK), "{").unwrap();
        assert!(DataDir::open(&newer, "node").is_err(), "damaged mark");
        refused(&root.path().join("thesis.txt"), "node");
    }

    #[test]
    fn keys_are_kept_and_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&root.path().join("d"), "node").unwrap();
        let key = load_or_create_key(&dir, &SeededRng::new(1)).unwrap();
        assert_eq!(load_or_create_key(&dir, &SeededRng::new(2)).unwrap().id(), key.id());
        for damaged in ["", "zz", "00", "abc"] {
            fs::write(dir.path().join(KEY), damaged).unwrap();
            assert!(load_or_create_key(&dir, &SeededRng::new(2)).is_err());
            assert_eq!(fs::read_to_string(dir.path().join(KEY)).unwrap(), damaged);
        }
    }
}
