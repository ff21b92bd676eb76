//! `conun pin`, `unpin` and `pins`: blocks that are kept until somebody says otherwise, through a coordinator or in the
//! folder of a stopped node.

use std::{path::Path, sync::Arc};

use conun_api::Client;
use conun_storage::{DataDir, Store, datadir::load_or_create_key, store};
use conun_types::{Cid, Error, NodeId, OsRng, Result, SystemClock, wire::BlockError};

use crate::{
    args::{Pin, Pins},
    context::Context,
    print,
};

/// Who keeps the pins.
#[expect(clippy::large_enum_variant, reason = "there is one a command")]
enum Keeper {
    /// The nodes of a network.
    Network(Client),
    /// One node, while it is stopped.
    Folder { store: Store, id: NodeId, _dir: DataDir },
}

impl Keeper {
    async fn open(args: &Pins, context: &Context) -> Result<Self> {
        match &args.dir {
            Some(dir) => Self::folder(dir),
            None => Ok(Self::Network(context.client(&args.listing.connect).await?)),
        }
    }

    fn folder(path: &Path) -> Result<Self> {
        if !path.join("conun.json").exists() {
            return Err(Error::usage(format!("{} is not the data folder of a node", path.display())));
        }
        let dir = DataDir::open(path, "node")?;
        let id = load_or_create_key(&dir, &OsRng)?.id();
        // The quota is the node's affair: a pin adds no bytes.
        let store = Store::open(path, id, store::Limits::of(u64::MAX), Arc::new(SystemClock))?;
        Ok(Self::Folder { store, id, _dir: dir })
    }

    async fn pin(&self, cid: Cid) -> Result<()> {
        match self {
            Self::Network(client) => client.pin(cid).await,
            Self::Folder { store, id, .. } => store.pin(*id, cid).map_err(|e| named(cid, &e)),
        }
    }

    async fn unpin(&self, cid: Cid) -> Result<()> {
        match self {
            Self::Network(client) => client.unpin(cid).await,
            Self::Folder { store, id, .. } => store.unpin(*id, cid).map_err(|e| named(cid, &e)),
        }
    }

    async fn pins(&self) -> Result<Vec<Cid>> {
        match self {
            Self::Network(client) => client.pins().await,
            Self::Folder { store, .. } => Ok(store.pins().into_iter().map(|(_, cid)| cid).collect()),
        }
    }
}

fn named(cid: Cid, error: &BlockError) -> Error {
    match error {
        BlockError::NotFound => Error::data(format!("{cid} is not there")),
        other => Error::internal(format!("{cid}: {other}")),
    }
}

/// Pins a block, or a whole table by the address of its manifest.
pub(crate) async fn pin(args: Pin, context: &Context) -> Result<()> {
    Keeper::open(&args.pins, context).await?.pin(args.cid).await?;
    tell("pinned", &args)
}

/// Takes a pin away.
pub(crate) async fn unpin(args: Pin, context: &Context) -> Result<()> {
    Keeper::open(&args.pins, context).await?.unpin(args.cid).await?;
    tell("unpinned", &args)
}

fn tell(done: &str, args: &Pin) -> Result<()> {
    match args.pins.listing.json {
        true => print::json(&serde_json::json!({ done: args.cid })),
        false => print::line(&format!("{done} {}", args.cid)),
    }
}

/// Lists what is pinned.
pub(crate) async fn list(args: Pins, context: &Context) -> Result<()> {
    let pins = Keeper::open(&args, context).await?.pins().await?;
    if args.listing.json {
        return print::json(&serde_json::json!({ "pins": pins }));
    }
    pins.iter().try_for_each(|cid| print::line(&cid.to_string()))
}
