//! Dishonest twins: each cheats in one way, around the honest service, and must be caught.
//!
//! A twin's lies are consistent (its receipt signs for the block that it shows), so that only another replica or the
//! hash of a block gives it away.

use std::{fmt, str::FromStr, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray},
    compute::{cast, concat, kernels::numeric::add_wrapping},
    datatypes::DataType,
};
use async_trait::async_trait;
use bytes::Bytes;
use conun_executor::{TaskOutput, canonical};
use conun_types::{
    Answer, Cid, Error, NodeId, OutputBlock, Result, SignedReceipt, TaskOffer, TaskReceipt, Vote, WorkUnits,
    port::{OfferReply, Volunteer},
    wire::{BlockError, ControlReply, ControlRequest, Hello, ReadBlock, WriteBlock},
};

use crate::service::{Executed, NodeService, Slot, answer};

/// How a node cheats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiarMode {
    /// Changes one value of one output block.
    WrongValue,
    /// Leaves rows out of an output block.
    DropRows,
    /// Accepts tasks and never answers.
    Stall,
    /// Serves other bytes than those that a block's id names.
    CorruptBlock,
    /// Asks pay for more units than the volumes give.
    Inflate,
    /// Signs another receipt for the same order when it is asked again.
    Equivocate,
}

impl LiarMode {
    /// Every mode.
    pub const ALL: [LiarMode; 6] = [
        LiarMode::WrongValue,
        LiarMode::DropRows,
        LiarMode::Stall,
        LiarMode::CorruptBlock,
        LiarMode::Inflate,
        LiarMode::Equivocate,
    ];

    fn name(self) -> &'static str {
        match self {
            LiarMode::WrongValue => "wrong-value",
            LiarMode::DropRows => "drop-rows",
            LiarMode::Stall => "stall",
            LiarMode::CorruptBlock => "corrupt-block",
            LiarMode::Inflate => "inflate",
            LiarMode::Equivocate => "equivocate",
        }
    }
}

impl fmt::Display for LiarMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LiarMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| {
            let modes = Self::ALL.map(Self::name).join(", ");
            Error::usage(format!("'{text}' is no way to lie")).with_hint(format!("the modes are {modes}"))
        })
    }
}

/// A cheating volunteer.
pub(crate) struct Twin {
    honest: Arc<NodeService>,
    mode: LiarMode,
}

impl Twin {
    pub(crate) fn new(honest: Arc<NodeService>, mode: LiarMode) -> Self {
        Self { honest, mode }
    }

    fn tamper(&self, output: TaskOutput) -> TaskOutput {
        match self.mode {
            LiarMode::WrongValue => tamper(output, wrong_value),
            LiarMode::DropRows => tamper(output, drop_rows),
            LiarMode::Stall | LiarMode::CorruptBlock | LiarMode::Inflate | LiarMode::Equivocate => output,
        }
    }

    /// The receipt with other units, signed as the first was.
    fn resign(&self, signed: SignedReceipt, units: impl Fn(u64) -> u64) -> SignedReceipt {
        let receipt = TaskReceipt { units: WorkUnits(units(signed.receipt.units.0)), ..signed.receipt };
        SignedReceipt::sign(receipt, &self.honest.cashier.domain(), &self.honest.key)
    }

    fn vote(&self, vote: Vote) -> Vote {
        match self.mode {
            LiarMode::Inflate => Vote { receipt: self.resign(vote.receipt, |units| units.saturating_mul(2)), ..vote },
            _ => vote,
        }
    }
}

/// Replaces the first block that `lie` can change. Where there is none, the answer stays honest.
fn tamper(mut output: TaskOutput, lie: fn(&[RecordBatch]) -> Option<Vec<RecordBatch>>) -> TaskOutput {
    for (block, bytes) in &mut output.blocks {
        if let Some((changed, encoded)) = tampered(block.partition, bytes, lie) {
            (*block, *bytes) = (changed, encoded);
            break;
        }
    }
    output
}

fn tampered(
    partition: u32,
    bytes: &[u8],
    lie: fn(&[RecordBatch]) -> Option<Vec<RecordBatch>>,
) -> Option<(OutputBlock, Bytes)> {
    let (schema, batches) = canonical::decode(bytes).ok()?;
    let batches = lie(&batches)?;
    let encoded = canonical::encode(&schema, &batches).ok()?;
    let rows = batches.iter().map(|b| b.num_rows() as u64).sum();
    Some((OutputBlock { partition, cid: Cid::raw(&encoded), rows, bytes: encoded.len() as u64 }, encoded))
}

/// One value made another.
fn wrong_value(batches: &[RecordBatch]) -> Option<Vec<RecordBatch>> {
    let (index, batch) = batches.iter().enumerate().find_map(|(i, batch)| Some((i, wrong_batch(batch)?)))?;
    let mut batches = batches.to_vec();
    batches[index] = batch;
    Some(batches)
}

fn wrong_batch(batch: &RecordBatch) -> Option<RecordBatch> {
    // From the last column: in the first there often are keys, whose change would show in a join's row count.
    let (index, column) = (0..batch.num_columns()).rev().find_map(|i| Some((i, wrong_column(batch.column(i))?)))?;
    let mut columns = batch.columns().to_vec();
    columns[index] = column;
    RecordBatch::try_new(batch.schema(), columns).ok()
}

/// The column with its first value that is not null changed.
fn wrong_column(column: &ArrayRef) -> Option<ArrayRef> {
    let row = (0..column.len()).find(|row| column.is_valid(*row))?;
    let value = column.slice(row, 1);
    let wrong = other_value(&value)?;
    let (head, tail) = (column.slice(0, row), column.slice(row + 1, column.len() - row - 1));
    let changed = concat(&[head.as_ref(), wrong.as_ref(), tail.as_ref()]).ok()?;
    (wrong.as_ref() != value.as_ref()).then_some(changed)
}

/// Another value of the same type.
fn other_value(value: &ArrayRef) -> Option<ArrayRef> {
    let data_type = value.data_type();
    match data_type {
        DataType::Null | DataType::FixedSizeBinary(_) | DataType::Binary | DataType::LargeBinary => None,
        DataType::Boolean => Some(Arc::new(BooleanArray::from(vec![!value.as_boolean().value(0)]))),
        DataType::Utf8 => Some(Arc::new(StringArray::from(vec![format!("{}~", value.as_string::<i32>().value(0))]))),
        nested if nested.is_nested() => None,
        _ => {
            let number = cast(value, &DataType::Int64).ok()?;
            let more = add_wrapping(&number, &Int64Array::new_scalar(1)).ok()?;
            cast(&more, data_type).ok().filter(|wrong| wrong.is_valid(0))
        }
    }
}

/// The first half of the rows left out, at least one.
fn drop_rows(batches: &[RecordBatch]) -> Option<Vec<RecordBatch>> {
    let index = batches.iter().position(|batch| batch.num_rows() > 0)?;
    let mut batches = batches.to_vec();
    let rows = batches[index].num_rows();
    let dropped = rows.div_ceil(2);
    batches[index] = batches[index].slice(dropped, rows - dropped);
    Some(batches)
}

/// The same bytes but for one bit.
fn flip(bytes: &Bytes) -> Bytes {
    let mut wrong = bytes.to_vec();
    let middle = wrong.len() / 2;
    if let Some(byte) = wrong.get_mut(middle) {
        *byte ^= 1;
    }
    wrong.into()
}

#[async_trait]
impl Volunteer for Twin {
    fn hello(&self) -> Hello {
        self.honest.hello()
    }

    async fn offer(&self, from: NodeId, offer: &TaskOffer) -> OfferReply {
        self.honest.offer(from, offer).await
    }

    async fn run(&self, from: NodeId, offer: TaskOffer, envelope: Bytes) -> Answer {
        let _slot = Slot::new(&self.honest, from, &offer);
        if self.mode == LiarMode::Stall {
            std::future::pending::<()>().await;
        }
        match self.honest.execute(from, &offer, &envelope).await {
            Ok(Executed { envelope, output, complaints }) => {
                let output = self.tamper(output);
                let vote = self.honest.publish(from, &offer, &envelope, output).await;
                answer(vote.map(|vote| self.vote(vote)), complaints)
            }
            Err((failure, complaints)) => answer(Err(failure), complaints),
        }
    }

    fn release(&self, from: NodeId, offer: &TaskOffer) {
        self.honest.release(from, offer);
    }

    async fn read_block(&self, from: NodeId, request: &ReadBlock) -> Result<Bytes, BlockError> {
        let bytes = self.honest.read_block(from, request).await?;
        Ok(if self.mode == LiarMode::CorruptBlock { flip(&bytes) } else { bytes })
    }

    async fn may_write(&self, from: NodeId, request: &WriteBlock) -> Result<(), BlockError> {
        self.honest.may_write(from, request).await
    }

    async fn write_block(&self, from: NodeId, request: WriteBlock, data: Bytes) -> Result<(), BlockError> {
        self.honest.write_block(from, request, data).await
    }

    async fn control(&self, from: NodeId, request: ControlRequest) -> ControlReply {
        match self.honest.control(from, request).await {
            ControlReply::Receipt(Some(receipt)) if self.mode == LiarMode::Equivocate => {
                ControlReply::Receipt(Some(Box::new(self.resign(*receipt, |units| units.saturating_add(1)))))
            }
            reply => reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Date32Array, Decimal128Array, Float64Array, NullArray},
        datatypes::{Field, Schema},
    };

    use super::*;

    #[test]
    fn modes_have_names_and_unknown_ones_a_hint() {
        for mode in LiarMode::ALL {
            assert_eq!(mode.to_string().parse::<LiarMode>(), Ok(mode));
        }
        let error = "white".parse::<LiarMode>().unwrap_err();
        assert!(error.hint.is_some_and(|hint| hint.contains("wrong-value") && hint.contains("corrupt-block")));
    }

    fn block(columns: Vec<ArrayRef>) -> TaskOutput {
        let fields: Vec<_> =
            columns.iter().enumerate().map(|(i, c)| Field::new(i.to_string(), c.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let bytes = canonical::encode(&schema, std::slice::from_ref(&batch)).unwrap();
        let rows = batch.num_rows() as u64;
        let described = OutputBlock { partition: 0, cid: Cid::raw(&bytes), rows, bytes: bytes.len() as u64 };
        TaskOutput { blocks: vec![(described, bytes)] }
    }

    fn described(output: &TaskOutput) {
        for (block, bytes) in &output.blocks {
            assert_eq!((block.cid, block.bytes), (Cid::raw(bytes), bytes.len() as u64));
            assert_eq!(canonical::row_count(bytes).unwrap(), block.rows);
        }
    }

    #[test]
    fn lies_are_consistent_and_change_the_vote() {
        let decimals = Decimal128Array::from(vec![None, Some(7)]).with_precision_and_scale(10, 2).unwrap();
        let columns: [ArrayRef; 6] = [
            Arc::new(Int64Array::from(vec![None, Some(5)])),
            Arc::new(Float64Array::from(vec![Some(0.5), None])),
            Arc::new(StringArray::from(vec!["a", "b"])),
            Arc::new(BooleanArray::from(vec![true, false])),
            Arc::new(Date32Array::from(vec![3, 4])),
            Arc::new(decimals),
        ];
        for column in columns {
            let honest = block(vec![column.clone()]);
            for (lie, rows) in [(wrong_value as fn(&[RecordBatch]) -> _, 2), (drop_rows, 1)] {
                let lied = tamper(honest.clone(), lie);
                described(&lied);
                assert_ne!(lied.blocks[0].0.cid, honest.blocks[0].0.cid, "{:?}", column.data_type());
                assert_eq!(lied.blocks[0].0.rows, rows);
            }
        }
    }

    #[test]
    fn where_there_is_nothing_to_lie_about_twins_are_honest() {
        let nothing: ArrayRef = Arc::new(NullArray::new(2));
        let empty: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
        for column in [nothing, empty.clone()] {
            let honest = block(vec![column]);
            assert_eq!(tamper(honest.clone(), wrong_value).blocks, honest.blocks);
        }
        let honest = block(vec![empty]);
        assert_eq!(tamper(honest.clone(), drop_rows).blocks, honest.blocks);
        assert_ne!(flip(&Bytes::from_static(b"abc")), Bytes::from_static(b"abc"));
        assert_eq!(flip(&Bytes::new()), Bytes::new());
    }
}
