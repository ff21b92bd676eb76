//! An opened embedded chain: the machine that has executed all blocks of the log so far, and the two ways to add one.

use std::{path::Path, sync::Arc};

use alloy::primitives::{B256, Bytes};
use conun_types::{
    ambient::Clock,
    error::{Error, Result},
};

use super::{
    log::{Entry, Log},
    machine::{Draft, Machine, Refused},
};
use crate::dev;

/// The chain in a folder, as far as this process has followed it.
pub(super) struct Chain {
    log: Log,
    pub(super) machine: Machine,
    clock: Arc<dyn Clock>,
}

impl Chain {
    /// Opens the chain in `folder`; where there is none, one is made, with the contracts on it.
    pub(super) fn open(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let rich: Result<Vec<_>> = (0..dev::ACCOUNTS).map(|n| dev::key(n).map(|k| k.address().0.into())).collect();
        let mut chain = Self { log: Log::open(folder)?, machine: Machine::new(&rich?), clock };
        chain.follow()?;
        chain.create()?;
        Ok(chain)
    }

    /// Reads what other processes have added, and calls `then` before they add more.
    pub(super) fn reading<T>(&mut self, then: impl FnOnce(&mut Self) -> T) -> Result<T> {
        let _lock = self.log.lock(false)?;
        self.replay()?;
        Ok(then(self))
    }

    /// As [`Self::reading`], and nobody else reads: `then` may add blocks.
    fn writing<T>(&mut self, then: impl FnOnce(&mut Self) -> T) -> Result<T> {
        let _lock = self.log.lock(true)?;
        self.replay()?;
        Ok(then(self))
    }

    fn follow(&mut self) -> Result<()> {
        self.reading(|_| ())
    }

    /// Begins the chain: a block without a transaction, then one for each contract. A process that died half way is
    /// continued by the next.
    fn create(&mut self) -> Result<()> {
        let contracts = dev::deployment_txs()?;
        if self.machine.blocks().len() > contracts.len() {
            return Ok(());
        }
        self.writing(|chain| {
            if chain.machine.head().is_none() {
                chain.add(chain.machine.empty(chain.clock.unix_seconds()))?;
            }
            for raw in contracts.iter().skip(chain.machine.blocks().len() - 1) {
                let draft = chain.machine.mine(raw, chain.now());
                chain.add(draft.map_err(|e| Error::internal(format!("the contracts' deployment: {e:?}")))?)?;
            }
            Ok(())
        })?
    }

    /// The time of a block made now.
    pub(super) fn now(&self) -> u64 {
        self.clock.unix_seconds().max(self.machine.earliest())
    }

    fn replay(&mut self) -> Result<()> {
        while let Some(entry) = self.log.next()? {
            let draft = self.redo(&entry)?;
            self.machine.commit(draft);
        }
        Ok(())
    }

    fn redo(&mut self, entry: &Entry) -> Result<Draft> {
        let number = self.machine.blocks().len();
        let wrong = |why: String| {
            Error::data(format!("block {number} of the embedded chain does not replay: {why}"))
                .with_hint("was the folder written by another version of conun? start another chain in an empty folder")
        };
        let draft = if entry.tx.is_empty() {
            self.machine.empty(entry.timestamp)
        } else {
            self.machine.mine(&entry.tx, entry.timestamp).map_err(|e| wrong(format!("{e:?}")))?
        };
        if draft.entry() != *entry {
            return Err(wrong("the result differs".to_owned()));
        }
        Ok(draft)
    }

    fn add(&mut self, draft: Draft) -> Result<()> {
        self.log.append(&draft.entry())?;
        self.machine.commit(draft);
        Ok(())
    }

    /// Takes a signed transaction into a block of its own.
    pub(super) fn send(&mut self, raw: &Bytes) -> Result<Result<B256, Refused>> {
        self.writing(|chain| {
            let draft = match chain.machine.mine(raw, chain.now()) {
                Ok(draft) => draft,
                Err(refused) => return Ok(Err(refused)),
            };
            let hash = alloy::primitives::keccak256(raw);
            chain.add(draft).map(|()| Ok(hash))
        })?
    }

    /// Adds a block without a transaction, at `time` where that is later than the last one's.
    pub(super) fn warp(&mut self, time: Option<u64>) -> Result<()> {
        self.writing(|chain| {
            let time = time.unwrap_or_else(|| chain.now());
            chain.add(chain.machine.empty(time))
        })?
    }
}
