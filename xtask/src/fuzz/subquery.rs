//! Subqueries drawn for the rows of a relation: as conditions, as values, after LATERAL.
//!
//! Columns of a subquery have other names than those of the row outside, or just the same ones: then aliases tell them apart.

use super::expression::{Column, Draw, Kind};
use super::statement::Relation;

/// A subquery's rows, and columns of both sides of one kind, under their aliases.
struct Pair {
    /// After FROM.
    rows: String,
    /// Columns of the row outside and of these rows that may be compared.
    outside: String,
    inside: String,
    kind: Kind,
    /// A condition that they are equal, perhaps with others.
    condition: String,
    /// Columns of these rows.
    columns: Vec<Column>,
}

impl Draw {
    /// Rows for which a subquery holds, or with a value that one gives, or joined with those of one.
    pub(super) fn with_subquery(&mut self, depth: usize) -> Relation {
        let (input, other) = (self.relation(depth - 1), self.relation(depth - 1));
        let alias = self.name('t');
        let Some(pair) = self.compared(&input, &alias, &other) else { return input };
        let from = format!("({}) {alias}", input.sql);
        match self.below(10) {
            0..5 => {
                let condition = self.condition_of(&pair, &input.columns);
                let sql = format!("select {} from {from} where {condition}", input.names());
                Relation { sql, ..input }
            }
            5..8 => {
                let mut parts: Vec<(String, Kind)> = input.columns.iter().map(|c| (c.name.clone(), c.kind)).collect();
                parts.push(self.value_of(&pair));
                self.named(&parts, &from, input.rows)
            }
            _ => self.lateral(&pair, &input, &from),
        }
    }

    fn compared(&mut self, input: &Relation, alias: &str, other: &Relation) -> Option<Pair> {
        let a = self.of(&input.columns).clone();
        let alike: Vec<&Column> = other.columns.iter().filter(|b| b.kind == a.kind).collect();
        if alike.is_empty() {
            return None;
        }
        let b = (*self.of(&alike)).clone();
        let inner = self.name('t');
        let mut columns = other.columns.clone();
        let mut inside = b.name.clone();
        let mut rows = format!("({}) {inner}", other.sql);
        if self.once_in(3) {
            // Under the name of the row outside.
            let list = other.columns.iter().map(|column| match column.name == b.name {
                true => format!("{} {}", b.name, a.name),
                false => column.name.clone(),
            });
            rows = format!("(select {} from {rows}) {inner}", list.collect::<Vec<_>>().join(", "));
            inside.clone_from(&a.name);
            columns.iter_mut().filter(|c| c.name == b.name).for_each(|c| c.name.clone_from(&a.name));
        }
        let (outside, inside) = (format!("{alias}.{}", a.name), format!("{inner}.{inside}"));
        columns.iter_mut().for_each(|column| column.name = format!("{inner}.{}", column.name));
        let mut condition = match (a.kind, self.below(5)) {
            (Kind::Number, 0) => format!("{inside} + 1 = {outside}"),
            (Kind::Text, 0) => format!("upper({inside}) = {outside}"),
            _ => format!("{outside} = {inside}"),
        };
        if self.once_in(4) {
            condition += &format!(" and {}", self.condition(&columns));
        }
        Some(Pair { rows, outside, inside, kind: a.kind, condition, columns })
    }

    fn condition_of(&mut self, pair: &Pair, columns: &[Column]) -> String {
        let Pair { rows, outside: a, inside: b, condition, .. } = pair;
        let compares = *self.of(&["<", "<=", "=", "<>", ">", ">="]);
        let quantifier = *self.of(&["any", "all"]);
        let order = self.whole_order(&pair.columns);
        match self.below(17) {
            0 => format!("exists (select * from {rows} where {condition})"),
            1 => format!("not exists (select 1 from {rows} where {condition})"),
            2 => format!("exists (select 1 from {rows} where {a} {compares} {b})"),
            3 => format!("{a} in (select {b} from {rows})"),
            4 => format!("{a} not in (select {b} from {rows})"),
            5 => format!("{a} not in (select {b} from {rows} where {condition})"),
            6 => format!("not ({a} in (select {b} from {rows} where {a} {compares} {b}))"),
            7 => format!("{a} >= (select min({b}) from {rows})"),
            8 => format!("({a} not in (select {b} from {rows}) or {})", self.condition(columns)),
            9 => format!("({a} in (select {b} from {rows})) is null"),
            10 => format!("2 not in (select count(*) from {rows} where {condition})"),
            11 => format!("exists (select max({b}) from {rows} where {condition})"),
            12 => format!("{a} {compares} {quantifier} (select {b} from {rows})"),
            13 => format!("{a} {compares} {quantifier} (select {b} from {rows} where {condition})"),
            14 => format!("{a} {compares} {quantifier} (select max({b}) from {rows} where {condition})"),
            15 => format!("exists (select 1 from {rows} where {condition} order by {order} limit 1)"),
            _ => format!("{a} in (select {b} from {rows} where {})", self.condition(&pair.columns)),
        }
    }

    fn value_of(&mut self, pair: &Pair) -> (String, Kind) {
        let Pair { rows, outside: a, inside: b, kind, condition, .. } = pair;
        let flag = |flag: String| (format!("case {flag} when true then 1 when false then 0 end"), Kind::Number);
        match self.below(9) {
            0 => flag(format!("{a} in (select {b} from {rows})")),
            1 => flag(format!("{a} not in (select {b} from {rows} where {condition})")),
            2 => flag(format!("exists (select 1 from {rows} where {condition})")),
            3 => flag(format!("{a} = any (select {b} from {rows})")),
            4 => (format!("(select max({b}) from {rows} where {condition} having count(*) < 3)"), *kind),
            5 => (format!("(select count(*) from {rows} where {condition} having count(*) <> 1)"), Kind::Number),
            6 => {
                let order = self.whole_order(&pair.columns);
                (format!("(select {b} from {rows} where {condition} order by {order} limit 1)"), *kind)
            }
            7 => (format!("(select max({b}) from {rows} where {condition})"), *kind),
            _ => (format!("(select count(*) from {rows} where {condition})"), Kind::Number),
        }
    }

    fn lateral(&mut self, pair: &Pair, input: &Relation, from: &str) -> Relation {
        let Pair { rows, inside: b, kind, condition, .. } = pair;
        let (column, alias) = (self.column(*kind), self.name('t'));
        let name = &column.name;
        let query = match self.below(5) {
            0 => format!("select distinct {b} {name} from {rows} where {condition}"),
            1 => format!("select max({b}) {name} from {rows} where {condition}"),
            2 => format!("select {b} {name} from {rows} where {condition} group by {b}"),
            3 => {
                format!("select min({b}) {name} from {rows} where {condition} group by {}", self.of(&pair.columns).name)
            }
            _ => format!("select {b} {name} from {rows} where {condition}"),
        };
        let joins = *self.of(&["join", "left join"]);
        let columns = [input.columns.clone(), vec![column]].concat();
        let joined = Relation { sql: String::new(), columns, rows: input.rows * 4 };
        let sql = format!("select {} from {from} {joins} lateral ({query}) {alias} on true", joined.names());
        Relation { sql, ..joined }
    }
}
