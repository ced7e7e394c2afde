//! Curves of the rows that differ in one number.

use super::BenchError;
use super::report::Row;
use crate::plot::{Axis, Figure, Scale, Series};
use std::path::Path;

/// What grows from row to row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growing {
    /// Endpoints of the picker.
    Endpoints,
    /// KiB of each prompt.
    PromptKib,
    /// Blocks that the prefix index holds before.
    Blocks,
}

impl Growing {
    fn file(self) -> &'static str {
        match self {
            Self::Endpoints => "growth-endpoints",
            Self::PromptKib => "growth-prompts",
            Self::Blocks => "growth-blocks",
        }
    }

    fn axis(self) -> Axis {
        let label = match self {
            Self::Endpoints => "endpoints",
            Self::PromptKib => "prompt, KiB",
            Self::Blocks => "cached blocks of 64 tokens",
        };
        Axis::new(label, Scale::Logarithmic)
    }

    fn title(self) -> &'static str {
        match self {
            Self::Endpoints => "CPU per request by endpoints (1 KB prompts)",
            Self::PromptKib => "CPU per request by size of the prompt (100 endpoints)",
            Self::Blocks => "CPU per request by cached blocks (4 KB prompts, 100 endpoints)",
        }
    }
}

/// A row with the value that it has on a curve.
pub type Point = (Growing, f64, Row);

/// Writes a file for each curve that `points` lie on into `folder`, which is made if need be.
///
/// # Errors
/// When a file cannot be written.
pub fn write(points: &[Point], folder: &Path) -> Result<(), BenchError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BenchError::File { path, source }
    };
    let figures = figures(points);
    if !figures.is_empty() {
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    for (name, figure) in figures {
        let path = folder.join(format!("{name}.svg"));
        let svg = figure.svg().map_err(|problem| failed(&path)(std::io::Error::other(problem)))?;
        std::fs::write(&path, svg).map_err(failed(&path))?;
    }
    Ok(())
}

/// The figures with their names, without those that have no point.
fn figures(points: &[Point]) -> Vec<(String, Figure)> {
    let mut figures = Vec::new();
    for growing in [Growing::Endpoints, Growing::PromptKib, Growing::Blocks] {
        let series = |name: &str, value: fn(&Row) -> Option<f64>| Series {
            name: name.to_owned(),
            points: points
                .iter()
                .filter(|(what, ..)| *what == growing)
                .filter_map(|(_, x, row)| Some((*x, value(row)?)))
                .collect(),
        };
        let cpu = [series("picker", Row::cpu_micros), series("floor: an echo server", Row::floor_micros)];
        let memory = [series("resident memory", Row::resident_megabytes)];
        let mut add = |name: String, title: &str, unit: &str, scale, series: Vec<Series>| {
            let series: Vec<_> = series.into_iter().filter(|s| !s.points.is_empty()).collect();
            if !series.is_empty() {
                let (title, y) = (title.to_owned(), Axis::new(unit, scale));
                figures.push((name, Figure { title, x: growing.axis(), y, series }));
            }
        };
        let scale = if growing == Growing::Blocks { Scale::Linear } else { Scale::Logarithmic };
        add(growing.file().to_owned(), growing.title(), "CPU per request, µs", scale, cpu.into());
        if growing == Growing::Blocks {
            let title = "Memory by cached blocks (100 endpoints)";
            add("growth-memory".to_owned(), title, "resident, MB", Scale::Linear, memory.into());
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::super::stats::Measured;
    use super::super::workload::Workload;
    use super::*;

    fn row(cores: f64) -> Row {
        let measured =
            |cores| Measured { requests_per_second: 1_000.0, cores: Some(cores), ..Default::default() };
        Row::new(&Workload::default(), Some(measured(0.01)), &[measured(cores)])
    }

    #[test]
    fn each_curve_has_its_file_and_rows_without_one_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let points = [
            (Growing::Blocks, 1e3, row(0.02)),
            (Growing::Blocks, 1e4, row(0.03)),
            (Growing::Endpoints, 10.0, row(0.02)),
        ];
        let into = folder.path().join("img");
        write(&points, &into).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&into)
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["growth-blocks.svg", "growth-endpoints.svg"]);
        let figure = &figures(&points)[1].1;
        assert_eq!(figure.series[0].points, [(1e3, 20.0), (1e4, 30.0)]);
        assert_eq!(figure.series[1].points, [(1e3, 10.0), (1e4, 10.0)]);
    }
}
