//! A folder of keys, each encrypted with a password in a file of its own: Web3 Secret Storage, version 3, as geth, foundry
//! and most wallets of Ethereum read and write it. Nothing here talks to a chain.
//!
//! Deriving a key from a password is slow on purpose (up to a second): call it where that blocks nobody.

mod file;
mod words;

use std::{
    fmt,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use conun_types::{
    ambient::Rng,
    error::{Error, Result},
    identity::{Address, NodeKey},
};
use serde::Serialize;

pub use self::words::Phrase;

/// Largest file that is looked at.
const MAX_FILE: u64 = 64 * 1024;

/// A key in a wallet, as anybody may see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Entry {
    /// `0x` and 40 hex digits.
    pub address: String,
    /// Its file.
    pub path: PathBuf,
}

/// A folder of keys.
#[derive(Debug, Clone)]
pub struct Wallet {
    folder: PathBuf,
}

impl Wallet {
    /// The wallet in `folder`, which is made (for its owner only) where it is missing.
    ///
    /// # Errors
    /// Data or Internal where the folder cannot be used.
    pub fn open(folder: &Path) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| Error::from(e).context(folder.display()))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// A new key, from random bytes.
    ///
    /// # Errors
    /// Usage where the password is empty; Internal where the file cannot be written.
    pub fn create(&self, rng: &dyn Rng, password: &str) -> Result<Entry> {
        self.add(&NodeKey::generate(rng), rng, password)
    }

    /// A new key from twelve new words, from which it (and others) can be had again. They are nowhere but in the result.
    ///
    /// # Errors
    /// As [`Wallet::create`].
    pub fn create_with_phrase(&self, rng: &dyn Rng, password: &str) -> Result<(Entry, Phrase)> {
        let phrase = Phrase::generate(rng)?;
        Ok((self.add(&phrase.key(0)?, rng, password)?, phrase))
    }

    /// Takes a key in: 64 hex digits, with or without `0x`.
    ///
    /// # Errors
    /// Usage where it is no key, or is in the wallet already.
    pub fn import_key(&self, hex_digits: &str, rng: &dyn Rng, password: &str) -> Result<Entry> {
        let digits = hex_digits.trim();
        let bytes = hex::decode(digits.strip_prefix("0x").unwrap_or(digits)).unwrap_or_default();
        // The text is not repeated: but for a typing error it is a secret.
        let wrong = |_| Error::usage("that is no private key (64 hex digits)");
        self.add(&NodeKey::from_bytes(&bytes).map_err(wrong)?, rng, password)
    }

    /// Takes in the key at `index` of the accounts that a BIP-39 phrase stands for (`m/44'/60'/0'/0/index`).
    ///
    /// # Errors
    /// As [`Wallet::import_key`].
    pub fn import_phrase(&self, phrase: &Phrase, index: u32, rng: &dyn Rng, password: &str) -> Result<Entry> {
        self.add(&phrase.key(index)?, rng, password)
    }

    /// Takes in a key file of another wallet, which is left as it is; the copy has the password `password`.
    ///
    /// # Errors
    /// Usage where `old` does not open the file, or the key is in the wallet already; Data where it is no key file.
    pub fn import_file(&self, path: &Path, old: &str, rng: &dyn Rng, password: &str) -> Result<Entry> {
        self.add(&file::decrypt(path, old)?, rng, password)
    }

    /// All keys, by address. Other files in the folder are passed over.
    ///
    /// # Errors
    /// Data where the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let failed = |e: std::io::Error| Error::from(e).context(self.folder.display());
        let mut entries = Vec::new();
        for found in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = found.map_err(failed)?.path();
            let hidden = path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
            if let (false, Some(address)) = (hidden, file::address(&path)) {
                entries.push(Entry { address, path });
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// The one key whose address begins with `prefix` (with or without `0x`); an empty prefix finds an only key.
    ///
    /// # Errors
    /// Usage where there is none, or there are several.
    pub fn find(&self, prefix: &str) -> Result<Entry> {
        let wanted = format!("0x{}", prefix.strip_prefix("0x").unwrap_or(prefix)).to_lowercase();
        let mut found = self.list()?.into_iter().filter(|e| e.address.starts_with(&wanted));
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry),
            (None, _) => Err(Error::usage(format!("{} has no key {wanted}", self.folder.display()))
                .with_hint("list the wallet's keys")),
            _ => Err(Error::usage(format!("several keys begin with {wanted}")).with_hint("write more digits")),
        }
    }

    /// The secret key: to sign with, or to show where its owner asks for it.
    ///
    /// # Errors
    /// Usage where the password is wrong; Data where the file is damaged.
    pub fn unlock(&self, entry: &Entry, password: &str) -> Result<NodeKey> {
        let key = file::decrypt(&entry.path, password)?;
        if key.address().to_string() == entry.address {
            return Ok(key);
        }
        Err(Error::data(format!("{} holds the key of {}, not what it says", entry.path.display(), key.address())))
    }

    /// Encrypts a key anew. At every moment the file is whole: with the old password, or with the new one.
    ///
    /// # Errors
    /// As [`Wallet::unlock`].
    pub fn change_password(&self, entry: &Entry, old: &str, rng: &dyn Rng, new: &str) -> Result<()> {
        let key = self.unlock(entry, old)?;
        file::write(&entry.path, &key, rng, new, true)
    }

    fn add(&self, key: &NodeKey, rng: &dyn Rng, password: &str) -> Result<Entry> {
        let address = key.address().to_string();
        if self.list()?.iter().any(|e| e.address == address) {
            return Err(Error::usage(format!("the key of {address} is in the wallet already")));
        }
        let path = self.folder.join(format!("{address}.json"));
        file::write(&path, key, rng, password, false)?;
        Ok(Entry { address, path })
    }
}

impl Entry {
    /// The address as other interfaces take it.
    ///
    /// # Errors
    /// Data where it is none.
    pub fn id(&self) -> Result<Address> {
        serde_json::from_value(self.address.clone().into()).map_err(|_| Error::data(format!("{self} is no address")))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}
