//! The newest pointer of each table that a node was told of. Pure state.

use std::collections::{BTreeMap, btree_map::Entry};

use conun_types::{Error, NodeId, Result, wire::Pointer};

/// Most owners whose pointers a node keeps.
const MAX_OWNERS: usize = 4096;

/// Pointers by owner and table.
#[derive(Debug, Default)]
pub struct PointerBook(BTreeMap<NodeId, BTreeMap<String, Pointer>>);

impl PointerBook {
    /// Takes a pointer whose signature was checked ([`Pointer::check`]); true where it is news.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Data`] where its owner signed two different pointers of one version, or has
    /// `per_owner` tables already.
    pub fn take(&mut self, pointer: Pointer, per_owner: usize) -> Result<bool> {
        let owners = self.0.len();
        let tables = match self.0.entry(pointer.owner) {
            Entry::Vacant(_) if owners >= MAX_OWNERS => return Err(Error::data("too many owners of tables here")),
            entry => entry.or_default(),
        };
        let count = tables.len();
        match tables.entry(pointer.table.clone()) {
            Entry::Vacant(_) if count >= per_owner => Err(Error::data("too many tables of this owner here")),
            Entry::Vacant(entry) => {
                entry.insert(pointer);
                Ok(true)
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get();
                if known.version == pointer.version && known.manifest != pointer.manifest {
                    return Err(Error::data(format!("two pointers of version {}", pointer.version)));
                }
                let news = pointer.version > known.version;
                if news {
                    entry.insert(pointer);
                }
                Ok(news)
            }
        }
    }

    /// All of them, by owner and table.
    pub fn iter(&self) -> impl Iterator<Item = &Pointer> {
        self.0.values().flat_map(BTreeMap::values)
    }
}

#[cfg(test)]
mod tests {
    use conun_types::Cid;

    use super::*;
    use crate::testing::key;

    fn pointer(owner: u64, table: &str, version: u64, manifest: u8) -> Pointer {
        Pointer::sign(&key(owner), table, version, Some(Cid::raw(&[manifest])))
    }

    #[test]
    fn the_newest_version_stays_and_a_double_is_refused() {
        let mut book = PointerBook::default();
        assert!(book.take(pointer(1, "t", 2, 2), 2).unwrap());
        assert!(!book.take(pointer(1, "t", 1, 1), 2).unwrap(), "older");
        assert!(!book.take(pointer(1, "t", 2, 2), 2).unwrap(), "known");
        assert!(book.take(pointer(1, "t", 2, 9), 2).is_err(), "equivocation");
        assert!(book.take(Pointer::sign(&key(1), "t", 3, None), 2).unwrap(), "tombstone");
        assert!(book.take(pointer(1, "u", 1, 1), 2).unwrap());
        assert!(book.take(pointer(1, "v", 1, 1), 2).is_err(), "too many");
        assert!(book.take(pointer(2, "t", 1, 1), 2).unwrap(), "another owner has its own");
        let versions: Vec<_> = book.iter().map(|p| p.version).collect();
        assert_eq!(versions.iter().sum::<u64>(), 3 + 1 + 1);
    }
}
