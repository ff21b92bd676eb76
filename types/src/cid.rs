//! Content ids: CIDv1 with a BLAKE3-256 multihash.
//!
//! One digest is the address of a block, the vote of a replica, the key of a cache and the root of the bao tree
//! against which a byte range is verified: BLAKE3's tree hash *is* the bao root.

use std::{fmt, str::FromStr};

use multihash::Multihash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};

/// Multicodec of BLAKE3 (<https://github.com/multiformats/multicodec/blob/master/table.csv>).
const BLAKE3: u64 = 0x1e;

/// What the bytes behind a [`Cid`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// Plain bytes: shards, parity, shuffle blocks (multicodec 0x55).
    Raw,
    /// A DAG-CBOR document: manifests (multicodec 0x71).
    DagCbor,
}

impl Codec {
    fn code(self) -> u64 {
        match self {
            Codec::Raw => 0x55,
            Codec::DagCbor => 0x71,
        }
    }
}

/// The address of a block: the BLAKE3 hash of its bytes and what they are.
///
/// Text form: base32 CIDv1 (`bafk…`, `bafy…`); in DAG-CBOR a link (tag 42); in JSON the text form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cid {
    codec: Codec,
    digest: [u8; 32],
}

impl Cid {
    /// The address of `bytes`.
    #[must_use]
    pub fn of(codec: Codec, bytes: &[u8]) -> Self {
        Self { codec, digest: *blake3::hash(bytes).as_bytes() }
    }

    /// The address of plain bytes.
    #[must_use]
    pub fn raw(bytes: &[u8]) -> Self {
        Self::of(Codec::Raw, bytes)
    }

    /// The address whose digest is already known (a bao root).
    #[must_use]
    pub fn from_digest(codec: Codec, digest: [u8; 32]) -> Self {
        Self { codec, digest }
    }

    /// The BLAKE3 digest, which is also the bao root.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What the bytes are.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Whether `bytes` are the block that this address names.
    #[must_use]
    pub fn matches(&self, bytes: &[u8]) -> bool {
        blake3::hash(bytes).as_bytes() == &self.digest
    }

    #[expect(clippy::expect_used, reason = "a 32-byte digest always fits a 64-byte multihash")]
    fn to_ipld(self) -> cid::Cid {
        let hash = Multihash::<64>::wrap(BLAKE3, &self.digest).expect("32 bytes fit a multihash");
        cid::Cid::new_v1(self.codec.code(), hash)
    }

    fn from_ipld(cid: &cid::Cid) -> Result<Self> {
        let codec = match cid.codec() {
            0x55 => Codec::Raw,
            0x71 => Codec::DagCbor,
            other => return Err(Error::data(format!("{cid}: codec {other:#x} is neither raw nor dag-cbor"))),
        };
        let digest = <[u8; 32]>::try_from(cid.hash().digest())
            .ok()
            .filter(|_| cid.hash().code() == BLAKE3)
            .ok_or_else(|| Error::data(format!("{cid} is not a BLAKE3-256 content id")))?;
        Ok(Self { codec, digest })
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_ipld())
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Cid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let cid = cid::Cid::from_str(text).map_err(|e| Error::data(format!("'{text}' is not a content id: {e}")))?;
        Self::from_ipld(&cid)
    }
}

impl Serialize for Cid {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.to_ipld().serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            Self::from_ipld(&cid::Cid::deserialize(deserializer)?).map_err(de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_dag_cbor_and_json_round_trip() -> Result<()> {
        for codec in [Codec::Raw, Codec::DagCbor] {
            let cid = Cid::of(codec, b"conun");
            assert_eq!(cid.to_string().parse::<Cid>()?, cid);
            let bytes = crate::codec::encode(&cid)?;
            assert_eq!(bytes[..2], [0xd8, 0x2a], "a DAG-CBOR link is tag 42");
            assert_eq!(crate::codec::decode::<Cid>(&bytes)?, cid);
            let json = serde_json::to_string(&cid).map_err(|e| Error::internal(e.to_string()))?;
            assert_eq!(json, format!("\"{cid}\""));
        }
        Ok(())
    }

    #[test]
    fn known_address_of_the_empty_block() {
        // BLAKE3("") from the reference test vectors, in a raw CIDv1.
        let digest = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(hex::encode(Cid::raw(b"").digest()), digest);
        assert_eq!(Cid::raw(b"").to_string(), "bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmi");
        assert!(Cid::raw(b"").matches(b"") && !Cid::raw(b"").matches(b"x"));
    }

    #[test]
    fn foreign_hashes_are_refused() {
        // A sha2-256 CID as IPFS makes them.
        assert!("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku".parse::<Cid>().is_err());
        assert!("nonsense".parse::<Cid>().is_err());
    }
}
