//! The ways to cheat, and their names.

use std::{fmt, str::FromStr};

use conun_types::{Error, Result};

/// How a node cheats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiarMode {
    /// Changes one value of one output block.
    WrongValue,
    /// Leaves rows out of an output block.
    DropRows,
    /// Repeats rows of an output block.
    DuplicateRows,
    /// Moves rows of one output partition to another one of the same task.
    Misroute,
    /// Accepts tasks and never answers.
    Stall,
    /// Serves other bytes than those that a block's id names.
    CorruptBlock,
    /// Asks pay for more units than the volumes give.
    Inflate,
    /// Signs another receipt for the same order when it is asked again.
    Equivocate,
    /// Runs nothing: looks for what others answered, else makes something up.
    Copycat,
    /// Answers so many tasks honestly, then changes values.
    Sleeper(u32),
    /// Changes a value as all other nodes of this mode do: a ring.
    Collude,
    /// Answers with the vote on an earlier order.
    Replay,
}

/// Honest answers of a sleeper that is not told how many.
const HONEST_FIRST: u32 = 20;

impl LiarMode {
    /// Every mode.
    pub const ALL: [LiarMode; 12] = [
        LiarMode::WrongValue,
        LiarMode::DropRows,
        LiarMode::DuplicateRows,
        LiarMode::Misroute,
        LiarMode::Stall,
        LiarMode::CorruptBlock,
        LiarMode::Inflate,
        LiarMode::Equivocate,
        LiarMode::Copycat,
        LiarMode::Sleeper(HONEST_FIRST),
        LiarMode::Collude,
        LiarMode::Replay,
    ];

    fn name(self) -> &'static str {
        match self {
            LiarMode::WrongValue => "wrong-value",
            LiarMode::DropRows => "drop-rows",
            LiarMode::DuplicateRows => "duplicate-rows",
            LiarMode::Misroute => "misroute",
            LiarMode::Stall => "stall",
            LiarMode::CorruptBlock => "corrupt-block",
            LiarMode::Inflate => "inflate",
            LiarMode::Equivocate => "equivocate",
            LiarMode::Copycat => "copycat",
            LiarMode::Sleeper(_) => "sleeper",
            LiarMode::Collude => "collude",
            LiarMode::Replay => "replay",
        }
    }
}

impl fmt::Display for LiarMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LiarMode::Sleeper(honest) => write!(f, "{}:{honest}", self.name()),
            _ => f.write_str(self.name()),
        }
    }
}

impl FromStr for LiarMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(honest) = text.strip_prefix("sleeper:") {
            return honest.parse().map(LiarMode::Sleeper).map_err(|_| {
                Error::usage(format!("'{honest}' is no number of tasks")).with_hint("write it like sleeper:20")
            });
        }
        let found = Self::ALL.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| {
            let modes = Self::ALL.map(Self::name).join(", ");
            Error::usage(format!("'{text}' is no way to lie")).with_hint(format!("the modes are {modes}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_names_and_unknown_ones_a_hint() {
        for mode in LiarMode::ALL {
            assert_eq!(mode.to_string().parse::<LiarMode>(), Ok(mode));
            assert_eq!(mode.name().parse::<LiarMode>(), Ok(mode), "the short name is enough");
        }
        assert_eq!("sleeper:3".parse::<LiarMode>(), Ok(LiarMode::Sleeper(3)));
        for (text, hint) in [("white", "replay"), ("sleeper:", "sleeper:20"), ("wrong-value:3", "wrong-value")] {
            let error = text.parse::<LiarMode>().unwrap_err();
            assert!(error.hint.is_some_and(|h| h.contains(hint)), "{text}");
        }
    }
}
