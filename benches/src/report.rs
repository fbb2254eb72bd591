//! The table, the plot, the JSON, and the last line.

use crate::load::Measured;
use crate::plan::{CLIENTS, Verb, Way};
use crate::rounds::Results;
use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use plotters::prelude::{
    ChartBuilder, Circle, Color as _, IntoDrawingArea as _, IntoLogRange as _, LineSeries, PathElement, RGBColor, SVGBackend, WHITE,
};
use std::path::Path;

const WAYS: [Way; 3] = [Way::Etcd, Way::CairnUnary, Way::CairnRouter];
const VERBS: [Verb; 2] = [Verb::Put, Verb::Get];

/// The medians over the rounds of one cell; none if it was not measured.
fn median(results: &Results, way: Way, verb: Verb, clients: usize) -> Option<Measured> {
    let cells: Vec<_> =
        results.cells.iter().filter(|c| c.way == way && c.verb == verb && c.clients == clients).map(|c| &c.measured).collect();
    let middle = |pick: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = cells.iter().map(|m| pick(m)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some(Measured {
        per_second: middle(|m| m.per_second)?,
        p50_us: middle(|m| m.p50_us)?,
        p99_us: middle(|m| m.p99_us)?,
        p999_us: middle(|m| m.p999_us)?,
        errors: cells.iter().map(|m| m.errors).sum(),
    })
}

/// All cells, for a person.
#[must_use]
pub fn table(results: &Results) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["what", "clients", "way", "per second", "vs etcd", "p50 µs", "p99 µs", "p99.9 µs", "errors"]);
    for verb in VERBS {
        for clients in CLIENTS {
            for way in WAYS {
                let Some(m) = median(results, way, verb, clients) else { continue };
                let ratio = (way != Way::Etcd).then(|| median(results, Way::Etcd, verb, clients)).flatten();
                let ratio = ratio.map_or(String::new(), |etcd| format!("{:.2}x", m.per_second / etcd.per_second));
                let numbers = [m.p50_us, m.p99_us, m.p999_us].map(|us| format!("{us:.0}"));
                let mut row = vec![verb.to_string(), clients.to_string(), way.to_string(), format!("{:.0}", m.per_second), ratio];
                row.extend(numbers);
                row.push(m.errors.to_string());
                table.add_row(row);
            }
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The machine's limits, for a person.
#[must_use]
pub fn limits(results: &Results) -> String {
    let echo: Vec<_> = results.limits.echo.iter().map(|(clients, m)| format!("{:.0}/s at {clients}", m.per_second)).collect();
    format!(
        "limits of this machine: {:.0} synced appends of 256 B per second; bare unary gRPC calls {}",
        results.limits.syncs_per_second,
        echo.join(", ")
    )
}

/// For scripts. A ratio that was not measured is `none`.
#[must_use]
pub fn last_line(results: &Results) -> String {
    let ratio = |way: Way, verb: Verb, clients: usize, pick: fn(&Measured) -> f64| {
        let pair = median(results, way, verb, clients).zip(median(results, Way::Etcd, verb, clients));
        pair.map_or("none".to_owned(), |(cairn, etcd)| format!("{:.2}", pick(&cairn) / pick(&etcd)))
    };
    format!(
        "bench: put256_vs_etcd={} put1_p50_vs_etcd={} get256_vs_etcd={} put256_unary_vs_etcd={}",
        ratio(Way::CairnRouter, Verb::Put, 256, |m| m.per_second),
        ratio(Way::CairnRouter, Verb::Put, 1, |m| m.p50_us),
        ratio(Way::CairnRouter, Verb::Get, 256, |m| m.per_second),
        ratio(Way::CairnUnary, Verb::Put, 256, |m| m.per_second),
    )
}

/// Every cell of every round, for programs.
///
/// # Errors
/// If the file can't be written.
pub fn write_json(results: &Results, path: &Path) -> anyhow::Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(results)?).with_context(|| format!("can't write {}", path.display()))
}

/// Throughput over clients, puts beside gets, both axes logarithmic.
///
/// # Errors
/// If the file can't be written.
pub fn plot(results: &Results, path: &Path) -> anyhow::Result<()> {
    let area = SVGBackend::new(path, (1200, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = results.cells.iter().map(|c| c.measured.per_second).fold(1.0, f64::max);
    for (verb, half) in VERBS.into_iter().zip(area.split_evenly((1, 2))) {
        let mut chart = ChartBuilder::on(&half)
            .caption(format!("{verb}, 256 B, per second"), ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d((1_f64..320_f64).log_scale(), (100_f64..most * 1.5).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("clients")
            .y_label_formatter(&|y| format!("{y:.0}"))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .draw()?;
        for (way, colour) in WAYS.into_iter().zip([RGBColor(90, 90, 90), RGBColor(60, 120, 200), RGBColor(210, 80, 40)]) {
            let points: Vec<_> = CLIENTS
                .iter()
                .filter_map(|n| median(results, way, verb, *n).map(|m| (f64::from(u32::try_from(*n).unwrap_or(u32::MAX)), m.per_second)))
                .collect();
            chart
                .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
                .label(way.to_string())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
            chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
        }
        chart.configure_series_labels().border_style(RGBColor(160, 160, 160)).background_style(WHITE).draw()?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::rounds::Cell;

    fn cell(round: usize, way: Way, per_second: f64) -> Cell {
        let measured = Measured { per_second, p50_us: 1e6 / per_second, p99_us: 2.0, p999_us: 3.0, errors: 0 };
        Cell { round, way, verb: Verb::Put, clients: 256, measured }
    }

    fn results() -> Results {
        let cells = vec![
            cell(0, Way::Etcd, 100.0),
            cell(1, Way::Etcd, 200.0),
            cell(2, Way::Etcd, 900.0),
            cell(0, Way::CairnRouter, 600.0),
            cell(1, Way::CairnRouter, 500.0),
            cell(2, Way::CairnRouter, 10.0),
        ];
        Results { limits: Limits { syncs_per_second: 1.0, echo: Vec::new() }, cells }
    }

    #[test]
    fn ratios_are_of_medians_and_what_was_not_measured_says_so() {
        let line = last_line(&results());
        assert_eq!(line, "bench: put256_vs_etcd=2.50 put1_p50_vs_etcd=none get256_vs_etcd=none put256_unary_vs_etcd=none");
    }

    #[test]
    fn the_plot_is_an_image() {
        let path = std::env::temp_dir().join(format!("cairn-bench-{}.svg", std::process::id()));
        plot(&results(), &path).expect("draws");
        assert!(std::fs::read_to_string(&path).expect("written").starts_with("<svg"));
        std::fs::remove_file(&path).expect("there");
    }
}
