//! The kept corpus of the fuzz targets, replayed through the very functions that they assert with.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/lib.rs"]
mod oracle;

/// What the corpus may hold in all, so that it stays a part of the sources.
const MAX_FILES: usize = 300;
const MAX_BYTES: usize = 1 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn files(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn the_kept_corpus_holds_what_the_fuzz_targets_assert() {
    let (mut count, mut bytes, mut failed) = (0, 0, Vec::new());
    for (target, check) in oracle::TARGETS {
        let files = files(target);
        assert!(!files.is_empty(), "no corpus of `{target}`");
        for (path, input) in files {
            (count, bytes) = (count + 1, bytes + input.len());
            if catch_unwind(AssertUnwindSafe(|| check(&input))).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(count <= MAX_FILES && bytes <= MAX_BYTES, "{count} files of {bytes} bytes: minimise the corpus");
}

/// Another input made of one of the corpus: pieces of others put in, bytes changed, doubled and taken out.
fn mutated(files: &[(PathBuf, Vec<u8>)], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = rng.choice(files).unwrap().1.clone();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=input.len());
        let len = rng.usize(..=16).min(input.len() - at);
        match rng.u8(..6) {
            0 => drop(input.drain(at..at + len)),
            1 => input.insert(at, rng.u8(..)),
            2 => input.truncate(at.max(2)),
            3 => {
                let other = &rng.choice(files).unwrap().1;
                let from = rng.usize(..=other.len());
                let piece = &other[from..other.len().min(from + rng.usize(..64))];
                input.splice(at..at, piece.iter().copied());
            }
            4 => {
                let piece = input[at..at + len].repeat(rng.usize(1..20));
                input.splice(at..at, piece);
            }
            _ if at < input.len() => {
                input[at] = if rng.bool() { rng.u8(..) } else { input[at] ^ (1 << rng.u8(..8)) }
            }
            _ => {}
        }
    }
    input
}

/// Few of them, since `make fuzz` is the thorough way; `POINTSMAN_FUZZ_CASES` asks for more of each target.
#[test]
fn mutations_of_the_kept_corpus_hold_it_too() {
    let cases = std::env::var("POINTSMAN_FUZZ_CASES").map_or(500, |n| n.parse().unwrap());
    for (target, check) in oracle::TARGETS {
        let (files, mut rng) = (files(target), fastrand::Rng::with_seed(7));
        for case in 0..cases {
            let input = mutated(&files, &mut rng);
            let held = catch_unwind(AssertUnwindSafe(|| check(&input)));
            assert!(held.is_ok(), "{target}, case {case}: {:?}", input.escape_ascii().to_string());
        }
    }
}

#[test]
fn every_fuzz_target_is_run_by_make() {
    let makefile = fs::read_to_string(fuzz().join("../Makefile")).unwrap();
    let run = makefile.lines().find_map(|l| l.strip_prefix("FUZZ_TARGETS ?= ")).unwrap();
    let names: Vec<&str> = oracle::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(run.split(' ').collect::<Vec<_>>(), names);
}
