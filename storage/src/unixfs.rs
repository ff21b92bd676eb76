//! The address that IPFS gives a file: CIDv1, sha2-256, UnixFS profile of 2025 (raw leaves of 1 MiB, up to 1024 links
//! a node, balanced). Only the address is computed here; exchange with IPFS peers belongs to others.
//!
//! Formats: <https://specs.ipfs.tech/unixfs/>, <https://ipld.io/specs/codecs/dag-pb/spec/>.

use std::{fmt, str::FromStr};

use cid::Cid as IpldCid;
use conun_types::{Error, Result};
use multihash::Multihash;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes of a leaf.
const LEAF: usize = 1 << 20;
/// Links of a node.
const FANOUT: usize = 1024;

/// Multicodecs (<https://github.com/multiformats/multicodec/blob/master/table.csv>).
const RAW: u64 = 0x55;
const DAG_PB: u64 = 0x70;
const SHA2_256: u64 = 0x12;

/// A file's address in IPFS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IpfsCid(IpldCid);

impl IpfsCid {
    /// The address of a file with these bytes.
    #[must_use]
    pub fn of_file(bytes: &[u8]) -> Self {
        Self(root(bytes, LEAF, FANOUT))
    }
}

impl fmt::Display for IpfsCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for IpfsCid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let cid = IpldCid::from_str(text).map_err(|e| Error::data(format!("'{text}' is not a content id: {e}")))?;
        Ok(Self(cid))
    }
}

/// A link to a part of the file.
struct Part {
    cid: IpldCid,
    /// Bytes of the file below.
    file: u64,
    /// Bytes of all blocks below.
    dag: u64,
}

fn root(bytes: &[u8], leaf: usize, fanout: usize) -> IpldCid {
    let mut level: Vec<Part> = bytes.chunks(leaf).map(leaf_part).collect();
    if level.is_empty() {
        level.push(leaf_part(&[]));
    }
    while level.len() > 1 {
        level = level.chunks(fanout).map(node_part).collect();
    }
    level[0].cid
}

fn leaf_part(bytes: &[u8]) -> Part {
    Part { cid: address(RAW, bytes), file: bytes.len() as u64, dag: bytes.len() as u64 }
}

fn node_part(children: &[Part]) -> Part {
    let bytes = node(children);
    let below: u64 = children.iter().map(|child| child.dag).sum();
    let file = children.iter().map(|child| child.file).sum();
    Part { cid: address(DAG_PB, &bytes), file, dag: below + bytes.len() as u64 }
}

#[expect(clippy::expect_used, reason = "a 32-byte digest always fits a 64-byte multihash")]
fn address(codec: u64, bytes: &[u8]) -> IpldCid {
    let hash = Multihash::<64>::wrap(SHA2_256, &Sha256::digest(bytes)).expect("32 bytes fit a multihash");
    IpldCid::new_v1(codec, hash)
}

/// A dag-pb node: links (field 2), then UnixFS data (field 1), in that order.
fn node(children: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for child in children {
        let mut link = Vec::new();
        field(&mut link, 1, &child.cid.to_bytes());
        field(&mut link, 2, b"");
        varint_field(&mut link, 3, child.dag);
        field(&mut out, 2, &link);
    }
    let mut data = Vec::new();
    // Type: file.
    varint_field(&mut data, 1, 2);
    varint_field(&mut data, 3, children.iter().map(|child| child.file).sum());
    for child in children {
        varint_field(&mut data, 4, child.file);
    }
    field(&mut out, 1, &data);
    out
}

fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint_field(out: &mut Vec<u8>, number: u64, value: u64) {
    varint(out, number << 3);
    varint(out, value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| ((i * 7 + i / 251) % 256) as u8).collect()
    }

    /// Made with the npm package ipfs-unixfs-importer (Helia's), on the same bytes:
    /// `importer([{content}], store, {cidVersion: 1, rawLeaves: true, reduceSingleLeafToSelf: true,
    /// chunker: fixedSize({chunkSize}), layout: balanced({maxChildrenPerNode})})`.
    #[test]
    fn the_same_address_as_helia_gives() {
        for (len, leaf, fanout, expected) in [
            (0, 1048576, 1024, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
            (10, 1048576, 1024, "bafkreiay3jkal6m25wuatcoe33x2lev7bpfrbcffi255mol6futokprj7y"),
            (1048576, 1048576, 1024, "bafkreiah6rdf55x6tadqx2xy3dibivfv2epwzvh7q2qttwjm2ay3i3o73q"),
            (1048577, 1048576, 1024, "bafybeieyojhfho3w2isj74utf5zoargj25qlhq34glf6vj62coxsg7nhea"),
            (3645728, 1048576, 1024, "bafybeicmhgkp2vmvxl67tw7y223t57kd3bxnx3gcn2pbwdzb5tejdoej2q"),
            (100, 4, 3, "bafybeigzprshwd676dkallxaore5gkmejiox72nj4pn5jup2jqdd5uxgny"),
            (12, 4, 3, "bafybeiamwdbwmyfp4lmwftz6an2r2fipwl7rbn3ywbj3s3bdqbgkv47uuu"),
            (16, 4, 3, "bafybeiecqeyvweufjlnxdxtd36ja723pxljqg5pjuz5ct3f7fqpnfsgxva"),
        ] {
            assert_eq!(root(&bytes(len), leaf, fanout).to_string(), expected, "{len} bytes");
        }
    }

    #[test]
    fn round_trips_as_text_and_dag_cbor() {
        let cid = IpfsCid::of_file(b"hello\n");
        assert_eq!(cid.to_string().parse::<IpfsCid>().unwrap(), cid);
        let encoded = conun_types::codec::encode(&cid).unwrap();
        assert_eq!(conun_types::codec::decode::<IpfsCid>(&encoded).unwrap(), cid);
        assert!("x".parse::<IpfsCid>().is_err());
    }
}
