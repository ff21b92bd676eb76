//! Places in a statement's text: where a refused construct stands.

use std::{fmt, ops::ControlFlow};

use datafusion::{
    logical_expr::ScalarUDF,
    sql::sqlparser::{
        ast::{
            Expr, Function, ObjectName, ObjectNamePart, Query, Statement, TableFactor, Visit, Visitor,
            visit_expressions,
        },
        dialect::GenericDialect,
        tokenizer::{Location, Token, Tokenizer},
    },
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

/// The first call of `function`, by any of its names.
pub(crate) fn of_function(statement: &Statement, function: &ScalarUDF) -> Option<Place> {
    let named = |name: &String| name == function.name() || function.aliases().contains(name);
    of_call(statement, |call| named(&name_of(call)))
}

/// The last part of a function's name, as functions are registered.
pub(crate) fn name_of(call: &Function) -> String {
    let last = call.name.0.last().and_then(ObjectNamePart::as_ident);
    last.map(|ident| ident.value.to_lowercase()).unwrap_or_default()
}

/// The first relation or table function called `name`.
pub(crate) fn of_relation(statement: &Statement, name: &str) -> Option<Place> {
    struct Relations<'a>(&'a str, Vec<Place>);
    impl Relations<'_> {
        fn see(&mut self, name: &ObjectName) -> ControlFlow<()> {
            let last = name.0.last().and_then(ObjectNamePart::as_ident);
            if last.is_some_and(|ident| ident.value.eq_ignore_ascii_case(self.0)) {
                self.1.extend(Place::of_name(name));
            }
            ControlFlow::Continue(())
        }
    }
    impl Visitor for Relations<'_> {
        type Break = ();
        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            self.see(relation)
        }
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            match factor {
                TableFactor::Function { name, .. } => self.see(name),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let mut relations = Relations(name, Vec::new());
    let _all = statement.visit(&mut relations);
    relations.1.into_iter().min()
}

/// The first table of which a sample is asked for.
pub(crate) fn of_sample(statement: &Statement) -> Option<Place> {
    struct Samples(Vec<Place>);
    impl Visitor for Samples {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, sample: Some(_), .. } = factor {
                self.0.extend(Place::of_name(name));
            }
            ControlFlow::Continue(())
        }
    }
    let mut samples = Samples(Vec::new());
    let _all = statement.visit(&mut samples);
    samples.0.into_iter().min()
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
