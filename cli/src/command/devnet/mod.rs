//! `conun devnet`: a network of separate processes on this machine, in one folder.
//!
//! Layout: `DIR/node-I` and `DIR/coordinator` are data folders, `DIR/owner.key` is the key that owns the tables (apart
//! from the coordinator, so that losing its folder loses no table), `DIR/*.log` what the processes say, and
//! `DIR/devnet.json` who runs. With `--chain`, `DIR/operator-I.key` stands for node I, and `DIR/chain` is the embedded chain.

mod down;
mod money;
mod state;
mod status;
mod up;

pub(super) use self::{money::Money, up::wait_for_volunteers};

use std::path::Path;

use conun_types::{Error, Result};

use crate::{
    args::{Devnet, DevnetCommand},
    context::Context,
};

/// Dispatches `devnet up|down|status`.
pub(crate) async fn run(args: Devnet, context: &Context) -> Result<()> {
    match args.command {
        DevnetCommand::Up(args) => up::run(args, context).await,
        DevnetCommand::Down(args) => down::run(args).await,
        DevnetCommand::Status(args) => status::run(&args),
    }
}

fn none_here(dir: &Path) -> Error {
    Error::usage(format!("there is no devnet in {}", dir.display()))
        .with_hint(format!("start one with: conun devnet up --dir {} --detach", dir.display()))
}
