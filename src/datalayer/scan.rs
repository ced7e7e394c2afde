//! A single pass over a Prometheus text page that looks only at the families somebody asked for.
//!
//! A page of a real engine has some 700 lines of which a dozen matter. For each line a handful of its bytes are looked
//! up in tables that say which wanted names could have such a byte there; nearly every line ends there. Histograms,
//! half of all lines, are jumped over. Otherwise what a series is (`# TYPE`) is not read: a sample without a type counts
//! like a gauge.

use std::borrow::Cow;

/// Most families that one scanner can look for.
pub const MAX_FAMILIES: usize = 64;

/// Places in a line whose bytes tell the names of engines' metrics apart.
const PROBES: [usize; 6] = [0, 5, 7, 8, 11, 13];

/// A set of family names to look for.
#[derive(Clone, Debug)]
pub struct Scanner {
    names: Vec<Box<[u8]>>,
    /// For each probe and byte, the names that may have that byte there.
    tables: Box<[[u64; 256]; PROBES.len()]>,
    /// Whether no name can be a part of a histogram.
    jumps: bool,
}

/// One line of a wanted family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Series<'p> {
    labels: &'p [u8],
    /// The sample's value; may be infinite or NaN when the page says so.
    pub value: f64,
}

/// More families than [`MAX_FAMILIES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_FAMILIES} different metric names are configured for one engine")]
pub struct TooManyFamilies;

impl Scanner {
    /// A scanner for `names`, which must differ from each other.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, TooManyFamilies> {
        let names: Vec<Box<[u8]>> = names.into_iter().map(|n| n.as_bytes().into()).collect();
        if names.len() > MAX_FAMILIES {
            return Err(TooManyFamilies);
        }
        let mut tables = Box::new([[0_u64; 256]; PROBES.len()]);
        for (bit, name) in names.iter().enumerate() {
            for (table, place) in tables.iter_mut().zip(PROBES) {
                for (byte, mask) in (0_u8..=255).zip(table.iter_mut()) {
                    let fits = match place.cmp(&name.len()) {
                        std::cmp::Ordering::Less => name[place] == byte,
                        std::cmp::Ordering::Equal => ends_name(byte),
                        std::cmp::Ordering::Greater => true,
                    };
                    *mask |= u64::from(fits) << bit;
                }
            }
        }
        let parts: [&[u8]; 3] = [b"_bucket", b"_sum", b"_count"];
        let jumps = !names.iter().any(|name| parts.iter().any(|part| name.ends_with(part)));
        Ok(Self { names, tables, jumps })
    }

    /// The bit mask of all families.
    pub fn all(&self) -> u64 {
        u64::MAX.checked_shr(64 - u32::try_from(self.names.len()).unwrap_or(64)).unwrap_or(0)
    }

    /// Calls `on` with the index of the family and the series for each line of `page` that belongs to a family whose
    /// bit is set in `wanted`. Lines that cannot be read are passed over.
    pub fn scan<'p>(&self, page: &'p [u8], wanted: u64, mut on: impl FnMut(usize, Series<'p>)) {
        let mut start = 0;
        while start < page.len() {
            let end = memchr::memchr(b'\n', &page[start..]).map_or(page.len(), |length| start + length);
            let line = &page[start..end];
            start = end + 1;
            if line.first() == Some(&b'#') {
                if self.jumps {
                    start = after_histogram(page, line, start);
                }
                continue;
            }
            let mut fits = wanted & self.candidates(line);
            while fits != 0 {
                let family = fits.trailing_zeros() as usize;
                if let Some(rest) = line.strip_prefix(&*self.names[family])
                    && rest.first().is_some_and(|b| ends_name(*b))
                {
                    if let Some(series) = read(rest) {
                        on(family, series);
                    }
                    break;
                }
                fits &= fits - 1;
            }
        }
    }

    fn candidates(&self, line: &[u8]) -> u64 {
        // Short lines are rare; they are compared with every name.
        let Some(head) = line.first_chunk::<{ PROBES[PROBES.len() - 1] + 1 }>() else { return self.all() };
        self.tables
            .iter()
            .zip(PROBES)
            .fold(u64::MAX, |mask, (table, place)| mask & table[usize::from(head[place])])
    }
}

/// Where to go on after the comment `line`: if it begins a histogram, at the next comment, provided that the histogram
/// reaches up to there; else at `start`, the next line.
fn after_histogram(page: &[u8], line: &[u8], start: usize) -> usize {
    let name = line.strip_suffix(b" histogram").and_then(|rest| rest.strip_prefix(b"# TYPE "));
    let Some((name, rest)) = name.zip(page.get(start..)) else { return start };
    let comment = memchr::memchr_iter(b'#', rest)
        .find(|at| at.checked_sub(1).is_some_and(|before| rest[before] == b'\n'));
    let Some(comment) = comment else { return start };
    let last = memchr::memrchr(b'\n', &rest[..comment - 1]).map_or(0, |at| at + 1);
    let belongs = rest[last..].strip_prefix(name).is_some_and(|part| part.starts_with(b"_"));
    if belongs { start + comment } else { start }
}

fn ends_name(byte: u8) -> bool {
    matches!(byte, b'{' | b' ' | b'\t')
}

/// Reads `{labels} value timestamp`, labels and timestamp optional.
fn read(rest: &[u8]) -> Option<Series<'_>> {
    let rest = rest.trim_ascii_start();
    let (labels, rest) = match rest.strip_prefix(b"{") {
        Some(inside) => {
            let end = end_of_labels(inside)?;
            (&inside[..end], &inside[end + 1..])
        }
        None => (&rest[..0], rest),
    };
    let text = rest.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let value = std::str::from_utf8(&text[..end]).ok()?.parse().ok()?;
    Some(Series { labels, value })
}

/// The place of the brace that closes the labels; braces within quotes do not count.
fn end_of_labels(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'}', &text[at..])?;
        if text[at] == b'}' {
            return Some(at);
        }
        at += 1 + end_of_quote(&text[at + 1..])? + 1;
    }
}

/// The place of the quote that ends a quoted text.
fn end_of_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', &text[at..])?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
        if at > text.len() {
            return None;
        }
    }
}

impl<'p> Series<'p> {
    /// The value of a label, unescaped.
    pub fn label(&self, name: &str) -> Option<Cow<'p, str>> {
        self.labels().find(|(key, _)| *key == name.as_bytes()).map(|(_, raw)| unescape(raw))
    }

    /// Whether the series has all of these labels.
    pub fn has(&self, wanted: &[(String, String)]) -> bool {
        wanted.iter().all(|(name, value)| self.label(name).is_some_and(|found| found == value.as_str()))
    }

    /// Names and raw values of the labels; ends at the first thing that is no label.
    fn labels(&self) -> impl Iterator<Item = (&'p [u8], &'p [u8])> {
        let mut rest = self.labels;
        std::iter::from_fn(move || {
            let equals = memchr::memchr(b'=', rest)?;
            let name = rest[..equals].trim_ascii();
            let quoted = rest[equals + 1..].trim_ascii_start().strip_prefix(b"\"")?;
            let end = end_of_quote(quoted)?;
            let after = quoted[end + 1..].trim_ascii_start();
            rest = after.strip_prefix(b",").unwrap_or(after);
            Some((name, &quoted[..end]))
        })
    }
}

fn unescape(raw: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(raw);
    if !text.contains('\\') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some(escaped @ ('\\' | '"'))) => out.push(escaped),
            ('\\', Some(other)) => out.extend(['\\', other]),
            (c, _) => out.push(c),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECORDED: &str = include_str!("../../tests/fixtures/vllm/metrics.txt");

    /// Sums by name of what the scanner finds.
    fn sums(page: &str, names: &[&str]) -> Vec<(f64, usize)> {
        let scanner = Scanner::new(names.iter().copied()).unwrap();
        let mut sums = vec![(0.0, 0); names.len()];
        scanner.scan(page.as_bytes(), scanner.all(), |family, series| {
            sums[family].0 += series.value;
            sums[family].1 += 1;
        });
        sums
    }

    /// The same by prometheus-parse, which does not know colons in names.
    fn oracle(page: &str, names: &[&str]) -> Vec<(f64, usize)> {
        let plain = page.replace("vllm:", "vllm_");
        let scrape = prometheus_parse::Scrape::parse(plain.lines().map(|l| Ok(l.to_owned()))).unwrap();
        let value = |v: &prometheus_parse::Value| match v {
            prometheus_parse::Value::Counter(v)
            | prometheus_parse::Value::Gauge(v)
            | prometheus_parse::Value::Untyped(v) => Some(*v),
            _ => None,
        };
        let sum = |name: &&str| {
            let name = name.replace("vllm:", "vllm_");
            let values = scrape.samples.iter().filter(|s| s.metric == name).filter_map(|s| value(&s.value));
            values.fold((0.0, 0), |(sum, n), v| (sum + v, n + 1))
        };
        names.iter().map(sum).collect()
    }

    #[test]
    fn the_recorded_page_reads_as_the_oracle_reads_it() {
        let mut names: Vec<&str> = RECORDED
            .lines()
            .filter_map(|l| l.strip_prefix("# TYPE "))
            .filter_map(|l| l.strip_suffix(" gauge").or_else(|| l.strip_suffix(" counter")))
            .collect();
        names.dedup();
        assert!(names.len() > 60, "only {} families", names.len());
        for names in names.chunks(MAX_FAMILIES) {
            assert_eq!(sums(RECORDED, names), oracle(RECORDED, names));
        }
    }

    #[test]
    fn a_name_that_begins_another_is_not_that_other() {
        let page = "a 1\na_b 2\na{x=\"1\"} 4\nab 8\n a 16\n#a 32\na\t64\na";
        assert_eq!(sums(page, &["a"]), [(69.0, 3)]);
        assert_eq!(sums(page, &["a", "a_b", "ab"]), [(69.0, 3), (2.0, 1), (8.0, 1)]);
    }

    #[test]
    fn histograms_are_jumped_over_but_nothing_behind_them() {
        let histogram =
            "# TYPE h histogram\nh_bucket{le=\"#\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 5\nh_count 1\n";
        for (behind, found) in [
            ("# HELP m m\nm 3", 1),
            ("m 3", 1),
            ("m 3\n# TYPE x gauge\nx 1\n", 1),
            ("# TYPE x histogram\nm 3\n# TYPE h histogram\nm 3", 2),
            ("# TYPE m histogram", 0),
            ("m 3\nh\n# TYPE x gauge", 1),
        ] {
            assert_eq!(sums(&format!("{histogram}{behind}"), &["m"])[0].1, found, "{behind}");
        }
        assert_eq!(sums(histogram, &["h_sum", "h_count", "h"]), [(5.0, 1), (1.0, 1), (0.0, 0)]);
    }

    #[test]
    fn only_the_wanted_families_are_read() {
        let scanner = Scanner::new(["a", "b"]).unwrap();
        let mut found = Vec::new();
        scanner.scan(b"a 1\nb 2\n", 0b10, |family, _| found.push(family));
        assert_eq!(found, [1]);
        assert_eq!(Scanner::new([]).unwrap().all(), 0);
        let names: Vec<String> = (0..65).map(|i| format!("n{i}")).collect();
        let names = || names.iter().map(String::as_str);
        assert_eq!(Scanner::new(names().take(64)).unwrap().all(), u64::MAX);
        assert!(Scanner::new(names()).is_err());
    }

    #[test]
    fn labels_may_hold_anything_that_is_quoted() {
        let page = "m{a=\"}, b=\\\"\",b = \"x\\\\\\ny\" , c=\"\"} 7 1700000000000\r\nm{a=\"open} 8\nm{a=\"\\";
        let scanner = Scanner::new(["m"]).unwrap();
        let mut found = Vec::new();
        scanner.scan(page.as_bytes(), 1, |_, s| {
            found.push((s.value, s.label("a"), s.label("b"), s.label("c"), s.label("d")))
        });
        assert_eq!(found, [(7.0, Some("}, b=\"".into()), Some("x\\\ny".into()), Some("".into()), None)]);
    }

    #[test]
    fn values_in_every_form() {
        for (text, value) in [
            ("1", 1.0),
            ("+Inf", f64::INFINITY),
            ("-Inf", f64::NEG_INFINITY),
            ("1.5e+03", 1500.0),
            ("-0.0", 0.0),
        ] {
            assert_eq!(sums(&format!("m {text}\n"), &["m"]), [(value, 1)]);
        }
        assert!(sums("m NaN", &["m"])[0].0.is_nan());
        assert_eq!(sums("m one\nm \nm", &["m"]), [(0.0, 0)]);
    }

    fn line() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "vllm:a",
            "vllm:ab",
            "vllm:num_requests_waiting",
            "vllm:num_requests_running",
            "up",
            "x",
        ]);
        let label = ("[a-z]{1,3}", "[a-zA-Z0-9 ./:-]{0,6}").prop_map(|(k, v)| format!("{k}=\"{v}\""));
        let labels = prop::collection::vec(label, 0..4)
            .prop_map(|l| if l.is_empty() { String::new() } else { format!("{{{}}}", l.join(",")) });
        let stamp = prop::option::of(0u64..2_000_000_000_000)
            .prop_map(|t| t.map_or(String::new(), |t| format!(" {t}")));
        prop_oneof![
            6 => (name.clone(), labels, -1e6f64..1e6, stamp).prop_map(|(n, l, v, t)| format!("{n}{l} {v}{t}")),
            1 => name.prop_map(|n| format!("# TYPE {n} gauge")),
            1 => Just("# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1".to_owned()),
            1 => "[ #a-z{}=,\"]{0,12}".prop_filter("no sample of ours", |l| !l.starts_with("up") && !l.starts_with('x') && !l.starts_with(' ')),
        ]
    }

    proptest! {
        /// Any page of ordinary lines reads as prometheus-parse reads it.
        #[test]
        fn pages_read_as_the_oracle_reads_them(lines in prop::collection::vec(line(), 0..40)) {
            let page = lines.join("\n");
            let names = ["vllm:a", "vllm:ab", "vllm:num_requests_waiting", "vllm:num_requests_running", "up", "x"];
            for ((sum, n), (expected, expected_n)) in sums(&page, &names).into_iter().zip(oracle(&page, &names)) {
                prop_assert_eq!(n, expected_n, "{}", page);
                prop_assert!((sum - expected).abs() <= 1e-6 * expected.abs().max(1.0));
            }
        }

        /// No bytes make it panic.
        #[test]
        fn garbage_is_survived(page in prop::collection::vec(prop::sample::select(b"m{}=\",\\\n 1a".to_vec()), 0..200)) {
            let scanner = Scanner::new(["m", "a"]).unwrap();
            scanner.scan(&page, scanner.all(), |_, series| {
                let _value = series.label("a");
            });
        }
    }
}
