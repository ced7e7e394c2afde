//! What is told of the rows: a table, and everything as JSON.

use super::BenchError;
use super::stats::{Measured, Percentiles};
use super::workload::{Pace, Workload};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// A rate above this share of what the generator can do says more of the generator than of the picker.
const TRUSTED: f64 = 0.8;

/// Cores that other processes may use before it is said that they disturb.
const BUSY: f64 = 0.25;

/// One row of a table.
#[derive(Clone, Debug)]
pub struct Row {
    workload: Workload,
    /// The same workload against the echo server.
    floor: Option<Measured>,
    /// The picker, medians of its runs.
    pub measured: Measured,
    runs: usize,
    /// What else was seen, such as scrapes.
    notes: Vec<String>,
    /// What must hold and does not.
    broken: Vec<String>,
}

/// Whether a rate may be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The picker set it.
    Trusted,
    /// The generator can do no more than this, so it may have set it.
    GeneratorBound {
        /// Events a second.
        ceiling: f64,
    },
    /// There is no floor to judge it by.
    Unknown,
}

impl Row {
    /// A row of `runs` runs.
    pub fn new(workload: &Workload, floor: Option<Measured>, runs: &[Measured]) -> Self {
        Self {
            workload: workload.clone(),
            floor,
            measured: Measured::median(runs),
            runs: runs.len(),
            notes: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// Adds a remark below the table.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Adds a remark that makes the whole measurement fail.
    pub fn broke(&mut self, text: String) {
        self.broken.push(text);
    }

    /// Whether the rate may be told.
    pub fn verdict(&self) -> Verdict {
        if self.workload.pace == Pace::Idle {
            return Verdict::Trusted;
        }
        let Some(ceiling) = self.floor.as_ref().map(|floor| ceiling(floor, rate(&self.workload, floor)))
        else {
            return Verdict::Unknown;
        };
        if rate(&self.workload, &self.measured) > TRUSTED * ceiling {
            Verdict::GeneratorBound { ceiling }
        } else {
            Verdict::Trusted
        }
    }

    /// CPU time of the picker for each request, in microseconds.
    pub fn cpu_micros(&self) -> Option<f64> {
        self.measured.cpu_per_request().map(micros)
    }

    /// The same of the floor.
    pub fn floor_micros(&self) -> Option<f64> {
        self.floor.as_ref().and_then(Measured::cpu_per_request).map(micros)
    }

    /// Resident memory of the picker at the end, in MB.
    pub fn resident_megabytes(&self) -> Option<f64> {
        self.measured.memory.map(|m| m.resident as f64 / 1e6)
    }

    fn json(&self) -> Value {
        let verdict = self.verdict();
        let refused = matches!(verdict, Verdict::GeneratorBound { .. });
        json!({
            "name": self.workload.name,
            "about": self.workload.about,
            "workload": format!("{:?}", self.workload),
            "runs": self.runs,
            "verdict": format!("{verdict:?}"),
            "ceiling": self.floor.as_ref().map(|f| ceiling(f, rate(&self.workload, f))),
            "picker": figures(&self.measured, refused || verdict == Verdict::Unknown),
            "floor": self.floor.as_ref().map(|f| figures(f, false)),
            "notes": self.notes,
            "broken": self.broken,
        })
    }

    fn cells(&self) -> Vec<String> {
        let m = &self.measured;
        let told = self.verdict();
        let rate = match told {
            Verdict::Trusted => figure(rate(&self.workload, m)),
            Verdict::GeneratorBound { .. } => "generator-bound".to_owned(),
            Verdict::Unknown => "no floor".to_owned(),
        };
        let paced = matches!(self.workload.pace, Pace::Chunks { .. });
        let cpu = |m: &Measured| if paced { m.cpu_per_chunk() } else { m.cpu_per_request() };
        let floor = self.floor.as_ref().and_then(cpu);
        let own = cpu(m);
        let times = own.zip(floor).map(|(own, floor)| own.as_secs_f64() / floor.as_secs_f64().max(1e-12));
        let Percentiles { p50, p90, p99, p999 } = m.latency;
        let latency = [p50, p90, p99, p999].map(|t| if m.values == 0 { "-".to_owned() } else { time(t) });
        let memory = |of: fn(&super::account::Memory) -> u64| {
            m.memory.as_ref().map_or("-".to_owned(), |m| format!("{:.0}", of(m) as f64 / 1e6))
        };
        let dash = || "-".to_owned();
        let mut cells = vec![self.workload.name.clone(), rate];
        cells.extend(latency);
        cells.extend([
            m.error_count().to_string(),
            own.map_or_else(dash, time),
            floor.map_or_else(dash, time),
            times.map_or_else(dash, |t| format!("{t:.2}")),
            own.map_or_else(dash, |cpu| figure(1.0 / cpu.as_secs_f64().max(1e-12))),
            m.cpu_per_chunk().map_or_else(dash, time),
            m.cores.map_or_else(dash, |c| format!("{c:.3}")),
            memory(|m| m.resident),
            memory(|m| m.peak),
            format!("{:.2}", m.generator_cores),
            format!("{:.2}", m.other_cores),
        ]);
        cells
    }
}

/// What the rate of a row counts: paced chunks, else requests.
fn rate(workload: &Workload, measured: &Measured) -> f64 {
    match workload.pace {
        Pace::Chunks { .. } => measured.chunks_per_second,
        _ => measured.requests_per_second,
    }
}

/// The rate at which the generator has its core to itself no longer: what it reached against the echo server, and
/// where that server was the slower one, what the generator's own use of its core leaves.
fn ceiling(floor: &Measured, rate: f64) -> f64 {
    rate / floor.generator_cores.clamp(0.01, 1.0)
}

const HEADER: [&str; 17] = [
    "workload",
    "rate/s",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "errors",
    "CPU each",
    "floor",
    "× floor",
    "each/s/core",
    "CPU/chunk",
    "cores",
    "MB",
    "peak MB",
    "generator",
    "others",
];

/// The table of `rows`, in Markdown, with errors and remarks below.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADER.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            text += &format!("| {cell:<width$} ");
        }
        text += "|\n";
        if number == 0 {
            for width in &widths {
                text += &format!("|{}", "-".repeat(width + 2));
            }
            text += "|\n";
        }
    }
    for row in rows {
        remarks(row, &mut text);
    }
    text
}

fn remarks(row: &Row, text: &mut String) {
    let name = &row.workload.name;
    if !row.workload.about.is_empty() {
        *text += &format!("{name}: {}\n", row.workload.about);
    }
    for (kind, count) in &row.measured.errors {
        *text += &format!("{name}: {count} × {kind}\n");
    }
    for (whose, other) in [("picker's", Some(&row.measured)), ("floor's", row.floor.as_ref())] {
        if let Some(other) = other.map(|m| m.other_cores).filter(|cores| *cores > BUSY) {
            *text += &format!(
                "{name}: other processes (engines included) used {other:.2} cores in the {whose} runs: its figures are \
                 worse than on a quiet machine\n"
            );
        }
    }
    let floor_errors = row.floor.as_ref().map_or(0, Measured::error_count);
    if floor_errors > 0 {
        *text += &format!("{name}: {floor_errors} errors against the echo server: do not trust its floor\n");
    }
    if let Some(stayed) = row.measured.stayed {
        *text += &format!("{name}: {:.1} % of later turns went where their session was\n", 100.0 * stayed);
    }
    for note in row.notes.iter().chain(&row.broken) {
        *text += &format!("{name}: {note}\n");
    }
    if let Verdict::GeneratorBound { ceiling } = row.verdict() {
        *text += &format!(
            "{name}: the rate is over {:.0} % of what the generator can do ({}), so it is not told\n",
            100.0 * TRUSTED,
            figure(ceiling)
        );
    }
}

/// Prints the table and writes the JSON.
///
/// # Errors
/// When the file cannot be written, and when rows are refused or broken.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub fn tell(rows: &[Row], json: Option<&Path>) -> Result<(), BenchError> {
    println!("{}", table(rows));
    if let Some(path) = json {
        let failed = |source| BenchError::File { path: path.to_owned(), source };
        let text = format!("{:#}\n", json!({ "rows": rows.iter().map(Row::json).collect::<Vec<_>>() }));
        std::fs::write(path, text).map_err(failed)?;
    }
    let name = |row: &Row| row.workload.name.clone();
    let bound: Vec<_> =
        rows.iter().filter(|r| matches!(r.verdict(), Verdict::GeneratorBound { .. })).map(name).collect();
    let broken: Vec<_> = rows.iter().filter(|r| !r.broken.is_empty()).map(name).collect();
    if bound.is_empty() && broken.is_empty() {
        return Ok(());
    }
    let part = |what: &str, names: &[String]| {
        if names.is_empty() { String::new() } else { format!("{what}: {}. ", names.join(", ")) }
    };
    Err(BenchError::Refused(format!(
        "{}{}See the remarks below the table",
        part("Refused as generator-bound", &bound),
        part("Not as it must be", &broken)
    )))
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

fn figures(m: &Measured, refused: bool) -> Value {
    json!({
        "window_s": m.seconds,
        "requests_per_s": (!refused).then_some(m.requests_per_second),
        "chunks_per_s": (!refused).then_some(m.chunks_per_second),
        "latency_us": {
            "p50": micros(m.latency.p50), "p90": micros(m.latency.p90),
            "p99": micros(m.latency.p99), "p99.9": micros(m.latency.p999), "values": m.values,
        },
        "errors": m.errors,
        "cpu_per_request_us": m.cpu_per_request().map(micros),
        "cpu_per_chunk_us": m.cpu_per_chunk().map(micros),
        "cores": m.cores,
        "resident_bytes": m.memory.map(|m| m.resident),
        "peak_resident_bytes": m.memory.map(|m| m.peak),
        "generator_cores": m.generator_cores,
        "other_cores": m.other_cores,
        "stayed": m.stayed,
    })
}

fn figure(value: f64) -> String {
    if value >= 100.0 {
        let digits = format!("{value:.0}");
        let mut text = String::new();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    } else {
        format!("{value:.1}")
    }
}

fn time(time: Duration) -> String {
    let micros = micros(time);
    if micros < 100.0 {
        format!("{micros:.1} µs")
    } else if micros < 10_000.0 {
        format!("{micros:.0} µs")
    } else {
        format!("{:.1} ms", micros / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rate: f64, generator: f64, cores: f64) -> Measured {
        Measured {
            requests_per_second: rate,
            chunks_per_second: 10.0 * rate,
            generator_cores: generator,
            cores: Some(cores),
            values: 1,
            ..Default::default()
        }
    }

    fn row(floor: Option<Measured>, picker: Measured, pace: Pace) -> Row {
        Row::new(&Workload { pace, ..Default::default() }, floor, &[picker])
    }

    const CLOSED: Pace = Pace::Concurrency(64);

    #[test]
    fn a_rate_near_the_generators_own_is_refused() {
        for (floor, rate, trusted) in [
            (measured(50_000.0, 1.0, 0.9), 39_000.0, true),
            (measured(50_000.0, 1.0, 0.9), 41_000.0, false),
            // The echo server was the slower one: the generator could have gone on to 100,000.
            (measured(50_000.0, 0.5, 1.0), 49_000.0, true),
        ] {
            let row = row(Some(floor), measured(rate, 0.9, 1.0), CLOSED);
            assert_eq!(row.verdict() == Verdict::Trusted, trusted, "{rate}");
            assert_eq!(tell(std::slice::from_ref(&row), None).is_ok(), trusted);
            let text = table(std::slice::from_ref(&row));
            assert_eq!(text.contains("generator-bound"), !trusted, "{text}");
            assert_eq!(text.contains("39,000") || text.contains("49,000"), trusted, "{text}");
            assert_eq!(row.json()["picker"]["requests_per_s"].is_null(), !trusted);
        }
    }

    #[test]
    fn without_a_floor_no_rate_is_told() {
        let row = row(None, measured(12_345.0, 0.1, 0.5), CLOSED);
        assert_eq!(row.verdict(), Verdict::Unknown);
        assert!(!table(std::slice::from_ref(&row)).contains("12,345"));
        assert!(row.json()["picker"]["requests_per_s"].is_null());
        assert!(tell(&[row], None).is_ok());
    }

    #[test]
    fn cpu_stands_beside_its_floor() {
        let row = row(Some(measured(40_000.0, 1.0, 0.6)), measured(20_000.0, 0.5, 0.5), CLOSED);
        let cells = row.cells();
        assert_eq!(&cells[7..11], ["25.0 µs", "15.0 µs", "1.67", "40,000"]);
        let pace = Pace::Chunks { streams: 10, per_second: 1.0, tick: Duration::ZERO };
        let paced = Row { workload: Workload { pace, ..Default::default() }, ..row };
        assert_eq!(&paced.cells()[7..10], ["2.5 µs", "1.5 µs", "1.67"]);
    }

    #[test]
    fn what_must_hold_and_does_not_fails_the_measurement() {
        let mut row = row(None, Measured::default(), Pace::Idle);
        assert!(tell(std::slice::from_ref(&row), None).is_ok());
        row.note("97 % of the scrapes came".to_owned());
        row.broke("90 % of the scrapes came".to_owned());
        let text = table(std::slice::from_ref(&row));
        assert!(text.contains("97 %") && text.contains("90 %"));
        assert!(tell(&[row], None).unwrap_err().to_string().contains("1 KB"));
    }

    #[test]
    fn the_json_holds_everything() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let row = row(Some(measured(40_000.0, 1.0, 0.6)), measured(20_000.0, 0.5, 0.5), CLOSED);
        tell(&[row], Some(file.path())).unwrap();
        let json: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        let row = &json["rows"][0];
        assert_eq!(row["picker"]["requests_per_s"], 20_000.0);
        assert_eq!(row["picker"]["cpu_per_request_us"], 25.0);
        assert_eq!(row["floor"]["cores"], 0.6);
        assert_eq!(row["ceiling"], 40_000.0);
    }

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!([1_234_567.0, 999.6, 12.34, 0.0].map(figure), ["1,234,567", "1,000", "12.3", "0.0"]);
        assert_eq!(time(Duration::from_nanos(12_340)), "12.3 µs");
        assert_eq!(time(Duration::from_micros(1_234)), "1234 µs");
        assert_eq!(time(Duration::from_millis(12)), "12.0 ms");
    }
}
