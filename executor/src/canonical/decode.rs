//! Reading canonical blocks that strangers sent. Every length is checked before it is used, every array is validated,
//! nothing is allocated beyond a copy of the bytes.
//!
//! Arrow's own IPC readers are not used: they panic on messages that are well-formed flatbuffers and nonsense beyond.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayData, ArrayRef, BufferSpec, RecordBatch, RecordBatchOptions, layout, make_array},
    buffer::Buffer,
    datatypes::{DataType, Field, SchemaRef},
    error::ArrowError,
    ipc,
};
use conun_types::{Error, Result, profile, wire::MAX_BLOCK};

use super::{ALIGNMENT, schema};

/// What precedes the length of a message (Arrow IPC, "Encapsulated message format").
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Decodes a canonical block: its schema and its batches of at most [`profile::BATCH_ROWS`] rows.
///
/// # Errors
/// Kind `Data` where the bytes are no block that [`super::encode`] could have written, as far as safety needs to know.
pub fn decode(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let blocks = Batches::open(bytes)?;
    let schema = blocks.schema().clone();
    Ok((schema, blocks.collect::<Result<_>>()?))
}

/// The batches of a canonical block, decoded one by one: each owns a copy of its bytes and no more, so that memory is
/// counted for what is in use.
#[derive(Debug)]
pub struct Batches<B> {
    bytes: B,
    /// Where the next message starts; none after the end or an error.
    at: Option<usize>,
    schema: SchemaRef,
}

impl<B: AsRef<[u8]>> Batches<B> {
    /// Reads the schema of the block `bytes`.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn open(bytes: B) -> Result<Self> {
        let mut messages = Messages::open(bytes.as_ref())?;
        let schema = Arc::new(messages.schema()?);
        let at = Some(messages.at);
        Ok(Self { bytes, at, schema })
    }

    /// The schema of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn read(&mut self, at: usize) -> Result<Option<RecordBatch>> {
        let bytes = self.bytes.as_ref();
        let mut messages = Messages { bytes, at };
        let Some((message, body)) = messages.batch()? else { return Ok(None) };
        // An aligned copy, in which the arrays of the batch then share their buffers.
        let batch = read_batch(&self.schema, &message, Buffer::from(&bytes[body]))?;
        self.at = Some(messages.at);
        Ok(Some(batch))
    }
}

impl<B: AsRef<[u8]>> Iterator for Batches<B> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        self.read(at).transpose()
    }
}

/// Rows of a canonical block, read from its messages' heads.
///
/// # Errors
/// As [`decode`], though the arrays themselves are not checked.
pub fn row_count(bytes: &[u8]) -> Result<u64> {
    let mut messages = Messages::open(bytes)?;
    messages.schema()?;
    let mut rows = 0;
    while let Some((message, _)) = messages.batch()? {
        rows += batch_rows(&message)? as u64;
    }
    Ok(rows)
}

/// The messages of a stream, in order.
struct Messages<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Messages<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() as u64 > MAX_BLOCK {
            return Err(malformed("too large"));
        }
        Ok(Self { bytes, at: 0 })
    }

    fn schema(&mut self) -> Result<arrow::datatypes::Schema> {
        let (message, body) = self.next()?.ok_or_else(|| malformed("no schema"))?;
        if !body.is_empty() {
            return Err(malformed("a schema with a body"));
        }
        schema::from_message(&message.header_as_schema().ok_or_else(|| malformed("no schema"))?)
    }

    fn batch(&mut self) -> Result<Option<(ipc::RecordBatch<'a>, Range<usize>)>> {
        let Some((message, body)) = self.next()? else { return Ok(None) };
        let batch = message.header_as_record_batch().ok_or_else(|| malformed("a message that is no batch"))?;
        Ok(Some((batch, body)))
    }

    /// The next message and where its body lies; none at the end mark, which must be the last thing.
    fn next(&mut self) -> Result<Option<(ipc::Message<'a>, Range<usize>)>> {
        if self.take(4)? != CONTINUATION {
            return Err(malformed("no message where one should be"));
        }
        let head = self.take(4)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if len == 0 {
            return if self.at == self.bytes.len() { Ok(None) } else { Err(malformed("bytes after the end")) };
        }
        let message = ipc::root_as_message(self.take(len)?).map_err(|_| malformed("a broken message"))?;
        if message.version() != ipc::MetadataVersion::V5 {
            return Err(malformed("another metadata version"));
        }
        let start = self.at;
        self.take(usize::try_from(message.bodyLength()).map_err(|_| malformed("a negative length"))?)?;
        Ok(Some((message, start..self.at)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end =
            self.at.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or_else(|| malformed("truncated"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
}

fn batch_rows(message: &ipc::RecordBatch<'_>) -> Result<usize> {
    usize::try_from(message.length())
        .ok()
        .filter(|rows| *rows <= profile::BATCH_ROWS)
        .ok_or_else(|| malformed("a batch of absurd length"))
}

fn read_batch(schema: &SchemaRef, message: &ipc::RecordBatch<'_>, body: Buffer) -> Result<RecordBatch> {
    let rows = batch_rows(message)?;
    if message.compression().is_some() || message.variadicBufferCounts().is_some_and(|v| !v.is_empty()) {
        return Err(malformed("compressed, or of a type that is not canonical"));
    }
    let mut reader = Reader {
        nodes: message.nodes().iter().flatten().copied().collect::<Vec<_>>().into_iter(),
        buffers: message.buffers().iter().flatten().copied().collect::<Vec<_>>().into_iter(),
        body,
        read: 0,
    };
    let columns: Result<Vec<ArrayRef>> = schema.fields().iter().map(|f| reader.array(f).map(make_array)).collect();
    if reader.nodes.next().is_some() || reader.buffers.next().is_some() {
        return Err(malformed("more buffers than its schema has"));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns?, &options).map_err(invalid)
}

/// Takes nodes and buffers in the order in which the schema's fields need them.
struct Reader {
    nodes: std::vec::IntoIter<ipc::FieldNode>,
    buffers: std::vec::IntoIter<ipc::Buffer>,
    body: Buffer,
    /// Where the last buffer ended.
    read: usize,
}

impl Reader {
    fn array(&mut self, field: &Field) -> Result<ArrayData> {
        let (len, null_count) = self.node()?;
        let data_type = field.data_type();
        let mut builder = ArrayData::builder(data_type.clone()).len(len);
        if *data_type != DataType::Null {
            let validity = self.buffer()?;
            if null_count > 0 {
                if validity.len() < len.div_ceil(8) {
                    return Err(malformed("validity is too short"));
                }
                builder = builder.null_bit_buffer(Some(validity)).null_count(null_count);
            }
        }
        for spec in &layout(data_type).buffers {
            let buffer = self.buffer()?;
            // Arrow's validation looks at a buffer as whole values, and panics where a part of one is left over.
            if let BufferSpec::FixedWidth { byte_width, .. } = spec
                && !buffer.len().is_multiple_of(*byte_width)
            {
                return Err(malformed("a buffer that ends within a value"));
            }
            builder = builder.add_buffer(buffer);
        }
        for child in children(data_type) {
            builder = builder.add_child_data(self.array(child)?);
        }
        builder.build().map_err(invalid)
    }

    /// Length and null count. A value takes at least a bit of the body, but for nulls and structs without fields,
    /// which take none: those are bounded like rows.
    fn node(&mut self) -> Result<(usize, usize)> {
        let node = self.nodes.next().ok_or_else(|| malformed("fewer columns than its schema has"))?;
        let bound = profile::BATCH_ROWS.max(self.body.len().saturating_mul(8));
        let len = usize::try_from(node.length()).ok().filter(|len| *len <= bound);
        let len = len.ok_or_else(|| malformed("an array of absurd length"))?;
        let nulls = usize::try_from(node.null_count()).ok().filter(|nulls| *nulls <= len);
        Ok((len, nulls.ok_or_else(|| malformed("more nulls than values"))?))
    }

    /// The next buffer. Each lies behind the one before: buffers that share bytes would be a small block of any number
    /// of values. And each is aligned, or Arrow would copy it.
    fn buffer(&mut self) -> Result<Buffer> {
        let buffer = self.buffers.next().ok_or_else(|| malformed("fewer buffers than its schema has"))?;
        let offset = usize::try_from(buffer.offset()).map_err(|_| malformed("a negative offset"))?;
        let len = usize::try_from(buffer.length()).map_err(|_| malformed("a negative length"))?;
        if offset.checked_add(len).is_none_or(|end| end > self.body.len()) {
            return Err(malformed("a buffer outside of its message"));
        }
        if offset < self.read || !offset.is_multiple_of(ALIGNMENT) {
            return Err(malformed("buffers that overlap or are not aligned"));
        }
        self.read = offset + len;
        Ok(self.body.slice_with_length(offset, len))
    }
}

fn children(data_type: &DataType) -> Vec<&Field> {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => {
            vec![item.as_ref()]
        }
        DataType::Struct(fields) => fields.iter().map(AsRef::as_ref).collect(),
        _ => Vec::new(),
    }
}

fn malformed(what: &str) -> Error {
    Error::data(format!("malformed block: {what}"))
}

fn invalid(error: ArrowError) -> Error {
    Error::data(format!("malformed block: {error}"))
}
