//! Arguments about money: which chain, which wallet, how much.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use conun_types::{AccountId, Address, Amount};

use super::{Connect, Listing};

/// Which chain.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ChainOptions {
    /// The chain: embedded (kept in the data folder), embedded:FOLDER, or the URL of a node's JSON-RPC
    #[arg(long, env = "CONUN_CHAIN", value_name = "CHAIN")]
    pub(crate) chain: Option<String>,
    /// Address of the escrow; an embedded chain has one from the start
    #[arg(long, env = "CONUN_ESCROW", value_name = "ADDRESS")]
    pub(crate) escrow: Option<Address>,
    /// Refuse any chain but this one
    #[arg(long, value_name = "N")]
    pub(crate) chain_id: Option<u64>,
    /// A block before which the escrow was not there: saves long searches for its events
    #[arg(long, env = "CONUN_SINCE", value_name = "BLOCK", default_value_t = 0)]
    pub(crate) since: u64,
}

/// How a coordinator pays.
#[derive(Debug, Clone, Args)]
pub(crate) struct Pay {
    /// Pay for a work unit, in tokens
    #[arg(long, value_name = "TOKENS", default_value = "0.000001")]
    pub(crate) price: Amount,
    /// What keeping a GiB for a day is worth, in tokens: shown by `show TABLE`, not settled yet
    #[arg(long, value_name = "TOKENS", default_value = "0.01")]
    pub(crate) gib_day: Amount,
    /// The account that pays [default: one of this coordinator's own]
    #[arg(long, value_name = "ID")]
    pub(crate) account: Option<AccountId>,
    /// Settle every so many seconds what is owed; 0: only when told to
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) settle_every: u64,
}

/// Where wallets are.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct WalletDir {
    /// Folder of the wallets [default: ~/.config/conun/wallets]
    #[arg(long, env = "CONUN_WALLETS", value_name = "DIR")]
    pub(crate) wallets: Option<PathBuf>,
    /// File with the wallet's password on its first line; else CONUN_WALLET_PASSWORD, else it is asked for
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// All wallets.
#[derive(Debug, Clone, Args)]
pub(crate) struct Wallets {
    #[command(flatten)]
    pub(crate) dir: WalletDir,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// One wallet.
#[derive(Debug, Clone, Args)]
pub(crate) struct OneWallet {
    /// Address of the wallet, or a unique beginning of it [default: the only one]
    pub(crate) address: Option<String>,
    #[command(flatten)]
    pub(crate) wallets: Wallets,
}

/// `conun wallet`
#[derive(Debug, Args)]
pub(crate) struct Wallet {
    #[command(subcommand)]
    pub(crate) command: WalletCommand,
}

/// What to do with wallets.
#[derive(Debug, Subcommand)]
pub(crate) enum WalletCommand {
    /// Make a wallet, and show once the words that restore it
    New(Wallets),
    /// Make a wallet from words, a key or a keystore file
    Import(Import),
    /// List wallets
    List(Wallets),
    /// Show a wallet's address
    Show {
        #[command(flatten)]
        wallet: OneWallet,
        /// Show the secret key, too: who has it has the money
        #[arg(long)]
        secret: bool,
    },
    /// Encrypt a wallet with another password
    ChangePassword {
        #[command(flatten)]
        wallet: OneWallet,
        /// File with the new password on its first line; else CONUN_NEW_WALLET_PASSWORD, else it is asked for
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
}

/// `conun wallet import`
#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) wallets: Wallets,
    #[command(flatten)]
    pub(crate) from: ImportFrom,
    /// Which of the keys that the words give
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) index: u32,
}

/// Where the key comes from. Secrets come in files, never on the command line, where others can read them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ImportFrom {
    /// File with the secret key in hexadecimal digits ("-": stdin)
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// File with the words ("-": stdin)
    #[arg(long, value_name = "FILE")]
    pub(crate) words_file: Option<PathBuf>,
    /// A keystore file (version 3); CONUN_KEYSTORE_PASSWORD opens it where it has another password than the wallet will have
    #[arg(long, value_name = "FILE")]
    pub(crate) keystore: Option<PathBuf>,
}

/// Who sends a transaction.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sender {
    #[command(flatten)]
    pub(crate) chain: ChainOptions,
    /// The wallet that signs and pays, by its address or a beginning of it; dev:N is account N of a development chain
    /// [default: the only one]
    #[arg(long, env = "CONUN_WALLET", value_name = "ADDRESS")]
    pub(crate) wallet: Option<String>,
    #[command(flatten)]
    pub(crate) dir: WalletDir,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `conun chain`
#[derive(Debug, Args)]
pub(crate) struct Chain {
    #[command(subcommand)]
    pub(crate) command: ChainCommand,
}

/// What to do on the chain.
#[derive(Debug, Subcommand)]
pub(crate) enum ChainCommand {
    /// Put the contracts on a chain
    Deploy(Deploy),
    /// How a coordinator's account stands
    Status(Listing),
    /// Tokens of a wallet or an address
    Balance(Balance),
    /// Deposit tokens from which a coordinator pays
    Deposit(Deposit),
    /// Take out what is yours: stake that is free, with --node a node's pay, with --deposit the rest of a deposit
    Withdraw(Withdraw),
    /// Settle what a coordinator owes
    Settle(Settle),
    /// Stake tokens, and stand for a node with them
    Stake(Stake),
    /// Put stake on its way out
    Unstake {
        /// Tokens
        amount: Amount,
        #[command(flatten)]
        sender: Sender,
    },
    /// Send tokens of the wallet to an address
    Transfer {
        /// To whom
        to: Address,
        /// Tokens
        amount: Amount,
        #[command(flatten)]
        sender: Sender,
    },
    /// Take a node's key back, for good: it earns nothing from now on
    Revoke {
        /// Address, peer id or data folder of the node
        node: String,
        #[command(flatten)]
        sender: Sender,
    },
}

/// `conun chain deploy`
#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// Tokens that will ever be, all of them the wallet's
    #[arg(long, value_name = "TOKENS", default_value = "1000000000")]
    pub(crate) supply: Amount,
    /// Stake that a proven offence costs
    #[arg(long, value_name = "TOKENS", default_value = "100")]
    pub(crate) penalty: Amount,
    #[command(flatten)]
    pub(crate) sender: Sender,
}

/// `conun chain balance`
#[derive(Debug, Args)]
pub(crate) struct Balance {
    /// The address [default: the wallet's]
    pub(crate) address: Option<Address>,
    #[command(flatten)]
    pub(crate) chain: ChainOptions,
    /// The wallet; dev:N is account N of a development chain
    #[arg(long, env = "CONUN_WALLET", value_name = "ADDRESS")]
    pub(crate) wallet: Option<String>,
    #[command(flatten)]
    pub(crate) dir: WalletDir,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `conun chain deposit`
#[derive(Debug, Args)]
pub(crate) struct Deposit {
    /// Tokens
    pub(crate) amount: Amount,
    /// Most that the coordinator may spend in all [default: the whole deposit]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) cap: Option<Amount>,
    /// Add to an account that is somebody else's: its client, not you, gets back what is not spent
    #[arg(long)]
    pub(crate) gift: bool,
    #[command(flatten)]
    pub(crate) sender: Sender,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// `conun chain withdraw`
#[derive(Debug, Args)]
pub(crate) struct Withdraw {
    /// Data folder of a node whose pay is to be drawn, to its operator's payout address
    #[arg(long, value_name = "DIR", conflicts_with = "deposit")]
    pub(crate) node: Option<PathBuf>,
    /// The rest of your deposit: asked for the first time (which stops its jobs), taken 7 days later
    #[arg(long)]
    pub(crate) deposit: bool,
    #[command(flatten)]
    pub(crate) sender: Sender,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// `conun chain settle`
#[derive(Debug, Args)]
pub(crate) struct Settle {
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// `conun chain stake`
#[derive(Debug, Args)]
pub(crate) struct Stake {
    /// Tokens
    pub(crate) amount: Amount,
    /// Data folder of a node to stand for: it signs that it agrees (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub(crate) node: Vec<PathBuf>,
    /// Where the nodes' pay goes [default: the wallet]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) payout: Option<Address>,
    #[command(flatten)]
    pub(crate) sender: Sender,
}

/// `conun node earnings`
#[derive(Debug, Args)]
pub(crate) struct Earnings {
    /// Data folder of the node, which may be running
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) chain: ChainOptions,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
