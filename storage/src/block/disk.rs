//! Blocks as files, `ab/<cid>` by the first byte of the digest, so that no folder grows too large.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use conun_types::{Cid, Result, wire::BlockError};

use super::{BlockStore, Durability, check};
use crate::durable;

/// Blocks in a folder.
#[derive(Debug)]
pub struct DiskBlocks {
    root: PathBuf,
}

impl DiskBlocks {
    /// Opens the folder, or creates it, and removes what a crash left half-written.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root)?;
        for folder in folders(root)? {
            durable::clean(&folder)?;
        }
        Ok(Self { root: root.to_owned() })
    }

    fn path(&self, cid: &Cid) -> PathBuf {
        self.root.join(format!("{:02x}", cid.digest()[0])).join(cid.to_string())
    }
}

fn folders(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            out.push(entry.path());
        }
    }
    Ok(out)
}

fn failed(error: io::Error) -> BlockError {
    match error.kind() {
        io::ErrorKind::NotFound => BlockError::NotFound,
        _ => BlockError::Node(error.to_string()),
    }
}

impl BlockStore for DiskBlocks {
    fn put(&self, cid: &Cid, bytes: &Bytes, durability: Durability) -> Result<(), BlockError> {
        check(cid, bytes)?;
        let path = self.path(cid);
        match durable::replace(&path, bytes, durability) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The first block of its folder.
                let folder = path.parent().unwrap_or(&self.root);
                fs::create_dir_all(folder).map_err(failed)?;
                durable::sync_folder(&self.root).map_err(failed)?;
                durable::replace(&path, bytes, durability)
            }
            other => other,
        }
        .map_err(failed)
    }

    fn get(&self, cid: &Cid) -> Result<Bytes, BlockError> {
        let bytes = Bytes::from(fs::read(self.path(cid)).map_err(failed)?);
        if check(cid, &bytes).is_ok() {
            return Ok(bytes);
        }
        tracing::warn!(%cid, "removed a damaged block");
        self.remove(cid)?;
        Err(BlockError::NotFound)
    }

    fn size(&self, cid: &Cid) -> Option<u64> {
        fs::metadata(self.path(cid)).ok().map(|meta| meta.len())
    }

    fn remove(&self, cid: &Cid) -> Result<(), BlockError> {
        match fs::remove_file(self.path(cid)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<(Cid, u64)>, BlockError> {
        let mut out = Vec::new();
        for folder in folders(&self.root).map_err(failed)? {
            for entry in fs::read_dir(folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                // Files with other names are not ours to touch.
                if let Ok(cid) = entry.file_name().to_string_lossy().parse() {
                    out.push((cid, entry.metadata().map_err(failed)?.len()));
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_blocks_are_missing_and_can_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskBlocks::open(dir.path()).unwrap();
        let bytes = Bytes::from_static(b"block");
        let cid = Cid::raw(&bytes);
        for damaged in [b"blocc".as_slice(), b"bloc", b""] {
            store.put(&cid, &bytes, Durability::Durable).unwrap();
            fs::write(store.path(&cid), damaged).unwrap();
            assert_eq!(store.get(&cid), Err(BlockError::NotFound));
            assert_eq!(store.size(&cid), None);
        }
    }

    #[test]
    fn blocks_survive_and_leftovers_go() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = Bytes::from_static(b"block");
        let cid = Cid::raw(&bytes);
        let store = DiskBlocks::open(dir.path()).unwrap();
        store.put(&cid, &bytes, Durability::Volatile).unwrap();
        let folder = store.path(&cid).parent().unwrap().to_owned();
        fs::write(folder.join(".tmp-1-1"), b"torn").unwrap();
        fs::write(folder.join("note.txt"), b"somebody's").unwrap();
        let store = DiskBlocks::open(dir.path()).unwrap();
        assert_eq!(store.list().unwrap(), [(cid, 5)]);
        assert_eq!(store.get(&cid).unwrap(), bytes);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
    }
}
