//! Metrics pages: the scanner against a line by line reading, `prometheus-parse`, and the engines' plans over it.

use super::pieces::choice;
use pointsman::clock::Moment;
use pointsman::datalayer::engines::built_in;
use pointsman::datalayer::extractor::{EnginePlan, Memo};
use pointsman::datalayer::scan::Scanner;
use std::cell::RefCell;

/// Names whose places and lengths the scanner's tables tell apart, or do not.
const NAMES: [&str; 8] = [
    "vllm:a",
    "vllm:ab",
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "up",
    "x",
    "m",
    "vllm:kv_cache_usage_perc",
];
/// Wanted besides, the part of a histogram: it keeps the scanner from passing over those.
const PART: &str = "h_sum";

thread_local! {
    static MADE: RefCell<Made> = RefCell::new(Made {
        jumping: Scanner::new(NAMES).expect("few names"),
        walking: Scanner::new(NAMES.into_iter().chain([PART])).expect("few names"),
        plans: built_in().iter().map(|spec| EnginePlan::new(spec, &[]).expect("a built-in engine")).collect(),
    });
}

struct Made {
    jumping: Scanner,
    walking: Scanner,
    plans: Vec<EnginePlan>,
}

type Found = Vec<(usize, u64, Option<String>)>;

fn found(scanner: &Scanner, page: &[u8]) -> Found {
    let mut found = Vec::new();
    scanner.scan(page, scanner.all(), |family, series| {
        if NAMES.get(family).is_some() {
            found.push((family, series.value.to_bits(), series.label("a").map(String::from)));
        }
    });
    found
}

/// Families and values, one line after the other, each compared with every name.
fn naive(page: &[u8]) -> Vec<(usize, u64)> {
    let lines = page.split(|b| *b == b'\n').filter(|line| line.first() != Some(&b'#'));
    lines
        .filter_map(|line| NAMES.iter().enumerate().find_map(|(i, name)| Some((i, sample(line, name)?))))
        .collect()
}

/// The value in a line of this name.
fn sample(line: &[u8], name: &str) -> Option<u64> {
    let rest = line.strip_prefix(name.as_bytes())?;
    if !matches!(rest.first()?, b'{' | b' ' | b'\t') {
        return None;
    }
    let mut rest = rest.trim_ascii_start();
    if rest.first() == Some(&b'{') {
        let (mut quoted, mut escaped, mut end) = (false, false, None);
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'}' if !quoted => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        rest = &rest[end? + 1..];
    }
    let word = rest.trim_ascii_start().split(u8::is_ascii_whitespace).next()?;
    std::str::from_utf8(word).ok()?.parse::<f64>().ok().map(f64::to_bits)
}

/// With an even first byte the rest is a page; with an odd one it chooses the lines of an ordinary page.
pub fn check(data: &[u8]) {
    let (kind, data) = choice(data);
    MADE.with_borrow(|made| {
        if kind & 1 == 0 {
            any_page(made, data);
        } else {
            let page = ordinary(data);
            any_page(made, page.as_bytes());
            as_the_other_reads_it(made, &page);
        }
    });
}

fn any_page(made: &Made, page: &[u8]) {
    let walked = found(&made.walking, page);
    let plain: Vec<(usize, u64)> = walked.iter().map(|f| (f.0, f.1)).collect();
    assert_eq!(plain, naive(page));
    let jumped = found(&made.jumping, page);
    if memchr_histogram(page) {
        // What is passed over belongs to histograms; nothing else is found in exchange.
        let mut rest = walked.iter();
        assert!(jumped.iter().all(|one| rest.any(|other| other == one)), "found only by passing over lines");
    } else {
        assert_eq!(jumped, walked);
    }
    for plan in &made.plans {
        let mut memo = Memo::default();
        let first = plan.read(page, Moment::from_nanos(1), &mut memo);
        let again = plan.read(page, Moment::from_nanos(1), &mut memo);
        if let Some(sample) = &first.sample {
            assert!(sample.kv_usage.is_none_or(|usage| (0.0..=1.0).contains(&usage)));
            assert_eq!(sample.cache, memo.cache);
        }
        assert_eq!(first.marks, again.marks);
    }
}

fn memchr_histogram(page: &[u8]) -> bool {
    page.windows(10).any(|word| word == b" histogram")
}

/// A page of ordinary lines, one for each three bytes.
fn ordinary(data: &[u8]) -> String {
    let mut page = String::new();
    for line in data.chunks(3) {
        let (a, b, c) = (line[0], line.get(1).copied().unwrap_or(0), line.get(2).copied().unwrap_or(0));
        let name = NAMES[usize::from(a & 7)];
        let labels = ["", "{a=\"b\"}", "{a=\"b\",le=\"1\"}", "{x=\"5\",a=\"/c:d\"}"][usize::from(a >> 3 & 3)];
        let number = f64::from(b) * [1.0, 0.125, -3.0, 1e9][usize::from(c & 3)];
        let stamp = if c & 4 == 0 { "" } else { " 1700000000000" };
        let line = match a >> 5 {
            0 => format!("# TYPE {name} gauge\n"),
            1 => "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n# HELP x x\n".to_owned(),
            2 => "h_sum 2\n\n".to_owned(),
            _ => format!("{name}{labels} {number}{stamp}\n"),
        };
        page.push_str(&line);
    }
    page
}

fn as_the_other_reads_it(made: &Made, page: &str) {
    let plain = page.replace("vllm:", "vllm_");
    let scrape = prometheus_parse::Scrape::parse(plain.lines().map(|l| Ok(l.to_owned()))).expect("a page");
    let theirs = |name: &str| -> Vec<f64> {
        let name = name.replace("vllm:", "vllm_");
        let samples = scrape.samples.iter().filter(|s| s.metric == name);
        samples
            .filter_map(|s| match s.value {
                prometheus_parse::Value::Counter(v)
                | prometheus_parse::Value::Gauge(v)
                | prometheus_parse::Value::Untyped(v) => Some(v),
                _ => None,
            })
            .collect()
    };
    let mut ours = vec![Vec::new(); NAMES.len()];
    made.walking.scan(page.as_bytes(), made.walking.all(), |family, series| {
        if let Some(values) = ours.get_mut(family) {
            values.push(series.value);
        }
    });
    for (name, values) in NAMES.iter().zip(ours) {
        assert_eq!(values, theirs(name), "{name} in\n{page}");
    }
}
