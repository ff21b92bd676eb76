//! The state of an embedded chain and what executes transactions on it: revm, under the rules of Osaka, the hardfork that
//! anvil 1.7 runs by default, with its block gas limit. Gas is free (base fee and price are zero), so that a node's key
//! needs no ether to send a transaction; apart from that a transaction uses the gas, gives the logs and changes the state
//! that it would on any chain of Ethereum.

use std::{collections::HashMap, convert::Infallible};

use alloy::{
    consensus::{
        EMPTY_OMMER_ROOT_HASH, Eip658Value, Header, Receipt, ReceiptEnvelope, ReceiptWithBloom, Transaction as _,
        TxEnvelope, TxReceipt as _, TxType, proofs, transaction::Recovered,
    },
    eips::eip2718::{Decodable2718, Encodable2718},
    primitives::{Address, B256, Bytes, TxKind, U256},
    rpc::types::TransactionRequest,
};
use revm::{
    Context, Database, DatabaseCommit, ExecuteEvm, MainBuilder, MainContext,
    context::{
        BlockEnv, CfgEnv, TxEnv,
        result::{EVMError, ExecutionResult, HaltReason, InvalidTransaction},
    },
    database::InMemoryDB,
    primitives::hardfork::SpecId,
    state::{AccountInfo, EvmState},
};

use super::log::{Entry, MAX_TX};

/// Chain id of development chains, by custom.
pub(crate) const CHAIN_ID: u64 = 31337;
/// A block's, as anvil's.
const BLOCK_GAS: u64 = 30_000_000;
/// Most that one transaction may use since Osaka (EIP-7825).
pub(super) const TX_GAS: u64 = 1 << 24;

/// Why a transaction or a call cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its bytes are no transaction that this chain takes.
    Malformed(String),
    /// It is in a block already.
    Known,
    /// It is well formed and must not be executed: wrong nonce, too little gas or ether.
    Invalid(String),
}

/// A transaction in a block, and what came of it.
#[derive(Debug, Clone)]
pub(super) struct Mined {
    pub(super) tx: Recovered<TxEnvelope>,
    pub(super) receipt: ReceiptEnvelope,
    pub(super) created: Option<Address>,
}

/// A block: at most one transaction.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) header: Header,
    pub(super) hash: B256,
    pub(super) mined: Option<Mined>,
}

/// A block that is not part of the chain yet, with what it changes.
pub(super) struct Draft {
    block: Block,
    state: EvmState,
}

impl Draft {
    /// The block as the log has it.
    pub(super) fn entry(&self) -> Entry {
        let tx = self.block.mined.as_ref().map(|m| Bytes::from(m.tx.encoded_2718())).unwrap_or_default();
        Entry { timestamp: self.block.header.timestamp, hash: self.block.hash, tx }
    }
}

/// All blocks, and the state after the last of them.
#[derive(Debug)]
pub(super) struct Machine {
    db: InMemoryDB,
    blocks: Vec<Block>,
    /// Numbers of the blocks that have these transactions.
    places: HashMap<B256, u64>,
}

impl Machine {
    /// A chain without blocks, on which `rich` have ten thousand ether each.
    pub(super) fn new(rich: &[Address]) -> Self {
        let mut db = InMemoryDB::default();
        let wealth = U256::from(10_000) * U256::from(10).pow(U256::from(18));
        for address in rich {
            db.insert_account_info(*address, AccountInfo::from_balance(wealth));
        }
        Self { db, blocks: Vec::new(), places: HashMap::new() }
    }

    pub(super) fn head(&self) -> Option<&Block> {
        self.blocks.last()
    }

    pub(super) fn block(&self, number: u64) -> Option<&Block> {
        self.blocks.get(usize::try_from(number).ok()?)
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(super) fn block_by_hash(&self, hash: &B256) -> Option<&Block> {
        self.blocks.iter().rev().find(|b| b.hash == *hash)
    }

    /// The block with this transaction.
    pub(super) fn place(&self, tx: &B256) -> Option<&Block> {
        self.block(*self.places.get(tx)?)
    }

    /// What is known of an account.
    pub(super) fn account(&mut self, address: Address) -> AccountInfo {
        let Ok(info) = self.db.basic(address);
        info.unwrap_or_default()
    }

    /// Code at an address.
    pub(super) fn code(&mut self, address: Address) -> Bytes {
        let hash = self.account(address).code_hash;
        let Ok(code) = self.db.code_by_hash(hash);
        code.original_bytes()
    }

    /// A word of a contract's storage.
    pub(super) fn storage(&mut self, address: Address, slot: U256) -> U256 {
        let Ok(word) = self.db.storage(address, slot);
        word
    }

    /// The earliest time of the next block: each is later than the one before.
    pub(super) fn earliest(&self) -> u64 {
        self.head().map_or(0, |b| b.header.timestamp.saturating_add(1))
    }

    fn environment(&self, timestamp: u64) -> BlockEnv {
        BlockEnv {
            number: U256::from(self.blocks.len()),
            timestamp: U256::from(timestamp.max(self.earliest())),
            gas_limit: BLOCK_GAS,
            ..BlockEnv::default()
        }
    }

    /// The next block, without a transaction: time passes.
    pub(super) fn empty(&self, timestamp: u64) -> Draft {
        let block = self.seal(timestamp, None);
        Draft { block, state: EvmState::default() }
    }

    /// The next block with a signed transaction.
    pub(super) fn mine(&mut self, raw: &[u8], timestamp: u64) -> Result<Draft, Refused> {
        let tx = decode(raw)?;
        if self.places.contains_key(tx.tx_hash()) {
            return Err(Refused::Known);
        }
        let (result, state) = self.run(env_of_signed(&tx), timestamp, false)?;
        let created = created(&tx, &result);
        let receipt = receipt_of(tx.tx_type(), result);
        let block = self.seal(timestamp, Some(Mined { tx, receipt, created }));
        Ok(Draft { block, state })
    }

    /// Executes a call as if it stood in the next block, and changes nothing.
    pub(super) fn call(
        &mut self,
        request: &TransactionRequest,
        gas: u64,
        timestamp: u64,
    ) -> Result<ExecutionResult, Refused> {
        let mut env = TxEnv {
            caller: request.from.unwrap_or_default(),
            gas_limit: gas,
            kind: request.to.unwrap_or(TxKind::Create),
            value: request.value.unwrap_or_default(),
            data: request.input.input().cloned().unwrap_or_default(),
            chain_id: Some(CHAIN_ID),
            ..TxEnv::default()
        };
        env.nonce = self.account(env.caller).nonce;
        Ok(self.run(env, timestamp, true)?.0)
    }

    fn run(&mut self, tx: TxEnv, timestamp: u64, call: bool) -> Result<(ExecutionResult, EvmState), Refused> {
        let mut cfg = CfgEnv::new_with_spec(SpecId::OSAKA).with_chain_id(CHAIN_ID);
        cfg.disable_nonce_check = call;
        let block = self.environment(timestamp);
        let mut evm = Context::mainnet().with_db(&mut self.db).with_cfg(cfg).with_block(block).build_mainnet();
        let done = evm.transact(tx).map_err(refused)?;
        Ok((done.result, done.state))
    }

    fn seal(&self, timestamp: u64, mined: Option<Mined>) -> Block {
        let receipts: Vec<_> = mined.iter().map(|m| &m.receipt).collect();
        let txs: Vec<_> = mined.iter().map(|m| m.tx.inner()).collect();
        let header = Header {
            parent_hash: self.head().map(|b| b.hash).unwrap_or_default(),
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            transactions_root: proofs::calculate_transaction_root(&txs),
            receipts_root: proofs::calculate_receipt_root(&receipts),
            logs_bloom: mined.as_ref().map(|m| m.receipt.bloom()).unwrap_or_default(),
            number: self.blocks.len() as u64,
            gas_limit: BLOCK_GAS,
            gas_used: mined.as_ref().map_or(0, |m| m.receipt.cumulative_gas_used()),
            timestamp: timestamp.max(self.earliest()),
            base_fee_per_gas: Some(0),
            ..Header::default()
        };
        Block { hash: header.hash_slow(), header, mined }
    }

    /// Makes a block part of the chain.
    pub(super) fn commit(&mut self, draft: Draft) {
        let Draft { block, state } = draft;
        self.db.commit(state);
        self.db.cache.block_hashes.insert(U256::from(block.header.number), block.hash);
        if let Some(mined) = &block.mined {
            self.places.insert(*mined.tx.tx_hash(), block.header.number);
        }
        self.blocks.push(block);
    }
}

/// A signed transaction and its sender.
fn decode(mut raw: &[u8]) -> Result<Recovered<TxEnvelope>, Refused> {
    let malformed = |why: &str| Refused::Malformed(why.to_owned());
    if raw.len() > MAX_TX {
        return Err(malformed("oversized data"));
    }
    let tx = TxEnvelope::decode_2718(&mut raw).map_err(|_| malformed("failed to decode signed transaction"))?;
    if !raw.is_empty() {
        return Err(malformed("bytes after the signed transaction"));
    }
    if matches!(tx.tx_type(), TxType::Eip4844 | TxType::Eip7702) {
        return Err(malformed("transaction type not supported"));
    }
    if tx.chain_id() != Some(CHAIN_ID) {
        return Err(malformed("invalid chain id for signer"));
    }
    // Of the two signatures that fit a key, chains take the one with the low s (EIP-2).
    let signer = match tx.signature() {
        signature if signature.normalize_s().is_some() => None,
        signature => signature.recover_address_from_prehash(&tx.signature_hash()).ok(),
    };
    let signer = signer.ok_or_else(|| malformed("invalid sender"))?;
    Ok(Recovered::new_unchecked(tx, signer))
}

fn env_of_signed(tx: &Recovered<TxEnvelope>) -> TxEnv {
    TxEnv {
        tx_type: tx.tx_type() as u8,
        caller: tx.signer(),
        gas_limit: tx.gas_limit(),
        gas_price: tx.max_fee_per_gas(),
        kind: tx.kind(),
        value: tx.value(),
        data: tx.input().clone(),
        nonce: tx.nonce(),
        chain_id: tx.chain_id(),
        access_list: tx.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: tx.max_priority_fee_per_gas(),
        ..TxEnv::default()
    }
}

fn created(tx: &Recovered<TxEnvelope>, result: &ExecutionResult) -> Option<Address> {
    (tx.kind().is_create() && result.is_success()).then(|| tx.signer().create(tx.nonce()))
}

fn receipt_of(kind: TxType, result: ExecutionResult) -> ReceiptEnvelope {
    let status = Eip658Value::Eip658(result.is_success());
    let cumulative_gas_used = result.gas().tx_gas_used();
    // What a reverted transaction would have logged never happened.
    let logs = if result.is_success() { result.into_logs() } else { Vec::new() };
    let receipt = ReceiptWithBloom::from(Receipt { status, cumulative_gas_used, logs });
    match kind {
        TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
        TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
        _ => ReceiptEnvelope::Eip1559(receipt),
    }
}

/// In the words of geth: clients tell errors apart by them.
fn refused(error: EVMError<Infallible>) -> Refused {
    Refused::Invalid(match error {
        EVMError::Transaction(InvalidTransaction::NonceTooLow { tx, state }) => {
            format!("nonce too low: next nonce {state}, tx nonce {tx}")
        }
        EVMError::Transaction(InvalidTransaction::NonceTooHigh { tx, state }) => {
            format!("nonce too high: next nonce {state}, tx nonce {tx}")
        }
        EVMError::Transaction(InvalidTransaction::LackOfFundForMaxFee { fee, balance }) => {
            format!("insufficient funds for gas * price + value: have {balance} want {fee}")
        }
        EVMError::Transaction(InvalidTransaction::CallerGasLimitMoreThanBlock) => "exceeds block gas limit".to_owned(),
        EVMError::Transaction(other) => other.to_string(),
        other => format!("execution failed: {other}"),
    })
}

/// Why a call that was executed failed, in geth's words; nothing where it did not.
pub(super) fn failure(result: &ExecutionResult) -> Option<(String, Bytes)> {
    match result {
        ExecutionResult::Success { .. } => None,
        ExecutionResult::Revert { output, .. } => Some(("execution reverted".to_owned(), output.clone())),
        ExecutionResult::Halt { reason: HaltReason::OutOfGas(_), .. } => Some(("out of gas".to_owned(), Bytes::new())),
        ExecutionResult::Halt { reason, .. } => Some((format!("execution halted: {reason:?}"), Bytes::new())),
    }
}
