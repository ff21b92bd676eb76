//! Words of strangers, for people to read.

/// `text` on one line, without control characters: a terminal would obey them. As many characters as before.
#[must_use]
pub fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_taken_out() {
        assert_eq!(plain("a\n\u{1b}[2J\r\u{9b}\u{e9}"), "a  [2J  \u{e9}");
    }
}
