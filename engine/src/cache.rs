//! Answers that need not be computed again: by profile, plan and inputs, kept on this coordinator's disk.
//!
//! What it knows: blocks, their addresses, how well the job that made them was verified. What it must not know: nodes,
//! replicas, money. A requester trusts its own coordinator, so that an answer of the cache is worth what it was worth when
//! it was computed, and is given only to whoever asks for no more than that.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use conun_storage::{Durability, durable};
use conun_types::{Cid, Error, JobId, Result, codec, profile};
use serde::{Deserialize, Serialize};

use crate::{checking::Checking, job::Plan, record::Verify};

/// An answer larger than this share of the whole is not kept: it would push many others out.
const LARGEST_SHARE: u64 = 8;

/// What an answer is found by: a hash over profile and physical plan, which names shards by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PlanKey([u8; 32]);

impl PlanKey {
    /// Of `plan`; `None` where it has no encoding.
    pub(crate) fn of(plan: &Plan) -> Option<Self> {
        let bytes = conun_executor::encode_plan(&plan.physical).ok()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&profile::hash());
        hasher.update(&bytes);
        Some(Self(*hasher.finalize().as_bytes()))
    }

    fn file(self) -> String {
        format!("{}.answer", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// A verified answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The job that computed it.
    pub(crate) job: JobId,
    /// How it was verified.
    pub(crate) verify: Verify,
    /// The bound that was reached.
    pub(crate) error_bound: Option<f64>,
    /// Its canonical blocks, in order.
    pub(crate) blocks: Vec<Block>,
}

/// One block, with the address that it must have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Block {
    cid: Cid,
    bytes: Bytes,
}

impl Block {
    pub(crate) fn new(cid: Cid, bytes: Bytes) -> Self {
        Self { cid, bytes }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Answer {
    /// Whether it is worth what a job asks for.
    fn suffices(&self, checking: &Checking) -> bool {
        let bound = checking.max_error();
        self.verify >= checking.verify && bound.is_none_or(|most| self.error_bound.is_some_and(|error| error <= most))
    }

    fn is_whole(&self) -> bool {
        self.blocks.iter().all(|block| Cid::raw(&block.bytes) == block.cid)
    }
}

/// The cache.
pub(crate) struct Cache {
    dir: PathBuf,
    /// Bytes that all answers may take; nothing is kept where this is zero.
    most: u64,
    index: Mutex<HashMap<PathBuf, Kept>>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    /// Opens the cache in `dir`, for `most` bytes.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn open(dir: PathBuf, most: u64) -> Result<Self> {
        std::fs::create_dir_all(&dir).map_err(|e| Error::from(e).context(dir.display()))?;
        durable::clean(&dir)?;
        let mut index = HashMap::new();
        for file in std::fs::read_dir(&dir)? {
            let path = file?.path();
            let meta = std::fs::metadata(&path)?;
            index.insert(path, Kept { bytes: meta.len(), used: meta.modified()? });
        }
        let cache = Self { dir, most, index: Mutex::new(index) };
        cache.make_room(0);
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Kept>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The largest answer that is kept, in bytes.
    pub(crate) fn largest(&self) -> u64 {
        self.most / LARGEST_SHARE
    }

    /// The answer to `key`, if there is one that is worth what `checking` asks for.
    pub(crate) fn get(&self, key: PlanKey, checking: &Checking) -> Option<Answer> {
        let path = self.dir.join(key.file());
        self.lock().get_mut(&path)?.used = SystemTime::now();
        match read(&path) {
            Ok(answer) => Some(answer).filter(|answer| answer.suffices(checking)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a cached answer is unreadable and dropped");
                self.drop_file(&path);
                None
            }
        }
    }

    /// Keeps `answer`. What cannot be written is not kept: the next one computes it again.
    pub(crate) fn put(&self, key: PlanKey, answer: &Answer) {
        let path = self.dir.join(key.file());
        // One that was verified better stays.
        if read(&path).is_ok_and(|kept| kept.verify > answer.verify) {
            return;
        }
        let kept = codec::encode(answer).and_then(|bytes| {
            self.make_room(bytes.len() as u64);
            durable::replace(&path, &bytes, Durability::Volatile)?;
            Ok(bytes.len() as u64)
        });
        match kept {
            Ok(bytes) => _ = self.lock().insert(path, Kept { bytes, used: SystemTime::now() }),
            Err(error) => tracing::warn!(path = %path.display(), %error, "an answer is not cached"),
        }
    }

    /// Drops every answer of `job`.
    pub(crate) fn forget(&self, job: JobId) {
        let paths: Vec<PathBuf> = self.lock().keys().cloned().collect();
        let of_job = |path: &&PathBuf| read(path).is_ok_and(|answer| answer.job == job);
        paths.iter().filter(of_job).for_each(|path| self.drop_file(path));
    }

    /// Drops what was not used for the longest, until `bytes` more fit.
    fn make_room(&self, bytes: u64) {
        let mut index = self.lock();
        let mut sum: u64 = index.values().map(|kept| kept.bytes).sum();
        while sum + bytes > self.most
            && let Some((path, kept)) = index.iter().min_by_key(|(_, kept)| kept.used).map(|(p, k)| (p.clone(), *k))
        {
            sum -= kept.bytes;
            index.remove(&path);
            // What is gone already needs no removal.
            let _ = std::fs::remove_file(&path);
        }
    }

    fn drop_file(&self, path: &Path) {
        self.lock().remove(path);
        let _ = std::fs::remove_file(path);
    }
}

fn read(path: &Path) -> Result<Answer> {
    let answer: Answer = codec::decode(&std::fs::read(path)?)?;
    if answer.is_whole() { Ok(answer) } else { Err(Error::data("its bytes changed")) }
}

#[cfg(test)]
mod tests {
    use conun_trust::{Demand, Forecast, Need};

    use super::*;

    fn checking(verify: Verify, max_error: Option<f64>) -> Checking {
        let need = Need { votes: 2, max_error: max_error.unwrap_or(1.0) };
        let forecast = Forecast { replicas: 2.0, bound: 0.012, reached: true };
        Checking { verify, demand: Demand::Compare(need), forecast }
    }

    fn answer(job: u8, verify: Verify, len: usize) -> Answer {
        let bytes = Bytes::from(vec![job; len]);
        let blocks = vec![Block::new(Cid::raw(&bytes), bytes)];
        Answer { job: JobId([job; 16]), verify, error_bound: Some(0.012), blocks }
    }

    #[test]
    fn an_answer_is_given_to_whoever_asks_for_no_more() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let cache = Cache::open(dir.path().join("cache"), 1 << 20)?;
        let key = PlanKey([1; 32]);
        cache.put(key, &answer(1, Verify::Audit, 100));
        assert!(cache.get(key, &checking(Verify::Audit, None)).is_some());
        assert!(cache.get(key, &checking(Verify::Off, None)).is_some());
        assert!(cache.get(key, &checking(Verify::Quorum, None)).is_none());
        assert!(cache.get(key, &checking(Verify::Off, Some(1e-4))).is_none());
        assert!(cache.get(PlanKey([2; 32]), &checking(Verify::Off, None)).is_none());
        cache.put(key, &answer(2, Verify::Off, 100));
        assert_eq!(cache.get(key, &checking(Verify::Off, None)).map(|a| a.job), Some(JobId([1; 16])));
        cache.forget(JobId([1; 16]));
        assert!(cache.get(key, &checking(Verify::Off, None)).is_none());
        Ok(())
    }

    #[test]
    fn it_is_bounded_and_drops_what_is_not_used() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("cache");
        let cache = Cache::open(path.clone(), 4000)?;
        let asked = checking(Verify::Off, None);
        for n in 1..=3 {
            cache.put(PlanKey([n; 32]), &answer(n, Verify::Off, 1000));
        }
        assert!(cache.get(PlanKey([1; 32]), &asked).is_some());
        cache.put(PlanKey([4; 32]), &answer(4, Verify::Off, 1000));
        let left =
            |cache: &Cache| (1..=4).filter(|n| cache.get(PlanKey([*n; 32]), &asked).is_some()).collect::<Vec<u8>>();
        assert_eq!(left(&cache), [1, 3, 4]);
        assert_eq!(left(&Cache::open(path.clone(), 4000)?), [1, 3, 4], "they outlast the process");
        std::fs::write(path.join(PlanKey([3; 32]).file()), b"torn")?;
        assert_eq!(left(&cache), [1, 4]);
        assert!(left(&Cache::open(path, 0)?).is_empty());
        Ok(())
    }

    #[test]
    fn bytes_that_changed_on_disk_are_no_answer() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let cache = Cache::open(dir.path().join("cache"), 1 << 20)?;
        let forged = Answer {
            blocks: vec![Block::new(Cid::raw(b"right"), Bytes::from_static(b"wrong"))],
            ..answer(1, Verify::Off, 1)
        };
        cache.put(PlanKey([1; 32]), &forged);
        assert!(cache.get(PlanKey([1; 32]), &checking(Verify::Off, None)).is_none());
        Ok(())
    }
}
