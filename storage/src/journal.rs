//! An append-only log of records that survives `kill -9`: a torn or damaged tail is cut off, what precedes it counts.
//!
//! Record: length (4 bytes, little endian), the first 8 bytes of the payload's BLAKE3, payload (DAG-CBOR).

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    marker::PhantomData,
    path::{Path, PathBuf},
};

use conun_types::{Error, Result, codec};
use serde::{Serialize, de::DeserializeOwned};

use crate::durable::{self, Durability};

const HEAD: usize = 12;
/// Largest payload; a longer length in a file is damage.
const MAX_RECORD: usize = 16 << 20;

/// A log of `T`.
#[derive(Debug)]
pub struct Journal<T> {
    path: PathBuf,
    file: File,
    records: usize,
    end: u64,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens the log at `path`, or creates it, and returns its records in order.
    ///
    /// # Errors
    /// Those of the file system. Damage is no error: the log ends before it.
    pub fn open(path: &Path) -> Result<(Self, Vec<T>)> {
        let context = |e: io::Error| Error::from(e).context(path.display());
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(context(error)),
        };
        let (records, end) = parse(&bytes);
        if end < bytes.len() {
            tracing::warn!(path = %path.display(), lost = bytes.len() - end, "cut the damaged tail of a journal");
        }
        let file = open_at(path, end as u64).map_err(context)?;
        let count = records.len();
        Ok((Self { path: path.to_owned(), file, records: count, end: end as u64, of: PhantomData }, records))
    }

    /// Number of records in the file: when it far exceeds the live ones, [`Journal::rewrite`] it.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    /// Adds a record.
    ///
    /// # Errors
    /// Those of the file system; the log is then as before.
    pub fn append(&mut self, record: &T, durability: Durability) -> Result<()> {
        let bytes = frame(record)?;
        let written = self.file.write_all(&bytes).and_then(|()| match durability {
            Durability::Durable => self.file.sync_data(),
            Durability::Volatile => Ok(()),
        });
        if let Err(error) = written {
            // Half a record must not precede the next one.
            self.file.set_len(self.end)?;
            self.file.seek(SeekFrom::Start(self.end))?;
            return Err(Error::from(error).context(self.path.display()));
        }
        self.end += bytes.len() as u64;
        self.records += 1;
        Ok(())
    }

    /// Replaces the whole log by `records`, in one step.
    ///
    /// # Errors
    /// Those of the file system; the log is then as before.
    pub fn rewrite(&mut self, records: &[T]) -> Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(&frame(record)?);
        }
        durable::replace(&self.path, &bytes, Durability::Durable)?;
        self.end = bytes.len() as u64;
        self.file = open_at(&self.path, self.end)?;
        self.records = records.len();
        Ok(())
    }
}

/// The records of the log at `path`, up to the first damage; the file, which another process may be writing, stays as it
/// is.
///
/// # Errors
/// Those of the file system.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let bytes = std::fs::read(path).map_err(|e| Error::from(e).context(path.display()))?;
    Ok(parse(&bytes).0)
}

fn open_at(path: &Path, end: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    Ok(file)
}

fn frame<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    let payload = codec::encode(record)?;
    if payload.len() > MAX_RECORD {
        return Err(Error::internal(format!("journal record of {} bytes", payload.len())));
    }
    let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&blake3::hash(&payload).as_bytes()[..8]);
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// The records up to the first damage, and where it begins.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> (Vec<T>, usize) {
    let (mut records, mut end) = (Vec::new(), 0);
    while let Some((record, len)) = parse_one(&bytes[end..]) {
        records.push(record);
        end += len;
    }
    (records, end)
}

fn parse_one<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, usize)> {
    let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let payload = bytes.get(HEAD..HEAD.checked_add(len).filter(|_| len <= MAX_RECORD)?)?;
    if blake3::hash(payload).as_bytes()[..8] != bytes[4..HEAD] {
        return None;
    }
    Some((codec::decode(payload).ok()?, HEAD + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reopen(path: &Path) -> Vec<String> {
        Journal::<String>::open(path).unwrap().1
    }

    #[test]
    fn records_survive_and_rewriting_replaces_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut journal, empty) = Journal::<String>::open(&path).unwrap();
        assert!(empty.is_empty());
        for record in ["a", "b", "c"] {
            journal.append(&record.to_owned(), Durability::Durable).unwrap();
        }
        assert_eq!(reopen(&path), ["a", "b", "c"]);
        journal.rewrite(&["d".to_owned()]).unwrap();
        journal.append(&"e".to_owned(), Durability::Volatile).unwrap();
        assert_eq!((journal.records(), reopen(&path)), (2, vec!["d".to_owned(), "e".to_owned()]));
    }

    #[test]
    fn any_torn_or_damaged_tail_is_cut_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut journal, _) = Journal::<String>::open(&path).unwrap();
        for record in ["first", "second"] {
            journal.append(&record.to_owned(), Durability::Durable).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        let first = parse_one::<String>(&whole).unwrap().1;
        for cut in first..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(reopen(&path), ["first"], "cut at {cut}");
            let mut damaged = whole.clone();
            damaged[cut] ^= 0x55;
            std::fs::write(&path, &damaged).unwrap();
            let (mut journal, records) = Journal::<String>::open(&path).unwrap();
            assert_eq!(records, ["first"], "damaged at {cut}");
            journal.append(&"third".to_owned(), Durability::Durable).unwrap();
            assert_eq!(reopen(&path), ["first", "third"]);
        }
    }
}
