//! The coordinator's tables on its own disk: one file a table, replaced in one step. What is lost here comes back from
//! the nodes ([`super::Tables::recover`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use conun_types::{Cid, Error, Result, codec, wire::Pointer};
use serde::{Deserialize, Serialize};

use super::{Table, name};
use crate::durable::{self, Durability};

const SUFFIX: &str = "table";
const PINS: &str = "pins.json";

/// A table, or the mark that it was removed (so that its next version is not an old one).
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) pointer: Pointer,
    pub(super) table: Option<Arc<Table>>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    pointer: Pointer,
    /// Empty for a removed table.
    #[serde(with = "serde_bytes")]
    manifest: Vec<u8>,
}

/// All tables that this coordinator knows.
#[derive(Debug)]
pub(super) struct Catalog {
    dir: PathBuf,
    entries: RwLock<BTreeMap<String, Entry>>,
    pins: RwLock<BTreeSet<Cid>>,
}

impl Catalog {
    /// Opens the folder, or creates it. A damaged file is set aside: its table can come back from the nodes.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        durable::clean(dir)?;
        let mut entries = BTreeMap::new();
        for file in fs::read_dir(dir)? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != SUFFIX) {
                continue;
            }
            match load(&path) {
                Ok(entry) => {
                    entries.insert(entry.pointer.table.clone(), entry);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "set a damaged table file aside");
                    fs::rename(&path, path.with_extension("damaged"))?;
                }
            }
        }
        let pins = load_pins(&dir.join(PINS))?;
        Ok(Self { dir: dir.to_owned(), entries: RwLock::new(entries), pins: RwLock::new(pins) })
    }

    fn entries(&self) -> RwLockReadGuard<'_, BTreeMap<String, Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &str) -> Option<Entry> {
        self.entries().get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<Entry> {
        self.entries().values().cloned().collect()
    }

    pub(super) fn tables(&self) -> Vec<Arc<Table>> {
        self.entries().values().filter_map(|entry| entry.table.clone()).collect()
    }

    pub(super) fn table(&self, name: &str) -> Result<Arc<Table>> {
        let entries = self.entries();
        let lowered = name.to_ascii_lowercase();
        let found = entries.get(&lowered).and_then(|entry| entry.table.clone());
        let live = entries.iter().filter(|(_, entry)| entry.table.is_some()).map(|(name, _)| name.as_str());
        found.ok_or_else(|| name::unknown(&lowered, live))
    }

    /// Makes an entry the table's newest state, on disk first.
    pub(super) fn save(&self, entry: Entry) -> Result<()> {
        let manifest = entry.table.as_ref().map(|t| t.manifest.encode()).transpose()?.map_or(Vec::new(), |(b, _)| b);
        let record = codec::encode(&Record { pointer: entry.pointer.clone(), manifest })?;
        let path = self.dir.join(format!("{}.{SUFFIX}", entry.pointer.table));
        durable::replace(&path, &record, Durability::Durable).map_err(|e| Error::from(e).context(path.display()))?;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(entry.pointer.table.clone(), entry);
        Ok(())
    }

    pub(super) fn pins(&self) -> Vec<Cid> {
        self.pins.read().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Adds or removes a pin; false where that changed nothing.
    pub(super) fn set_pin(&self, cid: Cid, pinned: bool) -> Result<bool> {
        let mut pins = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = pins.clone();
        let news = if pinned { changed.insert(cid) } else { changed.remove(&cid) };
        if news {
            let text = serde_json::to_vec(&changed).map_err(|e| Error::internal(e.to_string()))?;
            durable::replace(&self.dir.join(PINS), &text, Durability::Durable)?;
            *pins = changed;
        }
        Ok(news)
    }
}

fn load(path: &Path) -> Result<Entry> {
    let record: Record = codec::decode(&fs::read(path)?)?;
    record.pointer.check()?;
    let table = match record.pointer.manifest {
        None => None,
        Some(cid) => Some(Arc::new(Table::decode(&record.pointer, cid, &record.manifest)?)),
    };
    Ok(Entry { pointer: record.pointer, table })
}

fn load_pins(path: &Path) -> Result<BTreeSet<Cid>> {
    if !path.exists() {
        return Ok(BTreeSet::new());
    }
    serde_json::from_slice(&fs::read(path)?).map_err(|e| Error::data(format!("{}: {e}", path.display())))
}
