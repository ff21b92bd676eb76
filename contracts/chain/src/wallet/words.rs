//! BIP-39 phrases.

use std::{fmt, str::FromStr};

use alloy::signers::local::{
    MnemonicBuilder,
    coins_bip39::{English, Entropy, Mnemonic},
};
use conun_types::{
    ambient::Rng,
    error::{Error, Result},
    identity::NodeKey,
};

/// Words that stand for keys. Neither `Debug` nor an error shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct Phrase(String);

impl Phrase {
    /// Twelve new words: 128 random bits.
    pub(super) fn generate(rng: &dyn Rng) -> Result<Self> {
        let mut bits = [0u8; 16];
        rng.fill(&mut bits);
        let mnemonic = Mnemonic::<English>::new_from_entropy(Entropy::Sixteen(bits));
        Ok(Self(mnemonic.to_phrase()))
    }

    /// The words: to show to their owner, once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The key of account `index`: `m/44'/60'/0'/0/index`.
    ///
    /// # Errors
    /// Usage where the index is out of range.
    pub fn key(&self, index: u32) -> Result<NodeKey> {
        let signer = MnemonicBuilder::try_from_phrase_nth(self.0.as_str(), index);
        let signer = signer.map_err(|_| Error::usage(format!("account {index} of a phrase cannot be derived")))?;
        NodeKey::from_bytes(signer.to_bytes().as_slice())
    }
}

impl FromStr for Phrase {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words = text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ");
        let wrong = |_| {
            Error::usage("that is no BIP-39 phrase").with_hint("12 to 24 English words in their order; a typing error?")
        };
        Mnemonic::<English>::new_from_phrase(&words).map_err(wrong)?;
        Ok(Self(words))
    }
}

impl fmt::Debug for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phrase(…)")
    }
}
