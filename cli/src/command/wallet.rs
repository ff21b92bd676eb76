//! `conun wallet`: keys that hold money, apart from the keys of nodes and coordinators.

use std::{
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
};

use conun_chain::{
    dev,
    wallet::{Entry, Phrase, Wallet as Folder},
};
use conun_types::{Error, NodeKey, OsRng, Result};

use crate::{
    args::{Import, OneWallet, Wallet, WalletCommand, WalletDir, Wallets},
    config::wallets_path,
    print,
};

/// Dispatches `wallet new|import|list|show|change-password`.
pub(crate) fn run(args: Wallet) -> Result<()> {
    match args.command {
        WalletCommand::New(args) => new(&args),
        WalletCommand::Import(args) => import(&args),
        WalletCommand::List(args) => list(&args),
        WalletCommand::Show { wallet, secret } => show(&wallet, secret),
        WalletCommand::ChangePassword { wallet, new_password_file } => {
            change_password(&wallet, new_password_file.as_deref())
        }
    }
}

impl WalletDir {
    fn open(&self) -> Result<Folder> {
        let folder = self.wallets.clone().or_else(wallets_path);
        let nowhere = || Error::usage("there is no home folder").with_hint("name a folder with --wallets");
        Folder::open(&folder.ok_or_else(nowhere)?)
    }

    /// The password of a wallet that exists.
    fn password(&self) -> Result<String> {
        password(self.password_file.as_deref(), "CONUN_WALLET_PASSWORD", "password")
    }

    /// A password for a new wallet: asked for twice.
    fn new_password(&self) -> Result<String> {
        new_password(self.password_file.as_deref(), "CONUN_WALLET_PASSWORD", "password")
    }

    /// The key of the wallet whose address begins with `wallet`, or of a development account (`dev:N`).
    pub(crate) fn key(&self, wallet: Option<&str>) -> Result<NodeKey> {
        if let Some(number) = wallet.and_then(|w| w.strip_prefix("dev:")) {
            let number = number.parse().map_err(|_| Error::usage("development accounts are dev:0, dev:1 and so on"))?;
            return dev::key(number);
        }
        let folder = self.open()?;
        let entry = find(&folder, wallet)?;
        folder.unlock(&entry, &self.password()?)
    }
}

fn find(folder: &Folder, address: Option<&str>) -> Result<Entry> {
    if folder.list()?.is_empty() {
        return Err(Error::usage("there is no wallet yet").with_hint("make one with: conun wallet new"));
    }
    folder.find(address.unwrap_or_default())
}

/// From a file, the environment, or a person.
fn password(file: Option<&Path>, variable: &str, what: &str) -> Result<String> {
    if let Some(path) = file {
        return Ok(first_line(&read(path)?));
    }
    if let Ok(password) = std::env::var(variable) {
        return Ok(password);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage(format!("the {what} is needed and there is no terminal to ask for it"))
            .with_hint(format!("give it in a file (--password-file) or in {variable}")));
    }
    rpassword::prompt_password(format!("{what}: ")).map_err(Error::from)
}

fn new_password(file: Option<&Path>, variable: &str, what: &str) -> Result<String> {
    let first = password(file, variable, what)?;
    let asked = file.is_none() && std::env::var_os(variable).is_none();
    if asked && password(None, variable, &format!("{what} again"))? != first {
        return Err(Error::usage("the two passwords differ").with_hint("try again"));
    }
    Ok(first)
}

fn read(path: &Path) -> Result<String> {
    let named = |e: std::io::Error| Error::from(e).context(path.display());
    let mut text = String::new();
    match path == Path::new("-") {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text).map(drop)),
    }
    .map_err(named)?;
    Ok(text)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn tell(entry: &Entry, json: bool) -> Result<()> {
    if json { print::json(entry) } else { print::line(&format!("{}  {}", entry.address, entry.path.display())) }
}

fn new(args: &Wallets) -> Result<()> {
    let folder = args.dir.open()?;
    let (entry, phrase) = folder.create_with_phrase(&OsRng, &args.dir.new_password()?)?;
    if args.json {
        let (address, path, words) = (&entry.address, &entry.path, phrase.reveal());
        return print::json(&serde_json::json!({ "address": address, "path": path, "words": words }));
    }
    tell(&entry, false)?;
    print::tell("These words restore the wallet. They are shown this once; write them down where nobody finds them:");
    print::line(phrase.reveal())
}

fn import(args: &Import) -> Result<()> {
    let folder = args.wallets.dir.open()?;
    let password = args.wallets.dir.new_password()?;
    let from = &args.from;
    let entry = if let Some(file) = &from.key_file {
        folder.import_key(&first_line(&read(file)?), &OsRng, &password)?
    } else if let Some(file) = &from.words_file {
        let phrase: Phrase = read(file)?.parse()?;
        folder.import_phrase(&phrase, args.index, &OsRng, &password)?
    } else {
        let file: PathBuf = from.keystore.clone().unwrap_or_default();
        let old = std::env::var("CONUN_KEYSTORE_PASSWORD").unwrap_or_else(|_| password.clone());
        folder.import_file(&file, &old, &OsRng, &password)?
    };
    tell(&entry, args.wallets.json)
}

fn list(args: &Wallets) -> Result<()> {
    let wallets = args.dir.open()?.list()?;
    if args.json {
        return print::json(&serde_json::json!({ "wallets": wallets }));
    }
    let rows: Vec<_> = wallets.iter().map(|w| vec![w.address.clone(), w.path.display().to_string()]).collect();
    print::table(&["address", "file"], &rows)
}

fn show(args: &OneWallet, secret: bool) -> Result<()> {
    let (dir, json) = (&args.wallets.dir, args.wallets.json);
    let folder = dir.open()?;
    let entry = find(&folder, args.address.as_deref())?;
    let key = if secret { Some(folder.unlock(&entry, &dir.password()?)?) } else { None };
    let digits = key.map(|key| format!("0x{}", hex::encode(key.to_bytes())));
    if json {
        let (address, path) = (&entry.address, &entry.path);
        return print::json(&serde_json::json!({ "address": address, "path": path, "secret": digits }));
    }
    tell(&entry, false)?;
    digits.map_or(Ok(()), |digits| print::line(&digits))
}

fn change_password(args: &OneWallet, file: Option<&Path>) -> Result<()> {
    let (dir, json) = (&args.wallets.dir, args.wallets.json);
    let folder = dir.open()?;
    let entry = find(&folder, args.address.as_deref())?;
    let old = dir.password()?;
    let new = new_password(file, "CONUN_NEW_WALLET_PASSWORD", "new password")?;
    folder.change_password(&entry, &old, &OsRng, &new)?;
    tell(&entry, json)
}
