//! Manifests round-trip, and no bytes of a stranger get through or crash.

use proptest::prelude::*;

use super::*;
use crate::{schema::ColumnType, testing::node};

pub(crate) fn manifest() -> Manifest {
    let shard = |n: u8, len: u64| DataShard {
        cid: Cid::raw(&[n]),
        len,
        rows: 10,
        ipfs: IpfsCid::of_file(&[n]),
        holders: vec![u32::from(n) % 3],
    };
    let parity = |n: u8, len: u64| ParityShard { cid: Cid::raw(&[n]), len, holders: vec![2] };
    let column = |name: &str, kind| Column { name: name.into(), kind, nullable: true };
    Manifest {
        format: FORMAT,
        table: "flights".into(),
        version: 3,
        created: 1_800_000_000,
        owner: node(0),
        schema: vec![column("a", ColumnType::Int(64, true)), column("b", ColumnType::Utf8)],
        code: CodeSpec { data: 2, parity: 1 },
        shard_size: 1 << 20,
        rows: 30,
        bytes: 600,
        nodes: vec![node(1), node(2), node(3)],
        groups: vec![
            Group { padded_len: 300, data: vec![shard(1, 300), shard(2, 100)], parity: vec![parity(3, 300)] },
            Group { padded_len: 200, data: vec![shard(4, 200)], parity: vec![parity(5, 200)] },
        ],
    }
}

#[test]
fn round_trips_and_counts() {
    let manifest = manifest();
    let (bytes, cid) = manifest.encode().unwrap();
    assert_eq!(cid.codec(), Codec::DagCbor);
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    assert_eq!((manifest.blocks().len(), manifest.stored_bytes()), (5, 300 + 100 + 300 + 200 + 200));
}

#[test]
fn every_broken_rule_is_told() {
    type Change = fn(&mut Manifest);
    let changes: [(Change, &str); 20] = [
        (|m| m.format = 2, "format 2"),
        (|m| m.table = "Robert'); drop".into(), "table"),
        (|m| m.table = String::new(), "table"),
        (|m| m.version = 0, "version"),
        (|m| m.version = u64::MAX, "version"),
        (|m| m.schema.clear(), "column"),
        (|m| m.code = CodeSpec { data: 0, parity: 1 }, "0+1"),
        (|m| m.code = CodeSpec { data: u16::MAX, parity: u16::MAX }, "65535"),
        (|m| m.rows = 31, "rows"),
        (|m| m.bytes = 0, "bytes"),
        (|m| m.nodes[1] = m.nodes[0], "twice"),
        (|m| m.nodes.clear(), "holder"),
        (|m| m.groups.clear(), "no shards"),
        (|m| m.groups[0].data.clear(), "data shards"),
        (|m| m.groups[0].parity.clear(), "parity"),
        (|m| m.groups[0].padded_len = u64::MAX, "length"),
        (|m| m.groups[0].parity[0].len = 1, "length"),
        (|m| m.groups[0].data[1].len = 0, "empty shard"),
        (|m| m.groups[0].data[1].holders = vec![3], "holder"),
        (|m| m.groups[0].data[1].cid = Cid::of(Codec::DagCbor, b"x"), "address"),
    ];
    for (change, says) in changes {
        let mut broken = manifest();
        change(&mut broken);
        let error = Manifest::decode(&codec::encode(&broken).unwrap()).expect_err(says);
        assert!(error.message.contains(says), "'{error}' says {says}");
        assert!(broken.encode().is_err());
    }
    let overflow = Manifest {
        groups: manifest()
            .groups
            .into_iter()
            .map(|mut g| {
                g.data[0].rows = u64::MAX;
                g
            })
            .collect(),
        ..manifest()
    };
    assert!(overflow.encode().is_err());
}

#[test]
fn deep_and_large_documents_are_refused() {
    // A list in a list in a list …
    let deep = [vec![0x81; 100_000], vec![0x00]].concat();
    assert!(Manifest::decode(&deep).is_err());
    assert!(Manifest::decode(&vec![0; MAX_MANIFEST + 1]).is_err());
    // A list that claims 2^60 entries.
    assert!(
        Manifest::decode(&[0xa1, 0x66, b'g', b'r', b'o', b'u', b'p', b's', 0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0]).is_err()
    );
}

proptest! {
    #[test]
    fn random_bytes_never_crash(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Manifest::decode(&bytes);
    }

    #[test]
    fn mutated_manifests_are_refused_or_valid(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let (mut bytes, _) = manifest().encode().unwrap();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert!(manifest.encode().is_ok());
        }
    }
}
