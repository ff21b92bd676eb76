//! Verified ranges: the bytes of a block's range with the hashes that tie them to the block's id.
//!
//! The encoding is bao's pre-order with 16 KiB chunk groups: on the way from the root to the wanted groups, the 64
//! bytes of each parent's two hashes, then the group's bytes. The receiver checks each parent and each group as it
//! arrives, so that a liar is caught at the first wrong piece and nothing unchecked is ever handed on.
//!
//! The total length is *claimed* by the sender. A range that ends where the block is said to end always carries the
//! last group, whose hash (through the shape of the tree) proves the length; for a range further inside, a wrong
//! length changes the shape above the groups and fails, or changes nothing that the receiver uses.

use std::{ops::Range, time::Duration};

use bao_tree::{
    BaoTree, BlockSize, ChunkNum, ChunkRanges,
    io::{
        outboard::PreOrderMemOutboard,
        sync::{Outboard, truncate_ranges},
    },
    iter::BaoChunk,
};
use blake3::{
    Hash,
    hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};
use bytes::Bytes;
use conun_types::{Cid, wire::MAX_BLOCK};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::frame::{WireResult, broken, read_into, within, write_all};

/// 16 groups of 1 KiB chunks, as iroh uses them: 0.4% of hashes, and a range costs at most 16 KiB more than asked.
const GROUPS: BlockSize = BlockSize::from_chunk_log(4);
const GROUP: u64 = 16 << 10;
/// Bytes collected before they are written to the stream.
const BATCH: usize = 128 << 10;
/// Memory taken for a block before its first byte was verified.
const FIRST: usize = 1 << 20;
/// Blocks above this are hashed on a thread of their own, not on one that serves sockets.
const LONG: usize = 1 << 20;

/// A range of a block of known length, and the groups that carry it.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    total: u64,
    bytes: Range<u64>,
    groups: Range<u64>,
}

impl Span {
    /// The part of `offset..offset + len` within a block of `total` bytes.
    pub(crate) fn of(offset: u64, len: u64, total: u64) -> Self {
        let start = offset.min(total);
        let end = offset.saturating_add(len).min(total);
        let last = total.saturating_sub(1) / GROUP;
        let first = (start / GROUP).min(last);
        Self { total, bytes: start..end, groups: first..end.div_ceil(GROUP).max(first + 1) }
    }

    /// Bytes asked for.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    fn chunks(&self) -> ChunkRanges {
        ChunkRanges::from(
            ChunkNum::full_chunks(self.groups.start * GROUP)..ChunkNum::full_chunks(self.groups.end * GROUP),
        )
    }

    /// Cuts the wanted bytes out of those of the groups.
    fn cut(&self, groups: Vec<u8>) -> Bytes {
        let start = (self.bytes.start - (self.groups.start * GROUP).min(self.bytes.start)) as usize;
        let end = start + self.len() as usize;
        Bytes::from(groups).slice(start.min(end)..end)
    }
}

/// Sends `head` and then the range `span` of `data` with its proof. The bytes are not checked against any id: that is
/// for the receiver to do (and for the store that they came from).
pub(crate) async fn send<W>(io: &mut W, head: Vec<u8>, data: Bytes, span: &Span, wait: Duration) -> WireResult<()>
where
    W: AsyncWrite + Unpin + ?Sized,
{
    let mut batch = head;
    let tree = BaoTree::new(data.len() as u64, GROUPS);
    let outboard = outboard(&data).await?;
    let ranges = span.chunks();
    let ranges = truncate_ranges(&ranges, tree.size());
    for item in tree.ranges_pre_order_chunks_iter_ref(ranges, 0) {
        match item {
            BaoChunk::Parent { node, .. } => {
                let Some((left, right)) = outboard.load(node)? else { continue };
                batch.extend_from_slice(left.as_bytes());
                batch.extend_from_slice(right.as_bytes());
            }
            BaoChunk::Leaf { start_chunk, size, .. } => {
                let start = start_chunk.to_bytes() as usize;
                batch.extend_from_slice(&data[start..start + size]);
            }
        }
        if batch.len() >= BATCH {
            write_all(io, &batch, wait).await?;
            batch.clear();
        }
    }
    write_all(io, &batch, wait).await?;
    within(wait, io.flush()).await
}

/// The hashes of `data`'s tree; a block of one group has none and costs nothing.
async fn outboard(data: &Bytes) -> WireResult<PreOrderMemOutboard> {
    if data.len() as u64 <= GROUP {
        let tree = BaoTree::new(data.len() as u64, GROUPS);
        return Ok(PreOrderMemOutboard { root: Hash::from([0; 32]), tree, data: Vec::new() });
    }
    if data.len() <= LONG {
        return Ok(PreOrderMemOutboard::create(data, GROUPS));
    }
    let data = data.clone();
    let hashed = tokio::task::spawn_blocking(move || PreOrderMemOutboard::create(&data, GROUPS)).await;
    Ok(hashed.map_err(std::io::Error::other)?)
}

/// Receives the range `span` of the block `cid`, verifying each piece as it arrives.
pub(crate) async fn receive<R>(io: &mut R, cid: &Cid, span: &Span, wait: Duration) -> WireResult<Bytes>
where
    R: AsyncRead + Unpin + ?Sized,
{
    if span.total > MAX_BLOCK {
        return broken(format!("a block of {} bytes, at most {MAX_BLOCK} are taken", span.total));
    }
    let tree = BaoTree::new(span.total, GROUPS);
    let ranges = span.chunks();
    let ranges = truncate_ranges(&ranges, tree.size());
    let most = (span.groups.end - span.groups.start) * GROUP;
    let mut out = Vec::with_capacity(FIRST.min(most as usize));
    let mut expected = vec![Hash::from(*cid.digest())];
    for item in tree.ranges_pre_order_chunks_iter_ref(ranges, 0) {
        let Some(hash) = expected.pop() else { return broken("more proof than tree") };
        match item {
            BaoChunk::Parent { is_root, left, right, .. } => {
                let pair = read_parent(io, wait).await?;
                check(cid, hash == parent_hash(&pair, is_root))?;
                expected.extend(right.then_some(pair.1));
                expected.extend(left.then_some(pair.0));
            }
            BaoChunk::Leaf { start_chunk, size, is_root, .. } => {
                let start = out.len();
                out.resize(start + size, 0);
                read_into(io, &mut out[start..], wait).await?;
                check(cid, hash == leaf_hash(start_chunk, &out[start..], is_root))?;
            }
        }
    }
    Ok(span.cut(out))
}

fn check(cid: &Cid, fits: bool) -> WireResult<()> {
    if fits { Ok(()) } else { broken(format!("wrong bytes for block {cid}")) }
}

async fn read_parent<R: AsyncRead + Unpin + ?Sized>(io: &mut R, wait: Duration) -> WireResult<(Hash, Hash)> {
    let mut pair = [[0u8; 32]; 2];
    read_into(io, pair.as_flattened_mut(), wait).await?;
    Ok((Hash::from(pair[0]), Hash::from(pair[1])))
}

fn parent_hash((left, right): &(Hash, Hash), is_root: bool) -> Hash {
    if is_root {
        merge_subtrees_root(left.as_bytes(), right.as_bytes(), Mode::Hash)
    } else {
        Hash::from(merge_subtrees_non_root(left.as_bytes(), right.as_bytes(), Mode::Hash))
    }
}

fn leaf_hash(start: ChunkNum, bytes: &[u8], is_root: bool) -> Hash {
    if is_root {
        return blake3::hash(bytes);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(start.to_bytes()).update(bytes);
    Hash::from(hasher.finalize_non_root())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::WireError;

    const SOON: Duration = Duration::from_secs(5);

    fn block(len: usize) -> Bytes {
        (0..len).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>().into()
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
    }

    /// What a sender that claims `total` bytes and holds `data` puts on the wire.
    fn encoded(data: &Bytes, offset: u64, len: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let span = Span::of(offset, len, data.len() as u64);
        run(send(&mut out, Vec::new(), data.clone(), &span, SOON)).expect("encoded");
        out
    }

    fn decoded(cid: &Cid, wire: &[u8], offset: u64, len: u64, total: u64) -> WireResult<Bytes> {
        let mut rest = wire;
        let bytes = run(receive(&mut rest, cid, &Span::of(offset, len, total), SOON))?;
        assert!(rest.is_empty(), "everything sent is used");
        Ok(bytes)
    }

    #[test]
    fn whole_blocks_of_every_shape() {
        for len in [0, 1, 1023, 1024, 16383, 16384, 16385, 32768, 50_000, 65536, 262_145, 3 << 20] {
            let data = block(len);
            let wire = encoded(&data, 0, u64::MAX);
            let got = decoded(&Cid::raw(&data), &wire, 0, u64::MAX, len as u64).expect("verified");
            assert_eq!(got, data, "{len}");
        }
    }

    #[test]
    fn small_ranges_cost_little() {
        let data = block(4 << 20);
        let wire = encoded(&data, 1_000_000, 10);
        assert!(wire.len() < 2 * GROUP as usize, "{}", wire.len());
    }

    #[test]
    fn lies_about_the_length_never_change_the_bytes() {
        let data = block(100_000);
        let cid = Cid::raw(&data);
        for claim in [0, 1, 16384, 50_000, 99_999, 100_001, 131_072, 1 << 20, MAX_BLOCK + 1, u64::MAX] {
            // The liar uses the true tree and the same groups where it can.
            let wire = encoded(&data, 20_000, 40_000);
            let mut rest = &wire[..];
            let got = run(receive(&mut rest, &cid, &Span::of(20_000, 40_000, claim), SOON));
            if let Ok(bytes) = got {
                assert_eq!(bytes, data.slice(20_000..60_000), "claimed {claim}");
            }
        }
    }

    proptest! {
        #[test]
        fn ranges_are_slices(len in 0usize..200_000, offset in 0u64..220_000, want in 0u64..220_000) {
            let data = block(len);
            let wire = encoded(&data, offset, want);
            let got = decoded(&Cid::raw(&data), &wire, offset, want, len as u64).expect("verified");
            let start = (offset as usize).min(len);
            let end = (offset.saturating_add(want) as usize).min(len);
            prop_assert_eq!(got, data.slice(start..end));
        }

        #[test]
        fn any_flipped_bit_is_caught(len in 1usize..100_000, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let data = block(len);
            let mut wire = encoded(&data, 0, u64::MAX);
            let at = at.index(wire.len());
            wire[at] ^= 1 << bit;
            let got = decoded(&Cid::raw(&data), &wire, 0, u64::MAX, len as u64);
            prop_assert!(matches!(got, Err(WireError::Broken(_))), "{:?}", got);
        }

        #[test]
        fn truncation_is_a_fault_not_a_lie(len in 1usize..100_000, at in any::<prop::sample::Index>()) {
            let data = block(len);
            let wire = encoded(&data, 0, u64::MAX);
            let got = decoded(&Cid::raw(&data), &wire[..at.index(wire.len())], 0, u64::MAX, len as u64);
            prop_assert!(matches!(got, Err(WireError::Closed)), "{:?}", got);
        }
    }
}
