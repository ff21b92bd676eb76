//! What a child says to people. It ran a stranger's plan, of which parts may be in the text: names of columns, values that
//! cannot be cast. A terminal would obey what it finds there.

use conun_types::{Failure, text};

use crate::referee::Ruling;

/// Longest text, in characters.
const MOST_TEXT: usize = 1000;

/// `text` without control characters, cut where it is too long. The same on every machine: replicas vote on some of it.
pub(super) fn plain(text: &str) -> String {
    text::plain(text).chars().take(MOST_TEXT).collect()
}

/// The same failure in plain text.
pub(super) fn failure(failure: Failure) -> Failure {
    match failure {
        Failure::Query(why) => Failure::Query(plain(&why)),
        Failure::Refused(why) => Failure::Refused(plain(&why)),
        Failure::Node(why) => Failure::Node(plain(&why)),
        Failure::MemoryExceeded | Failure::InputMissing(_) => failure,
    }
}

/// The same ruling in plain text.
pub(super) fn ruling(mut ruling: Ruling) -> Ruling {
    ruling.why = plain(&ruling.why);
    if let Some(place) = &mut ruling.place {
        place.name = plain(&place.name);
    }
    ruling
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::referee::Place;

    #[test]
    fn texts_are_plain_and_bounded() {
        let bad = format!("\u{1b}[2J\r\u{9b}{}", "é".repeat(2 * MOST_TEXT));
        let place = Place { operator: 1, name: bad.clone(), partition: 0, batch: 0 };
        let ruling = ruling(Ruling { right: None, place: Some(place), why: bad.clone() });
        let mut texts = vec![ruling.why, ruling.place.map(|place| place.name).unwrap_or_default()];
        for made in [Failure::Query, Failure::Refused, Failure::Node] {
            texts.push(failure(made(bad.clone())).to_string());
        }
        for text in texts {
            assert!(text.contains(" [2J  é") && !text.contains(char::is_control), "{text:?}");
            assert!(text.chars().count() < MOST_TEXT + 20);
        }
    }
}
