//! The JSON-RPC methods of an embedded chain: those that a wallet needs, with the answers and error codes of geth. State
//! is kept for the last block only, and calls are executed as in the next block, so that a window that passes while
//! nobody sends anything is seen to have passed.

use alloy::{
    consensus::BlockHeader as _,
    eips::{BlockId, BlockNumberOrTag},
    primitives::{Address, B256, Bytes, U64, U256},
    rpc::types::{Filter, FilterBlockOption, TransactionRequest},
};
use revm::context::result::ExecutionResult;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    chain::Chain,
    machine::{Block, CHAIN_ID, Refused, TX_GAS, failure},
    views,
};

/// An error as JSON-RPC has it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Option<Value>,
}

impl Fault {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    fn params(what: &str) -> Self {
        Self::new(-32602, format!("invalid params: {what}"))
    }
}

impl From<conun_types::Error> for Fault {
    fn from(error: conun_types::Error) -> Self {
        Self::new(-32603, error.message)
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed(why) => Self::new(-32602, why),
            Refused::Known => Self::new(-32000, "already known"),
            Refused::Invalid(why) => Self::new(-32000, why),
        }
    }
}

type Answer = Result<Value, Fault>;

/// The parameters of a request.
struct Params(Vec<Value>);

impl Params {
    fn of(raw: &str) -> Result<Self, Fault> {
        serde_json::from_str::<Option<Vec<Value>>>(raw)
            .map(|list| Self(list.unwrap_or_default()))
            .map_err(|_| Fault::params("a list is wanted"))
    }

    fn opt<T: DeserializeOwned>(&self, at: usize) -> Result<Option<T>, Fault> {
        match self.0.get(at) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone()).map(Some).map_err(|e| Fault::params(&e.to_string())),
        }
    }

    fn get<T: DeserializeOwned>(&self, at: usize) -> Result<T, Fault> {
        self.opt(at)?.ok_or_else(|| Fault::params(&format!("parameter {at} is missing")))
    }
}

/// Answers one request.
pub(super) fn answer(chain: &mut Chain, method: &str, params: &str) -> Answer {
    let params = Params::of(params)?;
    match method {
        "eth_sendRawTransaction" => {
            let raw: Bytes = params.get(0)?;
            Ok(json!(chain.send(&raw)??))
        }
        "evm_mine" => {
            chain.warp(params.opt::<U64>(0)?.map(|t| t.to()))?;
            Ok(json!("0x0"))
        }
        _ => chain.reading(|chain| read(chain, method, &params))?,
    }
}

fn read(chain: &mut Chain, method: &str, params: &Params) -> Answer {
    match method {
        "eth_chainId" => Ok(json!(U64::from(CHAIN_ID))),
        "net_version" => Ok(json!(CHAIN_ID.to_string())),
        "web3_clientVersion" => Ok(json!(concat!("conun/", env!("CARGO_PKG_VERSION")))),
        "eth_blockNumber" => Ok(json!(U64::from(head(chain)?.header.number))),
        "eth_gasPrice" | "eth_maxPriorityFeePerGas" => Ok(json!(U64::ZERO)),
        "eth_feeHistory" => fee_history(chain, params),
        "eth_getBlockByNumber" => Ok(by_number(chain, params.get(0)?)?.map_or(Value::Null, |b| block(b, params))),
        "eth_getBlockByHash" => {
            let hash = params.get(0)?;
            Ok(chain.machine.block_by_hash(&hash).map_or(Value::Null, |b| block(b, params)))
        }
        "eth_getTransactionReceipt" => {
            let hash = params.get(0)?;
            Ok(chain.machine.place(&hash).and_then(views::receipt).map_or(Value::Null, |r| json!(r)))
        }
        "eth_getTransactionByHash" => {
            let hash: B256 = params.get(0)?;
            Ok(chain.machine.place(&hash).and_then(views::transaction).map_or(Value::Null, |t| json!(t)))
        }
        "eth_getLogs" => logs(chain, &params.get(0)?),
        _ => state(chain, method, params),
    }
}

/// The methods that read the state, or execute calls on it.
fn state(chain: &mut Chain, method: &str, params: &Params) -> Answer {
    match method {
        "eth_getBalance" => at_head(chain, params, 1, |c, a| json!(c.machine.account(a).balance)),
        "eth_getTransactionCount" => at_head(chain, params, 1, |c, a| json!(U64::from(c.machine.account(a).nonce))),
        "eth_getCode" => at_head(chain, params, 1, |c, a| json!(c.machine.code(a))),
        "eth_getStorageAt" => {
            let slot: U256 = params.get(1)?;
            at_head(chain, params, 2, |c, a| json!(B256::from(c.machine.storage(a, slot))))
        }
        "eth_call" => {
            check_head(chain, params.opt(1)?)?;
            let request = params.get(0)?;
            let result = run(chain, &request, gas_of(&request))?;
            Ok(json!(result.into_output().unwrap_or_default()))
        }
        "eth_estimateGas" => {
            check_head(chain, params.opt(1)?)?;
            Ok(json!(U64::from(estimate(chain, &params.get(0)?)?)))
        }
        _ => Err(Fault::new(-32601, format!("the method {method} does not exist"))),
    }
}

fn head(chain: &Chain) -> Result<&Block, Fault> {
    chain.machine.head().ok_or_else(|| Fault::new(-32603, "the chain has no block"))
}

fn by_number(chain: &Chain, tag: BlockNumberOrTag) -> Result<Option<&Block>, Fault> {
    Ok(match tag {
        BlockNumberOrTag::Number(number) => chain.machine.block(number),
        BlockNumberOrTag::Earliest => chain.machine.block(0),
        _ => Some(head(chain)?),
    })
}

fn block(block: &Block, params: &Params) -> Value {
    views::block(block, matches!(params.0.get(1), Some(Value::Bool(true))))
}

/// State is kept for the last block only.
fn check_head(chain: &Chain, at: Option<BlockId>) -> Result<(), Fault> {
    let head = head(chain)?;
    let number = match at {
        Some(BlockId::Number(BlockNumberOrTag::Number(number))) => number,
        Some(BlockId::Number(BlockNumberOrTag::Earliest)) => 0,
        Some(BlockId::Hash(hash)) if hash.block_hash != head.hash => 0,
        _ => head.header.number(),
    };
    if number == head.header.number { Ok(()) } else { Err(Fault::new(-32000, "only the last block's state is kept")) }
}

fn at_head(chain: &mut Chain, params: &Params, tag: usize, read: impl FnOnce(&mut Chain, Address) -> Value) -> Answer {
    check_head(chain, params.opt(tag)?)?;
    Ok(read(chain, params.get(0)?))
}

fn fee_history(chain: &Chain, params: &Params) -> Answer {
    let count = params.get::<U64>(0)?.to::<u64>().clamp(1, 1024).min(head(chain)?.header.number + 1);
    let percentiles = params.opt::<Vec<f64>>(2)?.map_or(0, |p| p.len().min(100));
    let (count, oldest) = (count as usize, head(chain)?.header.number + 1 - count);
    Ok(json!({
        "oldestBlock": U64::from(oldest),
        "baseFeePerGas": vec![U64::ZERO; count + 1],
        "gasUsedRatio": vec![0.0; count],
        "reward": vec![vec![U64::ZERO; percentiles]; count],
    }))
}

fn logs(chain: &Chain, filter: &Filter) -> Answer {
    let last = head(chain)?.header.number;
    let number = |tag: &Option<BlockNumberOrTag>, default| match tag {
        Some(BlockNumberOrTag::Number(number)) => *number,
        Some(BlockNumberOrTag::Earliest) => 0,
        Some(_) => last,
        None => default,
    };
    let blocks: Vec<&Block> = match &filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => chain.machine.block_by_hash(hash).into_iter().collect(),
        FilterBlockOption::Range { from_block, to_block } => {
            let (from, to) = (number(from_block, last), number(to_block, last).min(last));
            chain.machine.blocks().iter().filter(|b| (from..=to).contains(&b.header.number)).collect()
        }
    };
    let logs = blocks.into_iter().flat_map(views::logs).filter(|log| filter.matches(&log.inner));
    Ok(json!(logs.collect::<Vec<_>>()))
}

fn gas_of(request: &TransactionRequest) -> u64 {
    request.gas.unwrap_or(TX_GAS).min(TX_GAS)
}

/// Executes a call; where it fails, what it returned is the error's data.
fn run(chain: &mut Chain, request: &TransactionRequest, gas: u64) -> Result<ExecutionResult, Fault> {
    let now = chain.now();
    let result = chain.machine.call(request, gas, now)?;
    match failure(&result) {
        None => Ok(result),
        Some((message, data)) if data.is_empty() => Err(Fault::new(-32000, message)),
        Some((message, data)) => Err(Fault { code: 3, message, data: Some(json!(data)) }),
    }
}

/// The least gas with which a call succeeds: calls may need more than they use, as a part comes back, and as a contract
/// keeps a 64th from those that it calls.
fn estimate(chain: &mut Chain, request: &TransactionRequest) -> Result<u64, Fault> {
    let mut enough = gas_of(request);
    let gas = *run(chain, request, enough)?.gas();
    let mut short = gas.tx_gas_used().saturating_sub(1);
    let likely = (gas.total_gas_spent() + 2_300).saturating_mul(64) / 63;
    if likely < enough && run(chain, request, likely).is_ok() {
        enough = likely;
    }
    while short + 1 < enough {
        let middle = short + (enough - short) / 2;
        match run(chain, request, middle) {
            Ok(_) => enough = middle,
            Err(_) => short = middle,
        }
    }
    Ok(enough)
}
