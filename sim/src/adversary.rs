//! Attackers. Whoever has another idea implements [`Adversary`] and hands it to [`crate::run::Run`].

use crate::rng::coin;

/// What a liar knows when it is asked: everything but the coordinator's randomness. It does not know whether it is
/// audited or who else has the task.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Number of the task, from 0.
    pub task: u64,
    /// A coin that all liars of the network share for this task: how a ring agrees without talking.
    pub ring: u64,
    /// A coin of this liar's own for this task.
    pub own: u64,
    /// Tasks that it has done under its present key.
    pub age: u64,
    /// Tasks that the network has released so far.
    pub released: u64,
}

/// A wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// One that nobody else gives.
    Own,
    /// The one that the ring has agreed on.
    Shared,
}

/// How liars behave. They come back under a new key whenever the present one is caught.
pub trait Adversary {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// What to answer; `None`: the right answer.
    fn lie(&self, moment: &Moment) -> Option<Lie>;
}

/// Each lies in a share of its tasks, on its own.
#[derive(Debug, Clone, Copy)]
pub struct Random {
    /// The share.
    pub rate: f64,
}

impl Adversary for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn lie(&self, moment: &Moment) -> Option<Lie> {
        coin(moment.own, self.rate).then_some(Lie::Own)
    }
}

/// All lie in the same share of tasks, with the same answer.
#[derive(Debug, Clone, Copy)]
pub struct Colluding {
    /// The share.
    pub rate: f64,
}

impl Adversary for Colluding {
    fn name(&self) -> &'static str {
        "colluding"
    }

    fn lie(&self, moment: &Moment) -> Option<Lie> {
        coin(moment.ring, self.rate).then_some(Lie::Shared)
    }
}

/// A ring whose members are honest until they have a record.
#[derive(Debug, Clone, Copy)]
pub struct Sleeper {
    /// Tasks that a key does honestly.
    pub honest_for: u64,
    /// Of the tasks after that, the share in which it lies.
    pub rate: f64,
}

impl Adversary for Sleeper {
    fn name(&self) -> &'static str {
        "sleeper"
    }

    fn lie(&self, moment: &Moment) -> Option<Lie> {
        (moment.age >= self.honest_for && coin(moment.ring, self.rate)).then_some(Lie::Shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lies_when() {
        let moment = |ring, own, age| Moment { task: 0, ring, own, age, released: 0 };
        let (low, high) = (0, u64::MAX);
        assert_eq!(Random { rate: 0.5 }.lie(&moment(high, low, 0)), Some(Lie::Own));
        assert_eq!(Random { rate: 0.5 }.lie(&moment(low, high, 0)), None);
        assert_eq!(Colluding { rate: 0.5 }.lie(&moment(low, high, 0)), Some(Lie::Shared));
        let sleeper = Sleeper { honest_for: 10, rate: 1.0 };
        assert_eq!(sleeper.lie(&moment(low, low, 9)), None);
        assert_eq!(sleeper.lie(&moment(low, low, 10)), Some(Lie::Shared));
    }
}
