//! Places in a statement's text: where a refused construct stands.

use std::{fmt, ops::ControlFlow};

use datafusion::sql::sqlparser::{
    ast::{
        Expr, Function, ObjectName, ObjectNamePart, Query, Statement, Visit, Visitor, visit_expressions,
        visit_relations,
    },
    dialect::GenericDialect,
    tokenizer::{Location, Token, Tokenizer},
};

/// Line and column, both from 1, of a construct in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl Place {
    /// Where the parser saw a token; line 0 is its word for "made up".
    fn of(location: Location) -> Option<Self> {
        (location.line > 0).then_some(Self { line: location.line, column: location.column })
    }

    fn of_name(name: &ObjectName) -> Option<Self> {
        name.0.first().and_then(ObjectNamePart::as_ident).and_then(|ident| Self::of(ident.span.start))
    }
}

/// The first call that is `wanted`. Those of views have no place.
pub(crate) fn of_call(statement: &Statement, wanted: impl Fn(&Function) -> bool) -> Option<Place> {
    let mut places = Vec::new();
    let _all = visit_expressions(statement, |expr| {
        if let Expr::Function(call) = expr
            && wanted(call)
        {
            places.extend(Place::of_name(&call.name));
        }
        ControlFlow::<()>::Continue(())
    });
    places.into_iter().min()
}

/// The last part of a function's name, as functions are registered.
pub(crate) fn name_of(call: &Function) -> String {
    let last = call.name.0.last().and_then(ObjectNamePart::as_ident);
    last.map(|ident| ident.value.to_lowercase()).unwrap_or_default()
}

/// The first relation that is `wanted`, by the parts of its name.
pub(crate) fn of_relation(statement: &Statement, wanted: impl Fn(&[String]) -> bool) -> Option<Place> {
    let mut places = Vec::new();
    let _all = visit_relations(statement, |name| {
        let parts = name.0.iter().filter_map(ObjectNamePart::as_ident).map(|ident| ident.value.to_lowercase());
        if wanted(&parts.collect::<Vec<_>>()) {
            places.extend(Place::of_name(name));
        }
        ControlFlow::<()>::Continue(())
    });
    places.into_iter().min()
}

/// The first `WITH RECURSIVE`.
pub(crate) fn of_recursion(statement: &Statement) -> Option<Place> {
    struct Recursion(Vec<Place>);
    impl Visitor for Recursion {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
                self.0.extend(Place::of(with.with_token.0.span.start));
            }
            ControlFlow::Continue(())
        }
    }
    let mut recursion = Recursion(Vec::new());
    let _all = statement.visit(&mut recursion);
    recursion.0.into_iter().min()
}

/// The first word of `sql`, where the whole statement is at fault.
pub(crate) fn of_statement(sql: &str) -> Option<Place> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().ok()?;
    let word = tokens.iter().find(|token| !matches!(token.token, Token::Whitespace(_)))?;
    Place::of(word.span.start)
}
