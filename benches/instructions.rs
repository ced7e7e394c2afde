//! The hot pieces that do no IO, one at a time, for `scripts/instructions` to count their instructions.
//!
//! `instructions` lists the pieces with how often each is run; `instructions PIECE` sets one up, runs it once so that
//! every cache of the process is as it will stay, and then that many times inside [`counted`], which is what the counter
//! looks for. Nothing here reads a clock, and no seed is random: two runs execute the same instructions.

#![allow(clippy::unwrap_used, missing_docs, reason = "a piece that cannot be set up should stop")]

#[path = "support/exchange.rs"]
mod exchange;
#[path = "support/prefix.rs"]
mod prefix;
#[path = "support/scheduling.rs"]
mod scheduling;

use pointsman::clock::Moment;
use pointsman::datalayer::engines::built_in;
use pointsman::datalayer::extractor::{EnginePlan, Memo};
use pointsman::ext_proc::Meters;
use pointsman::ext_proc::budget::Budget;
use pointsman::pool::{PoolEvent, channel};
use pointsman::request::{Api, ParserSet, UsageReader};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

const NOW: Moment = Moment::from_nanos(1);
const PAGE: &[u8] = include_bytes!("../tests/fixtures/vllm/metrics.txt");

/// A piece: its name, how often it is run, and what sets it up and runs it.
type Piece = (&'static str, u32, fn(u32));

const PIECES: [Piece; 19] = [
    ("exchange/1KB", 20, |times| exchange(times, 1_000, 1)),
    ("exchange/32KB", 10, |times| exchange(times, 32_000, 1)),
    ("exchange/1MB", 2, |times| exchange(times, 1_000_000, 1)),
    ("exchange/1KB, 100 response chunks", 10, |times| exchange(times, 1_000, 100)),
    ("usage/100 response chunks", 10, usage),
    ("schedule/10 endpoints", 50, |times| schedule(times, 10)),
    ("schedule/100 endpoints", 20, |times| schedule(times, 100)),
    ("schedule/1000 endpoints", 5, |times| schedule(times, 1000)),
    ("prefix/chain of 10k token ids", 5, chain),
    ("prefix/match, 8 endpoints", 10, |times| prefix_match(times, 8)),
    ("prefix/match, 100 endpoints", 10, |times| prefix_match(times, 100)),
    ("prefix/insert of a known chain", 10, known_chain),
    ("prefix/insert of a new chain", 10, new_chain),
    ("metrics/page scan", 10, page),
    ("metrics/first page of a process", 10, first_page),
    ("snapshot/freeze of 10 endpoints", 50, |times| freeze(times, 10)),
    ("snapshot/freeze of 100 endpoints", 20, |times| freeze(times, 100)),
    ("snapshot/freeze of 1000 endpoints", 5, |times| freeze(times, 1000)),
    ("snapshot/one change among 100", 10, change),
];

/// What is counted: everything that is executed between entry and return.
#[inline(never)]
fn counted(run: &mut dyn FnMut()) {
    run();
    black_box(());
}

/// Runs a piece that needs nothing fresh.
fn repeated(times: u32, mut piece: impl FnMut()) {
    piece();
    counted(&mut || (0..times).for_each(|_| piece()));
}

/// Runs a piece that uses its input up.
fn consumed<T>(times: u32, mut fresh: impl FnMut() -> T, mut piece: impl FnMut(T)) {
    piece(fresh());
    let inputs: Vec<T> = (0..times).map(|_| fresh()).collect();
    let mut inputs = inputs.into_iter();
    counted(&mut || inputs.by_ref().for_each(&mut piece));
}

fn exchange(times: u32, bytes: usize, events: usize) {
    let (budget, meters) = (Budget::new(1 << 30), Arc::new(Meters::new(false)));
    let router = Arc::new(exchange::Here(ParserSet::default()));
    let messages = exchange::messages(bytes, events);
    consumed(times, || messages.clone(), |all| exchange::run(&router, &budget, &meters, all));
}

fn usage(times: u32) {
    let event = br#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}

"#;
    repeated(times, || {
        let mut reader = UsageReader::new(Api::ChatCompletions, true);
        (0..100).for_each(|_| reader.push(black_box(event)));
        black_box(reader.finish());
    });
}

fn schedule(times: u32, endpoints: u32) {
    let (scheduler, request) = (scheduling::scheduler(), scheduling::request(NOW));
    let candidates = scheduling::freeze(&scheduling::pool(endpoints, NOW), NOW);
    let mut rng = fastrand::Rng::with_seed(2);
    repeated(times, || {
        black_box(scheduler.run(&request, &candidates, &mut rng)).unwrap();
    });
}

fn freeze(times: u32, endpoints: u32) {
    let pool = scheduling::pool(endpoints, NOW);
    repeated(times, || drop(black_box(scheduling::freeze(&pool, NOW))));
}

fn change(times: u32) {
    let (mut writer, reader) = channel();
    let mut specs = scheduling::specs(100);
    writer.apply([PoolEvent::Endpoints(specs.clone())]);
    let mut moved = specs.swap_remove(0);
    let mut port = 8000;
    let next = || {
        port += 1;
        moved.address.port = port;
        PoolEvent::Upsert(moved.clone())
    };
    consumed(times, next, |event| {
        writer.apply([event]);
        black_box(reader.load());
    });
}

fn chain(times: u32) {
    repeated(times, || drop(black_box(prefix::chain(7, 6000))));
}

fn prefix_match(times: u32, endpoints: u32) {
    let (index, occupants) = (prefix::filled(endpoints, 4), prefix::occupants(endpoints));
    let chain = prefix::chain(3, 6000);
    let mut matched = vec![0; occupants.len()];
    repeated(times, || {
        matched.fill(0);
        index.lookup(prefix::SPACE, &occupants, &chain, &mut matched);
        black_box(&matched);
    });
}

fn known_chain(times: u32) {
    let (index, occupants) = (prefix::filled(8, 4), prefix::occupants(8));
    let known = prefix::chain(3, 6000);
    repeated(times, || prefix::store(&index, occupants[0], &known));
}

fn new_chain(times: u32) {
    let (index, occupants) = (prefix::filled(8, 4), prefix::occupants(8));
    let mut own = 1_000_000;
    let next = || {
        own += 1;
        prefix::chain(own, 0)
    };
    consumed(times, next, |blocks| prefix::store(&index, occupants[1], &blocks));
}

fn plan() -> EnginePlan {
    let vllm = built_in().into_iter().find(|engine| &*engine.name == "vllm").unwrap();
    EnginePlan::new(&vllm, &[]).unwrap()
}

fn page(times: u32) {
    let (plan, mut memo) = (plan(), Memo::default());
    repeated(times, || drop(black_box(plan.read(black_box(PAGE), NOW, &mut memo))));
}

fn first_page(times: u32) {
    let plan = plan();
    repeated(times, || drop(black_box(plan.read(black_box(PAGE), NOW, &mut Memo::default()))));
}

fn main() -> ExitCode {
    let Some(wanted) = std::env::args().nth(1) else {
        PIECES.iter().for_each(|(name, times, _)| println!("{times}\t{name}"));
        return ExitCode::SUCCESS;
    };
    match PIECES.iter().find(|(name, ..)| *name == wanted) {
        Some((_, times, run)) => run(*times),
        None => {
            eprintln!("no piece is called {wanted:?}; without arguments the names are listed");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
