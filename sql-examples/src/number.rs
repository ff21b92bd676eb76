//! When two texts are the same number.

/// A decimal number as written: `digits` x 10^-`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decimal {
    digits: i128,
    scale: u32,
}

/// Digits that an `i128` surely holds.
const MAX_DIGITS: usize = 38;

impl Decimal {
    /// Parses `-12.340`; none where `text` is anything else (an exponent, a word, too many digits).
    fn parse(text: &str) -> Option<Self> {
        let (negative, plain) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
        let all_digits = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
        if whole.is_empty() || !all_digits || whole.len() + fraction.len() > MAX_DIGITS {
            return None;
        }
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { digits: if negative { -digits } else { digits }, scale: u32::try_from(fraction.len()).ok()? })
    }

    /// The same number without the zeros that end its fraction.
    fn trimmed(mut self) -> Self {
        while self.scale > 0 && self.digits % 10 == 0 {
            self.digits /= 10;
            self.scale -= 1;
        }
        self
    }

    /// Rounded half away from zero to `scale` digits, at most as many as it has.
    fn rounded(self, scale: u32) -> i128 {
        let unit = 10i128.pow(self.scale - scale);
        let half = unit / 2 * self.digits.signum();
        (self.digits + half) / unit
    }
}

/// Equal as numbers, whatever zeros end the fractions: `2.50` and `2.5`.
pub(crate) fn same_value(a: &str, b: &str) -> bool {
    match (Decimal::parse(a), Decimal::parse(b)) {
        (Some(a), Some(b)) => a.trimmed() == b.trimmed(),
        _ => false,
    }
}

/// Equal once the longer fraction is rounded to the shorter one, give or take one in its last place. A number without
/// a fraction is no rounding of one with a fraction.
pub(crate) fn same_to_scale(a: &str, b: &str) -> bool {
    let (Some(a), Some(b)) = (Decimal::parse(a), Decimal::parse(b)) else { return false };
    let scale = a.scale.min(b.scale);
    scale > 0 && a.scale != b.scale && (a.rounded(scale) - b.rounded(scale)).abs() <= 1
}

/// Equal to nine significant digits, give or take one in the ninth, where at least one is not an integer.
pub(crate) fn same_to_nine_digits(a: &str, b: &str) -> bool {
    let is_integer = |text: &str| !text.contains(['.', 'e', 'E']) && Decimal::parse(text).is_some();
    if is_integer(a) && is_integer(b) {
        return false;
    }
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) if a.is_finite() && b.is_finite() => {
            let size = a.abs().max(b.abs());
            let ninth = 10f64.powf(size.log10().floor() - 8.0);
            // A touch more than one unit: the difference of two doubles is itself rounded.
            a == b || (a - b).abs() <= ninth * 1.000_001
        }
        (Ok(a), Ok(b)) => a == b || (a.is_nan() && b.is_nan()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (a, b, same) in [
            ("3774200", "3774200.00", true),
            ("-0.50", "-0.5", true),
            ("0.0", "0", true),
            ("12345678901234567890", "12345678901234567891", false),
            ("1e3", "1000", false),
            ("x", "x", false),
        ] {
            assert_eq!(same_value(a, b), same, "{a} {b}");
        }
    }

    #[test]
    fn scales() {
        for (a, b, same) in [
            ("25.575154611454693", "25.575155", true),
            ("25.575154611454693", "25.575154", true),
            ("25.575154611454693", "25.575157", false),
            ("-0.0199", "-0.02", true),
            ("5", "5.4", false),
            ("43.88", "43.89", false),
            ("526165934.000839", "526165934.000838", false),
        ] {
            assert_eq!(same_to_scale(a, b), same, "{a} {b}");
            assert_eq!(same_to_scale(b, a), same, "{b} {a}");
        }
    }

    #[test]
    fn nine_digits() {
        for (a, b, same) in [
            ("20.2155425", "20.215542512345", true),
            ("20.2155425", "20.2155427", false),
            ("43.88", "43.879999999999995", true),
            ("43.88", "43.889", false),
            ("1e-7", "0.0000001", true),
            ("NaN", "nan", true),
            ("inf", "-inf", false),
            ("336776", "336777", false),
            ("336776", "336776.0", true),
            ("0.0", "-0.0", true),
            ("abc", "1", false),
        ] {
            assert_eq!(same_to_nine_digits(a, b), same, "{a} {b}");
            assert_eq!(same_to_nine_digits(b, a), same, "{b} {a}");
        }
    }
}
