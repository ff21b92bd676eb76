//! The ways to cheat, and their names.

use std::{fmt, num::NonZeroU32, str::FromStr};

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
    /// Changes a value in every such task, and answers all others honestly: an audit seldom meets it.
    Rarely(NonZeroU32),
    /// Changes a value as all other nodes of this mode do: a ring.
    Collude,
    /// Answers with the vote on an earlier order.
    Replay,
}

/// Honest answers of a sleeper that is not told how many.
const HONEST_FIRST: u32 = 20;
/// Tasks to a lie of who lies rarely and is not told how rarely.
const ONE_IN: NonZeroU32 = NonZeroU32::new(20).unwrap();

impl LiarMode {
    /// Every mode.
    pub const ALL: [LiarMode; 13] = [
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
        LiarMode::Rarely(ONE_IN),
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
            LiarMode::Rarely(_) => "rarely",
            LiarMode::Collude => "collude",
            LiarMode::Replay => "replay",
        }
    }
}

impl fmt::Display for LiarMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LiarMode::Sleeper(honest) => write!(f, "{}:{honest}", self.name()),
            LiarMode::Rarely(one_in) => write!(f, "{}:{one_in}", self.name()),
            _ => f.write_str(self.name()),
        }
    }
}

impl FromStr for LiarMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let no_number = |what: &str, mode: &str| {
            Error::usage(format!("'{what}' is no number of tasks")).with_hint(format!("write it like {mode}:20"))
        };
        if let Some(honest) = text.strip_prefix("sleeper:") {
            return honest.parse().map(LiarMode::Sleeper).map_err(|_| no_number(honest, "sleeper"));
        }
        if let Some(one_in) = text.strip_prefix("rarely:") {
            return one_in.parse().map(LiarMode::Rarely).map_err(|_| no_number(one_in, "rarely"));
        }
        let found = Self::ALL.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| {
            let modes = Self::ALL.map(Self::name).join(", ");
            let numbers = "; only sleeper:N and rarely:N take a number of tasks";
            Error::usage(format!("'{text}' is no way to lie")).with_hint(format!("the modes are {modes}{numbers}"))
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
        let wrong = [("white", "replay"), ("sleeper:", "sleeper:20"), ("rarely:0", "rarely:20"), ("stall:3", "stall")];
        for (text, hint) in wrong {
            let error = text.parse::<LiarMode>().unwrap_err();
            assert!(error.hint.is_some_and(|h| h.contains(hint)), "{text}");
        }
    }
}
