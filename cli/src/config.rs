//! Settings that outlive a command: `conun.toml`. Flags win over the environment, the environment over the file.

use std::path::{Path, PathBuf};

use conun_types::{Error, Result};
use serde::Deserialize;

use crate::output::Format;

/// What `conun.toml` may say. Every field is optional.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// URL of a coordinator (`--connect`, `CONUN_CONNECT`).
    pub(crate) connect: Option<String>,
    /// Secret of that coordinator (`CONUN_TOKEN`).
    pub(crate) token: Option<String>,
    /// How answers are verified (`--verify`).
    pub(crate) verify: Option<String>,
    /// How rows are written (`--format`).
    pub(crate) format: Option<Format>,
}

impl Config {
    /// Reads `explicit`, else the user's file if there is one.
    pub(crate) fn load(explicit: Option<&Path>) -> Result<Self> {
        match explicit {
            Some(path) => Self::read(path),
            None => match default_path().filter(|p| p.exists()) {
                Some(path) => Self::read(&path),
                None => Ok(Self::default()),
            },
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let named = |e: Error| Error::usage(format!("configuration {}: {}", path.display(), e.message));
        let text = std::fs::read_to_string(path).map_err(|e| named(e.into()))?;
        toml::from_str(&text).map_err(|e| {
            let line = e.message().lines().next().unwrap_or_default().to_owned();
            named(Error::usage(line)).with_hint("fields: connect, token, verify, format")
        })
    }
}

/// `$XDG_CONFIG_HOME/conun/conun.toml`, by default `~/.config/conun/conun.toml`.
fn default_path() -> Option<PathBuf> {
    Some(xdg("XDG_CONFIG_HOME", ".config")?.join("conun").join("conun.toml"))
}

/// Where wallets are kept: `conun/wallets` beside the configuration.
pub(crate) fn wallets_path() -> Option<PathBuf> {
    Some(xdg("XDG_CONFIG_HOME", ".config")?.join("conun").join("wallets"))
}

/// Where the shell keeps its history.
pub(crate) fn history_path() -> Option<PathBuf> {
    Some(xdg("XDG_STATE_HOME", ".local/state")?.join("conun").join("history"))
}

fn xdg(variable: &str, fallback: &str) -> Option<PathBuf> {
    let set = std::env::var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute());
    set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(fallback)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_mistakes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("conun.toml");
        std::fs::write(&path, "connect = \"http://127.0.0.1:7400\"\nformat = \"csv\"\n").unwrap();
        let config = Config::load(Some(&path)).unwrap();
        assert_eq!(config.connect.as_deref(), Some("http://127.0.0.1:7400"));
        assert_eq!(config.format, Some(Format::Csv));
        std::fs::write(&path, "conect = 1\n").unwrap();
        let error = Config::load(Some(&path)).unwrap_err();
        assert_eq!(error.kind, conun_types::ErrorKind::Usage);
        assert!(error.message.contains("conun.toml") && error.message.contains("conect"), "{error}");
        assert!(Config::load(Some(&dir.path().join("missing.toml"))).is_err());
    }
}
