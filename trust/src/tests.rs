//! The engine as a whole: small networks played through, properties, replay.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use conun_types::{JobId, Rng};
use proptest::prelude::*;

use crate::{Action, Caught, Demand, Found, Mode, Need, Outcome, Poll, Rank, Rules, Trust};

/// A stream of numbers.
pub(crate) struct Seeded(AtomicU64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Rng for Seeded {
    fn fill(&self, out: &mut [u8]) {
        for byte in out {
            let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8;
        }
    }
}

const NOW: Duration = Duration::from_secs(1_000_000);
const JOB: JobId = JobId([1; 16]);
const ALL: [u32; 40] = {
    let mut all = [0; 40];
    let mut n = 0;
    while n < 40 {
        all[n] = n as u32;
        n += 1;
    }
    all
};

type Engine = Trust<u32, u64>;

/// Plays one task among `ALL`, where `answer` says who says what. Returns what was accepted, the votes, who was caught.
fn play(
    trust: &mut Engine,
    task: u64,
    poll: Poll<u32, u8>,
    lead: Option<u32>,
    answer: &dyn Fn(u32) -> u8,
    rng: &Seeded,
) -> (u8, Poll<u32, u8>, Vec<Caught<u32, u64>>) {
    let (mut poll, mut lead) = (poll, lead);
    loop {
        match trust.next(&poll) {
            Action::Launch => {
                let next = lead.take().or_else(|| trust.replica(JOB, task, &poll, &ALL, NOW, rng)).unwrap();
                poll.started(next);
                poll.voted(next, answer(next));
            }
            Action::Accept { ballot, bound } => {
                assert!(bound <= 1.0 && (poll.votes().len() == 1 || poll.mode() != Mode::Votes || bound <= 1e-4));
                let caught = trust.settle(JOB, task, &poll, &ballot, |_| false, NOW, rng);
                return (ballot, poll, caught);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn step(trust: &mut Engine, task: u64, answer: &dyn Fn(u32) -> u8, rng: &Seeded) -> (u8, Poll<u32, u8>) {
    let plan = trust.plan(JOB, Demand::Audit, &ALL, NOW, rng).unwrap();
    let poll = trust.poll(&plan);
    let (accepted, poll, _) = play(trust, task, poll, Some(plan.lead), answer, rng);
    (accepted, poll)
}

/// An engine whose operators all have a record.
fn seasoned(rng: &Seeded) -> Engine {
    let mut trust = Engine::new(Rules::default());
    for task in 0.. {
        step(&mut trust, task, &|_| 0, rng);
        if ALL.iter().all(|o| trust.rank(o, NOW) == Rank::Established) {
            for audit in trust.audits(JOB, true, rng) {
                let poll = trust.audit(audit.worker, 0);
                play(&mut trust, audit.task, poll, None, &|_| 0, rng);
            }
            assert!(trust.release(JOB));
            return trust;
        }
    }
    unreachable!()
}

#[test]
fn newcomers_are_compared_and_records_make_it_cheaper() {
    let rng = Seeded::new(1);
    let mut trust = Engine::new(Rules::default());
    assert_eq!(step(&mut trust, 0, &|_| 0, &rng).1.votes().len(), 5);
    (1..600).for_each(|task| _ = step(&mut trust, task, &|_| 0, &rng));
    let (_, poll) = step(&mut trust, 600, &|_| 0, &rng);
    assert_eq!((poll.votes().len(), poll.mode()), (2, Mode::Votes), "ten checks each: two votes suffice");
    let mut trust = seasoned(&rng);
    let (_, poll) = step(&mut trust, 0, &|_| 0, &rng);
    assert_eq!((poll.votes().len(), poll.mode()), (1, Mode::Solo));
}

#[test]
fn a_ring_in_the_minority_never_wins_a_dispute() {
    let rng = Seeded::new(2);
    let mut trust = seasoned(&rng);
    for task in 0..200 {
        let ring = |o: u32| u8::from(o < 4);
        let poll = trust.doubt(Demand::Audit);
        let (accepted, poll, caught) = play(&mut trust, task, poll, None, &ring, &rng);
        assert_eq!(accepted, 0, "{:?}", poll.votes());
        assert!(caught.iter().all(|c| c.operator < 4));
    }
    assert!((0..4).all(|o| trust.rank(&o, NOW) <= Rank::Quarantined));
    assert!((4..40).all(|o| trust.rank(&o, NOW) == Rank::Established));
}

#[test]
fn a_sleeper_is_caught_before_its_job_is_released() {
    let rng = Seeded::new(3);
    for awake in 0..20u32 {
        let mut trust = seasoned(&rng);
        let mut answers: BTreeMap<u64, u8> = BTreeMap::new();
        let lies = |o: u32| u8::from(o == awake);
        for task in 0..3000 {
            answers.insert(task, step(&mut trust, task, &lies, &rng).0);
        }
        while !trust.release(JOB) {
            for audit in trust.audits(JOB, true, &rng) {
                if trust.rank(&audit.worker, NOW) <= Rank::Quarantined {
                    continue;
                }
                let poll = trust.audit(audit.worker, answers[&audit.task]);
                let (accepted, _, caught) = play(&mut trust, audit.task, poll, None, &lies, &rng);
                answers.insert(audit.task, accepted);
                for (_, task) in caught.into_iter().flat_map(|c| c.rerun) {
                    let poll = trust.doubt(Demand::Audit);
                    let again = play(&mut trust, task, poll, None, &lies, &rng).0;
                    answers.insert(task, again);
                }
            }
        }
        assert!(answers.values().all(|a| *a == 0), "{awake}");
    }
}

#[test]
fn audits_do_not_decay_with_the_record() {
    let rng = Seeded::new(4);
    let mut trust = seasoned(&rng);
    let audits = |trust: &mut Engine| {
        (0..20_000).for_each(|task| _ = step(trust, task, &|_| 0, &rng));
        trust.audits(JOB, true, &rng).len() as f64
    };
    let (early, late) = (audits(&mut trust), audits(&mut trust));
    assert!(early > 700.0 && (late / early - 1.0).abs() < 0.15, "{early} {late}");
}

#[test]
fn a_flipped_bit_costs_the_record_and_no_conviction() {
    let rng = Seeded::new(5);
    let mut trust = seasoned(&rng);
    let caught = trust.observe(7, Outcome::Wrong, NOW, &rng).unwrap();
    assert!(!caught.convicted);
    assert_eq!(trust.rank(&7, NOW), Rank::Quarantined);
    assert_eq!(trust.rank(&7, NOW * 2), Rank::Newcomer);
    for outcome in [Outcome::Late, Outcome::Offline, Outcome::Faulty] {
        (0..50).for_each(|_| assert!(trust.observe(8, outcome, NOW, &rng).is_none()));
    }
    assert_eq!(trust.rank(&8, NOW), Rank::Established, "a fault is no lie");
    assert!(trust.standing(&8).unwrap().promptness < 0.1);
    assert!(trust.observe(9, Outcome::Equivocation, NOW, &rng).unwrap().convicted);
    assert_eq!(trust.rank(&9, NOW * 9), Rank::Convicted);
}

/// An engine in which operator 7 has released a hundred tasks of its own, and is caught.
fn caught_with_a_past(rng: &Seeded) -> (Engine, Caught<u32, u64>) {
    let mut trust = seasoned(rng);
    let job = JobId([2; 16]);
    for task in 0..100 {
        let plan = trust.plan(job, Demand::Audit, &[7], NOW, rng).unwrap();
        let mut poll = trust.poll(&plan);
        poll.voted(7, 0);
        trust.settle(job, task, &poll, &0u8, |_| false, NOW, rng);
    }
    for audit in trust.audits(job, true, rng) {
        let mut poll = trust.audit(7, 0u8);
        poll.voted(8, 0);
        trust.settle(job, audit.task, &poll, &0, |_| false, NOW, rng);
    }
    assert!(trust.release(job));
    let caught = trust.observe(7, Outcome::Wrong, NOW, rng).unwrap();
    assert!(caught.probe.len() + caught.rest.len() >= 100);
    (trust, caught)
}

#[test]
fn lies_that_got_out_sound_the_alarm_and_everybody_is_compared() {
    let rng = Seeded::new(6);
    let (mut trust, mut caught) = caught_with_a_past(&rng);
    caught.rerun = (0..40).map(|task| (JOB, task)).collect();
    let always = Found { in_rerun: 39, in_probe: 0 };
    assert!(trust.probed(&caught, always).is_empty(), "it woke just now: nothing got out");
    let rarely = Found { in_rerun: 0, in_probe: 0 };
    assert_eq!(trust.probed(&caught, rarely), caught.rest, "who lies rarely did before");
    assert_eq!(trust.probed(&caught, Found { in_rerun: 39, in_probe: 1 }), caught.rest);
    trust.leaked(0);
    assert!(!trust.is_alarmed());
    trust.leaked(2);
    assert!(trust.is_alarmed());
    assert_eq!(step(&mut trust, 0, &|_| 0, &rng).1.mode(), Mode::Votes);
    (1..1500).for_each(|task| _ = step(&mut trust, task, &|_| 0, &rng));
    assert!(!trust.is_alarmed(), "it ends where no liar is found");
}

#[test]
fn newcomers_cannot_spend_more_than_their_budget() {
    let rng = Seeded::new(7);
    let mut trust = seasoned(&rng);
    let crowd: Vec<u32> = ALL.iter().copied().chain(1000..1200).collect();
    let led = (0..10_000).filter(|_| {
        let plan = trust.plan(JOB, Demand::Audit, &crowd, NOW, &rng).unwrap();
        assert!(plan.lead < 1000 || plan.mode == Mode::Probation);
        plan.lead >= 1000
    });
    let led = led.count();
    assert!((240..=300).contains(&led), "250 and 50 saved, though most candidates are newcomers: {led}");
}

#[test]
fn the_quorum_that_it_replaces_is_a_demand() {
    let mut poll: Poll<u32, u8> = Poll::new(Mode::Votes, Need::votes(2));
    let trust = Engine::new(Rules::default());
    assert_eq!(trust.next(&poll), Action::Launch);
    poll.started(1);
    poll.started(2);
    assert_eq!(trust.next(&poll), Action::Wait);
    poll.voted(1, 0);
    poll.out_of_patience(&[2]);
    assert_eq!(trust.next(&poll), Action::Launch, "the late one is doubled");
    poll.started(3);
    assert_eq!(trust.next(&poll), Action::Wait);
    poll.voted(3, 1);
    assert_eq!(trust.next(&poll), Action::Launch, "a third where two differ");
    poll.exhausted(true);
    assert!(matches!(trust.next(&poll), Action::GiveUp { bound } if bound > 0.5));
    poll.voted(2, 0);
    assert!(matches!(trust.next(&poll), Action::Accept { ballot: 0, bound } if (bound - 0.11).abs() < 1e-2));
}

#[test]
fn the_state_reads_back_and_goes_on_alike() {
    let rng = Seeded::new(8);
    let mut trust = seasoned(&rng);
    (0..100).for_each(|task| _ = step(&mut trust, task, &|_| 0, &rng));
    let text = serde_json::to_string(&trust).unwrap();
    let mut again: Engine = serde_json::from_str(&text).unwrap();
    assert_eq!(again, trust);
    let (a, b) = (Seeded::new(9), Seeded::new(9));
    for task in 100..300 {
        assert_eq!(step(&mut trust, task, &|_| 0, &a).1.votes(), step(&mut again, task, &|_| 0, &b).1.votes());
    }
    assert_eq!(again, trust);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is said and in whatever order: a poll ends, counts each operator once, and never accepts what fewer than
    /// the needed votes say.
    #[test]
    fn polls_end(answers in proptest::collection::vec(0u8..4, 40), seed in any::<u64>(), votes in 1usize..5) {
        let rng = Seeded::new(seed);
        let mut trust = Engine::new(Rules::default());
        let mut poll = Poll::new(Mode::Votes, Need::votes(votes));
        for _ in 0..100 {
            match trust.next(&poll) {
                Action::Launch => match trust.replica(JOB, 0, &poll, &ALL, NOW, &rng) {
                    Some(next) => {
                        prop_assert!(!poll.knows(&next));
                        poll.started(next);
                        poll.voted(next, answers[next as usize]);
                        poll.voted(next, 9);
                    }
                    None => poll.exhausted(true),
                },
                Action::Accept { ballot, bound } => {
                    let said = poll.votes().values().filter(|b| **b == ballot).count();
                    prop_assert!(said >= votes && (0.0..=1.0).contains(&bound));
                    return Ok(());
                }
                Action::GiveUp { .. } => return Ok(()),
                Action::Wait => prop_assert!(false, "nobody runs"),
            }
        }
        prop_assert!(false, "it does not end");
    }

    /// Honest operators among a minority of any liars are never convicted.
    #[test]
    fn honest_operators_are_not_convicted(lies in proptest::collection::vec(0u8..3, 4), seed in any::<u64>()) {
        let rng = Seeded::new(seed);
        let mut trust = Engine::new(Rules::default());
        for task in 0..300 {
            step(&mut trust, task, &|o| lies.get(o as usize).copied().unwrap_or(0), &rng);
        }
        prop_assert!((4..40).all(|o| trust.rank(&o, NOW) >= Rank::Newcomer));
    }
}

/// Votes that are there before anybody is asked: a task that is looked at again.
#[test]
fn a_tie_asks_one_more_and_hangs_nobody() {
    let trust = Engine::new(Rules::default());
    for votes in [1, 2] {
        let mut poll: Poll<u32, u8> = Poll::new(Mode::Votes, Need::votes(2));
        (0..2 * votes).for_each(|operator| poll.voted(operator, u8::from(operator < votes)));
        assert_eq!(trust.next(&poll), Action::Launch, "{votes} against {votes}");
        poll.exhausted(true);
        assert!(matches!(trust.next(&poll), Action::GiveUp { .. }), "{votes} against {votes}, and nobody is left");
    }
}

#[test]
fn several_votes_lost_at_once_are_one_strike() {
    let rng = Seeded::new(1);
    let mut trust = Engine::new(Rules::default());
    for _ in 0..5 {
        let caught = trust.observe(7, Outcome::Wrong, NOW, &rng).unwrap();
        assert!(!caught.convicted, "one fault, seen on several tasks");
    }
    assert!(trust.observe(7, Outcome::Equivocation, NOW, &rng).unwrap().convicted, "no accident does that");
}
