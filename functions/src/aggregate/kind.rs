//! Which function, and which sums it is made of.

/// A function. Regressions take `(y, x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as in SQL")]
pub enum Kind {
    Sum,
    Avg,
    VarSamp,
    VarPop,
    StddevSamp,
    StddevPop,
    CovarSamp,
    CovarPop,
    Corr,
    Slope,
    Intercept,
    Count,
    R2,
    AvgX,
    AvgY,
    Sxx,
    Syy,
    Sxy,
}

/// What is summed, of the first argument `a` and the second `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Rows only.
    Rows,
    /// `a`
    A,
    /// `b`
    B,
    /// `a * a`
    AA,
    /// `a * b`
    AB,
    /// `b * b`
    BB,
}

impl Kind {
    /// The sums. The first is no product: it counts the rows.
    #[must_use]
    pub fn moments(self) -> &'static [Moment] {
        use Moment::{A, AA, AB, B, BB, Rows};
        match self {
            Self::Sum | Self::Avg | Self::AvgY => &[A],
            Self::VarSamp | Self::VarPop | Self::StddevSamp | Self::StddevPop | Self::Syy => &[A, AA],
            Self::CovarSamp | Self::CovarPop | Self::Sxy => &[A, B, AB],
            Self::Corr | Self::R2 => &[A, B, AB, AA, BB],
            Self::Slope | Self::Intercept => &[A, B, AB, BB],
            Self::Count => &[Rows],
            Self::AvgX => &[B],
            Self::Sxx => &[B, BB],
        }
    }

    /// How many arguments it takes.
    #[must_use]
    pub fn arguments(self) -> usize {
        match self {
            Self::Sum | Self::Avg | Self::VarSamp | Self::VarPop | Self::StddevSamp | Self::StddevPop => 1,
            _ => 2,
        }
    }

    /// Whether its partial state has a count of rows. A sum only has to know whether there were any.
    #[must_use]
    pub fn has_count(self) -> bool {
        self != Self::Sum
    }
}

impl Moment {
    /// Its name in states.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::A => "sum",
            Self::B => "sum2",
            Self::AA => "squares",
            Self::AB => "products",
            Self::BB => "squares2",
        }
    }
}
