//! Who is who: secp256k1 keys that are at once a libp2p identity and an Ethereum address.
//!
//! libp2p signs with SHA-256 and DER and gives no recovery id, so receipts carry their own signature with the same
//! key: 65 bytes `r || s || v` over a Keccak-256 prehash, as Ethereum's `ecrecover` takes it.

use std::{fmt, str::FromStr};

use k256::ecdsa::{RecoveryId, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha3::{Digest, Keccak256};

use crate::{
    ambient::Rng,
    error::{Error, Result},
};

/// Protobuf head of a libp2p secp256k1 public key (KeyType 2, 33 bytes of data) inside an identity multihash.
/// Source: <https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md>.
const PEER_ID_HEAD: [u8; 6] = [0x00, 0x25, 0x08, 0x02, 0x12, 0x21];

/// Keccak-256, the hash of Ethereum.
#[must_use]
pub fn keccak256(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

/// A node's public identity: its compressed secp256k1 public key. Text form: the libp2p peer id (`16Uiu2HA…`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId([u8; 33]);

impl NodeId {
    /// From a compressed SEC1 public key.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where the bytes are no point of the curve.
    pub fn from_public_key(sec1: &[u8]) -> Result<Self> {
        let key = VerifyingKey::from_sec1_bytes(sec1).map_err(|_| Error::data("not a secp256k1 public key"))?;
        Ok(Self::of(&key))
    }

    #[expect(clippy::expect_used, reason = "a compressed point has 33 bytes")]
    fn of(key: &VerifyingKey) -> Self {
        Self(key.to_sec1_point(true).as_bytes().try_into().expect("a compressed point has 33 bytes"))
    }

    /// The compressed SEC1 public key.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 33] {
        &self.0
    }

    /// The Ethereum address of the same key.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where the key is no point of the curve (only a forged id).
    pub fn address(&self) -> Result<Address> {
        let key = VerifyingKey::from_sec1_bytes(&self.0).map_err(|_| Error::data("not a secp256k1 public key"))?;
        Ok(Address::of(&key))
    }

    /// The first characters after the common prefix, for people to tell nodes apart in a table.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().skip(8).take(8).collect()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = PEER_ID_HEAD.to_vec();
        bytes.extend_from_slice(&self.0);
        f.write_str(&bs58::encode(bytes).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for NodeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::data(format!("'{text}' is not a secp256k1 peer id"));
        let bytes = bs58::decode(text).into_vec().map_err(|_| wrong())?;
        let key = bytes.strip_prefix(&PEER_ID_HEAD).ok_or_else(wrong)?;
        Self::from_public_key(key).map_err(|_| wrong())
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
            Self::from_public_key(&bytes).map_err(de::Error::custom)
        }
    }
}

/// An Ethereum address: the last 20 bytes of the Keccak-256 of a public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Address(pub [u8; 20]);

impl Address {
    fn of(key: &VerifyingKey) -> Self {
        let point = key.to_sec1_point(false);
        let hash = keccak256(&point.as_bytes()[1..]);
        let mut out = [0u8; 20];
        out.copy_from_slice(&hash[12..]);
        Self(out)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl FromStr for Address {
    type Err = Error;

    /// Hexadecimal digits after `0x`. Where there are capital and small letters, they must be the checksum of EIP-55.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("'{text}' is not an address")).with_hint("an address is 0x and 40 hexadecimal digits")
        };
        let digits = text.strip_prefix("0x").ok_or_else(wrong)?;
        let bytes: [u8; 20] = hex::decode(digits).ok().and_then(|b| b.try_into().ok()).ok_or_else(wrong)?;
        let address = Self(bytes);
        let mixed = digits.contains(char::is_lowercase) && digits.contains(char::is_uppercase);
        if mixed && address.checksummed() != text {
            return Err(Error::usage(format!("'{text}' is mistyped: its checksum does not fit"))
                .with_hint("compare it with where you copied it from"));
        }
        Ok(address)
    }
}

impl Address {
    /// As people write it, with the checksum of <https://eips.ethereum.org/EIPS/eip-55> in its capitals.
    #[must_use]
    pub fn checksummed(&self) -> String {
        let digits = hex::encode(self.0);
        let hash = keccak256(digits.as_bytes());
        let capital = |i: usize| (hash[i / 2] >> (if i.is_multiple_of(2) { 4 } else { 0 })) & 0xf >= 8;
        let cased = digits.chars().enumerate().map(|(i, c)| if capital(i) { c.to_ascii_uppercase() } else { c });
        format!("0x{}", cased.collect::<String>())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        hex_or_bytes(deserializer)?.try_into().map(Self).map_err(|_| de::Error::custom("an address has 20 bytes"))
    }
}

/// Hexadecimal digits (with or without `0x`) in formats that people read, else bytes.
fn hex_or_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<u8>, D::Error> {
    if !deserializer.is_human_readable() {
        return Ok(serde_bytes::ByteBuf::deserialize(deserializer)?.into_vec());
    }
    let text = String::deserialize(deserializer)?;
    hex::decode(text.strip_prefix("0x").unwrap_or(&text)).map_err(de::Error::custom)
}

/// A recoverable ECDSA signature, `r || s || v` with `v` 27 or 28.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 65]);

impl Signature {
    /// The 65 bytes as Ethereum takes them.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 65] {
        self.0
    }

    /// Who signed `prehash`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where the signature is malformed or malleable (high `s`).
    pub fn recover(&self, prehash: &[u8; 32]) -> Result<NodeId> {
        let forged = || Error::data("invalid signature");
        let signature = k256::ecdsa::Signature::from_slice(&self.0[..64]).map_err(|_| forged())?;
        if signature.normalize_s() != signature {
            return Err(forged());
        }
        let id = self.0[64].checked_sub(27).and_then(RecoveryId::from_byte).ok_or_else(forged)?;
        let key = VerifyingKey::recover_from_prehash(prehash, &signature, id).map_err(|_| forged())?;
        Ok(NodeId::of(&key))
    }

    /// Checks that `signer` signed `prehash`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where somebody else did, or the signature is malformed.
    pub fn verify(&self, prehash: &[u8; 32], signer: &NodeId) -> Result<()> {
        if self.recover(prehash)? == *signer { Ok(()) } else { Err(Error::data("signed by another key")) }
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{self:?}"))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        hex_or_bytes(deserializer)?.try_into().map(Self).map_err(|_| de::Error::custom("a signature has 65 bytes"))
    }
}

/// A node's secret key. Its `Debug` shows the public id only.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

impl NodeKey {
    /// A new key from `rng`.
    #[must_use]
    pub fn generate(rng: &dyn Rng) -> Self {
        loop {
            let mut bytes = [0u8; 32];
            rng.fill(&mut bytes);
            // Fails only for 0 and for numbers not below the group's order: about 2^-128.
            if let Ok(key) = SigningKey::from_slice(&bytes) {
                return Self(key);
            }
        }
    }

    /// The key whose secret scalar is `bytes`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Data`] where `bytes` are not a valid scalar.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        SigningKey::from_slice(bytes).map(Self).map_err(|_| Error::data("not a secp256k1 secret key"))
    }

    /// The secret scalar: for a key file, never for a log or a message.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes().into()
    }

    /// The public identity.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId::of(self.0.verifying_key())
    }

    /// The Ethereum address.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::of(self.0.verifying_key())
    }

    /// Signs a Keccak-256 prehash, deterministically (RFC 6979).
    #[must_use]
    pub fn sign(&self, prehash: &[u8; 32]) -> Signature {
        let (signature, recovery) = self.0.sign_prehash_recoverable(prehash);
        let mut bytes = [0u8; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + recovery.to_byte();
        Signature(bytes)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::OsRng;

    #[test]
    fn addresses_have_checksums() {
        // From the EIP.
        let known = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        assert_eq!(known.parse::<Address>().map(|a| a.checksummed()), Ok(known.to_owned()));
        assert!(known.to_lowercase().parse::<Address>().is_ok());
        assert!(known.replace("5aA", "5Aa").parse::<Address>().is_err(), "mistyped");
        for wrong in ["", "0x", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x12", "0xzz"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn address_of_a_known_key() -> Result<()> {
        // The first account of the well-known test mnemonic "test test … junk".
        let secret = hex::decode("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
            .map_err(|e| Error::internal(e.to_string()))?;
        let key = NodeKey::from_bytes(&secret)?;
        assert_eq!(key.address().to_string(), "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
        assert_eq!(key.id().address()?, key.address());
        Ok(())
    }

    #[test]
    fn ids_and_signatures_round_trip() -> Result<()> {
        let key = NodeKey::generate(&OsRng);
        assert!(key.id().to_string().starts_with("16Uiu2HA"), "{}", key.id());
        assert_eq!(key.id().to_string().parse::<NodeId>()?, key.id());
        let hash = keccak256(b"receipt");
        let signature = key.sign(&hash);
        assert_eq!(signature.recover(&hash)?, key.id());
        assert!(signature.verify(&keccak256(b"other"), &key.id()).is_err());
        assert_eq!(crate::codec::decode::<Signature>(&crate::codec::encode(&signature)?)?, signature);
        Ok(())
    }

    #[test]
    fn malleable_and_malformed_signatures_are_refused() {
        let key = NodeKey::generate(&OsRng);
        let hash = keccak256(b"receipt");
        for byte in [0, 33, 64] {
            let mut bytes = key.sign(&hash).to_bytes();
            bytes[byte] ^= 0x1f;
            assert!(Signature(bytes).verify(&hash, &key.id()).is_err());
        }
        assert!("16Uiu2HAnonsense".parse::<NodeId>().is_err());
    }
}
