//! Work for pay over real processes and a real EVM: deposits, quotes, budgets, receipts, settlement, stake, pay.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::common::{Devnet, assert_fails, conun, json, stderr, stdout};
use serde_json::Value;

/// An anvil process on a free port.
struct Anvil {
    child: Child,
    url: String,
}

impl Anvil {
    /// Starts anvil from npm's package; `None` where it is not installed, which CI does not accept.
    fn start() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a root");
        let anvil: PathBuf = root.join("contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
        if !anvil.exists() {
            assert!(std::env::var_os("CI").is_none(), "anvil is missing: run npm ci in contracts/");
            eprintln!("skipped: anvil is not installed (npm ci in contracts/)");
            return None;
        }
        let mut child = Command::new(anvil)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("anvil starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let address = lines.by_ref().find_map(|line| {
            line.expect("a line").strip_prefix("Listening on ").map(|address| address.trim().to_owned())
        });
        // It must not stop for want of a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, url: format!("http://{}", address.expect("an address")) })
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An amount in the smallest unit, as JSON has it.
fn amount(value: &Value) -> u128 {
    value.as_str().unwrap_or_else(|| panic!("an amount, not {value}")).parse().expect("digits")
}

struct Paid {
    devnet: Devnet,
    chain: String,
    escrow: String,
}

impl Paid {
    fn up(chain: &str, args: &[&str]) -> Self {
        let devnet = Devnet::up(&[&["--chain", chain], args].concat());
        let escrow = devnet.status()["chain"]["escrow"].as_str().expect("an escrow").to_owned();
        let chain = match chain {
            "embedded" => format!("embedded:{}", devnet.dir.join("chain").display()),
            url => url.to_owned(),
        };
        devnet.put_flights(&[]);
        Self { devnet, chain, escrow }
    }

    /// Runs `conun` with coordinator, chain and escrow in the environment.
    fn conun(&self, args: &[&str]) -> std::process::Output {
        let mut command = conun();
        command
            .env("CONUN_CONNECT", &self.devnet.url)
            .env("CONUN_CHAIN", &self.chain)
            .env("CONUN_ESCROW", &self.escrow);
        command.args(args).output().expect("conun starts")
    }

    fn json(&self, args: &[&str]) -> Value {
        json(&self.conun(&[args, &["--json"]].concat()))
    }

    fn node_dir(&self, index: usize) -> String {
        self.devnet.dir.join(format!("node-{index}")).display().to_string()
    }

    /// Pay of node `index`, as its own books have it, and on the chain.
    fn earned(&self, index: usize) -> (u128, u128) {
        let output = self.conun(&["node", "earnings", "--dir", &self.node_dir(index), "--json"]);
        let earnings = json(&output);
        let chain: u128 =
            earnings["accounts"].as_array().expect("accounts").iter().map(|a| amount(&a["on_chain"]["earned"])).sum();
        (amount(&earnings["earned"]), chain)
    }

    /// Waits until every node has a voucher for what it did: vouchers follow the answer.
    fn wait_for_vouchers(&self, total: u128, nodes: &[usize]) {
        for _ in 0..100 {
            let sum: u128 = nodes.iter().map(|index| self.earned(*index).0).sum();
            if sum == total {
                return;
            }
            assert!(sum < total, "nodes have vouchers for {sum}, the jobs cost {total}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("vouchers do not add up to {total}");
    }
}

const QUERY: &str = "select carrier, count(*) n, avg(dep_delay) d from flights group by carrier order by n desc";

/// Cost of the last row of a quote, in the smallest unit.
fn quoted(paid: &Paid, sql: &str) -> u128 {
    let rows = paid.json(&["sql", "-q", "-c", &format!("explain cost {sql}")]);
    let sum = rows.as_array().expect("rows").last().expect("a sum")["cost"].clone();
    let text = sum.as_str().map_or_else(|| sum.to_string(), str::to_owned);
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    format!("{whole}{part:0<18}").parse().expect("a decimal number")
}

#[test]
fn work_is_quoted_budgeted_paid_and_proven_on_an_embedded_chain() {
    let paid = Paid::up("embedded", &["--nodes", "4"]);
    // The quote is the bill.
    let quote = quoted(&paid, QUERY);
    let run = paid.conun(&["sql", "--format", "csv", "-c", QUERY]);
    assert!(stderr(&run).contains("cost "), "the result says what it cost: {}", stderr(&run));
    let job = paid.devnet.last_job();
    let cost = amount(&job["cost"]);
    assert!(cost > 0 && quote.abs_diff(cost) * 4 <= cost, "quoted {quote}, billed {cost}");

    // A budget stops a job; what was done is paid.
    let stopped = paid.conun(&["sql", "--budget", "0.000001", "-c", QUERY]);
    assert_fails(&stopped, 5, &["budget"]);
    let half = format!("0.{:018}", cost / 2);
    let stopped = paid.conun(&["sql", "--budget", &half, "-c", QUERY]);
    assert_fails(&stopped, 5, &["budget"]);
    let half_done = amount(&paid.devnet.last_job()["cost"]);
    assert!(half_done < cost, "{half_done} of {cost}");

    let total = cost + half_done;
    paid.wait_for_vouchers(total, &[0, 1, 2, 3]);

    // Settlement: the sums agree to the last unit, the leaves rebuild the root, the receipts match.
    assert_fails(&paid.conun(&["job", "verify", job["id"].as_str().expect("an id")]), 3, &["not settled"]);
    let settled = paid.json(&["chain", "settle"]);
    assert_eq!(amount(&settled["settled"][0]["amount"]), total);
    let verified = paid.json(&["job", "verify", job["id"].as_str().expect("an id")]);
    assert_eq!(amount(&verified["settled"]["paid"]), cost);
    assert_eq!(verified["settled"]["roots"][0], settled["settled"][0]["root"]);
    assert_eq!(paid.json(&["chain", "settle"])["settled"].as_array().map(Vec::len), Some(0), "nothing is owed twice");
    let on_chain: u128 = (0..4).map(|index| paid.earned(index).1).sum();
    assert_eq!(on_chain, total);

    // Pay arrives where the operator wants it, once.
    let withdrawn = paid.json(&["chain", "withdraw", "--node", &paid.node_dir(0), "--wallet", "dev:9"]);
    assert!(withdrawn["done"][0]["what"].as_str().expect("text").starts_with("drew "));
    let again = paid.conun(&["chain", "withdraw", "--node", &paid.node_dir(0), "--wallet", "dev:9"]);
    assert_fails(&again, 3, &["nothing to withdraw"]);

    // Receipts hold offline, from a file; a changed one does not.
    let file = paid.devnet.dir.join("receipts.json");
    let receipts = stdout(&paid.conun(&["job", "receipts", job["id"].as_str().expect("an id"), "--json"]));
    std::fs::write(&file, &receipts).expect("written");
    let file = file.to_str().expect("UTF-8");
    stdout(&conun().args(["job", "verify", file, "--offline"]).output().expect("conun starts"));
    let other = ["--escrow", "0x0000000000000000000000000000000000000001"];
    let pinned = [&["job", "verify", job["id"].as_str().expect("an id")], &other[..]].concat();
    assert_fails(&paid.conun(&pinned), 6, &["not for the one"]);
    let mut changed: Value = serde_json::from_str(&receipts).expect("JSON");
    let mut emptied = changed.clone();
    emptied["receipts"] = Value::Array(Vec::new());
    std::fs::write(file, emptied.to_string()).expect("written");
    assert_fails(&paid.conun(&["job", "verify", file]), 6, &["no receipt"]);
    changed["receipts"][0]["receipt"]["receipt"]["units"] = 1.into();
    std::fs::write(file, changed.to_string()).expect("written");
    assert_fails(&conun().args(["job", "verify", file, "--offline"]).output().expect("conun starts"), 6, &["receipts"]);

    // The whole survives a restart: account, book, chain.
    paid.devnet.down();
    let Paid { mut devnet, chain, escrow } = paid;
    devnet.start(&[]);
    let paid = Paid { devnet, chain, escrow };
    stdout(&paid.conun(&["sql", "-q", "-c", "select count(*) from flights"]));
    let status = paid.json(&["chain", "status"]);
    assert_eq!(amount(&status["account"]["earned"]), total);
    assert!(amount(&status["open_amount"]) > 0);
}

#[test]
fn on_anvil_a_liar_earns_nothing_and_an_equivocator_loses_stake() {
    let Some(anvil) = Anvil::start() else { return };
    let paid = Paid::up(&anvil.url, &["--nodes", "6", "--liar", "2=wrong-value", "--liar", "4=equivocate"]);
    let stake = |index: usize| {
        let operator = std::fs::read_to_string(paid.devnet.dir.join(format!("operator-{index}.key"))).expect("a key");
        operator.trim().to_owned()
    };
    assert_ne!(stake(2), stake(4), "each node has an operator of its own");
    let mut cost = 0;
    let mut liars = std::collections::BTreeSet::new();
    for case in conun_sql_examples::NYCFLIGHTS13 {
        let output = paid.conun(&["sql", "--format", "csv", "-q", "-c", case.sql]);
        assert!(output.status.success(), "{}: {}", case.name, stderr(&output));
        let job = paid.devnet.last_job();
        cost += amount(&job["cost"]);
        liars.extend(job["liars"].as_array().expect("liars").iter().map(|id| id.as_str().expect("an id").to_owned()));
    }
    let expected = [2, 4].map(|index| paid.devnet.node_id(index));
    assert_eq!(liars, expected.into_iter().collect());
    let settled = paid.json(&["chain", "settle"]);
    let total: u128 = settled["settled"].as_array().expect("batches").iter().map(|b| amount(&b["amount"])).sum();
    assert_eq!(total, cost, "what was settled is what the jobs cost, to the last unit");
    let jobs = json(&paid.conun(&["job", "ls", "--json"]));
    for job in jobs["jobs"].as_array().expect("jobs") {
        let verified = paid.json(&["job", "verify", job["id"].as_str().expect("an id")]);
        assert_eq!(verified["ok"], true);
    }
    let honest = [0, 1, 3, 5];
    let earned: u128 = honest.iter().map(|index| paid.earned(*index).1).sum();
    assert_eq!(earned, total, "the honest have it all");
    // Pay reaches the operators' addresses, to the last unit.
    let mut arrived = 0;
    for index in honest.into_iter().filter(|index| paid.earned(*index).1 > 0) {
        let earnings = json(&paid.conun(&["node", "earnings", "--dir", &paid.node_dir(index), "--json"]));
        let payout = earnings["provider"]["payout"].as_str().expect("an address").to_owned();
        let balance = || amount(&paid.json(&["chain", "balance", &payout])["tokens"]);
        let before = balance();
        paid.json(&["chain", "withdraw", "--node", &paid.node_dir(index), "--wallet", "dev:9"]);
        arrived += balance() - before;
    }
    assert_eq!(arrived, total);

    // The equivocator's operator was slashed by what the node itself signed.
    let slashed = (0..50).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let log = std::fs::read_to_string(paid.devnet.dir.join("coordinator.log")).unwrap_or_default();
        assert!(!log.contains("panicked"), "{log}");
        provider_stake(&paid, 4) < 500_000_000_000_000_000_000
    });
    assert!(slashed, "stake {}", provider_stake(&paid, 4));
    assert_eq!(provider_stake(&paid, 2), 500_000_000_000_000_000_000, "a wrong result costs pay, not stake");
}

/// Stake behind node `index`.
fn provider_stake(paid: &Paid, index: usize) -> u128 {
    let earnings = json(&paid.conun(&["node", "earnings", "--dir", &paid.node_dir(index), "--json"]));
    amount(&earnings["provider"]["stake"])
}

#[test]
fn every_quote_is_within_a_quarter_of_the_bill() {
    let paid = Paid::up("embedded", &["--nodes", "4"]);
    let data = tempfile::tempdir().expect("a folder");
    conun_benches::tpch::write_tables(data.path(), 0.01).expect("tables");
    for table in ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"] {
        let file = data.path().join(format!("{table}.parquet"));
        stdout(&paid.conun(&["put", table, file.to_str().expect("UTF-8"), "--shard-size", "256KiB"]));
    }
    let flights = conun_sql_examples::NYCFLIGHTS13.iter().map(|case| (case.name, case.sql));
    let tpch = conun_sql_examples::tpch(conun_sql_examples::TpchScale::Hundredth);
    for (name, sql) in flights.chain(tpch.iter().map(|case| (case.name, case.sql))) {
        let quote = quoted(&paid, sql);
        stdout(&paid.conun(&["sql", "--format", "csv", "-q", "-c", sql]));
        let job = paid.devnet.last_job();
        let cost = amount(&job["cost"]);
        assert!(quote.abs_diff(cost) * 4 <= cost, "{name}: quoted {quote}, billed {cost}");
        // To the last unit, unless a slow node made a third one run.
        let stages = job["stages"].as_array().expect("stages");
        if stages.iter().all(|stage| stage["replicas"].as_u64() == stage["tasks"].as_u64().map(|tasks| tasks * 2)) {
            assert_eq!(quote, cost, "{name}");
        }
    }
}

#[test]
fn a_coordinator_that_is_killed_at_any_moment_pays_once_and_all() {
    let mut paid = Paid::up("embedded", &["--nodes", "3"]);
    for round in 0..5u64 {
        // Killed in the middle of a job, and around a settlement.
        let query = conun_command(&paid, &["sql", "-q", "-c", QUERY]).spawn().expect("conun starts");
        std::thread::sleep(std::time::Duration::from_millis(40 * round));
        stdout(&paid.conun(&["sql", "-q", "-c", QUERY]));
        let settle = conun_command(&paid, &["chain", "settle"]).spawn().expect("conun starts");
        std::thread::sleep(std::time::Duration::from_millis(15 * round));
        paid.devnet.kill_coordinator();
        for mut child in [query, settle] {
            child.wait().expect("it ends");
        }
        paid.devnet.down();
        paid.devnet.start(&[]);
    }
    stdout(&paid.conun(&["chain", "settle"]));
    let status = paid.json(&["chain", "status"]);
    assert_eq!((amount(&status["open_amount"]), status["open_records"].as_u64()), (0, Some(0)));
    // Every job that is on record was settled for exactly what it cost, and the nodes have what the account has paid.
    let jobs = json(&paid.conun(&["job", "ls", "--json"]));
    let jobs = jobs["jobs"].as_array().expect("jobs");
    assert!(jobs.iter().filter(|job| job["state"] == "done").count() >= 5, "{jobs:?}");
    assert!(jobs.iter().all(|job| ["done", "failed"].contains(&job["state"].as_str().expect("a state"))), "{jobs:?}");
    for job in jobs.iter().filter(|job| job["state"] == "done") {
        let verified = paid.json(&["job", "verify", job["id"].as_str().expect("an id")]);
        assert_eq!(verified["settled"]["paid"], job["cost"]);
    }
    let earned: u128 = (0..3).map(|index| paid.earned(index).1).sum();
    assert_eq!(earned, amount(&status["account"]["earned"]));
    assert!(
        (0..3).all(|index| paid.earned(index).0 <= paid.earned(index).1),
        "no voucher is worth more than was settled"
    );
}

/// `conun` with the coordinator in its environment, silent.
fn conun_command(paid: &Paid, args: &[&str]) -> Command {
    let mut command = conun();
    command.env("CONUN_CONNECT", &paid.devnet.url).args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn without_money_or_with_wrong_flags_nothing_is_spent_and_the_error_says_why() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let chain = format!("embedded:{}", path("chain"));
    let wallets = path("wallets");
    let wallet = |args: &[&str], password: &str| {
        let mut command = conun();
        command.env("CONUN_WALLETS", &wallets).env("CONUN_WALLET_PASSWORD", password).env("CONUN_CHAIN", &chain);
        command.args(args).output().expect("conun starts")
    };
    assert_fails(&wallet(&["chain", "balance", "--wallet", "dev:0"], "good"), 2, &["no embedded chain"]);
    stdout(&wallet(&["chain", "deploy", "--wallet", "dev:0"], "good"));
    let made = json(&wallet(&["wallet", "new", "--json"], "good"));
    assert_eq!(made["words"].as_str().map(|w| w.split(' ').count()), Some(12));
    let address = made["address"].as_str().expect("an address").to_owned();
    assert_fails(&wallet(&["wallet", "show", "--secret"], "bad"), 2, &["password"]);
    assert_fails(&wallet(&["chain", "stake", "1"], "bad"), 2, &["password"]);
    assert_fails(&wallet(&["chain", "stake", "1"], "good"), 5, &["tokens"]);
    assert_fails(&wallet(&["chain", "balance", "--chain-id", "1"], "good"), 2, &["chain"]);
    assert_fails(&wallet(&["chain", "stake", "1", "--wallet", "0xdead"], "good"), 2, &["0xdead"]);
    let balance = json(&wallet(&["chain", "balance", &address, "--json"], "good"));
    assert_eq!(amount(&balance["tokens"]), 0);

    assert_fails(&wallet(&["chain", "balance", "--wallet", "dev:0", "--chain-id", "1"], "good"), 2, &["chain"]);
    stdout(&wallet(&["chain", "transfer", &address, "3", "--wallet", "dev:0"], "good"));
    // Nothing is staked for a node that is not there.
    assert_fails(&wallet(&["chain", "stake", "1", "--node", &path("nowhere")], "good"), 3, &["nowhere"]);
    let balance = json(&wallet(&["chain", "balance", &address, "--json"], "good"));
    assert_eq!(amount(&balance["tokens"]), 3_000_000_000_000_000_000);

    // The words restore the wallet elsewhere.
    let words = dir.path().join("words");
    std::fs::write(&words, made["words"].as_str().expect("words")).expect("written");
    let other = path("other");
    let restored = conun()
        .env("CONUN_WALLETS", &other)
        .env("CONUN_WALLET_PASSWORD", "new")
        .args(["wallet", "import", "--words-file", words.to_str().expect("UTF-8"), "--json"])
        .output()
        .expect("conun starts");
    assert_eq!(json(&restored)["address"], made["address"]);
    let changed = conun()
        .env("CONUN_WALLETS", &other)
        .env("CONUN_WALLET_PASSWORD", "new")
        .env("CONUN_NEW_WALLET_PASSWORD", "newer")
        .args(["wallet", "change-password"])
        .output()
        .expect("conun starts");
    stdout(&changed);

    // A coordinator with a price that nobody can mean does not start; one without a deposit does no work for pay.
    let coordinator = ["coordinator", "--dir", &path("c"), "--port", "0"];
    assert_fails(
        &conun().args(coordinator).args(["--chain", &chain, "--price", "5000"]).output().expect("conun"),
        2,
        &["absurd"],
    );
    assert_fails(&conun().args(coordinator).args(["--chain", "ftp://x"]).output().expect("conun"), 2, &["chain"]);
    let nobody = "http://127.0.0.1:9";
    let escrow = ["--escrow", "0x0000000000000000000000000000000000000001"];
    let away = conun().args(coordinator).args(["--chain", nobody]).args(escrow).output().expect("conun");
    assert_fails(&away, 4, &["127.0.0.1:9"]);
}

#[test]
fn nodes_work_for_pay_or_for_nothing_but_not_for_both() {
    let devnet = Devnet::up(&["--nodes", "3"]);
    devnet.put_flights(&[]);
    assert_fails(&devnet.conun(&["sql", "-c", "select count(*) from flights", "--budget", "1"]), 2, &["budget"]);
    assert_fails(&devnet.conun(&["chain", "settle"]), 2, &["chain"]);
    assert_fails(&devnet.conun(&["chain", "status"]), 2, &["chain"]);
    let free = devnet.conun(&["sql", "--json", "-q", "-c", "explain cost select count(*) from flights"]);
    let rows = json(&free);
    assert!(rows[0]["cost"].is_null() && rows[0]["units"].as_u64() > Some(0), "{rows}");
    let job = json(&devnet.conun(&["job", "ls", "--json"]));
    assert_eq!(job["jobs"][0]["verified"], "local");
}
