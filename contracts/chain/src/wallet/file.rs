//! One key file. What is in it is checked before it is used: a file that asks for much memory or time, or has fields of
//! wrong sizes, is refused.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use alloy::signers::{
    k256::elliptic_curve::rand_core::{CryptoRng, Error as RandError, RngCore},
    local::{LocalSigner, PrivateKeySigner},
};
use conun_types::{
    ambient::Rng,
    error::{Error, Result},
    identity::NodeKey,
};
use serde_json::Value;

use super::MAX_FILE;

/// Most memory that deriving a key may take; geth's and our files take 256 MiB or less.
const MAX_MEMORY: u64 = 1 << 30;
/// Most rounds of PBKDF2; wallets use 262,144 to a million.
const MAX_ROUNDS: u64 = 10_000_000;

/// Our source of randomness, as the library takes it.
struct Random<'a>(&'a dyn Rng);

impl CryptoRng for Random<'_> {}

impl RngCore for Random<'_> {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> std::result::Result<(), RandError> {
        self.0.fill(out);
        Ok(())
    }
}

fn read(path: &Path) -> Result<Value> {
    let failed = |e: std::io::Error| Error::from(e).context(path.display());
    let mut text = String::new();
    File::open(path).and_then(|f| f.take(MAX_FILE).read_to_string(&mut text)).map_err(failed)?;
    serde_json::from_str(&text).map_err(|_| not_a_key(path, "it is no JSON"))
}

fn not_a_key(path: &Path, why: &str) -> Error {
    Error::data(format!("{} is no key file: {why}", path.display()))
        .with_hint("a keystore of version 3 is wanted, as geth and foundry write it")
}

/// The address that a key file says it has, or that its name ends in; nothing where it is no key file.
pub(super) fn address(path: &Path) -> Option<String> {
    let value = read(path).ok()?;
    value.get("crypto")?;
    let said = value.get("address").and_then(Value::as_str);
    let name = path.file_stem().and_then(|n| n.to_str()).and_then(|n| n.get(n.len().checked_sub(40)?..));
    let address = said.map(|a| a.strip_prefix("0x").unwrap_or(a)).or(name)?.to_lowercase();
    (address.len() == 40 && hex::decode(&address).is_ok()).then(|| format!("0x{address}"))
}

/// That the library can take the file without a panic, and in reasonable time and memory.
fn check(value: &Value) -> std::result::Result<(), &'static str> {
    let crypto = value.get("crypto").ok_or("there is no key in it")?;
    let params = crypto.get("kdfparams").ok_or("it does not say how its key is derived")?;
    let number = |name: &str| params.get(name).and_then(Value::as_u64).unwrap_or(0);
    let bytes = |value: Option<&Value>| {
        value.and_then(Value::as_str).and_then(|text| hex::decode(text).ok()).map_or(0, |bytes| bytes.len())
    };
    if value.get("version").and_then(Value::as_u64) != Some(3) {
        return Err("its version is not 3");
    }
    if crypto.get("cipher").and_then(Value::as_str) != Some("aes-128-ctr") {
        return Err("its cipher is not aes-128-ctr");
    }
    let sizes = [bytes(crypto.pointer("/cipherparams/iv")), bytes(crypto.get("ciphertext")), bytes(crypto.get("mac"))];
    if sizes != [16, 32, 32] || number("dklen") != 32 {
        return Err("a field has a wrong size");
    }
    match crypto.get("kdf").and_then(Value::as_str) {
        Some("pbkdf2") if (1..=MAX_ROUNDS).contains(&number("c")) => Ok(()),
        Some("scrypt") => check_scrypt(number("n"), number("r"), number("p")),
        _ => Err("its way to derive the key is unknown or takes too long"),
    }
}

fn check_scrypt(n: u64, r: u64, p: u64) -> std::result::Result<(), &'static str> {
    let memory = n.checked_mul(r).and_then(|nr| nr.checked_mul(128));
    let time = memory.and_then(|m| m.checked_mul(p));
    let fair = n.is_power_of_two()
        && n > 1
        && (1..=64).contains(&r)
        && (1..=64).contains(&p)
        && memory.is_some_and(|m| m <= MAX_MEMORY)
        && time.is_some_and(|t| t <= 8 * MAX_MEMORY);
    if fair { Ok(()) } else { Err("deriving its key takes too much memory or time") }
}

/// Opens a key file.
pub(super) fn decrypt(path: &Path, password: &str) -> Result<NodeKey> {
    check(&read(path)?).map_err(|why| not_a_key(path, why))?;
    let signer = PrivateKeySigner::decrypt_keystore(path, password).map_err(|error| match error.to_string() {
        text if text.to_lowercase().contains("mac") => {
            Error::usage(format!("the password does not open {}", path.display()))
        }
        text => not_a_key(path, &text),
    })?;
    NodeKey::from_bytes(signer.to_bytes().as_slice())
}

/// Writes a key file beside its place, and moves it there when it is on the disk.
pub(super) fn write(path: &Path, key: &NodeKey, rng: &dyn Rng, password: &str, replace: bool) -> Result<()> {
    if password.is_empty() {
        return Err(Error::usage("a key needs a password"));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let aside = folder.join(format!(".{}-{}", std::process::id(), Random(rng).next_u64()));
    let failed = |e: std::io::Error| Error::from(e).context(path.display());
    DirBuilder::new().mode(0o700).create(&aside).map_err(failed)?;
    let done = encrypt(&aside, key, rng, password).and_then(|text| {
        let file = aside.join("new");
        store(&file, &text).and_then(|()| place(&file, path, replace)).map_err(failed)
    });
    let _ = std::fs::remove_dir_all(&aside);
    done
}

/// The file's text. The library writes a file of its own, without the address that other wallets look for.
fn encrypt(aside: &Path, key: &NodeKey, rng: &dyn Rng, password: &str) -> Result<String> {
    let failed = |e: String| Error::internal(format!("encrypting a key: {e}"));
    LocalSigner::encrypt_keystore(aside, &mut Random(rng), key.to_bytes(), password, Some("key"))
        .map_err(|e| failed(e.to_string()))?;
    let mut value = read(&aside.join("key"))?;
    value["address"] = hex::encode(key.address().0).into();
    serde_json::to_string(&value).map_err(|e| failed(e.to_string()))
}

fn store(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A link fails where there is a file already, a move replaces it.
fn place(from: &Path, to: &Path, replace: bool) -> std::io::Result<()> {
    if replace {
        std::fs::rename(from, to)?
    } else {
        std::fs::hard_link(from, to)?
    }
    File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()
}
