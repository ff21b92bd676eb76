//! Numbers for people, and sizes that people type.

use std::{str::FromStr, time::Duration};

use conun_types::Error;

/// A size that was typed: `8MiB`, `512KiB`, `1GB`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// Units by their lowercase names.
const UNITS: &[(&str, u64)] = &[
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
    ("", 1),
];

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::usage(format!("'{text}' is not a size")).with_hint("write it like 8MiB, 512KiB or 10GB");
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
        let (number, unit) = lower.split_at(digits);
        let unit = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?.1;
        let bytes = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(unit).ok_or_else(wrong)?,
            Err(_) => (number.parse::<f64>().map_err(|_| wrong())? * unit as f64) as u64,
        };
        Ok(Self(bytes))
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&bytes(self.0))
    }
}

/// `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let names = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < names.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", names[unit]) }
}

/// `336,776`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 row`, `2 rows`.
pub(crate) fn plural(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{} {one}s", count(n)) }
}

/// `12 ms`, `1.24 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_and_print() {
        let cases = [("8MiB", 8 << 20), ("512KiB", 512 << 10), ("1 GB", 1_000_000_000), ("4096", 4096), ("1.5k", 1536)];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Size>().map(|s| s.0), Ok(expected), "{text}");
        }
        for text in ["", "MiB", "8 parsecs", "-1", "99999999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!(bytes(8 << 20), "8.0 MiB");
        assert_eq!(bytes(17), "17 B");
    }

    #[test]
    fn counts_have_separators() {
        assert_eq!([count(0), count(999), count(1000), count(336_776)], ["0", "999", "1,000", "336,776"]);
        assert_eq!([plural(1, "row"), plural(1200, "row")], ["1 row", "1,200 rows"]);
    }
}
