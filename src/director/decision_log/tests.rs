//! What becomes an entry, and what a line says.

use super::*;
use crate::request::{Api, Parsed};
use serde_json::Value;

fn settings(sample: f64, queue: usize) -> LogSettings {
    let sessions =
        ["x-session-id", "cookie:sid"].iter().filter_map(|text| SessionPlace::read(text)).collect();
    LogSettings { key: LogKey::of(b"a key of sixteen").unwrap(), sample, sessions, queue }
}

fn log(sample: f64, queue: usize) -> (DecisionLog, Receiver<LogItem>, Writing) {
    let clock = Clock::manual();
    let origin = Origin { at: clock.now(), unix: Duration::from_secs(1_000_000) };
    DecisionLog::channel(settings(sample, queue), clock, origin)
}

fn request(id: &str, headers: &[(&str, &str)], prompt: Prompt) -> InferenceRequest {
    let mut all = Headers::default();
    for (name, value) in headers {
        all.push(name, bytes::Bytes::copy_from_slice(value.as_bytes()));
    }
    let mut parsed = Parsed::opaque(Api::Completions);
    parsed.model = Some("m".into());
    parsed.prompt = prompt;
    InferenceRequest {
        id: id.into(),
        received: Clock::manual().now().plus(Duration::from_micros(1500)),
        headers: all,
        parsed,
        target_model: "t".into(),
        priority: -1,
        fairness_id: "f".into(),
        body_bytes: 0,
        wishes: Default::default(),
    }
}

fn refused(log: &DecisionLog, request: InferenceRequest) -> Entry {
    let kept = log.keeps(&request).unwrap();
    let decided = (3, Duration::from_micros(7));
    Entry::new(Arc::new(request), kept, decided, Fate::Refused("Shed"), After::default())
}

fn line(items: &Receiver<LogItem>, writing: &Writing) -> Value {
    let LogItem::Entry(entry) = items.try_recv().unwrap() else { panic!("no entry") };
    let mut out = Vec::new();
    writing.write(&entry, &mut out);
    assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn whole_sessions_are_kept_in_about_the_share_that_was_asked_for() {
    let (log, ..) = log(0.25, 1);
    let kept = |session: usize, turn: usize| {
        let id = format!("{session}-{turn}");
        log.keeps(&request(&id, &[("x-session-id", &format!("s{session}"))], Prompt::None)).is_some()
    };
    let mut sessions = 0;
    for session in 0..2000 {
        let first = kept(session, 0);
        sessions += usize::from(first);
        assert!((1..8).all(|turn| kept(session, turn) == first), "session {session} is torn");
    }
    assert!((400..600).contains(&sessions), "{sessions} of 2000");
    let alone =
        (0..2000).filter(|i| log.keeps(&request(&format!("r{i}"), &[], Prompt::None)).is_some()).count();
    assert!((400..600).contains(&alone), "{alone} of 2000 without a session, by their ids");
}

#[test]
fn all_are_kept_without_sampling_and_a_session_may_stand_in_a_cookie() {
    let (log, ..) = log(1.0, 1);
    let kept = |headers: &[(&str, &str)]| log.keeps(&request("r", headers, Prompt::None)).unwrap().session;
    let wanted = Some(settings(1.0, 1).key.session("abc"));
    assert_eq!(kept(&[]), None);
    assert_eq!(kept(&[("x-session-id", " abc ")]), wanted);
    assert_eq!(kept(&[("cookie", "a=b; sid=abc")]), wanted);
    assert_eq!(kept(&[("cookie", "sid=other"), ("x-session-id", "abc")]), wanted, "the first place counts");
    assert!((0..500).all(|i| log.keeps(&request(&format!("{i}"), &[], Prompt::None)).is_some()));
    assert_eq!((SessionPlace::read(" "), SessionPlace::read("cookie: ")), (None, None));
}

#[test]
fn a_line_has_the_fields_of_a_trace_and_nothing_said_in_confidence() {
    let (log, items, writing) = log(1.0, 4);
    let pool = log.of_pool(&Arc::from("blue"));
    let headers = [("x-session-id", "session-a11e"), ("authorization", "Bearer 91bc"), ("cookie", "c=55de")];
    pool.push(refused(&log, request("r-1", &headers, Prompt::Tokens(vec![vec![7; 130]]))));
    let line = line(&items, &writing);
    assert_eq!(line["at_ms"].as_f64(), Some(1_000_000_001.5));
    assert_eq!((line["prompt_tokens"].as_u64(), line["block_tokens"].as_u64()), (Some(130), Some(64)));
    let blocks = line["blocks"].as_array().unwrap();
    assert!(blocks.len() == 3 && blocks.iter().all(|b| b.as_str().unwrap().len() == 16), "{line}");
    assert_eq!(line["session"].as_str().unwrap().len(), 16);
    assert_eq!((line["model"].as_str(), line["target_model"].as_str()), (Some("m"), Some("t")));
    assert_eq!((line["outcome"].as_str(), line["refused"].as_str()), (Some("refused"), Some("Shed")));
    assert_eq!((line["pool"].as_str(), line["generation"].as_u64()), (Some("blue"), Some(3)));
    assert!(line["output_tokens"].is_null() && line["endpoints"].as_array().unwrap().is_empty());
    let text = line.to_string();
    assert!(["a11e", "91bc", "55de"].iter().all(|secret| !text.contains(secret)), "{text}");
}

#[test]
fn a_prompt_that_was_not_seen_has_the_length_that_was_reported() {
    let (log, items, writing) = log(1.0, 4);
    let mut entry = refused(&log, request("r", &[], Prompt::None));
    entry.after.usage.prompt = Some(77);
    log.push(entry);
    log.push(refused(&log, request("r", &[], Prompt::None)));
    assert_eq!(line(&items, &writing)["prompt_tokens"], 77);
    assert_eq!(line(&items, &writing)["prompt_tokens"], 1);
}

#[test]
fn what_does_not_fit_is_dropped_and_its_room_given_back() {
    let (log, items, _) = log(1.0, 2);
    let entry = || refused(&log, request("r", &[], Prompt::Tokens(vec![vec![0; 1000]])));
    let waiting = || log.shared.waiting.load(Relaxed);
    (0..5).for_each(|_| log.push(entry()));
    let two = waiting();
    assert!((8000..12_000).contains(&two), "{two} bytes of two entries");
    assert_eq!(items.try_iter().count(), 2, "the other three were dropped");
    assert_eq!(waiting(), 0);
    drop(items);
    log.push(entry());
    assert_eq!(waiting(), 0, "without a writer nothing waits");
}

#[test]
fn the_bytes_that_wait_are_bounded_and_a_single_entry_always_fits() {
    let (log, items, _) = log(1.0, 100);
    let large = || refused(&log, request("r", &[], Prompt::Tokens(vec![vec![0; 3_000_000]])));
    (0..5).for_each(|_| log.push(large()));
    assert_eq!(items.try_iter().count(), 2, "12 MB each of {MAX_WAITING_BYTES}");
    log.push(refused(&log, request("r", &[], Prompt::Tokens(vec![vec![0; 10_000_000]]))));
    assert_eq!(items.try_iter().count(), 1);
}
