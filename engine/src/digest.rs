//! The digest of an answer: of the sequence of its rows where the statement orders them, else of their multiset.
//!
//! A row's bytes are those of arrow's row format (which is the same on every platform), so that the digest does not
//! follow batch boundaries. A sequence is hashed row by row; a multiset is the sum of the rows' hashes modulo 2^256,
//! then hashed with their number, so the order in which rows arrive does not matter.

use arrow::{
    datatypes::SchemaRef,
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};
use conun_types::{Error, Result};

/// Digests an answer while it streams.
pub(crate) struct Digest {
    converter: RowConverter,
    ordered: bool,
    sequence: blake3::Hasher,
    sum: [u64; 4],
    rows: u64,
}

impl Digest {
    /// A digest of rows of `schema`; `ordered` where their order is part of the answer.
    pub(crate) fn new(schema: &SchemaRef, ordered: bool) -> Result<Self> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(|e| Error::internal(e.to_string()))?;
        let sequence = blake3::Hasher::new_derive_key("conun sequence digest v1");
        Ok(Self { converter, ordered, sequence, sum: [0; 4], rows: 0 })
    }

    /// Adds the rows of `batch`.
    pub(crate) fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        if batch.num_columns() == 0 {
            return Ok(());
        }
        let rows = self.converter.convert_columns(batch.columns()).map_err(|e| Error::internal(e.to_string()))?;
        for row in &rows {
            let bytes = row.as_ref();
            if self.ordered {
                self.sequence.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
            } else {
                self.add(blake3::hash(bytes).as_bytes());
            }
        }
        Ok(())
    }

    fn add(&mut self, hash: &[u8; 32]) {
        let mut carry = false;
        for (limb, bytes) in self.sum.iter_mut().zip(hash.chunks_exact(8)) {
            let mut word = [0u8; 8];
            word.copy_from_slice(bytes);
            let (sum, first) = limb.overflowing_add(u64::from_le_bytes(word));
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, first || second);
        }
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// `sequence` or `multiset`.
    pub(crate) fn kind(ordered: bool) -> &'static str {
        if ordered { "sequence" } else { "multiset" }
    }

    /// The digest, in hex.
    pub(crate) fn finish(&self) -> String {
        let mut hasher = self.sequence.clone();
        if !self.ordered {
            hasher = blake3::Hasher::new_derive_key("conun multiset digest v1");
            for limb in self.sum {
                hasher.update(&limb.to_le_bytes());
            }
        }
        hasher.update(&self.rows.to_le_bytes());
        hasher.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    fn batch(rows: &[(i64, &str)]) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1)));
        RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap()
    }

    fn digest(ordered: bool, batches: &[RecordBatch]) -> String {
        let mut digest = Digest::new(&batches[0].schema(), ordered).unwrap();
        for batch in batches {
            digest.update(batch).unwrap();
        }
        digest.finish()
    }

    #[test]
    fn order_matters_to_a_sequence_only_and_batches_never() {
        let (a, b) = (batch(&[(1, "x"), (2, "y")]), batch(&[(2, "y"), (1, "x")]));
        assert_eq!(digest(false, std::slice::from_ref(&a)), digest(false, std::slice::from_ref(&b)));
        assert_ne!(digest(true, std::slice::from_ref(&a)), digest(true, &[b]));
        for ordered in [true, false] {
            let split = [a.slice(0, 1), a.slice(1, 1)];
            assert_eq!(digest(ordered, &split), digest(ordered, std::slice::from_ref(&a)));
            assert_ne!(digest(ordered, &[batch(&[(1, "x"), (2, "z")])]), digest(ordered, std::slice::from_ref(&a)));
            assert_ne!(digest(ordered, &[batch(&[(1, "x"), (1, "x")])]), digest(ordered, &[batch(&[(1, "x")])]));
        }
    }
}
