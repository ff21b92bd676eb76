//! The envelope of an accepted offer: whether it is the one that was ordered and offered, and what it claims is possible.

use std::fmt;

use conun_types::{OutputSpec, TaskEnvelope, TaskOffer, Volume, profile, task::MAX_BLOCKS, wire::MAX_BLOCK};

/// Most rows that any file or block can count: Parquet's counters are signed.
const MAX_ROWS: u64 = i64::MAX as u64;

/// Why an envelope is not run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// No honest coordinator sends it.
    Breach(String),
    /// It is written in a format of another version of Conun, which this one cannot judge.
    OtherFormat(u16),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Breach(reason) => f.write_str(reason),
            Unfit::OtherFormat(version) => {
                write!(f, "task format {version}, this node reads {}", TaskEnvelope::VERSION)
            }
        }
    }
}

/// The envelope, if it is the one that was ordered and offered.
pub(crate) fn open_envelope(offer: &TaskOffer, encoded: &[u8]) -> Result<TaskEnvelope, Unfit> {
    let order = &offer.order.order;
    let breach = |reason: &str| Err(Unfit::Breach(reason.to_owned()));
    if !order.task_cid.matches(encoded) {
        return breach("the task is not the one that was ordered");
    }
    let envelope = TaskEnvelope::decode(encoded).map_err(|error| match TaskEnvelope::version_of(encoded) {
        Some(version) if version != TaskEnvelope::VERSION => Unfit::OtherFormat(version),
        _ => Unfit::Breach(error.message),
    })?;
    // The desk has seen that the offer names this node's profile.
    if envelope.profile != offer.profile || envelope.profile != profile::hash() {
        return breach("the task is of another execution profile than its offer");
    }
    if envelope.memory != offer.memory || envelope.job != order.job {
        return breach("the task is not the one that was offered");
    }
    if has_absurd_counts(&envelope) {
        return breach("the task counts more rows, bytes or outputs than there can be");
    }
    Ok(envelope)
}

/// Whether it names sizes that no table and no earlier stage can have.
fn has_absurd_counts(envelope: &TaskEnvelope) -> bool {
    let absurd = |volume: Volume| volume.bytes > MAX_BLOCK || volume.rows > MAX_ROWS;
    let outputs = match envelope.output {
        OutputSpec::Passthrough => 0,
        OutputSpec::Hash(partitions) => partitions as usize,
    };
    let mut inputs = envelope.shards.iter().map(|s| s.volume).chain(envelope.blocks.iter().map(|b| b.volume));
    outputs > MAX_BLOCKS || inputs.any(absurd)
}

#[cfg(test)]
mod tests {
    use conun_types::{
        AccountId, Amount, Capability, Cid, InputBlock, InputShard, JobId, Lease, LeaseId, LeaseKind, MemoryClass,
        NodeKey, OsRng, SignedOrder, TaskOrder, codec, eip712::Domain,
    };

    use super::*;

    fn envelope() -> TaskEnvelope {
        TaskEnvelope {
            output: OutputSpec::Hash(4),
            shards: vec![InputShard { cid: Cid::raw(b"s"), volume: Volume { rows: 1, bytes: MAX_BLOCK } }],
            blocks: vec![InputBlock { cid: Cid::raw(b"b"), volume: Volume { rows: MAX_ROWS, bytes: 4 } }],
            ..TaskEnvelope::new(JobId([1; 16]), 1, 0, vec![1, 2, 3])
        }
    }

    /// An offer of job 1 for exactly these bytes.
    fn offer(encoded: &[u8]) -> TaskOffer {
        let key = NodeKey::generate(&OsRng);
        let order = TaskOrder {
            job: JobId([1; 16]),
            task_cid: Cid::raw(encoded),
            provider: key.id(),
            nonce: 1,
            account: AccountId::default(),
            price: Amount::ZERO,
            deadline: 1,
        };
        TaskOffer {
            order: SignedOrder::sign(order, &Domain::default(), &key).unwrap(),
            envelope_len: encoded.len() as u64,
            profile: profile::hash(),
            memory: MemoryClass::Small,
            timeout_ms: 1,
            sources: Vec::new(),
            capability: Capability([0; 16]),
            lease: Lease { id: LeaseId::named("j"), kind: LeaseKind::Job, expires: 1 },
        }
    }

    fn opened(change: impl FnOnce(&mut TaskEnvelope)) -> Result<TaskEnvelope, Unfit> {
        let mut envelope = envelope();
        change(&mut envelope);
        let encoded = codec::encode(&envelope).unwrap();
        open_envelope(&offer(&encoded), &encoded)
    }

    #[test]
    fn the_envelope_of_the_order_is_opened() {
        assert_eq!(opened(|_| {}), Ok(envelope()));
    }

    #[test]
    fn what_does_not_belong_to_the_order_or_cannot_be_is_a_breach() {
        let encoded = codec::encode(&envelope()).unwrap();
        let cases = [
            (open_envelope(&offer(b"another task"), &encoded), "ordered"),
            (open_envelope(&offer(b"nonsense"), b"nonsense"), ""),
            (opened(|e| e.job = JobId([2; 16])), "offered"),
            (opened(|e| e.memory = MemoryClass::Large), "offered"),
            (opened(|e| e.profile = [7; 32]), "profile"),
            (opened(|e| e.shards[0].volume.bytes += 1), "than there can be"),
            (opened(|e| e.blocks[0].volume.rows += 1), "than there can be"),
            (opened(|e| e.output = OutputSpec::Hash(u32::MAX)), "than there can be"),
            (opened(|e| e.blocks = vec![e.blocks[0]; MAX_BLOCKS + 1]), "inputs"),
        ];
        for (unfit, why) in cases {
            let Err(Unfit::Breach(reason)) = &unfit else { panic!("{unfit:?}, expected a breach: {why}") };
            assert!(reason.contains(why), "{reason} should say {why}");
        }
    }

    #[test]
    fn another_format_is_no_breach() {
        assert_eq!(opened(|e| e.version = 9), Err(Unfit::OtherFormat(9)));
    }
}
