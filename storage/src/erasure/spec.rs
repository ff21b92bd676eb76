//! How a code is written on the command line and in manifests: `4+2`, `none`.

use std::{fmt, str::FromStr};

use conun_types::{Error, Result};
use serde::{Deserialize, Serialize};

/// Most members of a group: the number of points of GF(2^8) that the matrix can use.
pub const MAX_MEMBERS: usize = 255;

/// A systematic code: groups of `data` shards with `parity` shards, any `data` of which give back the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeSpec {
    /// Data shards of a group (k).
    pub data: u16,
    /// Parity shards of a group (m): as many losses as a group survives.
    pub parity: u16,
}

impl CodeSpec {
    /// No redundancy.
    pub const NONE: Self = Self { data: 1, parity: 0 };

    /// A code of `data` + `parity` shards.
    ///
    /// # Errors
    /// [`conun_types::ErrorKind::Usage`] where there is no data shard, or more than 255 shards.
    pub fn new(data: u16, parity: u16) -> Result<Self> {
        let members = usize::from(data) + usize::from(parity);
        if data == 0 || members > MAX_MEMBERS {
            return Err(Error::usage(format!("code {data}+{parity}: a group has 1 to {MAX_MEMBERS} shards"))
                .with_hint("codes look like 4+2 (any 2 of 6 shards may be lost) or none"));
        }
        Ok(Self { data, parity })
    }

    /// What fits a network of `nodes` volunteers (DESIGN section 6; the local codes for larger ones come with repair). From
    /// nine on any four of them may be lost, where DESIGN has two: volunteers leave together, and nothing is repaired in
    /// the middle of a job.
    #[must_use]
    pub fn default_for(nodes: usize) -> Self {
        match nodes {
            0..=2 => Self::NONE,
            3..=5 => Self { data: 1, parity: 2 },
            6..=8 => Self { data: 4, parity: 2 },
            9..=11 => Self { data: 4, parity: 4 },
            _ => Self { data: 4, parity: 8 },
        }
    }

    /// Shards of a full group.
    #[must_use]
    pub fn members(&self) -> usize {
        usize::from(self.data) + usize::from(self.parity)
    }
}

impl fmt::Display for CodeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parity == 0 { f.write_str("none") } else { write!(f, "{}+{}", self.data, self.parity) }
    }
}

impl FromStr for CodeSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hint = "codes look like 4+2 (any 2 of 6 shards may be lost) or none";
        let wrong = || Error::usage(format!("'{text}' is not a code")).with_hint(hint);
        if matches!(text.trim(), "0" | "none") {
            return Ok(Self::NONE);
        }
        let numbers = text.split('+').map(|part| part.trim().parse::<u16>());
        let numbers = numbers.collect::<std::result::Result<Vec<_>, _>>().map_err(|_| wrong())?;
        match numbers[..] {
            [_, 0] => Ok(Self::NONE),
            [data, parity] => Self::new(data, parity),
            [_, _, _] => {
                Err(Error::usage(format!("code {text}: local parities (k+l+m) are not supported by this build"))
                    .with_hint("use a code k+m, for example 4+8"))
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_parse_and_print() {
        for (text, data, parity, printed) in [
            ("4+2", 4, 2, "4+2"),
            (" 1 + 2 ", 1, 2, "1+2"),
            ("0", 1, 0, "none"),
            ("none", 1, 0, "none"),
            ("4+0", 1, 0, "none"),
        ] {
            let code: CodeSpec = text.parse().unwrap();
            assert_eq!((code.data, code.parity, code.to_string().as_str()), (data, parity, printed), "{text}");
        }
        for text in ["", "4", "4+", "+2", "a+b", "0+2", "200+56", "-1+2", "16+4+20", "1+2+3+4", "99999+1"] {
            let error = text.parse::<CodeSpec>().expect_err(text);
            assert!(error.kind == conun_types::ErrorKind::Usage && error.hint.is_some(), "{text}: {error}");
        }
    }

    #[test]
    fn defaults_follow_the_network() {
        let codes: Vec<_> = [0, 2, 3, 5, 6, 8, 9, 11, 12, 40].map(|n| CodeSpec::default_for(n).to_string()).into();
        assert_eq!(codes, ["none", "none", "1+2", "1+2", "4+2", "4+2", "4+4", "4+4", "4+8", "4+8"]);
    }
}
