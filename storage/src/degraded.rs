//! Reading a shard that no node has any more: fetch any k members of its group and decode.

use bytes::Bytes;
use conun_types::{Error, Recovery, Result, Source, wire::MAX_BLOCK};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;

use crate::{
    erasure::{self, CodeSpec, ErasureCode},
    holders::{Reader, ask_holders, hedge_after},
};

/// Members that are read beside those that are missing, where these take their time.
const BESIDE: usize = 2;

/// Most bytes that a decode may hold at once: k members padded to the longest. What is read beside them may come on top.
const MAX_DECODE: u64 = 4 << 30;

/// Decodes the shard that `recovery` wants from other members of its group, and checks it against its id. `recovery`
/// may come from a stranger: it is checked first.
///
/// # Errors
/// [`conun_types::ErrorKind::Unavailable`] where too few members can be fetched;
/// [`conun_types::ErrorKind::Data`] where `recovery` contradicts itself or the group does not decode to the shard.
pub async fn recover_shard(recovery: &Recovery, reader: &dyn Reader) -> Result<Bytes> {
    let code = check(recovery)?;
    let places = places(recovery, reader).await?;
    let wanted = usize::from(recovery.index);
    let wanted_place = place_of(recovery, wanted);
    let padded = usize::try_from(recovery.padded_len).map_err(|_| Error::data("absurd length"))?;
    let bytes = code.reconstruct(&places, padded, wanted_place)?;
    let target = &recovery.members[wanted];
    let bytes = bytes.slice(..bytes.len().min(target.len as usize));
    if !target.cid.matches(&bytes) {
        return Err(Error::data(format!("the group of shard {} does not decode to it", target.cid)));
    }
    Ok(bytes)
}

/// Data members that exist; the code's other data members are virtual zeros.
fn real_data(recovery: &Recovery) -> usize {
    recovery.members.len() - usize::from(recovery.parity)
}

/// The place in the code of the member at `index` of the list.
fn place_of(recovery: &Recovery, index: usize) -> usize {
    let real = real_data(recovery);
    if index < real { index } else { usize::from(recovery.data) + index - real }
}

fn check(recovery: &Recovery) -> Result<Box<dyn ErasureCode>> {
    let wrong = |what: &str| Error::data(format!("malformed recovery of a shard: {what}"));
    let spec = CodeSpec::new(recovery.data, recovery.parity).map_err(|e| wrong(&e.message))?;
    let (members, parity) = (recovery.members.len(), usize::from(spec.parity));
    if members <= parity || members > spec.members() || usize::from(recovery.index) >= members {
        return Err(wrong("it has other members than its code"));
    }
    if recovery.padded_len > MAX_BLOCK || recovery.padded_len * u64::from(spec.data) > MAX_DECODE {
        return Err(wrong("absurd length"));
    }
    let parity_len = |(i, m): (usize, &Source)| i >= members - parity && m.len != recovery.padded_len;
    if recovery.members.iter().any(|m| m.len > recovery.padded_len)
        || recovery.members.iter().enumerate().any(parity_len)
    {
        return Err(wrong("its lengths do not fit"));
    }
    erasure::code(spec)
}

/// Fetches members until the code has enough, several at a time, data before parity; another one beside where they take
/// their time.
async fn places(recovery: &Recovery, reader: &dyn Reader) -> Result<Vec<Option<Bytes>>> {
    let real = real_data(recovery);
    let mut places = vec![None; usize::from(recovery.data) + usize::from(recovery.parity)];
    places[real..usize::from(recovery.data)].fill(Some(Bytes::new()));
    let others = (0..recovery.members.len()).filter(|index| *index != usize::from(recovery.index));
    let others: Vec<usize> = others.collect();
    let mut candidates = others.into_iter().map(|index| async move {
        let member = &recovery.members[index];
        let bytes = match reader.here(member).await {
            Some(bytes) => Ok(bytes),
            None => ask_holders(reader, member).await,
        };
        (index, bytes.and_then(|bytes| verified(member, bytes)))
    });
    let (mut missing, mut last) = (real, None);
    let mut running: FuturesUnordered<_> = candidates.by_ref().take(missing).collect();
    while missing > 0 {
        let next = if candidates.len() > 0 && running.len() < missing + BESIDE {
            let Ok(next) = timeout(hedge_after(reader, recovery.padded_len), running.next()).await else {
                running.extend(candidates.next());
                continue;
            };
            next
        } else {
            running.next().await
        };
        match next {
            Some((index, Ok(bytes))) => {
                places[place_of(recovery, index)] = Some(bytes);
                missing -= 1;
            }
            Some((_, Err(error))) => {
                last = Some(error);
                running.extend(candidates.next());
            }
            None => return Err(too_few(recovery, missing, last)),
        }
    }
    Ok(places)
}

fn verified(member: &Source, bytes: Bytes) -> Result<Bytes> {
    if bytes.len() as u64 == member.len && member.cid.matches(&bytes) {
        return Ok(bytes);
    }
    Err(Error::data(format!("wrong bytes for shard {}", member.cid)))
}

fn too_few(recovery: &Recovery, missing: usize, last: Option<Error>) -> Error {
    let shard = &recovery.members[usize::from(recovery.index)].cid;
    let why = last.map(|e| format!(" (last: {e})")).unwrap_or_default();
    Error::unavailable(format!("shard {shard} is lost with too many of its group: {missing} more needed{why}"))
        .with_hint("start more of the nodes that hold the table")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use async_trait::async_trait;
    use conun_types::{Cid, ErrorKind, Holder};

    use super::*;

    struct Group {
        recovery: Recovery,
        blocks: HashMap<Cid, Bytes>,
    }

    /// Three data shards under 4+2: the fourth is virtual.
    fn group() -> Group {
        let data: Vec<Bytes> = (1..=3u8).map(|n| Bytes::from(vec![n; 1000 * usize::from(n)])).collect();
        let parity = erasure::code(CodeSpec { data: 4, parity: 2 }).unwrap().encode(&data).unwrap();
        let all: Vec<Bytes> = data.into_iter().chain(parity).collect();
        let source = |b: &Bytes| Source { cid: Cid::raw(b), len: b.len() as u64, holders: vec![], recovery: None };
        let members = all.iter().map(source).collect();
        let recovery = Recovery { data: 4, parity: 2, padded_len: 3000, index: 0, members };
        Group { recovery, blocks: all.into_iter().map(|b| (Cid::raw(&b), b)).collect() }
    }

    struct Blocks<'a>(&'a HashMap<Cid, Bytes>);

    #[async_trait]
    impl Reader for Blocks<'_> {
        async fn here(&self, source: &Source) -> Option<Bytes> {
            self.0.get(&source.cid).cloned()
        }

        async fn ask(&self, _: &Source, _: &Holder) -> Result<Bytes> {
            unreachable!("nobody holds anything")
        }

        fn line(&self) -> u64 {
            crate::holders::VOLUNTEER_LINE
        }
    }

    fn run(recovery: &Recovery, blocks: &HashMap<Cid, Bytes>) -> Result<Bytes> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(recover_shard(recovery, &Blocks(blocks)))
    }

    #[test]
    fn any_two_losses_decode_a_third_is_told() {
        let Group { recovery, blocks } = group();
        for index in 0..5 {
            for other in 0..5 {
                let mut left = blocks.clone();
                left.remove(&recovery.members[index].cid);
                left.remove(&recovery.members[other].cid);
                let wanted = Recovery { index: index as u16, ..recovery.clone() };
                assert_eq!(run(&wanted, &left).unwrap(), blocks[&recovery.members[index].cid]);
            }
        }
        let left = blocks.into_iter().filter(|(c, _)| recovery.members[3..].iter().any(|m| m.cid == *c)).collect();
        assert_eq!(run(&recovery, &left).unwrap_err().kind, ErrorKind::Unavailable);
    }

    #[test]
    fn wrong_bytes_count_as_lost() {
        let Group { recovery, mut blocks } = group();
        blocks.insert(recovery.members[1].cid, Bytes::from(vec![9; 2000]));
        assert_eq!(run(&recovery, &blocks).unwrap(), Bytes::from(vec![1; 1000]));
        blocks.insert(recovery.members[2].cid, Bytes::new());
        blocks.insert(recovery.members[3].cid, Bytes::from(vec![0; 3000]));
        assert_eq!(run(&recovery, &blocks).unwrap_err().kind, ErrorKind::Unavailable);
    }

    #[test]
    fn nonsense_from_a_stranger_is_refused() {
        let Group { recovery, blocks } = group();
        let with = |change: fn(&mut Recovery)| {
            let mut changed = recovery.clone();
            change(&mut changed);
            run(&changed, &blocks).unwrap_err().kind
        };
        let changes: [fn(&mut Recovery); 10] = [
            |r| r.data = 0,
            |r| r.data = 2,
            |r| (r.data, r.parity) = (u16::MAX, u16::MAX),
            |r| r.parity = 5,
            |r| r.index = 5,
            |r| r.padded_len = u64::MAX,
            |r| r.padded_len = 2999,
            |r| r.members.clear(),
            |r| r.members[0].len = u64::MAX,
            |r| r.members[0].cid = Cid::raw(b"another"),
        ];
        for change in changes {
            assert_eq!(with(change), ErrorKind::Data);
        }
    }
}
