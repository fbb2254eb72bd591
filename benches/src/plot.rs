//! Curves as SVG.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::{
    ChartBuilder, Circle, Color as _, IntoDrawingArea as _, IntoLogRange as _, LineSeries, PathElement, RGBColor, Ranged, SVGBackend,
    SeriesLabelPosition, WHITE,
};
use std::path::Path;

const SIZE: (u32, u32) = (820, 520);
/// Whoever has a name here has the same colour in every picture.
const COLOURS: [(&str, RGBColor); 6] = [
    ("etcd", RGBColor(90, 90, 90)),
    ("Cairn unary", RGBColor(60, 120, 200)),
    ("Cairn router", RGBColor(210, 80, 40)),
    ("MariaDB", RGBColor(40, 150, 90)),
    ("", RGBColor(150, 80, 170)),
    ("", RGBColor(200, 160, 30)),
];

/// One picture. The vertical axis is logarithmic.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Name of its file, without the ending.
    pub file: String,
    /// Above it.
    pub title: String,
    /// What is across.
    pub across: Across,
    /// What is up.
    pub up: String,
    /// Curves by their names.
    pub curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// What goes from left to right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Across {
    /// Numbers of clients, logarithmic.
    Clients,
    /// Quantiles, by how many nines they have: the right end is the interesting one.
    Nines,
    /// Seconds.
    Seconds,
}

impl Across {
    fn place(self, x: f64) -> f64 {
        match self {
            Across::Clients | Across::Seconds => x,
            // 0.9 is 1, 0.99 is 2.
            Across::Nines => -(1.0 - x).max(1e-6).log10(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Across::Clients => "clients",
            Across::Nines => "percentile",
            Across::Seconds => "seconds",
        }
    }

    fn label(self, x: f64) -> String {
        match self {
            Across::Clients | Across::Seconds => format!("{x:.0}"),
            // Only whole nines have a name that anyone uses.
            Across::Nines if (x - x.round()).abs() > 1e-6 => String::new(),
            Across::Nines => format!("{:.*}", if x > 2.5 { 2 } else { 0 }, 100.0 - 100.0 * 10_f64.powf(-x)),
        }
    }
}

impl Plot {
    /// Draws it into a folder.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn draw(&self, folder: &Path) -> anyhow::Result<()> {
        let points = || self.curves.iter().flat_map(|(_, points)| points);
        let ups = || points().map(|(_, y)| *y).filter(|y| *y > 0.0);
        let (least, most) = (ups().fold(f64::INFINITY, f64::min), ups().fold(0.0, f64::max));
        if most <= 0.0 {
            return Ok(());
        }
        let end = points().map(|(x, _)| self.across.place(*x)).fold(1.0, f64::max);
        let vertical = ((least * 0.7)..(most * 1.4)).log_scale();
        let path = folder.join(format!("{}.svg", self.file));
        match self.across {
            Across::Clients => self.chart(&path, (1.0..end * 1.2).log_scale(), vertical),
            Across::Nines | Across::Seconds => self.chart(&path, 0.0..end * 1.02, vertical),
        }
    }

    fn chart<X, Y>(&self, path: &Path, x: X, y: Y) -> anyhow::Result<()>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(self.across.name())
            .y_desc(&self.up)
            .light_line_style(RGBColor(240, 240, 240))
            .x_label_formatter(&|x| self.across.label(*x))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        for (at, (name, points)) in self.curves.iter().enumerate() {
            let (_, colour) = COLOURS.iter().find(|(known, _)| known == name).unwrap_or(&COLOURS[at % COLOURS.len()]);
            let points = || points.iter().filter(|(_, y)| *y > 0.0).map(|(x, y)| (self.across.place(*x), *y));
            chart
                .draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
            chart.draw_series(points().map(|point| Circle::new(point, 3, colour.filled())))?;
        }
        // Curves rise to the right, so this corner is free.
        let legend = SeriesLabelPosition::UpperLeft;
        chart.configure_series_labels().position(legend).border_style(RGBColor(160, 160, 160)).background_style(WHITE).draw()?;
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_axis_draws_an_image() {
        let folder = std::env::temp_dir();
        for across in [Across::Clients, Across::Nines, Across::Seconds] {
            let file = format!("cairn-bench-{}-{}", std::process::id(), across.name());
            let curves = vec![("one".to_owned(), vec![(0.5, 10.0), (0.99, 200.0)]), ("none".to_owned(), vec![])];
            let plot = Plot { file: file.clone(), title: "t".into(), across, up: "µs".into(), curves };
            plot.draw(&folder).expect("draws");
            let path = folder.join(format!("{file}.svg"));
            assert!(std::fs::read_to_string(&path).expect("written").starts_with("<svg"));
            std::fs::remove_file(&path).expect("there");
        }
    }

    #[test]
    fn nines_are_told_as_percentiles() {
        let at = |quantile: f64| Across::Nines.label(Across::Nines.place(quantile));
        assert!(at(0.99) == "99" && at(0.9) == "90" && at(0.999) == "99.90" && at(0.95).is_empty(), "{} {}", at(0.99), at(0.999));
    }
}
