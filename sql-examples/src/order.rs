//! Whether the order of a query's rows means something.

/// Whether `sql` has an ORDER BY at its top level, outside of parentheses, comments and quotes.
pub(crate) fn is_ordered(sql: &str) -> bool {
    let words = top_level(sql).to_lowercase();
    let mut words = words.split_whitespace().peekable();
    while let Some(word) = words.next() {
        if word == "order" && words.peek() == Some(&"by") {
            return true;
        }
    }
    false
}

/// The text at parenthesis depth 0; what stands in parentheses, quotes and comments becomes blank.
fn top_level(sql: &str) -> String {
    let mut out = String::new();
    let mut depth = 0usize;
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '\'' | '"' => rest[1..].find(c).map_or(rest.len(), |end| end + 2),
            _ => c.len_utf8(),
        };
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => out.push(if depth == 0 && skipped == c.len_utf8() { c } else { ' ' }),
        }
        rest = &rest[skipped..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_top_level_counts() {
        for (sql, ordered) in [
            ("select 1 order by 1;", true),
            ("SELECT a\nORDER\n  BY a", true),
            ("select (select 1 order by 1)", false),
            ("select row_number() over (order by a) from t", false),
            ("with x as (select 1) select * from x -- order by 1", false),
            ("select ' order by ' /* order by */", false),
            ("select 'it''s (' from t order by 1", true),
            ("select border, bypass from t", false),
        ] {
            assert_eq!(is_ordered(sql), ordered, "{sql}");
        }
    }
}
