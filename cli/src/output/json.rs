//! JSON: one array of objects, or one object a line. NULLs are written, so that every object has every key.

use std::io::Write;

use arrow::{
    array::RecordBatch,
    json::{
        Writer, WriterBuilder,
        writer::{JsonArray, LineDelimited},
    },
};
use conun_types::Result;

use super::{RowWriter, Target, unprintable};

/// Writes JSON in one of the two layouts.
pub(super) enum Json {
    /// `[{…},{…}]`
    Array(Writer<Target, JsonArray>),
    /// `{…}\n{…}\n`
    Lines(Writer<Target, LineDelimited>),
}

impl Json {
    pub(super) fn array(target: Target) -> Self {
        Self::Array(WriterBuilder::new().with_explicit_nulls(true).build(target))
    }

    pub(super) fn lines(target: Target) -> Self {
        Self::Lines(WriterBuilder::new().with_explicit_nulls(true).build(target))
    }
}

impl RowWriter for Json {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Array(writer) => writer.write(batch),
            Self::Lines(writer) => writer.write(batch),
        }
        .map_err(|e| unprintable(&e))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let (finished, mut target, end) = match *self {
            Self::Array(mut writer) => (writer.finish(), writer.into_inner(), "\n"),
            Self::Lines(mut writer) => (writer.finish(), writer.into_inner(), ""),
        };
        finished.map_err(|e| unprintable(&e))?;
        target.write_all(end.as_bytes())?;
        target.complete()
    }
}
