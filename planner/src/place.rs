//! Places in a statement's text: where a refused construct stands.

use std::{fmt, ops::ControlFlow};

use datafusion::{
    logical_expr::ScalarUDF,
    sql::sqlparser::{
        ast::{Expr, Function, ObjectName, ObjectNamePart, Query, SetExpr, Statement, TableFactor, Visit, Visitor},
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
    pub(crate) fn of(location: Location) -> Option<Self> {
        (location.line > 0).then_some(Self { line: location.line, column: location.column })
    }

    pub(crate) fn of_name(name: &ObjectName) -> Option<Self> {
        name.0.first().and_then(ObjectNamePart::as_ident).and_then(|ident| Self::of(ident.span.start))
    }
}

/// What a statement is made of, as far as places are asked for.
enum Part<'a> {
    Expr(&'a Expr),
    Relation(&'a ObjectName),
    Factor(&'a TableFactor),
    Query(&'a Query),
}

/// The first of the places that `find` gives for the parts of `statement`.
fn first(statement: &Statement, find: impl Fn(Part) -> Option<Place>) -> Option<Place> {
    all(statement, find).into_iter().min()
}

/// The places that `find` gives for the parts of `statement`.
fn all(statement: &Statement, find: impl Fn(Part) -> Option<Place>) -> Vec<Place> {
    struct Parts<F>(F, Vec<Place>);
    impl<F: Fn(Part) -> Option<Place>> Parts<F> {
        fn see(&mut self, part: Part) -> ControlFlow<()> {
            self.1.extend((self.0)(part));
            ControlFlow::Continue(())
        }
    }
    impl<F: Fn(Part) -> Option<Place>> Visitor for Parts<F> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.see(Part::Expr(expr))
        }
        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            self.see(Part::Relation(relation))
        }
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            self.see(Part::Factor(factor))
        }
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            self.see(Part::Query(query))
        }
    }
    let mut parts = Parts(find, Vec::new());
    let _all = statement.visit(&mut parts);
    parts.1
}

/// What a subquery stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
    /// A value, `ANY` and `ALL` included.
    Value,
    /// `EXISTS`.
    Existence,
    /// `IN`.
    Members,
    /// After `LATERAL`.
    Rows,
}

/// The subquery that stands for `what`, if there is no other, or no other of this kind: plans do not tell them apart.
pub(crate) fn of_subquery(statement: &Statement, what: Stands) -> Option<Place> {
    let found = |wanted: Option<Stands>| {
        let places = all(statement, |part| {
            let (stands, query) = match part {
                Part::Expr(Expr::Subquery(query)) => (Stands::Value, query),
                Part::Expr(Expr::Exists { subquery, .. }) => (Stands::Existence, subquery),
                Part::Expr(Expr::InSubquery { subquery, .. }) => (Stands::Members, subquery),
                Part::Factor(TableFactor::Derived { lateral: true, subquery, .. }) => (Stands::Rows, subquery),
                _ => return None,
            };
            wanted.is_none_or(|wanted| wanted == stands).then(|| of_query(&query.body)).flatten()
        });
        match places[..] {
            [place] => Some(place),
            _ => None,
        }
    };
    found(None).or_else(|| found(Some(what)))
}

/// The first `SELECT` of a query. To the left there may be thousands.
pub(crate) fn of_query(mut query: &SetExpr) -> Option<Place> {
    loop {
        query = match query {
            SetExpr::Select(select) => return Place::of(select.select_token.0.span.start),
            SetExpr::Query(query) => &query.body,
            SetExpr::SetOperation { left, .. } => left,
            _ => return None,
        };
    }
}

/// The first name or value of `expr`.
pub(crate) fn of_expr(expr: &Expr) -> Option<Place> {
    struct Word;
    impl Visitor for Word {
        type Break = Location;
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Location> {
            match expr {
                Expr::Identifier(name) => ControlFlow::Break(name.span.start),
                Expr::CompoundIdentifier(names) if !names.is_empty() => ControlFlow::Break(names[0].span.start),
                Expr::Value(value) => ControlFlow::Break(value.span.start),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match expr.visit(&mut Word) {
        ControlFlow::Break(start) => Place::of(start),
        ControlFlow::Continue(()) => None,
    }
}

/// The first call that is `wanted`. Those of views have no place.
pub(crate) fn of_call(statement: &Statement, wanted: impl Fn(&Function) -> bool) -> Option<Place> {
    first(statement, |part| match part {
        Part::Expr(Expr::Function(call)) if wanted(call) => Place::of_name(&call.name),
        _ => None,
    })
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
    let is_called = |of: &ObjectName| {
        let last = of.0.last().and_then(ObjectNamePart::as_ident);
        last.is_some_and(|ident| ident.value.eq_ignore_ascii_case(name))
    };
    first(statement, |part| match part {
        Part::Relation(of) | Part::Factor(TableFactor::Function { name: of, .. }) if is_called(of) => {
            Place::of_name(of)
        }
        _ => None,
    })
}

/// The first table of which a sample is asked for.
pub(crate) fn of_sample(statement: &Statement) -> Option<Place> {
    first(statement, |part| match part {
        Part::Factor(TableFactor::Table { name, sample: Some(_), .. }) => Place::of_name(name),
        _ => None,
    })
}

/// The first `WITH RECURSIVE`.
pub(crate) fn of_recursion(statement: &Statement) -> Option<Place> {
    first(statement, |part| match part {
        Part::Query(Query { with: Some(with), .. }) if with.recursive => Place::of(with.with_token.0.span.start),
        _ => None,
    })
}

/// The first word of `sql`, where the whole statement is at fault.
pub(crate) fn of_statement(sql: &str) -> Option<Place> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().ok()?;
    let word = tokens.iter().find(|token| !matches!(token.token, Token::Whitespace(_)))?;
    Place::of(word.span.start)
}
