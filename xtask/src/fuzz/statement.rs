//! Statements: relations over relations, to a depth.

use super::expression::{Column, Draw, Kind};

/// How deep relations are made of others.
const DEPTH: usize = 4;
/// About how many rows a relation may have: a larger one is cut.
const MOST_ROWS: u64 = 50_000;
/// About so many values a column has.
const VALUES: u64 = 25;

/// A drawn statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) sql: String,
    /// Columns of the answer that it is sorted by, by number.
    pub(super) keys: Vec<usize>,
}

impl Statement {
    /// The statement of `seed`: always the same one.
    pub(super) fn draw(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let depth = 1 + draw.below(DEPTH);
        let relation = draw.relation(depth);
        let columns = draw.some(&relation.columns, 2);
        // Two at least: a lone NULL is an empty line of CSV, which could be none.
        let more = if columns.len() == 1 { ", 0 more" } else { "" };
        let names = columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ") + more;
        let mut sql = format!("select {names} from {relation}", relation = relation.alias(&mut draw));
        let mut keys = Vec::new();
        if !draw.once_in(4) {
            let sorted = draw.some(&columns, 1);
            sql += &format!(" order by {}", draw.order(&sorted));
            keys = columns.iter().enumerate().filter(|(_, c)| sorted.contains(c)).map(|(at, _)| at).collect();
        }
        Self { sql, keys }
    }
}

/// A query and what it gives.
pub(super) struct Relation {
    pub(super) sql: String,
    pub(super) columns: Vec<Column>,
    /// About how many rows.
    pub(super) rows: u64,
}

impl Relation {
    /// As what stands after FROM.
    pub(super) fn alias(&self, draw: &mut Draw) -> String {
        format!("({}) {}", self.sql, draw.name('t'))
    }

    pub(super) fn names(&self) -> String {
        self.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// A part of a table: columns with what they hold, the rest of the query, about how many rows.
type Base = (&'static [(&'static str, Kind)], &'static str, u64);

const BASES: &[Base] = {
    use Kind::{Number, Text};
    &[
        (&[("carrier", Text), ("name", Text), ("length(name)", Number)], "airlines", 16),
        (
            &[
                ("month", Number),
                ("carrier", Text),
                ("flight", Number),
                ("dest", Text),
                ("dep_time", Number),
                ("hour", Number),
            ],
            "flights where day = 11 and hour < 7",
            900,
        ),
        (
            &[("origin", Text), ("carrier", Text), ("month", Number), ("arr_delay", Number), ("tailnum", Text)],
            "flights where distance > 2500",
            1_000,
        ),
        (&[("month", Number), ("carrier", Text), ("count(*)", Number)], "flights group by month, carrier", 185),
        (
            &[("origin", Text), ("dest", Text), ("carrier", Text), ("max(distance)", Number)],
            "flights group by origin, dest, carrier",
            440,
        ),
        (
            &[("tailnum", Text), ("manufacturer", Text), ("engines", Number), ("seats", Number), ("year", Number)],
            "planes where seats > 200",
            500,
        ),
        (&[("faa", Text), ("alt", Number), ("tz", Number), ("tzone", Text)], "airports where alt > 5000", 100),
        (
            &[("origin", Text), ("month", Number), ("hour", Number), ("wind_dir", Number)],
            "weather where day = 3 and hour < 4",
            140,
        ),
        (&[("a", Number), ("b", Text)], "(values (1, 'AA'), (3, 'B6'), (3, 'UA'), (null, 'zz'), (6, null)) v(a, b)", 5),
    ]
};

impl Draw {
    pub(super) fn relation(&mut self, depth: usize) -> Relation {
        if depth == 0 {
            return self.base();
        }
        let mut relation = match self.below(17) {
            0 => self.base(),
            1 => self.filter(depth),
            2 => self.fixed(depth),
            3..6 => self.join(depth),
            6..9 => self.with_subquery(depth),
            9..11 => self.group(depth),
            11..13 => self.windows(depth),
            13 => self.set(depth),
            14 => self.first_rows(depth),
            15 => self.unnest(depth),
            _ => self.distinct(depth),
        };
        if relation.rows > MOST_ROWS {
            relation = self.cut(relation, 300);
        }
        relation
    }

    /// `select` of `parts` under new names, and `rest` of the query.
    pub(super) fn named(&mut self, parts: &[(String, Kind)], rest: &str, rows: u64) -> Relation {
        let columns: Vec<Column> = parts.iter().map(|(_, kind)| self.column(*kind)).collect();
        let list = parts.iter().zip(&columns).map(|((part, _), column)| format!("{part} {}", column.name));
        Relation { sql: format!("select {} from {rest}", list.collect::<Vec<_>>().join(", ")), columns, rows }
    }

    fn base(&mut self) -> Relation {
        let (columns, rest, rows) = self.of(BASES);
        let parts = self.some(columns, 2).into_iter().map(|(part, kind)| (part.to_owned(), kind));
        self.named(&parts.collect::<Vec<_>>(), rest, *rows)
    }

    fn filter(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let condition = self.condition(&input.columns);
        let sql = format!("select {} from {} where {condition}", input.names(), input.alias(self));
        Relation { sql, columns: input.columns, rows: input.rows / 2 + 1 }
    }

    /// With a column that is constant, and one that equals another.
    fn fixed(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let mut parts: Vec<(String, Kind)> = input.columns.iter().map(|c| (c.name.clone(), c.kind)).collect();
        let kind = *self.of(&[Kind::Number, Kind::Text]);
        parts.push((self.constant(kind), kind));
        parts.push(self.of(&parts[..input.columns.len()]).clone());
        let rest = input.alias(self);
        self.named(&parts, &rest, input.rows)
    }

    fn join(&mut self, depth: usize) -> Relation {
        let (left, right) = (self.relation(depth - 1), self.relation(depth - 1));
        let Some((a, b)) = self.pair(&left, &right) else { return left };
        let (left, right) = match left.rows * right.rows / VALUES > MOST_ROWS {
            true => (self.cut(left, 250), self.cut(right, 250)),
            false => (left, right),
        };
        let mut on = format!("{a} = {b}");
        if let Some((c, d)) = self.pair(&left, &right).filter(|_| self.once_in(4)) {
            on += &format!(" and {c} = {d}");
        }
        let kind = *self.of(&["join", "left join", "left join", "right join", "full join"]);
        if kind != "full join" && self.once_in(4) {
            let side = if self.once_in(2) { &left } else { &right };
            on += &format!(" and {}", self.condition(&side.columns));
        }
        let rows = left.rows.max(right.rows).max(left.rows * right.rows / VALUES);
        let (from, to) = (left.alias(self), right.alias(self));
        let columns = [left.columns, right.columns].concat();
        let joined = Relation { sql: String::new(), columns, rows };
        Relation { sql: format!("select {} from {from} {kind} {to} on {on}", joined.names()), ..joined }
    }

    /// Columns of two relations that may be compared.
    fn pair(&mut self, left: &Relation, right: &Relation) -> Option<(String, String)> {
        let a = self.of(&left.columns).clone();
        let alike: Vec<&Column> = right.columns.iter().filter(|b| b.kind == a.kind).collect();
        (!alike.is_empty()).then(|| (a.name, self.of(&alike).name.clone()))
    }

    fn group(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let keys = self.some(&input.columns, 0);
        let keys = &keys[..keys.len().min(3)];
        let mut parts: Vec<(String, Kind)> = keys.iter().map(|key| (key.name.clone(), key.kind)).collect();
        for _ in 0..=self.below(2) {
            parts.push(self.aggregate(&input.columns));
        }
        let list = keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", ");
        let by = match (keys.len(), self.below(6)) {
            (0, _) => String::new(),
            (_, 0) => format!(" group by rollup ({list})"),
            (_, 1) => format!(" group by cube ({list})"),
            (_, 2) => format!(" group by grouping sets (({list}), ({}), ())", keys[0].name),
            _ => format!(" group by {list}"),
        };
        let rest = input.alias(self) + &by;
        let rows = if keys.is_empty() { 1 } else { input.rows };
        self.named(&parts, &rest, rows)
    }

    /// Lists of groups, taken apart again.
    fn unnest(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let (key, listed) = (self.of(&input.columns).clone(), self.of(&input.columns).clone());
        let (list, rest) = (self.name('l'), input.alias(self));
        let lists = format!("(select {0}, array_agg({1}) {list} from {rest} group by {0})", key.name, listed.name);
        let rest = format!("{lists} {}", self.name('t'));
        self.named(&[(key.name, key.kind), (format!("unnest({list})"), listed.kind)], &rest, input.rows)
    }

    fn windows(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let mut parts: Vec<(String, Kind)> = input.columns.iter().map(|c| (c.name.clone(), c.kind)).collect();
        for _ in 0..=self.below(2) {
            parts.push(self.window(&input.columns));
        }
        let rest = input.alias(self);
        self.named(&parts, &rest, input.rows)
    }

    fn set(&mut self, depth: usize) -> Relation {
        let (left, right) = (self.relation(depth - 1), self.relation(depth - 1));
        let pairs: Vec<(Column, Column)> = left
            .columns
            .iter()
            .filter_map(|a| {
                let alike: Vec<&Column> = right.columns.iter().filter(|b| b.kind == a.kind).collect();
                (!alike.is_empty()).then(|| (a.clone(), (*self.of(&alike)).clone()))
            })
            .collect();
        if pairs.is_empty() {
            return left;
        }
        let word = *self.of(&["union all", "union all", "union", "except", "intersect", "except all", "intersect all"]);
        let a = pairs.iter().map(|(a, _)| a.name.clone()).collect::<Vec<_>>().join(", ");
        // One of the right side may be taken twice.
        let b = pairs.iter().map(|(_, b)| format!("{} {}", b.name, self.name('c'))).collect::<Vec<_>>().join(", ");
        let sql = format!("select {a} from {} {word} select {b} from {}", left.alias(self), right.alias(self));
        Relation { sql, columns: pairs.into_iter().map(|(a, _)| a).collect(), rows: left.rows + right.rows }
    }

    fn first_rows(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let rows = *self.of(&[1, 5, 40, 500]);
        self.cut(input, rows)
    }

    /// The first rows of `input` in a whole order.
    fn cut(&mut self, input: Relation, rows: u64) -> Relation {
        let order = self.whole_order(&input.columns);
        let sql = format!("select {} from {} order by {order} limit {rows}", input.names(), input.alias(self));
        Relation { sql, columns: input.columns, rows }
    }

    fn distinct(&mut self, depth: usize) -> Relation {
        let input = self.relation(depth - 1);
        let columns = self.some(&input.columns, 1);
        let kept = Relation { sql: String::new(), columns, rows: input.rows };
        Relation { sql: format!("select distinct {} from {}", kept.names(), input.alias(self)), ..kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_statement() {
        let statements: std::collections::BTreeSet<String> = (0..100).map(|seed| Statement::draw(seed).sql).collect();
        assert!(statements.len() > 95, "others for other seeds");
        assert_eq!(Statement::draw(7), Statement::draw(7));
        let words = ["left join", "over (", "group by rollup", "not in (select", "lateral", "union all", "order by"];
        for word in words {
            assert!(statements.iter().any(|sql| sql.contains(word)), "{word}");
        }
        assert!((0..100).map(Statement::draw).any(|statement| statement.keys.len() > 1));
    }
}
