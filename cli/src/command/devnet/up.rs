//! `conun devnet up`: nodes first, then coordinators that know all of them; done once everybody sees everybody.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use conun_api::{Client, DEFAULT_PORT};
use conun_node::LiarMode;
use conun_types::{Address, Error, Result};
use futures::future::try_join_all;

use super::{
    Money, down,
    state::{ChainState, Member, State, lock},
    status,
};
use crate::{
    args::DevnetUp,
    context::Context,
    process::{Launch, Service},
    service::Signals,
};

/// How long a coordinator may take to see all nodes.
const MEETING: Duration = Duration::from_secs(30);
/// Nodes of a first devnet.
const NODES: u32 = 6;

/// Starts a devnet; without `--detach` stays until it is told to stop, and then stops all.
pub(super) async fn run(args: DevnetUp, context: &Context) -> Result<()> {
    let mut signals = Signals::new()?;
    // Before there is a folder: a typing error leaves none behind.
    liars(&args, size(&args, State::load(&args.dir.dir)?.as_ref()))?;
    let dir = create(&args.dir.dir)?;
    let guard = lock(&dir)?;
    let old = State::load(&dir)?;
    if old.as_ref().is_some_and(State::is_running) {
        return Err(Error::usage(format!("a devnet is already running in {}", dir.display()))
            .with_hint(format!("stop it with: conun devnet down --dir {}", dir.display())));
    }
    let mut plan = Plan::new(&args, dir, old.as_ref())?;
    plan.check()?;
    plan.money = plan.prepare_money(old.as_ref()).await?;
    let devnet = tokio::select! {
        devnet = plan.start(context) => devnet?,
        () = signals.next() => return Err(Error::unavailable("interrupted")),
    };
    drop(guard);
    status::tell(&devnet.state, args.dir.json)?;
    if args.detach {
        devnet.services.into_iter().for_each(Service::release);
        return Ok(());
    }
    crate::print::tell("Ctrl-C stops it");
    signals.next().await;
    down::stop(&devnet.state).await;
    Ok(())
}

/// The folder, by its full path: processes may be asked about from anywhere.
fn create(dir: &Path) -> Result<PathBuf> {
    let named = |e: std::io::Error| Error::from(e).context(format!("cannot use {}", dir.display()));
    std::fs::create_dir_all(dir).map_err(named)?;
    dir.canonicalize().map_err(named)
}

/// What is to be started. A devnet is up as a whole or not at all: services that were started are killed on the way
/// out of an error.
struct Plan<'a> {
    args: &'a DevnetUp,
    dir: PathBuf,
    nodes: u32,
    port: u16,
    money: Option<Money>,
    /// How nodes cheat, by index.
    liars: BTreeMap<u32, LiarMode>,
}

/// What `--chain` is for a devnet that stops paying.
const NO_CHAIN: &str = "none";

/// Running services, and what was written down about them.
struct Running {
    state: State,
    /// Killed if dropped.
    services: Vec<Service>,
}

impl<'a> Plan<'a> {
    fn new(args: &'a DevnetUp, dir: PathBuf, old: Option<&State>) -> Result<Self> {
        let nodes = size(args, old);
        let port = args.port.or(old.map(|s| s.port)).unwrap_or(DEFAULT_PORT);
        Ok(Self { args, dir, nodes, port, money: None, liars: liars(args, nodes)? })
    }

    /// `--chain` as it is given now, else as the last time.
    fn chain(&self, old: Option<&State>) -> Option<ChainState> {
        let known = old.and_then(|state| state.chain.clone());
        match &self.args.chain {
            Some(chain) if chain == NO_CHAIN => None,
            Some(chain) => {
                let escrow = known.filter(|known| known.chain == *chain).map(|known| known.escrow).unwrap_or_default();
                Some(ChainState { chain: chain.clone(), escrow })
            }
            None => known,
        }
    }

    async fn prepare_money(&self, old: Option<&State>) -> Result<Option<Money>> {
        let Some(ChainState { chain, escrow }) = self.chain(old) else { return Ok(None) };
        let escrow = Some(escrow).filter(|escrow| *escrow != Address::default());
        Money::prepare(&chain, &self.dir, escrow).await.map(Some)
    }

    /// Port of coordinator `index`.
    fn port_of(&self, index: u32) -> u16 {
        if self.port == 0 { 0 } else { self.port.saturating_add(index as u16) }
    }

    /// Finds a port in use before anything is started.
    fn check(&self) -> Result<()> {
        for port in (0..self.args.coordinators).map(|i| self.port_of(i)).filter(|port| *port != 0) {
            TcpListener::bind(("127.0.0.1", port)).map_err(|_| {
                Error::usage(format!("port {port} is in use on 127.0.0.1")).with_hint("choose another with --port")
            })?;
        }
        Ok(())
    }

    async fn start(&self, context: &Context) -> Result<Running> {
        let mut state = State::new(self.port, self.nodes);
        state.chain = self.money.as_ref().map(|money| ChainState { chain: money.chain.clone(), escrow: money.escrow });
        let mut services = self.start_nodes(&mut state).await?;
        if let Some(money) = &self.money {
            for index in 0..self.nodes {
                let node = self.dir.join(format!("node-{index}"));
                money.endow_node(&node, &self.dir.join(format!("operator-{index}.key"))).await?;
            }
        }
        let bootstrap: Vec<&str> = state.nodes.iter().map(|m| m.address.as_str()).collect();
        let launches: Vec<Launch> = (0..self.args.coordinators).map(|i| self.coordinator(i, &bootstrap)).collect();
        let coordinators = try_join_all(launches.iter().map(Service::start)).await?;
        state.coordinators = members(&coordinators, 0);
        services.extend(coordinators);
        self.wait_until_met(&state, context).await?;
        state.save(&self.dir)?;
        Ok(Running { state, services })
    }

    /// The first node alone, the others with its address, so that nodes know each other too.
    async fn start_nodes(&self, state: &mut State) -> Result<Vec<Service>> {
        let first = Service::start(&self.node(0, None)).await?;
        let address = first.ready.address.clone();
        let mut services = vec![first];
        state.nodes = members(&services, 0);
        let launches: Vec<Launch> = (1..self.nodes).map(|i| self.node(i, Some(&address))).collect();
        let others = try_join_all(launches.iter().map(Service::start)).await?;
        state.nodes.extend(members(&others, 1));
        services.extend(others);
        Ok(services)
    }

    fn node(&self, index: u32, bootstrap: Option<&str>) -> Launch {
        let mut args: Vec<OsString> = vec!["node".into(), "--dir".into()];
        args.push(self.dir.join(format!("node-{index}")).into());
        let option = |name: &str, value: Option<String>| value.map(|v| [OsString::from(name), OsString::from(v)]);
        let liar = self.liars.get(&index).map(LiarMode::to_string);
        args.extend(option("--bootstrap", bootstrap.map(str::to_owned)).into_iter().flatten());
        args.extend(option("--liar", liar).into_iter().flatten());
        args.extend(option("--store", self.args.store.clone()).into_iter().flatten());
        args.extend(option("--cores", self.args.cores.map(|n| n.to_string())).into_iter().flatten());
        args.extend(option("--memory", self.args.memory.clone()).into_iter().flatten());
        args.extend(option("--delay-ms", self.args.delay_ms.map(|ms| ms.to_string())).into_iter().flatten());
        args.extend(self.money.iter().flat_map(Money::flags));
        self.launch(format!("node-{index}"), args)
    }

    fn coordinator(&self, index: u32, bootstrap: &[&str]) -> Launch {
        let suffix = if index == 0 { String::new() } else { format!("-{index}") };
        let name = format!("coordinator{suffix}");
        let mut args: Vec<OsString> = vec!["coordinator".into(), "--dir".into(), self.dir.join(&name).into()];
        args.extend(["--key".into(), self.dir.join(format!("owner{suffix}.key")).into()]);
        args.extend(["--port".into(), self.port_of(index).to_string().into()]);
        args.extend(self.args.cache.iter().flat_map(|size| ["--cache".into(), OsString::from(size)]));
        args.extend(self.args.partitions.iter().flat_map(|n| ["--partitions".into(), OsString::from(n.to_string())]));
        args.extend(self.money.iter().flat_map(Money::flags));
        args.extend(bootstrap.iter().flat_map(|addr| ["--bootstrap".into(), OsString::from(*addr)]));
        self.launch(name, args)
    }

    fn launch(&self, name: String, args: Vec<OsString>) -> Launch {
        Launch { args, name, dir: self.dir.clone(), outlives: self.args.detach }
    }

    async fn wait_until_met(&self, state: &State, context: &Context) -> Result<()> {
        let token = std::env::var("CONUN_TOKEN").ok().or_else(|| context.config.token.clone());
        for coordinator in &state.coordinators {
            let url = coordinator.url.as_deref().unwrap_or_default();
            wait_for_volunteers(url, token.as_deref(), self.nodes as usize).await?;
            if let Some(money) = &self.money {
                money.endow_coordinator(&Client::connect(url, token.as_deref()).await?).await?;
            }
        }
        Ok(())
    }
}

/// How many nodes it has: as many as are asked for, else as many as it had.
fn size(args: &DevnetUp, old: Option<&State>) -> u32 {
    args.nodes.or(old.map(|s| s.size)).unwrap_or(NODES)
}

/// How nodes are to cheat, by index.
fn liars(args: &DevnetUp, nodes: u32) -> Result<BTreeMap<u32, LiarMode>> {
    let mut modes = BTreeMap::new();
    for (index, mode) in args.liar.iter().flat_map(|liars| liars.nodes.iter().map(|index| (*index, liars.mode))) {
        if index >= nodes {
            return Err(Error::usage(format!("there is no node {index} among {nodes}")).with_hint("nodes count from 0"));
        }
        if let Some(other) = modes.insert(index, mode) {
            let twice = if other == mode {
                "is named twice".to_owned()
            } else {
                format!("cannot be both '{other}' and '{mode}'")
            };
            let what = format!("node {index} {twice}");
            return Err(Error::usage(what).with_hint("name each node once in --liar"));
        }
    }
    Ok(modes)
}

/// Waits until the coordinator at `url` sees `nodes` volunteers.
pub(crate) async fn wait_for_volunteers(url: &str, token: Option<&str>, nodes: usize) -> Result<()> {
    let client = Client::connect(url, token).await?;
    let end = Instant::now() + MEETING;
    loop {
        let seen = client.status().await?.volunteers.len();
        if seen >= nodes {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Error::unavailable(format!("the coordinator sees only {seen} of {nodes} nodes")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn members(services: &[Service], first: u32) -> Vec<Member> {
    services.iter().zip(first..).map(|(s, index)| Member::new(index, &s.ready, s.process)).collect()
}
