//! Hashes in serde: `0x` and 64 hexadecimal digits where people read, 32 bytes elsewhere. For `#[serde(with = "...")]`.

use serde::{Deserialize, Deserializer, Serializer, de};

/// A hash as people read it.
#[must_use]
pub fn text(hash: &[u8; 32]) -> String {
    format!("0x{}", hex::encode(hash))
}

/// Writes a hash.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(hash: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.serialize_str(&text(hash))
    } else {
        serializer.serialize_bytes(hash)
    }
}

/// Reads a hash.
///
/// # Errors
/// Where there are not 32 bytes.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let bytes = if deserializer.is_human_readable() {
        let text = String::deserialize(deserializer)?;
        hex::decode(text.strip_prefix("0x").unwrap_or(&text)).map_err(de::Error::custom)?
    } else {
        serde_bytes::ByteBuf::deserialize(deserializer)?.into_vec()
    };
    bytes.try_into().map_err(|_| de::Error::custom("a hash has 32 bytes"))
}
