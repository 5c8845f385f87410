//! The scheduler against a clock that is turned by hand and an executor that only pretends.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use proptest::prelude::*;

use super::journal::{Journal, Record};
use super::*;

const SECOND: u64 = 1_000;
const GIB: u64 = 1 << 30;
const BUDGET: Budget = Budget { memory_bytes: 4 * GIB, cores: 2 };

#[derive(Clone, Default)]
struct Hand(Rc<Cell<UnixMillis>>);

impl Clock for Hand {
    fn now(&self) -> UnixMillis {
        self.0.get()
    }
}

#[derive(Default)]
struct State {
    running: BTreeMap<TaskId, bool>,
    endings: BTreeMap<TaskId, Ending>,
    log: Vec<String>,
}

/// Runs nothing; tests say how tasks end.
#[derive(Clone, Default)]
struct Pretend(Rc<RefCell<State>>);

impl Executor for Pretend {
    fn start(&mut self, task: &Task) -> Result<(), Ending> {
        let mut state = self.0.borrow_mut();
        state.log.push(format!("start {}", task.id.0));
        state.running.insert(task.id, false);
        Ok(())
    }

    fn stop(&mut self, id: TaskId) {
        let mut state = self.0.borrow_mut();
        state.log.push(format!("stop {}", id.0));
        state.endings.entry(id).or_insert(Ending::Stopped);
    }

    fn poll(&mut self, id: TaskId) -> Polled {
        let mut state = self.0.borrow_mut();
        match state.endings.remove(&id) {
            Some(ending) => {
                state.running.remove(&id);
                Polled::Ended(ending)
            }
            None => Polled::Running(Vec::new()),
        }
    }
}

struct Rig {
    dir: tempfile::TempDir,
    hand: Hand,
    pretend: Pretend,
    engine: Conductor<Pretend, Hand>,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (hand, pretend) = (Hand::default(), Pretend::default());
        let engine = open(&dir, &pretend, &hand);
        Self { dir, hand, pretend, engine }
    }

    /// The process dies and comes back.
    fn crash(&mut self) {
        self.pretend = Pretend::default();
        self.engine = open(&self.dir, &self.pretend, &self.hand);
    }

    fn at(&mut self, seconds: u64) -> Vec<Event> {
        self.hand.0.set(seconds * SECOND);
        self.engine.tick().unwrap()
    }

    fn ends(&mut self, id: TaskId, ending: Ending) {
        self.pretend.0.borrow_mut().endings.insert(id, ending);
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.pretend.0.borrow_mut().log)
    }
}

fn open(dir: &tempfile::TempDir, pretend: &Pretend, hand: &Hand) -> Conductor<Pretend, Hand> {
    Conductor::open(&dir.path().join("queue"), BUDGET, pretend.clone(), hand.clone()).unwrap()
}

fn duty(class: Class, deadline_seconds: u64, cpu_seconds: u64, cores: u32, memory: u64) -> Duty {
    let cost = Cost { cpu_millis: cpu_seconds * SECOND, memory_bytes: memory, cores };
    let work = Work::Worker(Job::RestoreUnsealed { sector: PathBuf::new() });
    Duty { class, deadline: deadline_seconds * SECOND, cost, work }
}

fn done() -> Ending {
    Ending::Done(Output::Worker(JobResult::RestoreUnsealed))
}

#[test]
fn proofs_go_before_seals_and_the_earlier_deadline_first() {
    let mut rig = Rig::new();
    for duty in [
        duty(Class::Upkeep, 10, 1, 2, GIB),
        duty(Class::Seal, 20, 1, 2, GIB),
        duty(Class::Spacetime, 90, 1, 2, GIB),
        duty(Class::Spacetime, 60, 1, 2, GIB),
        duty(Class::Seal, 15, 1, 2, GIB),
    ] {
        rig.engine.submit(duty).unwrap();
    }
    let mut order = Vec::new();
    for second in 0..5 {
        rig.at(second);
        let running: Vec<_> = rig.pretend.0.borrow().running.keys().copied().collect();
        assert_eq!(running.len(), 1, "two cores each: one at a time");
        order.push(running[0].0);
        rig.ends(running[0], done());
    }
    assert_eq!(order, [3, 2, 4, 1, 0]);
}

#[test]
fn a_proof_stops_a_seal_which_then_goes_on() {
    let mut rig = Rig::new();
    let seal = rig.engine.submit(duty(Class::Seal, 1_000, 100, 2, 3 * GIB)).unwrap();
    rig.at(0);
    let proof = rig.engine.submit(duty(Class::Spacetime, 30, 1, 1, GIB)).unwrap();
    rig.at(1);
    assert_eq!(rig.log(), ["start 0", "stop 0"]);
    let events = rig.at(2);
    assert!(events.contains(&Event::Started(proof)), "{events:?}");
    // The seal is not started beside it: it needs both cores.
    assert_eq!(rig.log(), ["start 1"]);
    rig.ends(proof, done());
    let events = rig.at(3);
    assert!(events.contains(&Event::Started(seal)), "{events:?}");
    assert_eq!(rig.engine.status().tasks[0].attempts, 0, "being stopped is no failure");
}

#[test]
fn a_proof_that_fits_leaves_seals_alone() {
    let mut rig = Rig::new();
    rig.engine.submit(duty(Class::Seal, 1_000, 100, 1, GIB)).unwrap();
    rig.at(0);
    rig.engine.submit(duty(Class::Spacetime, 30, 1, 1, GIB)).unwrap();
    rig.at(1);
    assert_eq!(rig.log(), ["start 0", "start 1"]);
}

#[test]
fn nothing_that_cannot_fit_is_taken_and_no_seal_is_stopped_in_vain() {
    let mut rig = Rig::new();
    for (cores, memory) in [(3, GIB), (1, 5 * GIB)] {
        let refused = rig.engine.submit(duty(Class::Spacetime, 30, 1, cores, memory)).unwrap_err();
        assert!(matches!(refused, EngineError::Submit(SubmitError::OverBudget { .. })), "{refused}");
    }
    rig.hand.0.set(50 * SECOND);
    let late = rig.engine.submit(duty(Class::Spacetime, 50, 1, 1, GIB)).unwrap_err();
    assert!(matches!(late, EngineError::Submit(SubmitError::Late)), "{late}");
    // Another proof holds the memory: stopping the seal would not help.
    rig.engine.submit(duty(Class::Spacetime, 500, 10, 1, 3 * GIB)).unwrap();
    rig.engine.submit(duty(Class::Seal, 900, 10, 1, GIB)).unwrap();
    rig.at(51);
    rig.engine.submit(duty(Class::Spacetime, 400, 10, 1, 2 * GIB)).unwrap();
    rig.at(52);
    assert_eq!(rig.log(), ["start 0", "start 1"]);
}

#[test]
fn risk_is_told_once_and_before_the_deadline_is_missed() {
    let mut rig = Rig::new();
    let first = rig.engine.submit(duty(Class::Spacetime, 100, 120, 2, GIB)).unwrap();
    let second = rig.engine.submit(duty(Class::Spacetime, 101, 100, 2, GIB)).unwrap();
    let events = rig.at(0);
    let risks: Vec<_> = events.iter().filter(|event| matches!(event, Event::AtRisk { .. })).collect();
    // 60 s of 100 are well; the other one would be there after 110 of 101.
    assert_eq!(risks, [&Event::AtRisk { id: second, deadline: 101_000, expected: 110_000 }]);
    assert!(!rig.at(1).iter().any(|event| matches!(event, Event::AtRisk { .. })));
    assert!(rig.engine.status().to_string().contains("AT RISK"));
    let events = rig.at(102);
    let missed: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::Missed(task) = event { Some(task.id) } else { None })
        .collect();
    assert_eq!(missed, [first, second]);
    // The one that ran is told to stop; when it has, nothing is left.
    assert_eq!(rig.log(), ["start 0", "stop 0"]);
    assert!(rig.at(103).is_empty());
    assert!(rig.engine.status().tasks.is_empty());
}

#[test]
fn failures_are_tried_again_with_pauses_that_never_miss_the_deadline() {
    let mut rig = Rig::new();
    let id = rig.engine.submit(duty(Class::Spacetime, 10, 2, 1, GIB)).unwrap();
    rig.at(0);
    let failed = |permanent| Ending::Failed { permanent, reason: "disk".to_owned() };
    rig.ends(id, failed(false));
    assert!(rig.at(1).contains(&Event::Retried { id, reason: "disk".to_owned() }));
    assert!(rig.at(2).contains(&Event::Started(id)));
    rig.ends(id, failed(false));
    rig.at(7);
    // Two seconds of pause would end at 9, too late for two seconds of work.
    assert!(rig.at(8).contains(&Event::Started(id)));
    rig.ends(id, failed(true));
    let events = rig.at(9);
    assert!(matches!(&events[..], [Event::Failed { task, .. }] if task.id == id), "{events:?}");
}

#[test]
fn running_out_of_memory_asks_for_more_until_the_budget_ends() {
    let mut rig = Rig::new();
    let id = rig.engine.submit(duty(Class::Seal, 10_000, 2, 1, GIB)).unwrap();
    let mut second = 0;
    for expected in [2, 4] {
        rig.at(second);
        rig.ends(id, Ending::OutOfMemory);
        rig.at(second + 1);
        assert_eq!(rig.engine.core.task(id).unwrap().duty.cost.memory_bytes, expected * GIB);
        second += 1_000;
    }
    rig.at(second);
    rig.ends(id, Ending::OutOfMemory);
    assert!(matches!(&rig.at(second + 1)[..], [Event::Failed { .. }]));
}

#[test]
fn endless_failures_end() {
    let mut rig = Rig::new();
    let id = rig.engine.submit(duty(Class::Seal, 1, 1, 1, GIB)).unwrap();
    let mut runs = 0;
    for second in 0..2_000 {
        for event in rig.at(second) {
            match event {
                Event::Started(_) => {
                    runs += 1;
                    rig.ends(id, Ending::Failed { permanent: false, reason: "again".to_owned() });
                }
                Event::Failed { .. } => {
                    assert_eq!(runs, core::ATTEMPTS_MAX);
                    return;
                }
                _ => {}
            }
        }
    }
    panic!("tried {runs} times and not given up");
}

#[test]
fn cancelled_tasks_are_stopped_and_forgotten() {
    let mut rig = Rig::new();
    let running = rig.engine.submit(duty(Class::Seal, 100, 10, 2, GIB)).unwrap();
    let queued = rig.engine.submit(duty(Class::Seal, 200, 10, 2, GIB)).unwrap();
    rig.at(0);
    rig.engine.cancel(running).unwrap();
    rig.engine.cancel(queued).unwrap();
    assert!(matches!(rig.engine.cancel(running), Err(EngineError::Unknown(_))));
    assert!(matches!(rig.engine.cancel(TaskId(99)), Err(EngineError::Unknown(_))));
    assert!(rig.at(1).is_empty());
    assert!(rig.engine.status().tasks.is_empty());
    assert_eq!(rig.log(), ["start 0", "stop 0"]);
    rig.crash();
    assert!(rig.engine.status().tasks.is_empty());
}

#[test]
fn a_crash_forgets_nothing_and_repeats_what_ran() {
    let mut rig = Rig::new();
    let seal = rig.engine.submit(duty(Class::Seal, 100, 10, 1, GIB)).unwrap();
    let proof = rig.engine.submit(duty(Class::Spacetime, 50, 1, 1, GIB)).unwrap();
    let over = rig.engine.submit(duty(Class::Spacetime, 40, 1, 1, GIB)).unwrap();
    rig.at(0);
    rig.ends(over, done());
    rig.at(1);
    rig.crash();
    let events = rig.at(2);
    assert_eq!(events, [Event::Started(proof), Event::Started(seal)]);
    let after = rig.engine.submit(duty(Class::Seal, 100, 10, 1, GIB)).unwrap();
    assert!(after > over, "names are never used twice");
}

#[test]
fn names_are_not_used_twice_even_when_the_last_was_over_before_a_crash() {
    let mut rig = Rig::new();
    let first = rig.engine.submit(duty(Class::Seal, 100, 10, 1, GIB)).unwrap();
    rig.engine.cancel(first).unwrap();
    rig.crash();
    rig.crash();
    assert!(rig.engine.submit(duty(Class::Seal, 100, 10, 1, GIB)).unwrap() > first);
}

#[test]
fn a_torn_journal_is_cut_and_a_damaged_one_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue");
    let task =
        |id| Task { id: TaskId(id), duty: duty(Class::Seal, 9, 1, 1, GIB), attempts: 0, not_before: 0 };
    {
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&[Record::Task(task(0)), Record::Task(task(1))]).unwrap();
    }
    let bytes = std::fs::read(&path).unwrap();
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, 3);
    for cut in 0..bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
        let (_, replay) = Journal::open(&path).unwrap();
        assert_eq!(replay.tasks.len(), whole.saturating_sub(1), "cut at {cut}");
    }
    let last_line = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x01;
        std::fs::write(&path, &bad).unwrap();
        match Journal::open(&path) {
            // Only the last line may be given up silently: a write that was torn looks like that. A newline is none.
            Ok((_, replay)) => {
                assert!(at >= last_line && at + 1 < bytes.len() && replay.tasks.len() == 1, "flip at {at}");
            }
            Err(JournalError::Damaged { line, .. }) => assert!(line <= 3, "flip at {at}"),
            Err(other) => panic!("{other}"),
        }
        // Nothing was thrown away.
        if at < last_line || at + 1 == bytes.len() {
            assert_eq!(std::fs::read(&path).unwrap(), bad);
        }
    }
}

#[test]
fn the_journal_stays_small() {
    let mut rig = Rig::new();
    for _ in 0..2_500 {
        let id = rig.engine.submit(duty(Class::Upkeep, 1, 1, 1, GIB)).unwrap();
        rig.engine.cancel(id).unwrap();
        rig.at(0);
    }
    let bytes = std::fs::metadata(rig.dir.path().join("queue")).unwrap().len();
    assert!(bytes < 2 << 20, "{bytes} bytes");
    rig.crash();
    assert!(rig.engine.status().tasks.is_empty());
}

#[test]
fn pressure_rises_with_seals_and_proofs() {
    let policy = PressurePolicy {
        seal: Cost { cpu_millis: 100 * SECOND, memory_bytes: 2 * GIB, cores: 1 },
        seal_millis_max: 250 * SECOND,
        horizon_millis: 100 * SECOND,
        proof_percent_max: 50,
    };
    let mut rig = Rig::new();
    let calm = rig.engine.pressure(&policy);
    assert!(calm.accepts && calm.new_seal_millis == 100 * SECOND && calm.proof_percent == 0, "{calm:?}");
    for _ in 0..4 {
        rig.engine.submit(Duty { cost: policy.seal, ..duty(Class::Seal, 10_000, 0, 1, 0) }).unwrap();
    }
    // Two at a time: the fifth would be finished with the third pair.
    let full = rig.engine.pressure(&policy);
    assert!(!full.accepts && full.new_seal_millis == 300 * SECOND, "{full:?}");
    let mut rig = Rig::new();
    for _ in 0..3 {
        rig.engine.submit(duty(Class::Spacetime, 90, 35, 1, GIB)).unwrap();
    }
    let proving = rig.engine.pressure(&policy);
    assert!(!proving.accepts && proving.proof_percent == 52, "{proving:?}");
}

proptest! {
    /// Whatever comes, in whatever order it ends: the budget holds, and no seal runs while a proof waits that it
    /// could have made room for.
    #[test]
    fn the_budget_is_never_exceeded(
        duties in proptest::collection::vec((0_u8..4, 1_u64..200, 1_u64..30, 1_u32..3, 1_u64..5), 1..30),
        ends in proptest::collection::vec((0_usize..8, 0_u8..4), 60),
    ) {
        let mut rig = Rig::new();
        let mut duties = duties.into_iter();
        for (second, (pick, how)) in ends.into_iter().enumerate() {
            if let Some((class, deadline, cpu, cores, memory)) = duties.next() {
                let class = [Class::Spacetime, Class::Spacetime, Class::Seal, Class::Upkeep][usize::from(class)];
                let _ = rig.engine.submit(duty(class, deadline, cpu, cores, memory * GIB));
            }
            rig.at(second as u64);
            let status = rig.engine.status();
            prop_assert!(status.used.cores <= BUDGET.cores && status.used.memory_bytes <= BUDGET.memory_bytes);
            let running: Vec<_> = rig.pretend.0.borrow().running.keys().copied().collect();
            prop_assert_eq!(rig.engine.core.running().collect::<Vec<_>>(), running.clone());
            if let Some(id) = running.get(pick) {
                rig.ends(*id, match how {
                    0 => done(),
                    1 => Ending::Failed { permanent: false, reason: String::new() },
                    2 => Ending::OutOfMemory,
                    _ => Ending::Stopped,
                });
            }
        }
    }
}
