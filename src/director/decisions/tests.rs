//! The ring by itself; what a decision shows is tested with the director.

use super::*;
use crate::request::{Api, Parsed};

fn refused(id: &str, clock: &Clock) -> Recorded {
    let parsed = Parsed::opaque(Api::Completions);
    let asked = Asked {
        id: id.into(),
        received: clock.now(),
        model: parsed.model.unwrap_or_default(),
        target_model: "m".into(),
        priority: 0,
        prompt_tokens: 5,
        body_bytes: 20,
    };
    let verdict = Verdict::Refused { code: "Shed", message: "full".to_owned() };
    Recorded::new(asked, clock.now(), Duration::from_micros(3), 1, verdict)
}

#[test]
fn the_oldest_give_way_to_number_and_to_bytes() {
    let clock = Clock::manual();
    let ids = |d: &Decisions| d.newest(10).into_iter().map(|s| s.request_id).collect::<Vec<_>>();
    let by_number = Decisions::new(Keep { decisions: 2, bytes: usize::MAX }, clock.clone());
    let by_bytes = Decisions::new(Keep { decisions: 100, bytes: 2 * size_of::<Recorded>() }, clock.clone());
    let tiny = Decisions::new(Keep { decisions: 100, bytes: 1 }, clock.clone());
    for id in ["a", "b", "c"] {
        for decisions in [&by_number, &by_bytes, &tiny] {
            decisions.push(refused(id, &clock));
        }
    }
    assert_eq!(
        (ids(&by_number), ids(&by_bytes), ids(&tiny)),
        (vec!["c".into(), "b".into()], vec!["c".into(), "b".into()], vec!["c".to_owned()])
    );
    assert_eq!((by_number.made(), by_number.newest(1).len()), (3, 1));
    assert!(!Decisions::new(Keep { decisions: 0, bytes: 9 }, clock).is_on());
}

#[test]
fn a_refusal_is_explained_and_what_came_later_is_added() {
    let clock = Clock::manual();
    let decisions = Decisions::new(Keep { decisions: 4, bytes: 1 << 20 }, clock.clone());
    decisions.push(refused("a", &clock));
    let second = decisions.push(refused("a", &clock));
    second.happened(|after| after.status = Some(200));
    clock.advance(Duration::from_millis(70));
    let explanation = decisions.explain("a").unwrap();
    assert_eq!((explanation.summary.status, explanation.summary.age_ms), (Some(200), 70), "the newest one");
    assert_eq!(
        (explanation.summary.refused.as_deref(), explanation.refusal.as_deref()),
        (Some("Shed"), Some("full"))
    );
    assert!(decisions.explain("b").is_none());
}
