//! Statements as SQL means them, where the parser reads them otherwise.

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::Statement,
    sqlparser::ast::{
        BinaryOperator, Expr, Ident, OrderBy, OrderByKind, Query, Select, SelectFlavor, SelectItem, SetExpr,
        UnaryOperator, VisitMut, VisitorMut, WildcardAdditionalOptions,
    },
};

/// Reads `statement` again where the parser has it wrong, or DataFusion does not see through it: `IS DISTINCT FROM` binds tighter than `AND`
/// and `OR`; `FROM t` alone asks for all columns; `select sum(x) x .. order by sum(x)` sorts by the column that is given.
pub(crate) fn as_meant(statement: &mut Statement) {
    match statement {
        Statement::Statement(sql) => {
            let _all = sql.visit(&mut Meant);
        }
        Statement::Explain(explain) => as_meant(&mut explain.statement),
        _ => (),
    }
}

struct Meant;

impl VisitorMut for Meant {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if select.flavor == SelectFlavor::FromFirstNoSelect {
            select.flavor = SelectFlavor::FromFirst;
            select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let (SetExpr::Select(select), Some(OrderBy { kind: OrderByKind::Expressions(keys), .. })) =
            (query.body.as_ref(), &mut query.order_by)
        else {
            return ControlFlow::Continue(());
        };
        for key in keys {
            let given = select.projection.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if *expr == key.expr => Some(alias.clone()),
                _ => None,
            });
            if let Some(alias) = given.filter(|_| !matches!(key.expr, Expr::Identifier(_) | Expr::Value(_))) {
                key.expr = Expr::Identifier(alias);
            }
        }
        ControlFlow::Continue(())
    }

    /// What is within has been regrouped by then.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if is_misgrouped(expr) {
            let mut parts = Vec::new();
            flatten(taken(expr), &mut parts);
            *expr = grouped(parts, &LOOSEST_FIRST);
        }
        ControlFlow::Continue(())
    }
}

/// Logical operators by how they bind.
const LOOSEST_FIRST: [BinaryOperator; 2] = [BinaryOperator::Or, BinaryOperator::And];

/// How tightly the logical operator binds that `expr` is of, if it is of one and without parentheses.
fn binding(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::BinaryOp { op, .. } => LOOSEST_FIRST.iter().position(|logical| logical == op),
        _ => None,
    }
}

/// Whether `expr` took for its last operand what it would take only with parentheses around it.
fn is_misgrouped(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp { right, .. } => binding(expr).zip(binding(right)).is_some_and(|(own, last)| last <= own),
        Expr::UnaryOp { op: UnaryOperator::Not, expr: last }
        | Expr::IsDistinctFrom(_, last)
        | Expr::IsNotDistinctFrom(_, last) => binding(last).is_some(),
        _ => false,
    }
}

/// An operand, and the operator before it.
type Part = (Option<BinaryOperator>, Expr);

fn taken(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Identifier(Ident::new("")))
}

/// What logical operators without parentheses stand between in `expr`, in the order of the text.
fn flatten(mut expr: Expr, parts: &mut Vec<Part>) {
    // To the left there may be thousands.
    let mut rest = Vec::new();
    let first = loop {
        match expr {
            Expr::BinaryOp { left, op, right } if LOOSEST_FIRST.contains(&op) => {
                rest.push((op, *right));
                expr = *left;
            }
            first => break first,
        }
    };
    match first {
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
            first_of(*expr, parts, |expr| Expr::UnaryOp { op: UnaryOperator::Not, expr });
        }
        Expr::IsDistinctFrom(left, right) => first_of(*right, parts, |right| Expr::IsDistinctFrom(left, right)),
        Expr::IsNotDistinctFrom(left, right) => first_of(*right, parts, |right| Expr::IsNotDistinctFrom(left, right)),
        other => parts.push((None, other)),
    }
    for (op, right) in rest.into_iter().rev() {
        let at = parts.len();
        flatten(right, parts);
        parts[at].0 = Some(op);
    }
}

/// The same of an `expr` of which only the first operand belongs to what is before it.
fn first_of(expr: Expr, parts: &mut Vec<Part>, wrap: impl FnOnce(Box<Expr>) -> Expr) {
    let at = parts.len();
    flatten(expr, parts);
    parts[at].1 = wrap(Box::new(taken(&mut parts[at].1)));
}

/// `parts` with the operators between them, those of `operators` that come first being the loosest.
fn grouped(parts: Vec<Part>, operators: &[BinaryOperator]) -> Expr {
    let Some((loosest, tighter)) = operators.split_first() else {
        // Nothing stands between the parts of the tightest: there is one.
        return parts
            .into_iter()
            .next()
            .map(|(_, operand)| operand)
            .unwrap_or_else(|| Expr::Identifier(Ident::new("")));
    };
    let mut groups: Vec<Vec<Part>> = Vec::new();
    for part in parts {
        match groups.last_mut() {
            Some(group) if part.0.as_ref() != Some(loosest) => group.push(part),
            _ => groups.push(vec![part]),
        }
    }
    let mut operands = groups.into_iter().map(|group| grouped(group, tighter));
    let first = operands.next().unwrap_or_else(|| Expr::Identifier(Ident::new("")));
    operands.fold(first, |left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: loosest.clone(),
        right: Box::new(right),
    })
}

#[cfg(test)]
mod tests {
    use datafusion::sql::{
        parser::{DFParser, Statement},
        sqlparser::ast::{Expr, SetExpr, Statement as Sql},
    };

    use super::as_meant;

    /// The condition with all its parentheses.
    fn read(condition: &str) -> String {
        let sql = format!("SELECT a FROM t WHERE {condition}");
        let mut statement = DFParser::parse_sql(&sql).expect("SQL").pop_front().expect("a statement");
        as_meant(&mut statement);
        let Statement::Statement(sql) = statement else { panic!("no SQL") };
        let Sql::Query(query) = *sql else { panic!("no query") };
        let SetExpr::Select(select) = *query.body else { panic!("no select") };
        shape(&select.selection.expect("a condition"))
    }

    fn shape(expr: &Expr) -> String {
        match expr {
            Expr::BinaryOp { left, op, right } => format!("({} {op} {})", shape(left), shape(right)),
            Expr::UnaryOp { op, expr } => format!("({op} {})", shape(expr)),
            Expr::IsDistinctFrom(left, right) => format!("({} <> {})", shape(left), shape(right)),
            Expr::IsNotDistinctFrom(left, right) => format!("({} == {})", shape(left), shape(right)),
            Expr::Nested(expr) => shape(expr),
            other => other.to_string(),
        }
    }

    #[test]
    fn what_is_given_is_sorted_by_its_name() {
        let read = |sql: &str| {
            let mut statement = DFParser::parse_sql(sql).expect("SQL").pop_front().expect("a statement");
            as_meant(&mut statement);
            statement.to_string()
        };
        let sorted = read("SELECT a, sum(b) AS b FROM t GROUP BY a ORDER BY sum(b) DESC, a, max(b)");
        assert_eq!(sorted, "SELECT a, sum(b) AS b FROM t GROUP BY a ORDER BY b DESC, a, max(b)");
        assert_eq!(read("FROM t"), "FROM t SELECT *");
    }

    #[test]
    fn what_is_distinct_ends_before_the_next_condition() {
        for (written, meant) in [
            ("a IS DISTINCT FROM b AND c", "((a <> b) AND c)"),
            ("a AND b IS DISTINCT FROM c OR d", "((a AND (b <> c)) OR d)"),
            ("NOT a IS NOT DISTINCT FROM b OR c AND d", "((NOT (a == b)) OR (c AND d))"),
            ("a OR b IS DISTINCT FROM c AND d IS DISTINCT FROM e OR f", "((a OR ((b <> c) AND (d <> e))) OR f)"),
            ("a IS DISTINCT FROM (b AND c)", "(a <> (b AND c))"),
            ("a IS DISTINCT FROM 1 AND b = 2 AND (c OR NOT d)", "(((a <> 1) AND (b = 2)) AND (c OR (NOT d)))"),
        ] {
            assert_eq!(read(written), meant, "{written}");
        }
    }
}
