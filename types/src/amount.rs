//! Amounts of the token in which work is paid.

use std::{fmt, iter::Sum, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    error::{Error, Result},
    units::WorkUnits,
};

/// Decimal places of the token, as ERC-20 tokens have by custom.
const DECIMALS: usize = 18;

/// An amount in the token's smallest unit, 10^-18 CONUN. It holds what a contract's `uint128` holds.
///
/// People read and write tokens (`1.25`); JSON has the smallest units as a string, since numbers there are floats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(pub u128);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// What `units` cost at this price of one unit; at most [`Amount::MAX_RECORD`] fits into a stage record.
    #[must_use]
    pub fn times(self, units: WorkUnits) -> Self {
        Self(self.0.saturating_mul(u128::from(units.0)))
    }

    /// The sum, or the most there is.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left after `other` is taken away, at least nothing.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Most that a stage record holds: a `uint96`.
    pub const MAX_RECORD: Self = Self((1 << 96) - 1);
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::plus)
    }
}

/// Tokens, without zeros that say nothing: `1.25`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = 10u128.pow(DECIMALS as u32);
        let text = format!("{}.{:0width$}", self.0 / one, self.0 % one, width = DECIMALS);
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// From tokens: `12`, `0.000001`.
impl FromStr for Amount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("'{text}' is not an amount of tokens"))
                .with_hint(format!("write tokens as 12 or 0.000001, with {DECIMALS} decimals at most"))
        };
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > DECIMALS || whole.is_empty() && part.is_empty() {
            return Err(wrong());
        }
        format!("{whole}{part:0<DECIMALS$}").parse().map(Self).map_err(|_| wrong())
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&self.0)
        } else {
            serializer.serialize_bytes(&self.0.to_be_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
        } else {
            let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?.into_vec();
            let bytes = bytes.try_into().map_err(|_| de::Error::custom("an amount has 16 bytes"))?;
            Ok(Self(u128::from_be_bytes(bytes)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn people_write_tokens_and_read_them() -> Result<()> {
        for (text, units) in [
            ("0", 0),
            ("1", 10u128.pow(18)),
            ("0.000000000000000001", 1),
            (".5", 5 * 10u128.pow(17)),
            ("12.", 12 * 10u128.pow(18)),
        ] {
            assert_eq!(text.parse::<Amount>()?, Amount(units), "{text}");
        }
        assert_eq!(Amount(1_250_000_000_000_000_000).to_string(), "1.25");
        assert_eq!(Amount(0).to_string(), "0");
        assert_eq!(Amount(10u128.pow(19)).to_string(), "10");
        for wrong in ["", ".", "1,5", "-1", "1e3", "0.0000000000000000001", "999999999999999999999999999"] {
            assert!(wrong.parse::<Amount>().is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn both_encodings_round_trip() -> Result<()> {
        for amount in [Amount(0), Amount(7), Amount(u128::MAX)] {
            assert_eq!(codec::decode::<Amount>(&codec::encode(&amount)?)?, amount);
            let json = serde_json::to_string(&amount).map_err(|e| Error::internal(e.to_string()))?;
            assert_eq!(json, format!("\"{}\"", amount.0));
            assert_eq!(serde_json::from_str::<Amount>(&json).map_err(|e| Error::internal(e.to_string()))?, amount);
        }
        Ok(())
    }

    #[test]
    fn sums_and_products_stop_at_the_most() {
        assert_eq!(Amount(3).times(WorkUnits(4)), Amount(12));
        assert_eq!(Amount(u128::MAX).times(WorkUnits(2)), Amount(u128::MAX));
        assert_eq!([Amount(u128::MAX), Amount(1)].into_iter().sum::<Amount>(), Amount(u128::MAX));
        assert_eq!(Amount(1).less(Amount(2)), Amount::ZERO);
    }
}
