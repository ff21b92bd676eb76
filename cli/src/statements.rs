//! Cuts a script into statements at the semicolons that stand outside of quotes and comments.

/// What the scanner is inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Code,
    /// `'…'` or `"…"`; a doubled quote stays inside because the second one opens anew.
    Quote(u8),
    LineComment,
    /// Nested `/* … */`, with its depth.
    BlockComment(usize),
}

/// The statements of a script, and whether its last one was closed by a semicolon (or nothing followed the last one).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Script<'a> {
    /// Trimmed statements without their semicolons; empty ones and mere comments are left out.
    pub(crate) statements: Vec<&'a str>,
    /// False while a statement, quote or block comment is still open: a shell asks for more lines.
    pub(crate) complete: bool,
}

/// Cuts `text`.
pub(crate) fn split(text: &str) -> Script<'_> {
    let bytes = text.as_bytes();
    let mut script = Script { statements: Vec::new(), complete: true };
    let (mut state, mut start, mut has_code, mut i) = (Inside::Code, 0, false, 0);
    while i < bytes.len() {
        let pair = (bytes[i], bytes.get(i + 1).copied().unwrap_or(0));
        let (next, step) = advance(state, pair);
        if state == Inside::Code && pair.0 == b';' {
            push(&mut script.statements, &text[start..i], has_code);
            (start, has_code) = (i + 1, false);
        } else if state == Inside::Code && matches!(next, Inside::Code | Inside::Quote(_)) {
            has_code |= !pair.0.is_ascii_whitespace();
        }
        (state, i) = (next, i + step);
    }
    push(&mut script.statements, &text[start..], has_code);
    script.complete = !has_code && !matches!(state, Inside::Quote(_) | Inside::BlockComment(_));
    script
}

fn push<'a>(statements: &mut Vec<&'a str>, text: &'a str, has_code: bool) {
    if has_code {
        statements.push(text.trim());
    }
}

/// The state after the first byte of `pair` (and how many bytes that took).
fn advance(state: Inside, pair: (u8, u8)) -> (Inside, usize) {
    match (state, pair) {
        (Inside::Code, (b'-', b'-')) => (Inside::LineComment, 2),
        (Inside::Code, (b'/', b'*')) => (Inside::BlockComment(1), 2),
        (Inside::Code, (quote @ (b'\'' | b'"'), _)) => (Inside::Quote(quote), 1),
        (Inside::Quote(quote), (c, _)) if c == quote => (Inside::Code, 1),
        (Inside::LineComment, (b'\n', _)) => (Inside::Code, 1),
        (Inside::BlockComment(depth), (b'/', b'*')) => (Inside::BlockComment(depth + 1), 2),
        (Inside::BlockComment(1), (b'*', b'/')) => (Inside::Code, 2),
        (Inside::BlockComment(depth), (b'*', b'/')) => (Inside::BlockComment(depth - 1), 2),
        _ => (state, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes_and_comments() {
        let cases: &[(&str, &[&str], bool)] = &[
            ("select 1", &["select 1"], false),
            ("select 1;", &["select 1"], true),
            (" select 1 ; select 2 ;\n", &["select 1", "select 2"], true),
            ("select ';' ; select \"a;b\"", &["select ';'", "select \"a;b\""], false),
            ("select 'it''s; fine';", &["select 'it''s; fine'"], true),
            ("select 1 -- not; here\n;", &["select 1 -- not; here"], true),
            ("select /* a; /* b; */ c; */ 1;", &["select /* a; /* b; */ c; */ 1"], true),
            (";;  ; -- nothing; at all\n", &[], true),
            ("select 'open", &["select 'open"], false),
            ("/* open", &[], false),
            ("select 'größe;' as ü;", &["select 'größe;' as ü"], true),
            ("select 4-2/2;", &["select 4-2/2"], true),
            ("", &[], true),
        ];
        for (text, statements, complete) in cases {
            let expected = Script { statements: statements.to_vec(), complete: *complete };
            assert_eq!(split(text), expected, "{text:?}");
        }
    }
}
