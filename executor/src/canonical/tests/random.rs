//! What the encoding promises, for random schemas: every type that has a canonical form, in every layout, nested.

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{FieldRef, Schema},
};
use proptest::prelude::*;

use super::{
    super::*,
    layout::Layouts,
    values::{Value, normal, read, table, value},
};

/// A table, some columns of which are not said to be nullable where nothing is null.
#[derive(Debug, Clone)]
struct Table {
    fields: Vec<FieldRef>,
    columns: Vec<Vec<Value>>,
}

impl Table {
    fn rows(&self) -> usize {
        self.columns[0].len()
    }

    /// Its block, its rows cut at `cuts` and laid out as `seed` says.
    fn encode(&self, seed: u64, cuts: &[prop::sample::Index]) -> Result<Bytes> {
        let mut layouts = Layouts(seed);
        let fields: Vec<FieldRef> = self.fields.iter().map(|f| layouts.field(f)).collect();
        let schema = Arc::new(Schema::new(fields));
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(self.rows() + 1)).collect();
        ends.push(self.rows());
        ends.sort_unstable();
        let mut start = 0;
        let mut batches = Vec::new();
        for end in ends {
            batches.push(self.batch(&schema, start..end, &mut layouts));
            start = end;
        }
        encode(&schema, &batches)
    }

    fn batch(&self, schema: &SchemaRef, rows: std::ops::Range<usize>, layouts: &mut Layouts) -> RecordBatch {
        let columns = schema.fields().iter().zip(&self.columns);
        let columns = columns.map(|(field, values)| layouts.array(field, &values[rows.clone()])).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(schema.clone(), columns, &options).unwrap()
    }

    fn normal(&self) -> Vec<Vec<Value>> {
        let columns = self.fields.iter().zip(&self.columns);
        columns.map(|(field, values)| values.iter().map(|v| normal(v, field.data_type())).collect()).collect()
    }
}

fn tables() -> impl Strategy<Value = Table> {
    table(24).prop_map(|(fields, columns)| Table { fields, columns })
}

/// A table and a copy of it with another value somewhere.
fn neighbours() -> impl Strategy<Value = (Table, Table)> {
    let with_rows = tables().prop_filter("no rows", |table| table.rows() > 0);
    with_rows.prop_flat_map(|table| {
        let (columns, rows) = (0..table.columns.len(), 0..table.rows());
        (Just(table), columns, rows).prop_flat_map(|(table, column, row)| {
            let other = value(&table.fields[column]);
            (Just(table), other).prop_map(move |(table, other)| {
                let mut changed = table.clone();
                changed.columns[column][row] = other;
                (table, changed)
            })
        })
    })
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..3)
}

/// The values of a block, column by column.
fn decoded(bytes: &[u8]) -> (SchemaRef, Vec<Vec<Value>>) {
    let (schema, batches) = decode(bytes).unwrap();
    let column = |at| batches.iter().flat_map(|b: &RecordBatch| read(b.column(at))).collect();
    let columns = (0..schema.fields().len()).map(column).collect();
    (schema, columns)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn equal_rows_are_equal_bytes_in_any_layout(table in tables(), seeds in any::<[u64; 2]>(), at in cuts(), elsewhere in cuts()) {
        let bytes = table.encode(seeds[0], &at).unwrap();
        prop_assert_eq!(&table.encode(seeds[1], &elsewhere).unwrap(), &bytes);
        prop_assert_eq!(row_count(&bytes).unwrap(), table.rows() as u64);
    }

    #[test]
    fn decoding_gives_the_values_with_one_nan(table in tables(), seed in any::<u64>(), cuts in cuts()) {
        let bytes = table.encode(seed, &cuts).unwrap();
        let (schema, columns) = decoded(&bytes);
        prop_assert_eq!(columns, table.normal());
        prop_assert_eq!(schema.as_ref(), &Schema::new(table.fields.clone()));
        prop_assert_eq!(encode(&schema, &decode(&bytes).unwrap().1).unwrap(), bytes);
    }

    #[test]
    fn bytes_differ_exactly_where_values_do((table, changed) in neighbours(), seeds in any::<[u64; 2]>()) {
        let same = table.normal() == changed.normal();
        let bytes = [table.encode(seeds[0], &[]).unwrap(), changed.encode(seeds[1], &[]).unwrap()];
        prop_assert_eq!(bytes[0] == bytes[1], same);
    }

    #[test]
    fn other_columns_are_other_bytes(a in tables(), b in tables()) {
        let of = |table: &Table| encode(&Schema::new(table.fields.clone()), &[]).unwrap();
        prop_assert_eq!(of(&a) == of(&b), a.fields == b.fields);
    }

    #[test]
    fn a_mutated_block_is_an_error_or_a_block(
        table in tables(),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = table.encode(0, &[]).unwrap().to_vec();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(keep.map_or(bytes.len(), |keep| keep.index(bytes.len())));
        let _ = row_count(&bytes);
        if let Ok((schema, batches)) = decode(&bytes) {
            let size = |batch: &RecordBatch| {
                let columns = batch.columns().iter();
                columns.map(|c| c.to_data().get_slice_memory_size().unwrap()).sum::<usize>()
            };
            let shown: usize = batches.iter().map(size).sum();
            prop_assert!(shown <= bytes.len(), "{shown} bytes of values out of {}", bytes.len());
            let again = encode(&schema, &batches);
            prop_assert!(again.is_ok(), "{:?}", again.err());
        }
    }
}
