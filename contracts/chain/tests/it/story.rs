//! The life of accounts, stakes and offences, told on any chain: what every step returned, and what is left.

use std::sync::Arc;

use conun_chain::{EvmLedger, dev};
use conun_types::{
    Amount, Cid, ErrorKind, JobId, NodeKey, Result, SignedReceipt, SignedVoucher, StageRecord, TaskOrder, TaskReceipt,
    Voucher, WorkUnits,
    eip712::Domain,
    ledger::{Included, Ledger},
    payment::{
        ClaimedLeaf, ClaimedReceipt, Earning, Settlement, SignedClaim, SignedSettlement, StageClaim, claim_tree,
    },
};
use serde_json::{Value, json};

use crate::support::{World, account, person, tokens, told};

/// What happened, in words that are the same on every chain.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Transcript(pub(crate) Vec<(String, String)>);

impl Transcript {
    fn gas(&mut self, step: &str, included: Result<Included>) -> Included {
        let included = included.unwrap_or_else(|e| panic!("{step}: {e} ({:?})", e.hint));
        self.0.push((step.to_owned(), format!("block {} gas {}", included.block, included.gas)));
        included
    }

    fn refused<T>(&mut self, step: &str, kind: ErrorKind, result: Result<T>) {
        let (was, message) = told(result);
        assert_eq!(was, kind, "{step}: {message}");
        self.0.push((step.to_owned(), message));
    }

    fn seen(&mut self, what: &str, value: &impl std::fmt::Debug) {
        self.0.push((what.to_owned(), format!("{value:?}")));
    }
}

/// Who is in the story.
pub(crate) struct People {
    pub(crate) client: NodeKey,
    pub(crate) spender: NodeKey,
    pub(crate) node: NodeKey,
    pub(crate) operator: NodeKey,
    pub(crate) reporter: NodeKey,
    pub(crate) payout: NodeKey,
}

pub(crate) fn people() -> People {
    let [client, spender, node, operator, reporter, payout] = [11, 12, 13, 14, 15, 16].map(person);
    People { client, spender, node, operator, reporter, payout }
}

pub(crate) fn record(stage: u32, node: &NodeKey, amount: Amount) -> StageRecord {
    let (job, provider) = (JobId([7; 16]), node.address());
    StageRecord { job, stage, provider, tasks: 3, rows: 0, bytes: 0, units: WorkUnits(99), amount }
}

pub(crate) fn settlement(
    domain: &Domain,
    key: &NodeKey,
    (number, batch): (u8, u32),
    earnings: &[(&NodeKey, Amount)],
    records: Vec<StageRecord>,
) -> SignedSettlement {
    let earnings = earnings.iter().map(|(n, c)| Earning { provider: n.address(), cumulative: *c }).collect();
    let words = Settlement { account: account(number), batch, earnings, records };
    SignedSettlement::sign(words, domain, key).unwrap()
}

pub(crate) fn voucher(domain: &Domain, key: &NodeKey, number: u8, node: &NodeKey, cumulative: Amount) -> SignedVoucher {
    let words = Voucher { account: account(number), provider: node.address(), cumulative };
    SignedVoucher::sign(words, domain, key)
}

pub(crate) fn receipt(domain: &Domain, node: &NodeKey, nonce: u64, units: u64) -> SignedReceipt {
    let order = TaskOrder {
        account: account(1),
        job: JobId([7; 16]),
        task_cid: Cid::raw(b"task"),
        provider: node.id(),
        nonce,
        price: Amount(5),
        deadline: 9,
    };
    let receipt = TaskReceipt {
        order_hash: order.struct_hash().unwrap(),
        provider: node.address(),
        profile: [1; 32],
        inputs_root: [2; 32],
        outputs_root: [3; 32],
        rows: 4,
        bytes: 5,
        units: WorkUnits(units),
    };
    SignedReceipt::sign(receipt, domain, node)
}

/// The leaf at `at` of a claim for these receipts.
pub(crate) fn leaf(domain: &Domain, node: &NodeKey, stage: u32, receipts: &[ClaimedReceipt], at: u32) -> ClaimedLeaf {
    let claim = StageClaim::of(account(1), (JobId([7; 16]), stage), node.address(), Amount(5), receipts).unwrap();
    ClaimedLeaf {
        claim: SignedClaim::sign(claim, domain, node),
        receipt: receipts[at as usize],
        proof: claim_tree(receipts).unwrap().proof(at).unwrap(),
    }
}

pub(crate) fn claimed(receipt: &SignedReceipt, units: u64) -> ClaimedReceipt {
    ClaimedReceipt { order_hash: receipt.receipt.order_hash, units: WorkUnits(units) }
}

/// Everything that the contracts can do for us.
pub(crate) async fn life(world: &World) -> Transcript {
    let (mut t, people) = (Transcript::default(), people());
    for key in [&people.client, &people.operator] {
        world.fund(key, 1_000).await;
    }
    for key in [&people.node, &people.reporter] {
        world.fund(key, 0).await;
    }
    let client = world.ledger(&people.client).await;
    let node = world.ledger(&people.node).await;
    earn(&mut t, &people, &client, &node).await;
    stakes(&mut t, world, &people, &client).await;
    offences(&mut t, world, &people).await;
    leave(&mut t, world, &people, &client).await;
    ledger_of(&mut t, world, &people, &client).await;
    t
}

async fn earn(t: &mut Transcript, p: &People, client: &Arc<EvmLedger>, node: &Arc<EvmLedger>) {
    let (id, domain) = (account(1), client.domain());
    t.gas("open", client.open(&id, tokens(100), Some(p.spender.address()), tokens(80)).await);
    t.refused("open again", ErrorKind::Data, client.open(&id, tokens(1), None, Amount::ZERO).await);
    t.refused("open beyond means", ErrorKind::Budget, client.open(&account(2), tokens(950), None, Amount::ZERO).await);
    t.refused("open with nothing", ErrorKind::Data, client.open(&account(2), Amount(0), None, Amount::ZERO).await);
    t.gas("top up", client.top_up(&id, tokens(50)).await);
    t.refused("top up nobody's", ErrorKind::Data, client.top_up(&account(9), tokens(1)).await);
    let records = vec![record(1, &p.node, tokens(6)), record(2, &p.node, tokens(4))];
    let first = settlement(&domain, &p.spender, (1, 0), &[(&p.node, tokens(10))], records.clone());
    let included = t.gas("settle", client.settle(&first).await);
    assert_eq!(node.settle(&first).await.unwrap(), included, "settled once");
    let other = settlement(&domain, &p.spender, (1, 0), &[(&p.node, tokens(11))], records);
    t.refused("settle otherwise", ErrorKind::Data, client.settle(&other).await);
    let late = settlement(&domain, &p.spender, (1, 5), &[(&p.node, tokens(11))], vec![]);
    t.refused("settle out of order", ErrorKind::Data, client.settle(&late).await);
    let dear = settlement(&domain, &p.spender, (1, 1), &[(&p.node, tokens(81))], vec![]);
    t.refused("settle beyond the cap", ErrorKind::Budget, client.settle(&dear).await);
    let forged = settlement(&domain, &p.node, (1, 1), &[(&p.node, tokens(20))], vec![]);
    t.refused("settle by nobody", ErrorKind::Data, node.settle(&forged).await);
    t.gas("redeem", node.redeem(&voucher(&domain, &p.spender, 1, &p.node, tokens(15))).await);
    let again = voucher(&domain, &p.spender, 1, &p.node, tokens(15));
    t.refused("redeem again", ErrorKind::Data, node.redeem(&again).await);
    t.gas("draw", node.draw(&id, &p.node.address()).await);
    t.refused("draw nothing", ErrorKind::Data, node.draw(&id, &p.node.address()).await);
    t.seen(
        "settlements",
        &client
            .settlements(&id)
            .await
            .unwrap()
            .iter()
            .map(|b| (b.batch, b.root, b.paid, b.records.clone()))
            .collect::<Vec<_>>(),
    );
    assert_eq!(client.balance(&p.node.address()).await.unwrap(), tokens(15));
}

async fn stakes(t: &mut Transcript, world: &World, p: &People, client: &Arc<EvmLedger>) {
    let operator = world.ledger(&p.operator).await;
    let consent = p.node.sign(&operator.consent(&p.operator.address()));
    t.gas("stake", operator.stake(tokens(500)).await);
    t.refused("stake beyond means", ErrorKind::Budget, operator.stake(tokens(501)).await);
    t.refused("delegate without consent", ErrorKind::Data, client.delegate(&p.node.address(), &consent).await);
    t.gas("delegate", operator.delegate(&p.node.address(), &consent).await);
    t.refused("delegate again", ErrorKind::Data, operator.delegate(&p.node.address(), &consent).await);
    t.gas("payout", operator.set_payout(&p.payout.address()).await);
    t.refused("revoke a stranger's", ErrorKind::Data, client.revoke(&p.node.address()).await);
    let second = settlement(&client.domain(), &p.client, (1, 1), &[(&p.node, tokens(30))], vec![]);
    t.gas("settle by the client", client.settle(&second).await);
    t.gas("draw to the payout", client.draw(&account(1), &p.node.address()).await);
    assert_eq!(client.balance(&p.payout.address()).await.unwrap(), tokens(15));
    t.seen("node", &client.provider(&p.node.address()).await.unwrap());
}

async fn offences(t: &mut Transcript, world: &World, p: &People) {
    let reporter = world.ledger(&p.reporter).await;
    let domain = reporter.domain();
    let (one, other) = (receipt(&domain, &p.node, 1, 6), receipt(&domain, &p.node, 1, 7));
    t.refused("no equivocation", ErrorKind::Data, reporter.prove_equivocation(&one, &one).await);
    t.gas("equivocation", reporter.prove_equivocation(&one, &other).await);
    t.refused("equivocation again", ErrorKind::Data, reporter.prove_equivocation(&one, &other).await);
    let stranger = person(99);
    let theirs = (receipt(&domain, &stranger, 1, 6), receipt(&domain, &stranger, 1, 7));
    t.refused("nobody's stake", ErrorKind::Data, reporter.prove_equivocation(&theirs.0, &theirs.1).await);

    let answers: Vec<_> = (1..6).map(|n| receipt(&domain, &p.node, n, 6)).collect();
    let mut receipts: Vec<_> = answers.iter().map(|r| claimed(r, 6)).collect();
    let honest = leaf(&domain, &p.node, 1, &receipts, 2);
    t.refused("an honest leaf", ErrorKind::Data, reporter.prove_bad_leaf(&honest, &answers[2]).await);
    receipts[2].units = WorkUnits(60);
    let bad = leaf(&domain, &p.node, 1, &receipts, 2);
    t.gas("bad leaf", reporter.prove_bad_leaf(&bad, &answers[2]).await);
    let mut elsewhere = bad.clone();
    elsewhere.proof.index = 3;
    t.refused("a leaf elsewhere", ErrorKind::Data, reporter.prove_bad_leaf(&elsewhere, &answers[3]).await);

    let again = leaf(&domain, &p.node, 2, &receipts, 4);
    let first = leaf(&domain, &p.node, 1, &receipts, 4);
    t.refused("one claim twice", ErrorKind::Data, reporter.prove_duplicate_claim(&first, &first).await);
    t.gas("duplicate claim", reporter.prove_duplicate_claim(&first, &again).await);
    t.seen("convicted", &reporter.provider(&p.node.address()).await.unwrap());
    assert_eq!(reporter.provider(&p.node.address()).await.unwrap().stake, tokens(200));
    assert_eq!(reporter.balance(&p.reporter.address()).await.unwrap(), tokens(30));
}

async fn leave(t: &mut Transcript, world: &World, p: &People, client: &Arc<EvmLedger>) {
    let (id, domain) = (account(1), client.domain());
    let operator = world.ledger(&p.operator).await;
    t.gas("unstake", operator.unstake(tokens(150)).await);
    t.refused("unstake more", ErrorKind::Budget, operator.unstake(tokens(51)).await);
    t.refused("withdraw early", ErrorKind::Data, operator.withdraw_stake().await);
    t.gas("revoke", operator.revoke(&p.node.address()).await);
    let word = voucher(&domain, &p.client, 1, &p.node, tokens(40));
    t.refused("redeem for a revoked node", ErrorKind::Data, client.redeem(&word).await);
    t.gas("no spender", client.set_spender(&id, None, Amount::ZERO).await);
    t.refused("refund unasked", ErrorKind::Data, client.refund(&id).await);
    t.refused("another's refund", ErrorKind::Data, operator.ask_refund(&id).await);
    t.gas("ask for the rest", client.ask_refund(&id).await);
    t.refused("top up while closing", ErrorKind::Data, client.top_up(&id, tokens(1)).await);
    t.refused("refund early", ErrorKind::Data, client.refund(&id).await);
    dev::warp(&world.config, 7 * 86_400).await.unwrap();
    t.gas("refund", client.refund(&id).await);
    t.refused("refund again", ErrorKind::Data, client.refund(&id).await);
    dev::warp(&world.config, 21 * 86_400).await.unwrap();
    t.gas("withdraw", operator.withdraw_stake().await);
    assert_eq!(client.balance(&p.client.address()).await.unwrap(), tokens(1_000 - 30));
    t.seen("closed", &client.account(&id).await.unwrap());
    t.seen("earned", &client.earned(&id, &p.node.address()).await.unwrap());
}

/// All transactions with their gas and logs, and what everybody has in the end.
async fn ledger_of(t: &mut Transcript, world: &World, p: &People, client: &Arc<EvmLedger>) {
    let rpc = dev::Rpc::open(&world.config).await.unwrap();
    let ask = async |method: &'static str, params: Value| rpc.request(method, params).await.unwrap();
    let head = ask("eth_blockNumber", json!([])).await;
    let number = |value: &Value| u128::from_str_radix(&value.as_str().unwrap()[2..], 16).unwrap();
    let head = number(&head);
    let mut fees = std::collections::HashMap::<String, u128>::new();
    for at in 0..=head {
        let block = ask("eth_getBlockByNumber", json!([format!("{at:#x}"), false])).await;
        t.seen("block", &(at, &block["timestamp"], &block["gasUsed"]));
        for tx in block["transactions"].as_array().unwrap() {
            let receipt = ask("eth_getTransactionReceipt", json!([tx])).await;
            // anvil wants a tip, the embedded chain none.
            let fee = number(&receipt["gasUsed"]) * number(&receipt["effectiveGasPrice"]);
            *fees.entry(receipt["from"].as_str().unwrap().to_lowercase()).or_default() += fee;
            let logs = receipt["logs"].as_array().unwrap().iter();
            let logs: Vec<_> = logs.map(|l| (l["address"].clone(), l["topics"].clone(), l["data"].clone())).collect();
            t.seen("tx", &(&receipt["from"], &receipt["to"], &receipt["status"], &receipt["gasUsed"], logs));
        }
    }
    let at = client.deployment();
    let zero = dev::key(0).unwrap();
    let keys = [&p.client, &p.spender, &p.node, &p.operator, &p.reporter, &p.payout, &zero];
    let contracts = [at.token, at.registry, at.escrow, at.disputes];
    for who in keys.iter().map(|k| k.address()).chain(contracts) {
        let nonce = ask("eth_getTransactionCount", json!([who, "latest"])).await;
        let ether = number(&ask("eth_getBalance", json!([who, "latest"])).await);
        let ether = ether + fees.get(&who.to_string()).unwrap_or(&0);
        let code = ask("eth_getCode", json!([who, "latest"])).await;
        let words: Vec<_> = (0..8).map(|slot| json!([who, format!("{slot:#066x}"), "latest"])).collect();
        let mut storage = Vec::new();
        for word in words {
            storage.push(ask("eth_getStorageAt", word).await);
        }
        t.seen("left", &(who, nonce, ether, client.balance(&who).await.unwrap(), code, storage));
    }
}
