//! How large statements may be. They come from clients of a coordinator, and parsing, planning and dropping them walks them by recursion:
//! one statement could end the process, and all jobs in it.
//!
//! Text is bounded first, where the parser itself would go too deep; then what it made of it, before anything else looks at that.

use std::{collections::HashMap, ops::ControlFlow};

use conun_types::Error;
use datafusion::{
    error::Result,
    execution::SessionState,
    sql::{
        parser::{CopyToSource, Statement},
        sqlparser::{
            ast::{Expr, ObjectName, ObjectNamePart, Query, Select, SetExpr, TableFactor, Visit, Visitor},
            dialect::GenericDialect,
            keywords::Keyword,
            tokenizer::{Token, TokenWithSpan, Tokenizer},
        },
    },
};

use crate::{
    external,
    place::{self, Place},
    refusal::refused,
};

/// Most bytes of a statement.
const MAX_SQL: usize = 1 << 20;
/// Most levels of an expression: `a and b and c` has three. As many as DuckDB's `max_expression_depth`.
const MAX_LEVELS: usize = 1000;
/// Most parts of a statement, each of which is an operator of its plan or more: tables, set operations, queries, windows and pipes, where those of
/// a query of a WITH count each time that it is read, as DataFusion puts it in there.
const MAX_PARTS: u64 = 1000;
/// Most columns of the CUBEs of a query, as in PostgreSQL: each doubles the grouping sets.
const MAX_CUBE: usize = 12;
/// Most parentheses that are open at once. Expressions and queries nest 50 deep (`datafusion.sql_parser.recursion_limit`), types without end.
const MAX_OPEN: usize = 100;
/// Most brackets in a row, `[1][2][3]` or `int[][][]`.
const MAX_BRACKETS: usize = 50;
/// Most types with angle brackets, as in `array<array<int>>`.
const MAX_ANGLES: usize = 50;

/// Stack that a parsed statement may take for each byte of its text when it is dropped: two bytes make a level, `+a`, and a level takes some
/// 200 bytes.
const STACK_PER_BYTE: usize = 256;
/// Stack for parsing beside that.
const STACK_SPARE: usize = 16 << 20;

const INSTEAD_OF_LEVELS: &str =
    "write many values as a IN (1, 2, ..), or as a table that is joined; split what is computed from many columns";
const INSTEAD_OF_PARTS: &str =
    "ask in several statements, or store what is read often: conun sql -o FILE, then conun put TABLE FILE";

/// The one statement that `sql` is, if it is not larger than planning bears.
///
/// # Errors
/// DataFusion's for what is no SQL, and [`conun_types::ErrorKind::Data`] within for what is too large.
pub fn parsed(state: &SessionState, sql: &str) -> Result<Statement> {
    if sql.len() > MAX_SQL {
        let error = Error::data(format!("a statement of {} bytes, the limit is {MAX_SQL}", sql.len()));
        return Err(external(error.with_hint(INSTEAD_OF_LEVELS)));
    }
    check_text(sql).map_err(external)?;
    let stack = sql.len() * STACK_PER_BYTE + STACK_SPARE;
    stacker::maybe_grow(stack, stack, || {
        let statement = state.sql_to_statement(sql, &state.config().options().sql_parser.dialect)?;
        match check_statement(&statement) {
            ControlFlow::Break(error) => Err(external(error)),
            ControlFlow::Continue(()) => Ok(statement),
        }
    })
}

/// Refuses what the parser would recurse into beyond its own limit.
fn check_text(sql: &str) -> std::result::Result<(), Error> {
    // What is no SQL is told by the parser.
    let Ok(tokens) = Tokenizer::new(&GenericDialect, sql).tokenize_with_location() else { return Ok(()) };
    let tokens = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let (mut open, mut brackets, mut angles, mut before) = (0_usize, 0, 0, &Token::EOF);
    for TokenWithSpan { token, span } in tokens {
        match token {
            Token::LParen => open += 1,
            Token::RParen => open = open.saturating_sub(1),
            Token::LBracket if *before == Token::RBracket => brackets += 1,
            Token::LBracket => brackets = 1,
            Token::Lt if matches!(keyword(before), Some(Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP)) => {
                angles += 1
            }
            _ => (),
        }
        let unplannable = match (keyword(before), keyword(token)) {
            (Some(word @ (Keyword::PIVOT | Keyword::UNPIVOT | Keyword::MATCH_RECOGNIZE)), _)
                if *token == Token::LParen =>
            {
                Some((format!("{word:?}"), "is not planned"))
            }
            (Some(Keyword::EXPLAIN), Some(Keyword::EXPLAIN)) => {
                Some(("EXPLAIN".to_owned(), "explains no other EXPLAIN"))
            }
            _ if open > MAX_OPEN || brackets > MAX_BRACKETS || angles > MAX_ANGLES => {
                Some((format!("'{token}'"), "stands within too many others"))
            }
            _ => None,
        };
        if let Some((construct, does)) = unplannable {
            return Err(refused(&construct, Place::of(span.start), does, "write the statement without it"));
        }
        before = token;
    }
    Ok(())
}

fn keyword(token: &Token) -> Option<Keyword> {
    match token {
        Token::Word(word) => Some(word.keyword),
        _ => None,
    }
}

fn check_statement(statement: &Statement) -> ControlFlow<Error> {
    let mut bounds = Bounds::default();
    match statement {
        Statement::Statement(sql) => sql.visit(&mut bounds),
        Statement::Explain(explain) => check_statement(&explain.statement),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => query.visit(&mut bounds),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        Statement::CreateExternalTable(table) => {
            table.columns.visit(&mut bounds)?;
            table.order_exprs.visit(&mut bounds)
        }
        Statement::Reset(_) => ControlFlow::Continue(()),
    }
}

/// The walk over a statement; it takes more stack by itself where it needs some.
#[derive(Default)]
struct Bounds {
    /// Expressions around the place where it is.
    levels: usize,
    /// Parts so far of the query of a WITH in which it is, or else of the statement.
    parts: u64,
    /// The queries of WITHs that are not looked at to the end, by their place in memory: their names, and the parts before them.
    named: HashMap<*const Query, (String, u64)>,
    /// For each query around that has a WITH, by name: the parts of its queries that have been looked at.
    known: Vec<HashMap<String, u64>>,
}

impl Bounds {
    fn add(&mut self, parts: u64, construct: impl FnOnce() -> (String, Option<Place>)) -> ControlFlow<Error> {
        self.parts = self.parts.saturating_add(parts);
        if self.parts <= MAX_PARTS {
            return ControlFlow::Continue(());
        }
        let (construct, place) = construct();
        let does = format!(
            "is a part too many: a statement has {MAX_PARTS} at most, where a query of a WITH counts wherever it is read"
        );
        ControlFlow::Break(refused(&construct, place, &does, INSTEAD_OF_PARTS))
    }
}

impl Visitor for Bounds {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        self.levels += 1;
        if self.levels > MAX_LEVELS {
            let does = format!("nests more than {MAX_LEVELS} levels deep");
            return ControlFlow::Break(refused("an expression", place::of_expr(expr), &does, INSTEAD_OF_LEVELS));
        }
        match expr {
            Expr::Function(function) if function.over.is_some() => {
                self.add(1, || (function.name.to_string(), Place::of_name(&function.name)))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<Error> {
        self.levels -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        if let Some((_, before)) = self.named.get_mut(&std::ptr::from_ref(query)) {
            *before = std::mem::take(&mut self.parts);
        }
        let parts = 1 + set_operations(&query.body) + query.pipe_operators.len() as u64;
        self.add(parts, || ("a query".to_owned(), place::of_query(&query.body)))?;
        let Some(with) = &query.with else { return ControlFlow::Continue(()) };
        self.known.push(HashMap::new());
        for table in &with.cte_tables {
            self.named.insert(table.query.as_ref(), (table.alias.name.value.to_lowercase(), 0));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        if query.with.is_some() {
            self.known.pop();
        }
        if let Some((name, before)) = self.named.remove(&std::ptr::from_ref(query)) {
            let parts = std::mem::replace(&mut self.parts, before);
            if let Some(known) = self.known.last_mut() {
                known.insert(name, parts);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        self.add(1, || match factor {
            TableFactor::Table { name, .. } => (name.to_string(), Place::of_name(name)),
            _ => ("a table".to_owned(), None),
        })
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<Error> {
        let [ObjectNamePart::Identifier(word)] = name.0.as_slice() else { return ControlFlow::Continue(()) };
        let word = word.value.to_lowercase();
        let parts = self.known.iter().rev().find_map(|known| known.get(&word)).copied().unwrap_or(0);
        self.add(parts, || (name.to_string(), Place::of_name(name)))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        let mut cubes = Cubes(0);
        let _all = select.group_by.visit(&mut cubes);
        if cubes.0 <= MAX_CUBE {
            return ControlFlow::Continue(());
        }
        let does = format!("has more than {MAX_CUBE} columns: each doubles the groupings");
        let place = Place::of(select.select_token.0.span.start);
        let instead = "name those that are wanted: GROUP BY GROUPING SETS ((a, b), (a), ())";
        ControlFlow::Break(refused("CUBE", place, &does, instead))
    }
}

/// How many set operations `body` is of. INTERSECT binds tighter, so that there are many on either side.
fn set_operations(body: &SetExpr) -> u64 {
    let (mut operations, mut rest) = (0, vec![body]);
    while let Some(body) = rest.pop() {
        if let SetExpr::SetOperation { left, right, .. } = body {
            operations += 1;
            rest.extend([right.as_ref(), left]);
        }
    }
    operations
}

/// Columns of CUBEs.
struct Cubes(usize);

impl Visitor for Cubes {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Cube(columns) = expr {
            self.0 += columns.len();
        }
        ControlFlow::Continue(())
    }
}
