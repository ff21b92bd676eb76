//! Plans as bytes: DataFusion's protobuf, with [`BlockReaderExec`], [`EquivalenceBarrierExec`] and what it cuts off ([`lost`]) as
//! extensions.

mod lost;

use std::sync::Arc;

use conun_types::{Cid, Codec, Error, InputBlock, Volume};
use datafusion::{
    arrow::datatypes::{DataType, Schema, SchemaRef},
    common::ScalarValue,
    error::{DataFusionError, Result},
    execution::TaskContext,
    physical_expr::LexOrdering,
    physical_expr::{
        PhysicalExpr,
        expressions::{CastExpr, Literal, lit},
    },
    physical_plan::ExecutionPlan,
};
use datafusion_proto::{
    bytes::{physical_plan_from_bytes_with_proto_converter, physical_plan_to_bytes_with_proto_converter},
    physical_plan::{
        PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalPlanNodeExt, PhysicalProtoConverterExtension,
        from_proto::{parse_physical_expr_with_converter, parse_physical_sort_exprs, parse_protobuf_partitioning},
        to_proto::{serialize_partitioning, serialize_physical_expr_with_converter, serialize_physical_sort_exprs},
    },
    protobuf::{self, physical_expr_node::ExprType, physical_plan_node::PhysicalPlanType},
};
use prost::{Message, Oneof};

use self::lost::Lost;
use crate::{
    block_reader::BlockReaderExec,
    equivalence_barrier::{EquivalenceBarrierExec, Known},
};

/// Encodes `plan` for a task envelope.
///
/// # Errors
/// Kind `Internal` where an operator or expression has no encoding: the planner let something through.
pub fn encode_plan(plan: &Arc<dyn ExecutionPlan>) -> conun_types::Result<Vec<u8>> {
    physical_plan_to_bytes_with_proto_converter(Arc::clone(plan), &ConunCodec, &Fixed)
        .map(|bytes| bytes.to_vec())
        .map_err(|e| Error::internal(format!("a plan cannot be encoded: {}", e.strip_backtrace())))
}

/// Whether no node can read `plan`, which is [encoded](encode_plan), as protobuf's decoders bound how deep messages nest.
#[must_use]
pub fn nests_too_deeply(plan: &[u8]) -> bool {
    protobuf::PhysicalPlanNode::decode(plan).is_err_and(|e| e.to_string().contains("recursion limit"))
}

/// What the requester is told of such a plan.
#[must_use]
pub fn plan_too_deep() -> Error {
    Error::data("the plan of a stage nests too deeply to be sent").with_hint(
        "join or combine fewer tables at once, or store a part of it: conun sql -o FILE, then conun put TABLE FILE",
    )
}

/// Decodes the plan of a task envelope, which may come from a stranger.
///
/// # Errors
/// Kind `Data` where it is malformed, or names a function or operator that this build does not have.
pub fn decode_plan(bytes: &[u8], context: &TaskContext) -> conun_types::Result<Arc<dyn ExecutionPlan>> {
    physical_plan_from_bytes_with_proto_converter(bytes, context, &ConunCodec, &Fixed)
        .map_err(|e| Error::data(format!("a plan cannot be decoded: {}", e.strip_backtrace())))
}

/// Plans without filters that operators learn while they run. A limited sort makes one anew where it is decoded, for itself alone;
/// those of other operators are refused: what such an operator gives is no function of its inputs, and DataFusion numbers
/// them in the order in which a process plans, so that equal plans would have other bytes.
#[derive(Debug)]
struct Fixed;

impl PhysicalProtoConverterExtension for Fixed {
    fn proto_to_execution_plan(
        &self,
        proto: &protobuf::PhysicalPlanNode,
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(PhysicalPlanType::Aggregate(aggregate)) = &proto.physical_plan_type {
            lost::check_grouping_sets(aggregate)?;
        }
        proto.try_into_physical_plan_with_context(context, self)
    }

    fn execution_plan_to_proto(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        codec: &dyn PhysicalExtensionCodec,
    ) -> Result<protobuf::PhysicalPlanNode> {
        // DataFusion would encode its input without this converter.
        if let Some(barrier) = plan.downcast_ref::<EquivalenceBarrierExec>() {
            let input = self.execution_plan_to_proto(barrier.input(), codec)?;
            return Ok(around(input, OverOne::encode(OverOneKind::Barrier(barrier.known().into()))));
        }
        let mut node =
            protobuf::PhysicalPlanNode::try_from_physical_plan_with_converter(Arc::clone(plan), codec, self)?;
        if let Some(PhysicalPlanType::Sort(sort)) = &mut node.physical_plan_type {
            sort.dynamic_filter = None;
        }
        Ok(match Lost::of(plan.as_ref()) {
            Some(lost) => around(node, OverOne::encode(OverOneKind::Lost(lost))),
            None => node,
        })
    }

    fn proto_to_physical_expr(
        &self,
        proto: &protobuf::PhysicalExprNode,
        schema: &Schema,
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        if matches!(proto.expr_type, Some(ExprType::DynamicFilter(_))) {
            return Err(DataFusionError::Plan("it has a filter that is learnt while the task runs".to_owned()));
        }
        let expr = parse_physical_expr_with_converter(proto, schema, context, self)?;
        let cast = expr.downcast_ref::<CastExpr>().filter(|cast| *cast.cast_type() == DataType::Float16);
        match cast.and_then(|cast| cast.expr().downcast_ref::<Literal>()).map(Literal::value) {
            Some(wide @ ScalarValue::Float32(_)) => Ok(lit(wide.cast_to(&DataType::Float16)?)),
            _ => Ok(expr),
        }
    }

    fn physical_expr_to_proto(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
        codec: &dyn PhysicalExtensionCodec,
    ) -> Result<protobuf::PhysicalExprNode> {
        // DataFusion encodes floats of 16 bits as of 32, and decodes them as such: a cast says more. Decoding undoes it.
        let literal = expr.downcast_ref::<Literal>().map(Literal::value);
        if let Some(ScalarValue::Float16(value)) = literal {
            let wide: Arc<dyn PhysicalExpr> = lit(ScalarValue::Float32(value.map(f32::from)));
            let narrow: Arc<dyn PhysicalExpr> = Arc::new(CastExpr::new(wide, DataType::Float16, None));
            return serialize_physical_expr_with_converter(&narrow, codec, self);
        }
        serialize_physical_expr_with_converter(expr, codec, self)
    }
}

/// The extension codec.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConunCodec;

/// An extension over one operator.
#[derive(Clone, PartialEq, Message)]
struct OverOne {
    #[prost(oneof = "OverOneKind", tags = "1, 2")]
    kind: Option<OverOneKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum OverOneKind {
    /// What the operator loses.
    #[prost(message, tag = "1")]
    Lost(Lost),
    /// A barrier over it.
    #[prost(message, tag = "2")]
    Barrier(BarrierNode),
}

/// What stays known of the operator's rows ([`Known`]).
#[derive(Clone, Copy, PartialEq, Message)]
struct BarrierNode {
    #[prost(bool, tag = "1")]
    equalities: bool,
    /// The largest stands for all columns.
    #[prost(uint32, tag = "2")]
    orders_before: u32,
}

impl From<Known> for BarrierNode {
    fn from(known: Known) -> Self {
        let orders_before = u32::try_from(known.orders_before).unwrap_or(u32::MAX);
        Self { equalities: known.equalities, orders_before }
    }
}

impl OverOne {
    fn encode(kind: OverOneKind) -> Vec<u8> {
        Self { kind: Some(kind) }.encode_to_vec()
    }

    /// The operator that `bytes` make of `input`.
    fn restore(bytes: &[u8], input: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let over = Self::decode(bytes).map_err(|e| malformed("extension", &e.to_string()))?;
        match over.kind.ok_or_else(|| malformed("extension", "it says nothing"))? {
            OverOneKind::Lost(lost) => lost.restore(input),
            OverOneKind::Barrier(BarrierNode { equalities, orders_before }) => {
                let orders_before = if orders_before == u32::MAX { usize::MAX } else { orders_before as usize };
                let known = Known { equalities, orders_before };
                Ok(Arc::new(EquivalenceBarrierExec::new(Arc::clone(input), known)))
            }
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct ReaderNode {
    #[prost(message, optional, tag = "1")]
    schema: Option<protobuf::Schema>,
    #[prost(message, repeated, tag = "2")]
    partitions: Vec<PartitionNode>,
    #[prost(message, optional, tag = "3")]
    partitioning: Option<protobuf::Partitioning>,
    #[prost(message, repeated, tag = "4")]
    ordering: Vec<protobuf::PhysicalSortExprNode>,
}

#[derive(Clone, PartialEq, Message)]
struct PartitionNode {
    #[prost(message, repeated, tag = "1")]
    blocks: Vec<BlockNode>,
}

#[derive(Clone, PartialEq, Message)]
struct BlockNode {
    #[prost(bytes = "vec", tag = "1")]
    digest: Vec<u8>,
    #[prost(uint64, tag = "2")]
    rows: u64,
    #[prost(uint64, tag = "3")]
    bytes: u64,
}

impl From<&InputBlock> for BlockNode {
    fn from(block: &InputBlock) -> Self {
        Self { digest: block.cid.digest().to_vec(), rows: block.volume.rows, bytes: block.volume.bytes }
    }
}

impl BlockNode {
    fn decode(&self) -> Result<InputBlock> {
        let digest = <[u8; 32]>::try_from(self.digest.as_slice())
            .map_err(|_| malformed("BlockReaderExec", "a digest of another size"))?;
        let volume = Volume { rows: self.rows, bytes: self.bytes };
        Ok(InputBlock { cid: Cid::from_digest(Codec::Raw, digest), volume })
    }
}

impl PartitionNode {
    fn of(blocks: &[InputBlock]) -> Self {
        Self { blocks: blocks.iter().map(BlockNode::from).collect() }
    }

    fn decode(&self) -> Result<Vec<InputBlock>> {
        self.blocks.iter().map(BlockNode::decode).collect()
    }
}

impl PhysicalExtensionCodec for ConunCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match inputs {
            [] => (),
            [input] => return OverOne::restore(buf, input),
            _ => return Err(malformed("extension", "it has several inputs")),
        }
        let node = ReaderNode::decode(buf).map_err(|e| malformed("BlockReaderExec", &e.to_string()))?;
        let context = PhysicalPlanDecodeContext::new(context, self);
        let schema = decode_schema(&node)?;
        let partitioning = parse_protobuf_partitioning(node.partitioning.as_ref(), &context, &schema, converter)?
            .ok_or_else(|| malformed("BlockReaderExec", "no partitioning"))?;
        let partitions = node.partitions.iter().map(PartitionNode::decode).collect::<Result<_>>()?;
        let reader = BlockReaderExec::try_new(schema.clone(), partitions, partitioning)?;
        let ordering = parse_physical_sort_exprs(&node.ordering, &context, &schema, converter)?;
        Ok(Arc::new(match LexOrdering::new(ordering) {
            Some(ordering) => reader.with_ordering(ordering),
            None => reader,
        }))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(reader) = node.downcast_ref::<BlockReaderExec>() else {
            return Err(DataFusionError::NotImplemented(format!("{} has no encoding", node.name())));
        };
        let ordering = reader.ordering().iter().flat_map(|o| o.iter().cloned()).collect::<Vec<_>>();
        let message = ReaderNode {
            schema: Some(reader.schema().as_ref().try_into().map_err(DataFusionError::from)?),
            partitions: reader.partitions().iter().map(|blocks| PartitionNode::of(blocks)).collect(),
            partitioning: Some(serialize_partitioning(&reader.properties().partitioning, self, converter)?),
            ordering: serialize_physical_sort_exprs(ordering, self, converter)?,
        };
        buf.extend_from_slice(&message.encode_to_vec());
        Ok(())
    }
}

/// The node of an extension over `operator`.
fn around(operator: protobuf::PhysicalPlanNode, node: Vec<u8>) -> protobuf::PhysicalPlanNode {
    let extension = protobuf::PhysicalExtensionNode { node, inputs: vec![operator] };
    protobuf::PhysicalPlanNode { physical_plan_type: Some(PhysicalPlanType::Extension(extension)) }
}

fn decode_schema(node: &ReaderNode) -> Result<SchemaRef> {
    let schema = node.schema.as_ref().ok_or_else(|| malformed("BlockReaderExec", "no schema"))?;
    Ok(Arc::new(Schema::try_from(schema).map_err(|e| malformed("BlockReaderExec", &e.to_string()))?))
}

fn malformed(what: &str, why: &str) -> DataFusionError {
    DataFusionError::Plan(format!("malformed {what}: {why}"))
}
