//! Curves as SVG: a title, two axes with units, a line for each series, a legend. Black on white, so that a reader's dark page
//! does not swallow the text.

mod sheet;

pub use sheet::{Bars, Curves, Panel, Sheet};

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use std::fmt::Display;

const SIZE: (u32, u32) = (760, 460);
/// Colours that stay apart for most kinds of colour blindness, and in grey (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By powers of ten.
    Logarithmic,
}

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, and in which unit.
    pub label: String,
    /// How it is divided.
    pub scale: Scale,
}

impl Axis {
    /// An axis.
    pub fn new(label: &str, scale: Scale) -> Self {
        Self { label: label.to_owned(), scale }
    }

    /// From where to where it goes for these values.
    fn range(&self, values: impl Iterator<Item = f64>) -> Result<(f64, f64), PlotError> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            if !value.is_finite() || value < 0.0 || (self.scale == Scale::Logarithmic && value == 0.0) {
                return Err(PlotError::Value { axis: self.label.clone(), value });
            }
            (low, high) = (low.min(value), high.max(value));
        }
        Ok(match self.scale {
            Scale::Linear => (0.0, if high > 0.0 { 1.1 * high } else { 1.0 }),
            Scale::Logarithmic => (low / 1.3, high * 1.3),
        })
    }
}

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points from left to right: x and y, none negative.
    pub points: Vec<(f64, f64)>,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What stands above it.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// The lines, at least one, each of at least one point.
    pub series: Vec<Series>,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PlotError {
    /// A series has no points, or there is no series.
    #[error("`{0}` has nothing to show")]
    Empty(String),
    /// A value has no place on its axis.
    #[error(
        "{value} has no place on the axis `{axis}`: values must be finite, not negative, and on a logarithmic axis not 0"
    )]
    Value {
        /// The axis.
        axis: String,
        /// The value.
        value: f64,
    },
    /// The drawing failed.
    #[error("cannot draw: {0}")]
    Draw(String),
}

fn failed(problem: impl Display) -> PlotError {
    PlotError::Draw(problem.to_string())
}

impl Figure {
    /// The figure as one SVG document.
    ///
    /// # Errors
    /// When it has nothing to show, or a value that has no place.
    pub fn svg(&self) -> Result<String, PlotError> {
        if self.series.is_empty() {
            return Err(PlotError::Empty(self.title.clone()));
        }
        if let Some(series) = self.series.iter().find(|s| s.points.is_empty()) {
            return Err(PlotError::Empty(series.name.clone()));
        }
        let points = || self.series.iter().flat_map(|s| &s.points);
        let x = self.x.range(points().map(|p| p.0))?;
        let y = self.y.range(points().map(|p| p.1))?;
        let log = |(low, high): (f64, f64)| (low..high).log_scale();
        match (self.x.scale, self.y.scale) {
            (Scale::Linear, Scale::Linear) => self.draw(x.0..x.1, y.0..y.1),
            (Scale::Linear, Scale::Logarithmic) => self.draw(x.0..x.1, log(y)),
            (Scale::Logarithmic, Scale::Linear) => self.draw(log(x), y.0..y.1),
            (Scale::Logarithmic, Scale::Logarithmic) => self.draw(log(x), log(y)),
        }
    }

    fn draw<X, Y>(&self, x: X, y: Y) -> Result<String, PlotError>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
            area.fill(&WHITE).map_err(failed)?;
            let mut chart = ChartBuilder::on(&area)
                .caption(&self.title, ("sans-serif", 20))
                .margin(14)
                .x_label_area_size(48)
                .y_label_area_size(72)
                .build_cartesian_2d(x, y)
                .map_err(failed)?;
            chart
                .configure_mesh()
                .light_line_style(WHITE)
                .bold_line_style(BLACK.mix(0.15))
                .label_style(("sans-serif", 14))
                .axis_desc_style(("sans-serif", 15))
                .x_desc(&self.x.label)
                .y_desc(&self.y.label)
                .x_label_formatter(&|v| short(*v))
                .y_label_formatter(&|v| short(*v))
                .draw()
                .map_err(failed)?;
            for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
                let line = LineSeries::new(series.points.iter().copied(), colour.stroke_width(2));
                let drawn = chart.draw_series(line).map_err(failed)?;
                drawn
                    .label(&series.name)
                    .legend(|(x, y)| Rectangle::new([(x, y - 2), (x + 16, y + 1)], colour.filled()));
                let dots = series.points.iter().map(|p| Circle::new(*p, 3, colour.filled()));
                chart.draw_series(dots).map_err(failed)?;
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .background_style(WHITE.mix(0.85))
                .border_style(BLACK.mix(0.3))
                .label_font(("sans-serif", 14))
                .draw()
                .map_err(failed)?;
            area.present().map_err(failed)?;
        }
        Ok(text)
    }
}

/// A number as it stands beside an axis: 0.5, 20, 10k, 3M.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // At most three places, none of them a trailing nought.
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::testing::elements;
    use super::*;

    fn figure(x: Scale, y: Scale) -> Figure {
        let series = |name: &str, factor: f64| Series {
            name: name.to_owned(),
            points: [10.0, 100.0, 1_000.0].map(|x| (x, factor * x)).to_vec(),
        };
        Figure {
            title: "cost & <growth>".to_owned(),
            x: Axis::new("endpoints", x),
            y: Axis::new("CPU per request, µs", y),
            series: vec![series("picker", 2.0), series("floor", 1.0)],
        }
    }

    #[test]
    fn every_series_is_one_line_with_its_name_and_axes_say_what_they_are() {
        use Scale::{Linear, Logarithmic};
        for (x, y) in
            [(Linear, Linear), (Linear, Logarithmic), (Logarithmic, Linear), (Logarithmic, Logarithmic)]
        {
            let elements = elements(&figure(x, y).svg().unwrap());
            assert_eq!(elements[0].0, "svg");
            for colour in &["#0072B2", "#D55E00"] {
                let lines = elements.iter().filter(|(name, all)| name == "polyline" && all.contains(colour));
                assert_eq!(lines.count(), 1, "{x:?} {y:?} {colour}");
                let dots = elements.iter().filter(|(name, all)| name == "circle" && all.contains(colour));
                assert_eq!(dots.count(), 3);
            }
            for said in ["picker", "floor", "endpoints", "CPU per request, µs", "cost &amp; &lt;growth&gt;"]
            {
                assert!(elements.iter().any(|(name, all)| name == "text" && all.contains(said)), "{said}");
            }
        }
    }

    #[test]
    fn the_ground_is_white_whatever_the_page() {
        let elements = elements(&figure(Scale::Linear, Scale::Linear).svg().unwrap());
        let ground = elements.iter().find(|(name, _)| name == "rect").unwrap();
        assert!(ground.1.contains("#FFFFFF") && ground.1.contains("width=\"760\""), "{}", ground.1);
    }

    #[test]
    fn what_cannot_be_shown_is_said() {
        let mut nothing = figure(Scale::Linear, Scale::Linear);
        nothing.series[1].points.clear();
        assert_eq!(nothing.svg(), Err(PlotError::Empty("floor".to_owned())));
        nothing.series.clear();
        assert!(nothing.svg().is_err());
        for (value, scale, fine) in [
            (0.0, Scale::Linear, true),
            (0.0, Scale::Logarithmic, false),
            (-1.0, Scale::Linear, false),
            (f64::NAN, Scale::Linear, false),
        ] {
            let mut figure = figure(Scale::Linear, scale);
            figure.series[0].points[0].1 = value;
            assert_eq!(figure.svg().is_ok(), fine, "{value} {scale:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.5, 20.0, 1_000.0, 10_000.0, 2_500_000.0].map(short),
            ["0", "0.5", "20", "1000", "10k", "2.5M"]
        );
    }
}
