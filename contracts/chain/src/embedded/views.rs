//! Blocks, transactions, receipts and logs as JSON-RPC shows them.

use alloy::{
    consensus::Transaction as _,
    rpc::types::{Block as BlockView, BlockTransactions, Header, Log, Transaction, TransactionReceipt},
};
use serde_json::{Value, json};

use super::machine::Block;

/// All logs of a block.
pub(super) fn logs(block: &Block) -> Vec<Log> {
    let Some(mined) = &block.mined else { return Vec::new() };
    let logs = mined.receipt.logs().iter().enumerate().map(|(i, inner)| Log {
        inner: inner.clone(),
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        block_timestamp: Some(block.header.timestamp),
        transaction_hash: Some(*mined.tx.tx_hash()),
        transaction_index: Some(0),
        log_index: Some(i as u64),
        removed: false,
    });
    logs.collect()
}

/// The receipt of a block's transaction.
pub(super) fn receipt(block: &Block) -> Option<TransactionReceipt> {
    let mined = block.mined.as_ref()?;
    let mut logs = logs(block).into_iter();
    Some(TransactionReceipt {
        inner: mined.receipt.clone().map_logs(|inner| logs.next().unwrap_or(Log { inner, ..Log::default() })),
        transaction_hash: *mined.tx.tx_hash(),
        transaction_index: Some(0),
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        gas_used: mined.receipt.cumulative_gas_used(),
        effective_gas_price: mined.tx.effective_gas_price(Some(0)),
        blob_gas_used: None,
        blob_gas_price: None,
        from: mined.tx.signer(),
        to: mined.tx.to(),
        contract_address: mined.created,
    })
}

/// A block's transaction.
pub(super) fn transaction(block: &Block) -> Option<Transaction> {
    let mined = block.mined.as_ref()?;
    Some(Transaction {
        effective_gas_price: Some(mined.tx.effective_gas_price(Some(0))),
        inner: mined.tx.clone(),
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        transaction_index: Some(0),
        block_timestamp: Some(block.header.timestamp),
    })
}

/// A block with its transaction, or with that one's hash.
pub(super) fn block(block: &Block, full: bool) -> Value {
    let transactions = if full {
        BlockTransactions::Full(transaction(block).into_iter().collect())
    } else {
        BlockTransactions::Hashes(block.mined.iter().map(|m| *m.tx.tx_hash()).collect())
    };
    let header = Header { hash: block.hash, inner: block.header.clone(), total_difficulty: None, size: None };
    json!(BlockView { header, uncles: Vec::new(), transactions, withdrawals: None })
}
