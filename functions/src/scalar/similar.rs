//! The regular expression that a pattern of `SIMILAR TO` means.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, StringArray},
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    common::{exec_err, plan_err},
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    scalar::ScalarValue,
};

/// The function: a pattern, and the character that makes the next one stand for itself. No statement calls it.
#[must_use]
pub fn similar_regex() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(SimilarRegex { signature: Signature::any(2, Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SimilarRegex {
    signature: Signature,
}

impl ScalarUDFImpl for SimilarRegex {
    fn name(&self) -> &'static str {
        "regex of similar"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let pattern = match &arg_types[0] {
            DataType::Dictionary(_, values) => values.as_ref(),
            other => other,
        };
        match pattern {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Ok(DataType::Utf8),
            other => plan_err!("the pattern of SIMILAR TO is a text, not {other}"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [pattern, ColumnarValue::Scalar(escape)] = args.args.as_slice() else {
            return exec_err!("SIMILAR TO has one character that escapes");
        };
        let escape = escape.try_as_str().flatten().and_then(|text| text.chars().next()).unwrap_or('\\');
        match pattern {
            ColumnarValue::Scalar(pattern) => {
                let pattern = pattern.cast_to(&DataType::Utf8)?;
                let regex = pattern.try_as_str().flatten().map(|pattern| regex(pattern, escape));
                Ok(ColumnarValue::Scalar(ScalarValue::Utf8(regex)))
            }
            ColumnarValue::Array(patterns) => {
                let patterns: ArrayRef = cast(patterns, &DataType::Utf8)?;
                let regexes = patterns.as_string::<i32>().iter().map(|pattern| pattern.map(|p| regex(p, escape)));
                Ok(ColumnarValue::Array(Arc::new(regexes.collect::<StringArray>())))
            }
        }
    }
}

/// The regular expression of a `pattern`. (SQL:2023, part 2, 8.6.)
fn regex(pattern: &str, escape: char) -> String {
    let (mut regex, mut among) = ("^(?s:".to_owned(), false);
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            c if c == escape => regex.extend(rest.next().map(literal).into_iter().flatten()),
            '%' if !among => regex.push_str(".*"),
            '_' if !among => regex.push('.'),
            '.' | '^' | '$' | '\\' if !among => regex.extend(literal(c)),
            c => {
                among = c == '[' || among && c != ']';
                regex.push(c);
            }
        }
    }
    regex.push_str(")$");
    regex
}

/// `c` itself, whatever it means elsewhere.
fn literal(c: char) -> impl Iterator<Item = char> {
    c.is_ascii_punctuation().then_some('\\').into_iter().chain([c])
}

#[cfg(test)]
mod tests {
    use super::regex;

    #[test]
    fn patterns_are_read_as_sql_has_them() {
        for (pattern, as_regex) in [
            ("a%", "^(?s:a.*)$"),
            ("a_c", "^(?s:a.c)$"),
            ("(x|y)+.z", "^(?s:(x|y)+\\.z)$"),
            ("[%_.]{2}\\%", "^(?s:[%_.]{2}\\%)$"),
            ("a|b", "^(?s:a|b)$"),
        ] {
            assert_eq!(regex(pattern, '\\'), as_regex);
        }
        assert_eq!(regex("a!_!b", '!'), "^(?s:a\\_b)$");
    }
}
