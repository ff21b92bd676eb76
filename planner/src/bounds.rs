//! How large statements may be. They come from clients of a coordinator, and what planning makes of them is walked, cloned and dropped
//! by recursion: one statement could end the process, and all jobs in it.

use std::{collections::HashMap, ops::ControlFlow};

use conun_types::Error;
use datafusion::{
    error::{DataFusionError, Result},
    execution::SessionState,
    sql::{
        parser::{CopyToSource, Statement},
        sqlparser::{
            ast::{Expr, ObjectName, ObjectNamePart, Query, Select, SetExpr, Visit, Visitor},
            tokenizer::Location,
        },
    },
};

use crate::{place::Place, refusal::Refusal};

/// Most bytes of a statement.
const MAX_SQL: usize = 1 << 20;
/// Most levels of an expression: `a and b and c` has three. As many as DuckDB's `max_expression_depth`.
const MAX_LEVELS: usize = 1000;
/// Most queries that one set operation after the other combines, tables of one FROM, queries of one WITH: operators nest as deep.
const MAX_CHAIN: usize = 1000;
/// Most columns of the CUBEs of a query, as in PostgreSQL: each doubles the grouping sets.
const MAX_CUBE: usize = 12;
/// Most tables that are read, where a query of a WITH reads its tables each time that it is read itself: DataFusion puts it in there.
const MAX_READ: u64 = 4096;

/// Stack that dropping a parsed statement may take for each byte of its text: two bytes make a level, `+a`, and a level takes some
/// 200 bytes.
const STACK_PER_BYTE: usize = 256;
/// Stack for parsing beside that.
const STACK_SPARE: usize = 256 << 10;

/// The one statement that `sql` is, if it is not larger than planning bears.
///
/// # Errors
/// DataFusion's for what is no SQL, and [`conun_types::ErrorKind::Data`] within for what is too large.
pub fn parsed(state: &SessionState, sql: &str) -> Result<Statement> {
    if sql.len() > MAX_SQL {
        let error = Error::data(format!("a statement of {} bytes, the limit is {MAX_SQL}", sql.len()));
        return Err(external(error.with_hint(INSTEAD_OF_VALUES)));
    }
    let stack = sql.len() * STACK_PER_BYTE + STACK_SPARE;
    stacker::maybe_grow(stack, stack, || {
        let statement = state.sql_to_statement(sql, &state.config().options().sql_parser.dialect)?;
        match too_large(&statement) {
            ControlFlow::Break(refusal) => Err(external(refusal.into())),
            ControlFlow::Continue(()) => Ok(statement),
        }
    })
}

const INSTEAD_OF_VALUES: &str =
    "write many values as a IN (1, 2, ..), or store them as a table with conun put and join it";
const INSTEAD_OF_PARTS: &str = "put the parts into one table with conun put, or ask in several statements";

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn too_large(statement: &Statement) -> ControlFlow<Refusal> {
    let mut bounds = Bounds::default();
    match statement {
        Statement::Statement(sql) => sql.visit(&mut bounds),
        Statement::Explain(explain) => too_large(&explain.statement),
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
    /// Tables read so far by the query of a WITH in which it is, or else by the statement.
    read: u64,
    /// The queries of WITHs around and before: by their place in memory, their names and what was read before them.
    named: HashMap<*const Query, (String, u64)>,
    /// How many tables the query of a name reads; the most, where there are several of a name.
    reads: HashMap<String, u64>,
}

impl Visitor for Bounds {
    type Break = Refusal;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Refusal> {
        self.levels += 1;
        if self.levels <= MAX_LEVELS {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Refusal {
            construct: "an expression".to_owned(),
            place: first_word(expr),
            reason: "nests more than 1000 levels deep",
            instead: INSTEAD_OF_VALUES,
        })
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<Refusal> {
        self.levels -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Refusal> {
        let (mut first, mut operator, mut chain) = (query.body.as_ref(), None, 0);
        while let SetExpr::SetOperation { left, op, .. } = first {
            (first, operator, chain) = (left.as_ref(), operator.or(Some(op)), chain + 1);
        }
        let place = match first {
            SetExpr::Select(select) => Place::of(select.select_token.0.span.start),
            _ => None,
        };
        chained(operator.map(ToString::to_string).unwrap_or_default(), chain, place)?;
        if let Some((_, before)) = self.named.get_mut(&std::ptr::from_ref(query)) {
            *before = std::mem::take(&mut self.read);
        }
        let Some(with) = &query.with else { return ControlFlow::Continue(()) };
        for table in &with.cte_tables {
            self.named.insert(table.query.as_ref(), (table.alias.name.value.to_lowercase(), 0));
        }
        chained("WITH".to_owned(), with.cte_tables.len(), Place::of(with.with_token.0.span.start))
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Refusal> {
        if let Some((name, before)) = self.named.remove(&std::ptr::from_ref(query)) {
            let reads = std::mem::replace(&mut self.read, before).max(1);
            self.reads.entry(name).and_modify(|most| *most = reads.max(*most)).or_insert(reads);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<Refusal> {
        let reads = match name.0.as_slice() {
            [ObjectNamePart::Identifier(name)] => self.reads.get(&name.value.to_lowercase()).copied().unwrap_or(1),
            _ => 1,
        };
        self.read = self.read.saturating_add(reads);
        if self.read <= MAX_READ {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Refusal {
            construct: name.to_string(),
            place: Place::of_name(name),
            reason: "is one table too many: more than 4096 are read, as queries of a WITH are put in wherever they are named",
            instead: "store what is read often as a table: conun sql -o FILE, then conun put TABLE FILE",
        })
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Refusal> {
        let tables = select.from.iter().map(|tables| 1 + tables.joins.len()).sum();
        let place = Place::of(select.select_token.0.span.start);
        chained("FROM".to_owned(), tables, place)?;
        let mut cubes = Cubes(0);
        let _all = select.group_by.visit(&mut cubes);
        if cubes.0 <= MAX_CUBE {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Refusal {
            construct: "CUBE".to_owned(),
            place,
            reason: "has more than 12 columns: each doubles the groupings",
            instead: "name those that are wanted: GROUP BY GROUPING SETS ((a, b), (a), ())",
        })
    }
}

/// Refuses a `construct` of too many `parts`.
fn chained(construct: String, parts: usize, place: Option<Place>) -> ControlFlow<Refusal> {
    if parts <= MAX_CHAIN {
        return ControlFlow::Continue(());
    }
    let reason = "has more than 1000 parts";
    ControlFlow::Break(Refusal { construct, place, reason, instead: INSTEAD_OF_PARTS })
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

/// Where the first name or value of `expr` stands.
fn first_word(expr: &Expr) -> Option<Place> {
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
