//! The file behind an embedded chain: blocks, one after the other, each with checksums, each on the disk before anybody
//! hears of it. Writers hold an exclusive lock, readers a shared one, so that processes follow each other's blocks.
//!
//! ```text
//! file   = MAGIC record*
//! record = head body sum         head = length(4) check(4)       check = keccak256("head" || offset(8) || length)[..4]
//! body   = timestamp(8) block hash(32) raw transaction or nothing
//! sum    = keccak256(head || body)[..16]
//! ```
//!
//! A record that the end of the file cuts short is what a crash leaves behind: nobody was told of it, so that the next
//! writer cuts it off. Anything else that does not fit is damage, and an error.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use alloy::primitives::{B256, Bytes, keccak256};
use conun_types::error::{Error, Result};
use rustix::fs::{FlockOperation, flock};

/// First bytes of the file; another format would have another number.
const MAGIC: &[u8; 16] = b"conun chain v1\n\0";
const HEAD: usize = 8;
const SUM: usize = 16;
/// Time and hash of a block.
const FIXED: usize = 40;
/// Largest transaction taken: eight times what nodes of Ethereum relay, about what a block's gas can pay for.
pub(super) const MAX_TX: usize = 1 << 20;

/// A block as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Unix seconds.
    pub(super) timestamp: u64,
    /// What executing it gave: a replay that gives something else is refused.
    pub(super) hash: B256,
    /// The block's one transaction, as it was signed; the first block and warps have none.
    pub(super) tx: Bytes,
}

/// What stands at an offset.
enum Next {
    Entry(Entry, u64),
    End,
    /// A record that a crash cut short.
    Torn,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    path: PathBuf,
    /// Where the next record that was not read yet begins.
    at: u64,
}

/// Holds the file's lock until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would do so too, but the handle is a duplicate: the lock belongs to all of them.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Log {
    /// Opens the file in `folder`, which is made where it is missing.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::from(e).context(folder.display()))?;
        let path = folder.join("chain.log");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| Error::from(e).context(path.display()))?;
        // A file whose name is not on the disk is lost with all blocks in it.
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::from(e).context(folder.display()))?;
        Ok(Self { file, path, at: MAGIC.len() as u64 })
    }

    /// Keeps writers out, or everybody else. It may wait for another process.
    pub(super) fn lock(&self, exclusive: bool) -> Result<Lock> {
        let file = self.file.try_clone().map_err(|e| self.failed(e))?;
        let how = if exclusive { FlockOperation::LockExclusive } else { FlockOperation::LockShared };
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(Lock(file)),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(self.failed(error.into())),
            }
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::from(error).context(self.path.display())
    }

    fn damaged(&self, what: &str) -> Error {
        Error::data(format!("{} is damaged at byte {}: {what}", self.path.display(), self.at))
            .with_hint("restore it from a copy, or start another chain in an empty folder")
    }

    fn len(&self) -> Result<u64> {
        self.file.metadata().map(|m| m.len()).map_err(|e| self.failed(e))
    }

    /// The next block that was not read yet. To be called under a lock.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        match self.peek()? {
            Next::Entry(entry, end) => {
                self.at = end;
                Ok(Some(entry))
            }
            Next::End | Next::Torn => Ok(None),
        }
    }

    fn peek(&self) -> Result<Next> {
        let len = self.len()?;
        if len < MAGIC.len() as u64 {
            return if self.at == MAGIC.len() as u64 { Ok(Next::Torn) } else { Err(self.damaged("it was cut")) };
        }
        if self.at == MAGIC.len() as u64 && &self.read::<{ MAGIC.len() }>(0)? != MAGIC {
            return Err(Error::data(format!("{} is no chain of conun's", self.path.display())));
        }
        match len.checked_sub(self.at) {
            None => Err(self.damaged("it was cut")),
            Some(0) => Ok(Next::End),
            Some(left) => self.record(left),
        }
    }

    fn record(&self, left: u64) -> Result<Next> {
        if left < HEAD as u64 {
            return Ok(Next::Torn);
        }
        let head = self.read::<HEAD>(self.at)?;
        let [a, b, c, d, check @ ..] = head;
        let length = u32::from_be_bytes([a, b, c, d]);
        if check != head_check(self.at, length) {
            // A file system may have grown the file without having written what is in it.
            let torn = head == [0; HEAD] && self.only_zeros(left)?;
            return if torn { Ok(Next::Torn) } else { Err(self.damaged("a record's head")) };
        }
        if !(FIXED..=FIXED + MAX_TX).contains(&(length as usize)) {
            return Err(self.damaged("a record's length"));
        }
        let whole = (HEAD + length as usize + SUM) as u64;
        if left < whole {
            return Ok(Next::Torn);
        }
        let mut bytes = vec![0; whole as usize];
        self.file.read_exact_at(&mut bytes, self.at).map_err(|e| self.failed(e))?;
        match entry_of(&bytes) {
            Some(entry) => Ok(Next::Entry(entry, self.at + whole)),
            None if left == whole => Ok(Next::Torn),
            None => Err(self.damaged("a record's checksum")),
        }
    }

    fn read<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, at).map_err(|e| self.failed(e))?;
        Ok(bytes)
    }

    /// Whether nothing but zeros is left, of what one record may have.
    fn only_zeros(&self, left: u64) -> Result<bool> {
        if left > (HEAD + FIXED + MAX_TX + SUM) as u64 {
            return Ok(false);
        }
        let mut bytes = vec![0; left as usize];
        self.file.read_exact_at(&mut bytes, self.at).map_err(|e| self.failed(e))?;
        Ok(bytes.iter().all(|b| *b == 0))
    }

    /// Writes a block after all that were read. To be called under the exclusive lock, when nothing is left to read.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<()> {
        let bytes = bytes_of(self.at, entry);
        let written = self.write(&bytes);
        if written.is_err() {
            // Nobody is told of the block; should this fail, too, the next writer cuts it off.
            let _ = self.file.set_len(self.at);
        }
        written.map_err(|e| self.failed(e))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if self.at == MAGIC.len() as u64 {
            self.file.write_all_at(MAGIC, 0)?;
        }
        // What a crash left behind.
        self.file.set_len(self.at)?;
        self.file.write_all_at(bytes, self.at)?;
        self.file.sync_data()
    }
}

fn head_check(at: u64, length: u32) -> [u8; 4] {
    let hash = keccak256([b"head".as_slice(), &at.to_be_bytes(), &length.to_be_bytes()].concat());
    [hash[0], hash[1], hash[2], hash[3]]
}

fn bytes_of(at: u64, entry: &Entry) -> Vec<u8> {
    let length = (FIXED + entry.tx.len()) as u32;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&head_check(at, length));
    bytes.extend_from_slice(&entry.timestamp.to_be_bytes());
    bytes.extend_from_slice(entry.hash.as_slice());
    bytes.extend_from_slice(&entry.tx);
    let sum = keccak256(&bytes);
    bytes.extend_from_slice(&sum[..SUM]);
    bytes
}

/// The block in a whole record, where its checksum fits.
fn entry_of(bytes: &[u8]) -> Option<Entry> {
    let (record, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
    if keccak256(record)[..SUM] != *sum {
        return None;
    }
    let (time, rest) = record.get(HEAD..)?.split_first_chunk::<8>()?;
    let (hash, tx) = rest.split_first_chunk::<32>()?;
    Some(Entry { timestamp: u64::from_be_bytes(*time), hash: B256::from(*hash), tx: Bytes::copy_from_slice(tx) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8) -> Entry {
        Entry { timestamp: u64::from(n), hash: B256::repeat_byte(n), tx: vec![n; usize::from(n)].into() }
    }

    fn written(n: u8) -> (tempfile::TempDir, Vec<u64>) {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        let ends = (0..n).map(|i| {
            log.append(&entry(i)).unwrap();
            log.at
        });
        let ends = ends.collect();
        (folder, ends)
    }

    fn read(folder: &Path) -> Result<Vec<Entry>> {
        let mut log = Log::open(folder)?;
        std::iter::from_fn(|| log.next().transpose()).collect()
    }

    #[test]
    fn a_tail_cut_anywhere_is_cut_off_and_written_over() {
        let (folder, ends) = written(3);
        let path = folder.path().join("chain.log");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() as u64 {
            std::fs::write(&path, &whole[..cut as usize]).unwrap();
            let left = ends.iter().filter(|end| **end <= cut).count() as u8;
            assert_eq!(read(folder.path()).unwrap(), (0..left).map(entry).collect::<Vec<_>>(), "cut at {cut}");
            let mut log = Log::open(folder.path()).unwrap();
            while log.next().unwrap().is_some() {}
            log.append(&entry(9)).unwrap();
            assert_eq!(read(folder.path()).unwrap().last(), Some(&entry(9)), "cut at {cut}");
        }
    }

    #[test]
    fn a_changed_byte_is_damage_and_names_the_file() {
        let (folder, ends) = written(3);
        let path = folder.path().join("chain.log");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..ends[1] as usize {
            let mut changed = whole.clone();
            changed[at] ^= 0x40;
            std::fs::write(&path, &changed).unwrap();
            let error = read(folder.path()).unwrap_err();
            assert!(error.message.contains("chain.log"), "{at}: {error}");
        }
        let mut torn = whole.clone();
        torn.truncate(ends[1] as usize);
        torn.extend([0; 100]);
        std::fs::write(&path, &torn).unwrap();
        assert_eq!(read(folder.path()).unwrap().len(), 2, "a tail of zeros");
    }

    #[test]
    fn one_handle_follows_another() {
        let (folder, _) = written(1);
        let (mut one, mut other) = (Log::open(folder.path()).unwrap(), Log::open(folder.path()).unwrap());
        for log in [&mut one, &mut other] {
            assert_eq!(log.next().unwrap(), Some(entry(0)));
        }
        one.append(&entry(1)).unwrap();
        assert_eq!(other.next().unwrap(), Some(entry(1)));
        assert_eq!(other.next().unwrap(), None);
    }
}
