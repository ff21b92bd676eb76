//! A refusal: what cannot give the same answer twice, where it stands, why, and what to write instead.

use conun_types::Error;

use crate::place::Place;

/// Why a statement does not run on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The construct, as in the statement: `random()`.
    pub construct: String,
    /// Where it stands; unknown in dataframes and inside views.
    pub place: Option<Place>,
    /// The rest of a sentence that begins with the construct.
    pub reason: &'static str,
    /// What to write instead.
    pub instead: &'static str,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let Refusal { construct, place, reason, instead } = refusal;
        refused(&construct, place, reason, instead)
    }
}

/// The error of a [`Refusal`] of such parts.
pub(crate) fn refused(construct: &str, place: Option<Place>, reason: &str, instead: &str) -> Error {
    let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
    Error::data(format!("{construct}{place} {reason}")).with_hint(instead)
}
