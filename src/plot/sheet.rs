//! Several panels on one sheet, for comparing a few things that have one colour each throughout.

use super::{Axis, COLOURS, PlotError, Scale, failed, short};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const WIDTH: u32 = 960;
const PANEL_HEIGHT: u32 = 300;
const HEAD_HEIGHT: u32 = 44;
const LEGEND_LINE: u32 = 22;
/// Share of a group's width that its bars take together.
const BARS: f64 = 0.8;
/// Narrowest bar that has its number above it, in pixels.
const NUMBERED: f64 = 34.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Panels in two columns below a title and a legend.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// What stands above all.
    pub title: String,
    /// What is compared, at least one; each has its colour.
    pub names: Vec<String>,
    /// The panels, at least one.
    pub panels: Vec<Panel>,
}

/// One panel.
#[derive(Clone, Debug)]
pub enum Panel {
    /// Groups of bars.
    Bars(Bars),
    /// Curves.
    Curves(Curves),
}

/// Groups of bars, one bar for each of the names.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What stands above them, with the unit.
    pub title: String,
    /// Name and values of each group; the values are not negative and in the order of the names.
    pub groups: Vec<(String, Vec<f64>)>,
    /// How a value is written above its bar.
    pub number: fn(f64) -> String,
}

/// A curve for each of the names.
#[derive(Clone, Debug)]
pub struct Curves {
    /// What stands above them.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// Points from left to right, in the order of the names; a name without points has no curve.
    pub series: Vec<Vec<(f64, f64)>>,
}

impl Sheet {
    /// The sheet as one SVG document.
    ///
    /// # Errors
    /// When it has nothing to show, or a value that has no place.
    pub fn svg(&self) -> Result<String, PlotError> {
        if self.names.is_empty() || self.panels.is_empty() {
            return Err(PlotError::Empty(self.title.clone()));
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let rows = self.panels.len().div_ceil(2);
        let head = HEAD_HEIGHT + LEGEND_LINE * count(self.names.len());
        let size = (WIDTH, head + PANEL_HEIGHT * count(rows) + 8);
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
            area.fill(&WHITE).map_err(failed)?;
            let (above, below) = area.split_vertically(head);
            self.head(&above)?;
            for (panel, place) in self.panels.iter().zip(below.split_evenly((rows, 2))) {
                match panel {
                    Panel::Bars(bars) => bars.draw(&place)?,
                    Panel::Curves(curves) => curves.draw(&place)?,
                }
            }
            area.present().map_err(failed)?;
        }
        Ok(text)
    }

    fn head(&self, area: &Area<'_>) -> Result<(), PlotError> {
        let style = |size: u32| ("sans-serif", size).into_text_style(area);
        area.draw_text(&self.title, &style(17), (20, 14)).map_err(failed)?;
        let mut y = i32::try_from(HEAD_HEIGHT).unwrap_or_default();
        for (name, colour) in self.names.iter().zip(COLOURS.iter().cycle()) {
            area.draw(&Rectangle::new([(22, y), (38, y + 12)], colour.filled())).map_err(failed)?;
            area.draw_text(name, &style(15), (46, y - 1)).map_err(failed)?;
            y += i32::try_from(LEGEND_LINE).unwrap_or_default();
        }
        Ok(())
    }
}

/// A chart with its title, room for labels, and faint lines.
macro_rules! chart {
    ($area:expr, $title:expr, $x:expr, $y:expr) => {
        ChartBuilder::on($area)
            .caption($title, ("sans-serif", 16))
            .margin(14)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d($x, $y)
            .map_err(failed)?
    };
}

impl Bars {
    fn draw(&self, area: &Area<'_>) -> Result<(), PlotError> {
        let most = self.groups.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        if most == 0 {
            return Err(PlotError::Empty(self.title.clone()));
        }
        let axis = Axis::new(&self.title, Scale::Linear);
        let (low, high) = axis.range(self.groups.iter().flat_map(|(_, values)| values.iter().copied()))?;
        let mut chart = chart!(area, &self.title, 0.0..self.groups.len() as f64, low..high);
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().disable_x_axis().light_line_style(WHITE).bold_line_style(BLACK.mix(0.15));
        mesh.label_style(("sans-serif", 13)).y_label_formatter(&|v| short(*v)).y_labels(6);
        mesh.draw().map_err(failed)?;
        let plane = chart.plotting_area();
        let step = BARS / most as f64;
        let pixels = f64::from(plane.dim_in_pixel().0) / self.groups.len() as f64 * step;
        let at = |v| Pos::new(HPos::Center, v);
        let style = |size: u32, v| TextStyle::from(("sans-serif", size).into_font()).pos(at(v));
        for (number, (name, values)) in self.groups.iter().enumerate() {
            let left = number as f64 + (1.0 - BARS) / 2.0;
            for (i, (value, colour)) in values.iter().zip(COLOURS.iter().cycle()).enumerate() {
                let (from, to) = (left + step * i as f64, left + step * (i as f64 + 0.92));
                let bar = Rectangle::new([(from, 0.0), (to, *value)], colour.filled());
                plane.draw(&bar).map_err(failed)?;
                if pixels >= NUMBERED {
                    let place = ((from + to) / 2.0, *value + 0.012 * high);
                    let text = Text::new((self.number)(*value), place, style(12, VPos::Bottom));
                    plane.draw(&text).map_err(failed)?;
                }
            }
            let middle = plane.map_coordinate(&(number as f64 + 0.5, 0.0));
            let (x, y) = area.get_base_pixel();
            let below = (middle.0 - x, middle.1 - y + 8);
            area.draw_text(name, &style(14, VPos::Top), below).map_err(failed)?;
        }
        Ok(())
    }
}

impl Curves {
    fn draw(&self, area: &Area<'_>) -> Result<(), PlotError> {
        let points = || self.series.iter().flatten();
        if points().next().is_none() {
            return Err(PlotError::Empty(self.title.clone()));
        }
        let x = self.x.range(points().map(|p| p.0))?;
        let y = self.y.range(points().map(|p| p.1))?;
        let log = |(low, high): (f64, f64)| (low..high).log_scale();
        match (self.x.scale, self.y.scale) {
            (Scale::Linear, Scale::Linear) => self.trace(area, x.0..x.1, y.0..y.1),
            (Scale::Linear, Scale::Logarithmic) => self.trace(area, x.0..x.1, log(y)),
            (Scale::Logarithmic, Scale::Linear) => self.trace(area, log(x), y.0..y.1),
            (Scale::Logarithmic, Scale::Logarithmic) => self.trace(area, log(x), log(y)),
        }
    }

    fn trace<X, Y>(&self, area: &Area<'_>, x: X, y: Y) -> Result<(), PlotError>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut chart = chart!(area, &self.title, x, y);
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(BLACK.mix(0.15))
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .y_labels(6)
            .x_label_formatter(&|v| short(*v))
            .y_label_formatter(&|v| short(*v))
            .draw()
            .map_err(failed)?;
        for (points, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            if points.is_empty() {
                continue;
            }
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            chart.draw_series(line).map_err(failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::elements;
    use super::*;

    fn sheet(names: usize) -> Sheet {
        let values = |scale: f64| (1..=names).map(|i| scale * i as f64).collect();
        Sheet {
            title: "two & more".to_owned(),
            names: (0..names).map(|i| format!("<{i}>.yaml")).collect(),
            panels: vec![
                Panel::Bars(Bars {
                    title: "seconds".to_owned(),
                    groups: vec![("p50".to_owned(), values(0.125)), ("p99".to_owned(), values(3.5))],
                    number: |v| format!("{v:.3} s"),
                }),
                Panel::Curves(Curves {
                    title: "shares".to_owned(),
                    x: Axis::new("time, s", Scale::Logarithmic),
                    y: Axis::new("requests, %", Scale::Linear),
                    series: (1..=names).map(|i| vec![(0.1, 0.0), (i as f64, 100.0)]).collect(),
                }),
            ],
        }
    }

    #[test]
    fn every_bar_has_its_colour_and_number_and_every_curve_is_one_line() {
        let svg = sheet(2).svg().unwrap();
        let elements = elements(&svg);
        for said in [
            "two &amp; more",
            "&lt;0&gt;.yaml",
            "&lt;1&gt;.yaml",
            "p50",
            "p99",
            "0.125 s",
            "0.250 s",
            "3.500 s",
            "7.000 s",
            "shares",
            "time, s",
        ] {
            assert!(elements.iter().any(|(name, all)| name == "text" && all.contains(said)), "{said}");
        }
        for colour in ["#0072B2", "#D55E00"] {
            let of =
                |what: &str| elements.iter().filter(|(n, all)| n == what && all.contains(colour)).count();
            assert_eq!(
                (of("rect"), of("polyline")),
                (3, 1),
                "two bars and the legend, and one curve: {colour}"
            );
        }
    }

    #[test]
    fn narrow_bars_have_no_number_and_nothing_to_show_is_an_error() {
        let many = sheet(12).svg().unwrap();
        assert!(!many.contains("0.125 s"));
        let mut empty = sheet(1);
        empty.panels[1] = Panel::Curves(Curves {
            title: "nothing".to_owned(),
            x: Axis::new("x", Scale::Linear),
            y: Axis::new("y", Scale::Linear),
            series: vec![vec![]],
        });
        assert_eq!(empty.svg(), Err(PlotError::Empty("nothing".to_owned())));
        assert!(Sheet { names: vec![], ..sheet(1) }.svg().is_err());
        assert!(Sheet { panels: vec![], ..sheet(1) }.svg().is_err());
    }
}
