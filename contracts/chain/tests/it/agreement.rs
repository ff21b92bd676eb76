//! A thousand random orders, receipts, claims, records and settlements: Rust and Solidity hash them alike, build the same
//! trees, and take the same proofs.

use alloy::sol_types::SolCall;
use conun_chain::{Deployment, dev};
use conun_types::{
    AccountId, Address, Amount, Cid, JobId, NodeKey, SignedReceipt, StageRecord, TaskOrder, TaskReceipt, WorkUnits,
    eip712::Domain,
    ledger::Ledger,
    payment::{
        ClaimedReceipt, Earning, Settlement, SignedClaim, SignedSettlement, SignedVoucher, StageClaim, Voucher,
        claim_tree,
    },
};
use serde_json::{Value, json};

use crate::{
    abi::{
        JobEscrow,
        disputes::{
            Disputes::{self, Inclusion, Leaf},
            MerkleSum::Node,
        },
    },
    support::{World, account, person, tokens},
};

/// Numbers that are the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }

    /// Often an extreme.
    fn number(&mut self) -> u64 {
        match self.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => self.below(1000),
            _ => self.next(),
        }
    }

    fn key(&mut self) -> NodeKey {
        NodeKey::from_bytes(&self.bytes::<32>()).unwrap()
    }
}

/// Views of the contracts.
struct Views {
    rpc: dev::Rpc,
    at: Deployment,
}

impl Views {
    async fn of(world: &World) -> Self {
        let at = world.ledger(&person(1)).await.deployment();
        Self { rpc: dev::Rpc::open(&world.config).await.unwrap(), at }
    }

    async fn try_call<C: SolCall>(&self, from: Address, to: Address, call: C) -> Result<C::Return, String> {
        let data = format!("0x{}", hex::encode(call.abi_encode()));
        let answer = self.rpc.request("eth_call", json!([{ "from": from, "to": to, "input": data }, "latest"])).await;
        let Value::String(text) = answer.map_err(|e| e.message)? else { panic!("no bytes") };
        Ok(C::abi_decode_returns(&hex::decode(&text[2..]).unwrap()).unwrap())
    }

    async fn disputes<C: SolCall>(&self, call: C) -> C::Return {
        self.try_call(Address::default(), self.at.disputes, call).await.unwrap()
    }
}

fn order(dice: &mut Dice) -> TaskOrder {
    TaskOrder {
        account: AccountId(dice.bytes()),
        job: JobId(dice.bytes()),
        task_cid: Cid::raw(&dice.bytes::<8>()),
        provider: dice.key().id(),
        nonce: dice.number(),
        price: Amount(u128::from(dice.number()) << 64 | u128::from(dice.number())),
        deadline: dice.number(),
    }
}

fn receipt(dice: &mut Dice, order_hash: [u8; 32], provider: Address) -> TaskReceipt {
    TaskReceipt {
        order_hash,
        provider,
        profile: dice.bytes(),
        inputs_root: dice.bytes(),
        outputs_root: dice.bytes(),
        rows: dice.number(),
        bytes: dice.number(),
        units: WorkUnits(dice.number()),
    }
}

fn receipt_words(r: &TaskReceipt) -> Disputes::TaskReceipt {
    Disputes::TaskReceipt {
        orderHash: r.order_hash.into(),
        provider: r.provider.0.into(),
        profile: r.profile.into(),
        inputsRoot: r.inputs_root.into(),
        outputsRoot: r.outputs_root.into(),
        rows: r.rows,
        bytes_: r.bytes,
        units: r.units.0,
    }
}

fn claim_words(c: &StageClaim) -> Disputes::StageClaim {
    Disputes::StageClaim {
        account: c.account.0.into(),
        job: c.job.word().into(),
        stage: c.stage,
        provider: c.provider.0.into(),
        tasks: c.tasks,
        units: c.units.0,
        amount: c.amount.0,
        receiptsRoot: c.receipts_root.into(),
    }
}

fn receipts(dice: &mut Dice, most: u64) -> Vec<ClaimedReceipt> {
    (0..=dice.below(most))
        .map(|_| ClaimedReceipt { order_hash: dice.bytes(), units: WorkUnits(dice.below(1 << 40)) })
        .collect()
}

#[tokio::test]
async fn orders_receipts_and_claims_hash_alike() {
    let views = Views::of(&World::embedded()).await;
    let mut dice = Dice(1);
    for i in 0..1_000 {
        let order = order(&mut dice);
        let words = Disputes::TaskOrder {
            account: order.account.0.into(),
            job: order.job.word().into(),
            taskCid: (*order.task_cid.digest()).into(),
            provider: order.provider.address().unwrap().0.into(),
            nonce: order.nonce,
            price: order.price.0,
            deadline: order.deadline,
        };
        let hash = order.struct_hash().unwrap();
        assert_eq!(views.disputes(Disputes::orderHashCall { order: words }).await.0, hash, "order {i}");

        let receipt = receipt(&mut dice, hash, order.provider.address().unwrap());
        let call = Disputes::receiptHashCall { receipt: receipt_words(&receipt) };
        assert_eq!(views.disputes(call).await.0, receipt.struct_hash(), "receipt {i}");

        let list = receipts(&mut dice, 20);
        let leaves = list.iter().map(|r| Leaf { orderHash: r.order_hash.into(), units: r.units.0 }).collect();
        let tree = claim_tree(&list).unwrap();
        let found = views.disputes(Disputes::receiptsRootCall { leaves }).await;
        assert_eq!((found.root.0, found.total), (tree.root(), tree.total()), "receipts {i}");

        let mut claim =
            StageClaim::of(order.account, (order.job, dice.next() as u32), receipt.provider, Amount(7), &list).unwrap();
        claim.amount = Amount(u128::from(dice.number()) << 64 | u128::from(dice.number()));
        let call = Disputes::claimHashCall { claim: claim_words(&claim) };
        assert_eq!(views.disputes(call).await.0, claim.struct_hash(), "claim {i}");
    }
}

fn records(dice: &mut Dice, most: u64) -> Vec<StageRecord> {
    let record = |dice: &mut Dice| StageRecord {
        job: JobId(dice.bytes()),
        stage: dice.next() as u32,
        provider: Address(dice.bytes()),
        tasks: u64::from(dice.next() as u32),
        rows: 0,
        bytes: 0,
        units: WorkUnits(dice.number()),
        amount: if dice.below(8) == 0 { Amount::MAX_RECORD } else { Amount(u128::from(dice.next())) },
    };
    (0..dice.below(most)).map(|_| record(dice)).collect()
}

#[tokio::test]
async fn settlements_and_vouchers_are_signed_alike() {
    let world = World::embedded();
    let (client, views) = (person(1), Views::of(&world).await);
    world.fund(&client, 1_000_000).await;
    let ledger = world.ledger(&client).await;
    ledger.open(&account(1), tokens(1_000_000), None, Amount::ZERO).await.unwrap();
    let (domain, mut dice): (Domain, _) = (ledger.domain(), Dice(2));
    for i in 0..1_000 {
        let records = records(&mut dice, 12);
        let earning =
            |dice: &mut Dice| Earning { provider: Address(dice.bytes()), cumulative: Amount(u128::from(dice.next())) };
        let earnings = (0..dice.below(6)).map(|_| earning(&mut dice)).collect();
        let words = Settlement { account: account(1), batch: 0, earnings, records };
        let (tree, packed) = (words.tree().unwrap(), words.packed_records().unwrap());
        let found = views.disputes(Disputes::recordsRootCall { records: packed.clone().into() }).await;
        assert_eq!((found.root.0, found.total), (tree.root(), tree.total()), "records {i}");

        let signed = SignedSettlement::sign(words, &domain, &client).unwrap();
        let s = &signed.settlement;
        let call = JobEscrow::settleCall {
            batch: JobEscrow::Batch {
                job: s.account.0.into(),
                batch: 0,
                root: tree.root().into(),
                stages: s.records.len() as u32,
            },
            earnings: (s.earnings.iter())
                .map(|e| JobEscrow::Earning { provider: e.provider.0.into(), cumulative: e.cumulative.0 })
                .collect(),
            records: packed.into(),
            signature: signed.signature.to_bytes().to_vec().into(),
        };
        views.try_call(client.address(), views.at.escrow, call).await.unwrap_or_else(|e| panic!("settlement {i}: {e}"));

        let words = Voucher {
            account: account(1),
            provider: Address(dice.bytes()),
            cumulative: Amount(1 + u128::from(dice.next())),
        };
        let signed = SignedVoucher::sign(words, &domain, &client);
        let call = JobEscrow::redeemCall {
            job: account(1).0.into(),
            provider: words.provider.0.into(),
            cumulative: words.cumulative.0,
            signature: signed.signature.to_bytes().to_vec().into(),
        };
        views.try_call(client.address(), views.at.escrow, call).await.unwrap_or_else(|e| panic!("voucher {i}: {e}"));
    }
}

#[tokio::test]
async fn proofs_are_taken_alike() {
    let world = World::embedded();
    let (operator, node, views) = (person(1), person(2), Views::of(&world).await);
    world.fund(&operator, 1_000).await;
    let ledger = world.ledger(&operator).await;
    ledger.stake(tokens(1_000)).await.unwrap();
    let consent = node.sign(&ledger.consent(&operator.address()));
    ledger.delegate(&node.address(), &consent).await.unwrap();
    let (domain, mut dice) = (ledger.domain(), Dice(3));
    for i in 0..1_000 {
        let list = receipts(&mut dice, 70);
        let at = dice.below(list.len() as u64) as u32;
        let claim = StageClaim::of(account(1), (JobId([1; 16]), 1), node.address(), Amount(1), &list).unwrap();
        let proof = claim_tree(&list).unwrap().proof(at).unwrap();
        let leaf = list[at as usize];
        let mut receipt = receipt(&mut dice, leaf.order_hash, node.address());
        receipt.units = WorkUnits(leaf.units.0 + 1);
        let answer = SignedReceipt::sign(receipt, &domain, &node);
        let signed = SignedClaim::sign(claim, &domain, &node);
        let mut call = Disputes::proveBadLeafCall {
            claim: Disputes::SignedClaim {
                claim: claim_words(&signed.claim),
                signature: signed.signature.to_bytes().to_vec().into(),
            },
            leaf: Inclusion {
                index: at,
                units: leaf.units.0,
                siblings: proof.siblings.iter().map(|n| Node { hash: n.hash.into(), sum: n.sum }).collect(),
            },
            receipt: Disputes::SignedReceipt {
                receipt: receipt_words(&answer.receipt),
                signature: answer.signature.to_bytes().to_vec().into(),
            },
        };
        let proven = views.try_call(operator.address(), views.at.disputes, call.clone()).await;
        proven.unwrap_or_else(|e| panic!("proof {i} of {}: {e}", list.len()));
        // Another place or other siblings prove nothing.
        if dice.below(2) == 0 && list.len() > 1 {
            call.leaf.index = (at + 1) % list.len() as u32;
        } else {
            call.leaf.siblings.push(Node { hash: [0; 32].into(), sum: 0 });
        }
        assert!(views.try_call(operator.address(), views.at.disputes, call).await.is_err(), "proof {i}");
    }
}
