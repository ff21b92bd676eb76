//! Key files: ours open elsewhere, others' open here, and a wrong password is no more than that.

use std::{os::unix::fs::PermissionsExt, path::Path};

use conun_chain::wallet::{Phrase, Wallet};
use conun_types::{ErrorKind, NodeKey, OsRng, Result};

use crate::support::{person, told};

/// The key of the Web3 Secret Storage Definition's test vectors, in the definition's file with PBKDF2, and in one that
/// Python's eth-account 0.14 has written with scrypt (the definition's own has parameters that RFC 7914 forbids); the
/// password is "testpassword".
const SECRET: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
const PBKDF2: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
"ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2","kdfparams":{"c":262144,
"dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
"mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},
"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;
const SCRYPT: &str = r#"{"address": "008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b", "crypto": {"cipher": "aes-128-ctr",
"cipherparams": {"iv": "fcfdb85210e40ff33c849ec55fa60079"},
"ciphertext": "339b9b15b511c63cbb943fe5fb235c3e6bb93b6ecd13f4055ee628cfa67af3b8", "kdf": "scrypt",
"kdfparams": {"dklen": 32, "n": 262144, "r": 8, "p": 1, "salt": "c782620bf0adfce6d053a01dda3e49b8"},
"mac": "4ec2184757809476c3f22119f39194dbb7b539a6e77731e2ab5db5218958c909"},
"id": "76c5c632-8f20-4e66-bdfd-a47b985dd267", "version": 3}"#;

fn wallet(folder: &Path) -> Wallet {
    Wallet::open(&folder.join("keys")).unwrap()
}

#[test]
fn keys_are_made_listed_unlocked_and_given_other_passwords() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let wallet = wallet(folder.path());
    let entry = wallet.create(&OsRng, "one")?;
    assert_eq!(wallet.list()?, vec![entry.clone()]);
    assert_eq!(wallet.find("")?, entry);
    assert_eq!(wallet.find(&entry.address[2..8])?, entry);
    let key = wallet.unlock(&entry, "one")?;
    assert_eq!(key.address(), entry.id()?);
    let (kind, line) = told(wallet.unlock(&entry, "two"));
    assert_eq!(kind, ErrorKind::Usage);
    assert!(line.contains("password"), "{line}");

    assert_eq!(told(wallet.change_password(&entry, "two", &OsRng, "three")).0, ErrorKind::Usage);
    wallet.change_password(&entry, "one", &OsRng, "three")?;
    assert_eq!(told(wallet.unlock(&entry, "one")).0, ErrorKind::Usage);
    assert_eq!(wallet.unlock(&entry, "three")?.to_bytes(), key.to_bytes());
    assert_eq!(told(wallet.change_password(&entry, "three", &OsRng, "")).0, ErrorKind::Usage);

    assert_eq!(std::fs::metadata(&entry.path)?.permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = std::fs::read_dir(folder.path().join("keys"))?.collect();
    assert_eq!(names.len(), 1, "nothing is left aside");
    assert!(!format!("{wallet:?} {entry:?} {key:?}").contains(&hex::encode(key.to_bytes())));
    Ok(())
}

#[test]
fn keys_come_from_phrases_digits_and_files() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let wallet = wallet(folder.path());
    let phrase: Phrase = " test test test test test test test test test test test  JUNK ".parse()?;
    let first = wallet.import_phrase(&phrase, 0, &OsRng, "p")?;
    assert_eq!(first.address, "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
    let second = wallet.import_phrase(&phrase, 1, &OsRng, "p")?;
    assert_eq!(second.address, "0x70997970c51812dc3a010c7d01b50e0d17dc79c8");
    let digits = format!("0x{}", hex::encode(person(9).to_bytes()));
    let third = wallet.import_key(&digits, &OsRng, "p")?;
    assert_eq!(wallet.unlock(&third, "p")?.address(), person(9).address());
    assert_eq!(told(wallet.import_key(&digits, &OsRng, "p")).0, ErrorKind::Usage, "twice");
    assert_eq!(told(wallet.find("0x")).0, ErrorKind::Usage, "several");
    assert_eq!(told(wallet.find("0x123456")).0, ErrorKind::Usage, "none");

    let (entry, phrase) = wallet.create_with_phrase(&OsRng, "p")?;
    assert_eq!(phrase.reveal().split(' ').count(), 12);
    assert_eq!(phrase.reveal().parse::<Phrase>()?.key(0)?.address(), entry.id()?);
    assert!(!format!("{phrase:?}").contains(phrase.reveal()));
    for wrong in ["", "test", "test test test test test test test test test test test test", "0x12"] {
        let (kind, line) = told(wrong.parse::<Phrase>());
        assert_eq!(kind, ErrorKind::Usage);
        assert!(wrong.is_empty() || !line.contains(wrong), "secrets are not repeated: {line}");
    }
    for wrong in ["", "0x12", "zz", &"00".repeat(32), &"ff".repeat(32)] {
        assert_eq!(told(wallet.import_key(wrong, &OsRng, "p")).0, ErrorKind::Usage);
    }
    Ok(())
}

#[test]
fn files_of_the_definition_open_and_ours_are_like_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let wallet = wallet(folder.path());
    let secret = NodeKey::from_bytes(&hex::decode(SECRET).unwrap())?;
    for text in [PBKDF2, SCRYPT] {
        let path = folder.path().join("theirs.json");
        std::fs::write(&path, text)?;
        assert_eq!(told(wallet.import_file(&path, "wrong", &OsRng, "p")).0, ErrorKind::Usage);
        let entry = wallet.import_file(&path, "testpassword", &OsRng, "p")?;
        assert_eq!(wallet.unlock(&entry, "p")?.to_bytes(), secret.to_bytes());
        let ours: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&entry.path)?).unwrap();
        assert_eq!((&ours["version"], &ours["address"]), (&3.into(), &entry.address[2..].into()));
        std::fs::remove_file(&entry.path)?;
    }
    Ok(())
}

/// `pip install eth-account`, and `CONUN_TEST_PYTHON` names that Python.
#[test]
fn ours_open_in_eth_account() -> Result<()> {
    let Some(python) = std::env::var_os("CONUN_TEST_PYTHON") else {
        eprintln!("SKIPPED: CONUN_TEST_PYTHON names no Python that has eth-account");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let entry = wallet(folder.path()).import_key(SECRET, &OsRng, "testpassword")?;
    let script = "import sys; from eth_account import Account; \
                  print(Account.decrypt(open(sys.argv[1]).read(), 'testpassword').to_0x_hex())";
    let output = std::process::Command::new(python).args(["-c", script]).arg(&entry.path).output()?;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("0x{SECRET}"), "{output:?}");
    Ok(())
}

#[test]
fn files_that_are_none_or_ask_for_too_much_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let wallet = wallet(folder.path());
    let path = folder.path().join("theirs.json");
    let wrong = [
        String::new(),
        "{}".to_owned(),
        SCRYPT.replace("\"version\": 3", "\"version\": 1"),
        SCRYPT.replace("262144", "1073741824"),
        SCRYPT.replace("262144", "262145"),
        SCRYPT.replace("\"p\": 1", "\"p\": 800000"),
        SCRYPT.replace("\"r\": 8", "\"r\": 1"),
        SCRYPT.replace("\"dklen\": 32", "\"dklen\": 8"),
        SCRYPT.replace("fcfdb85210e40ff33c849ec55fa60079", "fc"),
        SCRYPT.replace("339b9b15b511c63cbb943fe5fb235c3e", ""),
        PBKDF2.replace("262144", "4000000000"),
        PBKDF2.replace("aes-128-ctr", "rot13"),
        PBKDF2.replace("pbkdf2", "md5"),
    ];
    for text in wrong {
        assert!(text != SCRYPT && text != PBKDF2);
        std::fs::write(&path, &text)?;
        let (kind, line) = told(wallet.import_file(&path, "testpassword", &OsRng, "p"));
        assert_eq!(kind, ErrorKind::Data, "{line}: {text}");
    }
    assert!(wallet.list()?.is_empty());
    Ok(())
}
