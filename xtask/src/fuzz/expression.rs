//! Expressions drawn over the columns of a relation: conditions, aggregates, windows, orders.
//!
//! Only what both engines agree on by their manuals: whole numbers and text, no division, NULLs placed explicitly, and nothing
//! that depends on the order of rows where the statement leaves that open.

/// What a column holds; any may be NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Text,
}

/// A column of a relation. No two of a statement have one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// A source of random choices, and of names.
pub(super) struct Draw {
    rng: fastrand::Rng,
    names: u32,
}

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), names: 0 }
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.rng.usize(..end.max(1))
    }

    /// True once in `n` times.
    pub(super) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Some of `all`, in another order: `least` at least.
    pub(super) fn some<T: Clone>(&mut self, all: &[T], least: usize) -> Vec<T> {
        let mut all = all.to_vec();
        self.rng.shuffle(&mut all);
        let most = all.len();
        all.truncate((least + self.below(most.saturating_sub(least) + 1)).min(most));
        all
    }

    pub(super) fn name(&mut self, prefix: char) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    pub(super) fn column(&mut self, kind: Kind) -> Column {
        Column { name: self.name('c'), kind }
    }

    /// A constant as it occurs in the tables.
    pub(super) fn constant(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Number => (*self.of(&["0", "1", "2", "3", "6", "11", "25", "400"])).to_owned(),
            Kind::Text => format!("'{}'", self.of(&["AA", "B6", "UA", "JFK", "LGA", "ORD", "AIRBUS", "zz"])),
        }
    }

    /// A condition on rows of `columns`.
    pub(super) fn condition(&mut self, columns: &[Column]) -> String {
        let first = self.comparison(columns);
        match self.below(6) {
            0 => format!("{first} and {}", self.comparison(columns)),
            1 => format!("({first} or {})", self.comparison(columns)),
            2 => format!("not ({first})"),
            _ => first,
        }
    }

    fn comparison(&mut self, columns: &[Column]) -> String {
        let Column { name, kind } = self.of(columns).clone();
        let constant = self.constant(kind);
        let alike: Vec<&Column> = columns.iter().filter(|other| other.kind == kind && other.name != name).collect();
        match self.below(9) {
            0..3 => format!("{name} = {constant}"),
            3 => format!("{name} between {constant} and {constant}"),
            4 => format!("{name} is null"),
            5 => format!("{name} is not null"),
            6 => format!("{name} in ({constant}, {})", self.constant(kind)),
            7 if !alike.is_empty() => format!("{name} = {}", self.of(&alike).name),
            _ => format!("{name} > {constant}"),
        }
    }

    /// A whole order of rows of `columns`: all of them, so that only equal rows tie.
    pub(super) fn whole_order(&mut self, columns: &[Column]) -> String {
        let columns = self.some(columns, columns.len());
        self.order(&columns)
    }

    /// An order by `columns`.
    pub(super) fn order(&mut self, columns: &[Column]) -> String {
        let keys = columns.iter().map(|column| {
            let (direction, nulls) = (*self.of(&["asc", "desc"]), *self.of(&["first", "last"]));
            format!("{} {direction} nulls {nulls}", column.name)
        });
        keys.collect::<Vec<_>>().join(", ")
    }

    /// An aggregate of rows of `columns` and what kind it gives.
    pub(super) fn aggregate(&mut self, columns: &[Column]) -> (String, Kind) {
        let Column { name, kind } = self.of(columns).clone();
        let (call, kind) = match self.below(7) {
            0 => ("count(*)".to_owned(), Kind::Number),
            1 => (format!("count({name})"), Kind::Number),
            2 => (format!("count(distinct {name})"), Kind::Number),
            3 => (format!("min({name})"), kind),
            4 => (format!("max({name})"), kind),
            5 if kind == Kind::Number => (format!("sum(distinct {name})"), kind),
            _ if kind == Kind::Number => (format!("sum({name})"), kind),
            _ => (format!("min({name})"), kind),
        };
        if self.once_in(6) {
            return (format!("{call} filter (where {})", self.condition(columns)), kind);
        }
        (call, kind)
    }

    /// A window function over rows of `columns` and what kind it gives.
    pub(super) fn window(&mut self, columns: &[Column]) -> (String, Kind) {
        let Column { name, kind } = self.of(columns).clone();
        let partition = match self.below(3) {
            0 => String::new(),
            _ => {
                let keys = self.some(columns, 1);
                let keys: Vec<&str> = keys.iter().take(2).map(|key| key.name.as_str()).collect();
                format!("partition by {} ", keys.join(", "))
            }
        };
        let some = self.some(columns, 1);
        let (some, whole) = (self.order(&some[..1]), self.whole_order(columns));
        match self.below(9) {
            0 => (format!("row_number() over ({partition}order by {whole})"), Kind::Number),
            1 => (format!("rank() over ({partition}order by {some})"), Kind::Number),
            2 => (format!("dense_rank() over ({partition}order by {some})"), Kind::Number),
            3 => (format!("count({name}) over ({partition}order by {some})"), Kind::Number),
            4 => (format!("max({name}) over ({partition})"), kind),
            5 => (format!("lag({name}) over ({partition}order by {whole})"), kind),
            6 => (format!("first_value({name}) over ({partition}order by {whole})"), kind),
            7 => (format!("min({name}) over ({partition}order by {some})"), kind),
            _ => {
                let frame = self.of(&["2 preceding and current row", "unbounded preceding and 1 following"]);
                (format!("count({name}) over ({partition}order by {whole} rows between {frame})"), Kind::Number)
            }
        }
    }
}
