//! What the cells of puts, gets, scans and the half of the peak say: medians over the rounds, ratios, curves.

use super::throughput::Results;
use crate::load::Measured;
use crate::plan::{CLIENTS, MANY, MARIADB_CLIENTS, Plan, SCAN_CLIENTS, Section, Verb, Way};
use crate::plot::{Across, Plot};
use crate::report::{Better, Figure, Report, TextTable, cells, median};

const WAYS: [Way; 4] = [Way::Etcd, Way::Mariadb, Way::CairnUnary, Way::CairnRouter];
/// Cells at a fixed rate have no number of clients.
const PACED: usize = 0;

impl Results {
    /// The medians over the rounds of one cell; none if it was not measured.
    #[must_use]
    pub fn median(&self, way: Way, verb: Verb, clients: usize) -> Option<Measured> {
        let found = || self.cells.iter().filter(|c| c.way == way && c.verb == verb && c.clients == clients).map(|c| &c.measured);
        let middle = |pick: fn(&Measured) -> f64| median(found().map(pick));
        // The curve is that of the round whose p99 is the middle one.
        let p99_us = middle(|m| m.p99_us)?;
        let curve = found().find(|m| m.p99_us >= p99_us).map(|m| m.curve.clone()).unwrap_or_default();
        Some(Measured {
            per_second: middle(|m| m.per_second)?,
            p50_us: middle(|m| m.p50_us)?,
            p99_us,
            p999_us: middle(|m| m.p999_us)?,
            max_us: middle(|m| m.max_us)?,
            errors: found().map(|m| m.errors).sum(),
            client_cpu_us: middle(|m| m.client_cpu_us)?,
            servers_cpu_us: middle(|m| m.servers_cpu_us)?,
            curve,
        })
    }

    fn mariadb_best(&self) -> Option<(usize, Measured)> {
        let all = MARIADB_CLIENTS.into_iter().filter_map(|n| Some((n, self.median(Way::Mariadb, Verb::Put, n)?)));
        all.max_by(|(_, a), (_, b)| a.per_second.total_cmp(&b.per_second))
    }

    fn ratio(&self, way: Way, verb: Verb, clients: usize, pick: fn(&Measured) -> f64) -> Option<f64> {
        Some(pick(&self.median(way, verb, clients)?) / pick(&self.median(Way::Etcd, verb, clients)?))
    }

    fn shown(&self, way: Way, verb: Verb, clients: usize, pick: fn(&Measured) -> f64, unit: &str) -> String {
        cells::with_unit(self.median(way, verb, clients).map(|m| pick(&m)), unit)
    }
}

/// The section as it is printed.
///
/// # Errors
/// If the figures can't be encoded.
pub fn report(plan: &Plan, results: &Results, echo: Option<f64>) -> anyhow::Result<Report> {
    let mut report = Report { raw: serde_json::to_value(results)?, notes: results.problems.clone(), ..Report::new("throughput") };
    let verbs = [(Section::Put, Verb::Put, &CLIENTS[..]), (Section::Get, Verb::Get, &CLIENTS), (Section::Scan, Verb::Scan, &SCAN_CLIENTS)];
    for (_, verb, clients) in verbs.into_iter().filter(|(section, ..)| plan.has(*section)) {
        report.tables.push(table(results, verb, clients));
        report.plots.push(throughput_plot(results, verb));
        report.figures.extend(match verb {
            Verb::Put => put_figures(results, echo),
            Verb::Get => get_figures(results, echo),
            Verb::Scan => scan_figures(results),
        });
    }
    if plan.has(Section::Half) {
        report.tables.push(half_table(results));
        report.plots.push(half_plot(results));
        report.figures.push(half_figure(results));
    }
    Ok(report)
}

fn table(results: &Results, verb: Verb, clients: &[usize]) -> TextTable {
    let title = match verb {
        Verb::Put => "Durable puts of 256 B (etcd and Cairn: three nodes; MariaDB: one, inserts)",
        Verb::Get => "Linearizable gets of 256 B",
        Verb::Scan => "Linearizable scans of 100 keys",
    };
    let header = ["clients", "way", "per second", "vs etcd", "p50 µs", "p99 µs", "p99.9 µs", "errors", "client cpu µs", "servers cpu µs"];
    let mut table = TextTable::new(title, &header);
    let mut counts = clients.to_vec();
    if verb == Verb::Put {
        counts.extend(MARIADB_CLIENTS);
        counts.sort_unstable();
        counts.dedup();
    }
    for (n, way) in counts.into_iter().flat_map(|n| WAYS.map(|way| (n, way))) {
        let Some(m) = results.median(way, verb, n) else { continue };
        let ratio = (way != Way::Etcd).then(|| results.ratio(way, verb, n, |m| m.per_second)).flatten();
        let mut row = vec![n.to_string(), way.to_string(), cells::number(m.per_second, 0)];
        row.push(ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x")));
        row.extend([m.p50_us, m.p99_us, m.p999_us].map(|us| cells::number(us, 0)));
        row.push(m.errors.to_string());
        row.extend([m.client_cpu_us, m.servers_cpu_us].map(|us| cells::number(us, 1)));
        table.row(row);
    }
    table
}

fn put_figures(results: &Results, echo: Option<f64>) -> Vec<Figure> {
    let per_second = |m: &Measured| m.per_second;
    let rate = |way, clients| results.shown(way, Verb::Put, clients, per_second, "/s");
    let etcd = rate(Way::Etcd, MANY);
    let mariadb = results.mariadb_best();
    let etcd_rate = results.median(Way::Etcd, Verb::Put, MANY).map(|m| m.per_second);
    vec![
        Figure {
            key: "put256_vs_etcd",
            what: "put, 256 clients, router / etcd",
            value: results.ratio(Way::CairnRouter, Verb::Put, MANY, per_second),
            unit: "x",
            ours: rate(Way::CairnRouter, MANY),
            peer: etcd.clone(),
            at_least: Some(4.0),
            moon: Some(10.0),
            better: Better::Higher,
        },
        Figure {
            key: "put256_vs_mariadb",
            what: "put, 256 clients, router / MariaDB's best",
            value: results.median(Way::CairnRouter, Verb::Put, MANY).zip(mariadb.as_ref()).map(|(m, (_, b))| m.per_second / b.per_second),
            unit: "x",
            ours: rate(Way::CairnRouter, MANY),
            peer: mariadb.map_or("none".to_owned(), |(clients, m)| format!("{:.0}/s at {clients}", m.per_second)),
            at_least: Some(1.5),
            moon: Some(3.0),
            better: Better::Higher,
        },
        Figure {
            key: "put256_unary_vs_etcd",
            what: "put, 256 clients, unary / etcd (moon: echo)",
            value: results.ratio(Way::CairnUnary, Verb::Put, MANY, per_second),
            unit: "x",
            ours: rate(Way::CairnUnary, MANY),
            peer: etcd,
            at_least: Some(2.0),
            moon: echo.zip(etcd_rate).map(|(echo, etcd)| echo / etcd),
            better: Better::Higher,
        },
        Figure {
            key: "put1_p50_vs_etcd",
            what: "put, 1 client, p50, router / etcd",
            value: results.ratio(Way::CairnRouter, Verb::Put, 1, |m| m.p50_us),
            unit: "x",
            ours: results.shown(Way::CairnRouter, Verb::Put, 1, |m| m.p50_us, " µs"),
            peer: results.shown(Way::Etcd, Verb::Put, 1, |m| m.p50_us, " µs"),
            at_least: Some(0.8),
            moon: Some(0.5),
            better: Better::Lower,
        },
    ]
}

fn get_figures(results: &Results, echo: Option<f64>) -> Vec<Figure> {
    let rate = |way| results.shown(way, Verb::Get, MANY, |m| m.per_second, "/s");
    let etcd_rate = results.median(Way::Etcd, Verb::Get, MANY).map(|m| m.per_second);
    let figure = |key, what, way, at_least, moon| Figure {
        key,
        what,
        value: results.ratio(way, Verb::Get, MANY, |m| m.per_second),
        unit: "x",
        ours: rate(way),
        peer: rate(Way::Etcd),
        at_least: Some(at_least),
        moon,
        better: Better::Higher,
    };
    let echo = echo.zip(etcd_rate).map(|(echo, etcd)| echo / etcd);
    vec![
        figure("get256_vs_etcd", "get, 256 clients, router / etcd", Way::CairnRouter, 5.0, Some(15.0)),
        figure("get256_unary_vs_etcd", "get, 256 clients, unary / etcd (moon: echo)", Way::CairnUnary, 2.5, echo),
    ]
}

fn scan_figures(results: &Results) -> Vec<Figure> {
    let most = SCAN_CLIENTS[SCAN_CLIENTS.len() - 1];
    let rate = |way| results.shown(way, Verb::Scan, most, |m| m.per_second, "/s");
    let figure = |key, what, way| Figure {
        key,
        what,
        value: results.ratio(way, Verb::Scan, most, |m| m.per_second),
        unit: "x",
        ours: rate(way),
        peer: rate(Way::Etcd),
        at_least: Some(5.0),
        moon: Some(20.0),
        better: Better::Higher,
    };
    vec![
        figure("scan100_vs_etcd", "scan of 100 keys, 64 clients, router / etcd", Way::CairnRouter),
        figure("scan100_unary_vs_etcd", "scan of 100 keys, 64 clients, unary / etcd", Way::CairnUnary),
    ]
}

fn half_table(results: &Results) -> TextTable {
    let header = ["way", "asked per second", "p50 µs", "p99 µs", "p99.9 µs", "slowest µs", "unanswered", "p99 vs etcd"];
    let mut table = TextTable::new("Puts at half of each system's own peak, at a fixed rate, from the intended start", &header);
    for way in WAYS {
        let Some(m) = results.median(way, Verb::Put, PACED) else { continue };
        let ratio = (way != Way::Etcd).then(|| results.ratio(way, Verb::Put, PACED, |m| m.p99_us)).flatten();
        let mut row = vec![way.to_string()];
        row.extend([m.per_second, m.p50_us, m.p99_us, m.p999_us, m.max_us].map(|n| cells::number(n, 0)));
        row.push(m.errors.to_string());
        row.push(ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x")));
        table.row(row);
    }
    table
}

fn half_figure(results: &Results) -> Figure {
    let p99 = |way| results.shown(way, Verb::Put, PACED, |m| m.p99_us, " µs");
    Figure {
        key: "half_p99_vs_etcd",
        what: "p99 at half of the peak, router / etcd",
        value: results.ratio(Way::CairnRouter, Verb::Put, PACED, |m| m.p99_us),
        unit: "x",
        ours: p99(Way::CairnRouter),
        peer: p99(Way::Etcd),
        at_least: Some(0.5),
        moon: Some(0.2),
        better: Better::Lower,
    }
}

fn throughput_plot(results: &Results, verb: Verb) -> Plot {
    let curve = |way: Way| {
        let clients = results.cells.iter().filter(|c| c.way == way && c.verb == verb && c.clients != PACED).map(|c| c.clients);
        let clients: std::collections::BTreeSet<usize> = clients.collect();
        let points = clients.into_iter().filter_map(|n| Some((n as f64, results.median(way, verb, n)?.per_second)));
        (way.to_string(), points.collect::<Vec<_>>())
    };
    let curves = WAYS.map(curve).into_iter().filter(|(_, points)| !points.is_empty()).collect();
    Plot { file: verb.to_string(), title: format!("{verb} per second"), across: Across::Clients, up: "per second".into(), curves }
}

fn half_plot(results: &Results) -> Plot {
    let curve = |way: Way| Some((way.to_string(), results.median(way, Verb::Put, PACED)?.curve));
    let curves = WAYS.into_iter().filter_map(curve).collect();
    let title = "latency of puts at half of each system's peak".to_owned();
    Plot { file: "half".into(), title, across: Across::Nines, up: "µs".into(), curves }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Length;
    use crate::sections::throughput::Cell;

    fn cell(round: usize, way: Way, clients: usize, per_second: f64) -> Cell {
        let measured = Measured { per_second, p50_us: 1e6 / per_second, p99_us: 2e6 / per_second, ..Measured::default() };
        Cell { round, way, verb: Verb::Put, clients, measured }
    }

    fn results() -> Results {
        let cells = vec![
            cell(0, Way::Etcd, 256, 100.0),
            cell(1, Way::Etcd, 256, 200.0),
            cell(2, Way::Etcd, 256, 900.0),
            cell(0, Way::CairnRouter, 256, 600.0),
            cell(1, Way::CairnRouter, 256, 500.0),
            cell(2, Way::CairnRouter, 256, 10.0),
            cell(0, Way::Mariadb, 64, 250.0),
            cell(0, Way::Mariadb, 128, 240.0),
            cell(0, Way::Etcd, PACED, 100.0),
            cell(0, Way::CairnRouter, PACED, 400.0),
        ];
        Results { cells, problems: Vec::new() }
    }

    #[test]
    fn ratios_are_of_medians_and_of_the_best_of_mariadb() {
        let plan = Plan::new(Length::Tiny);
        let report = report(&plan, &results(), Some(1000.0)).expect("encodes");
        let value = |key: &str| report.figures.iter().find(|f| f.key == key).map(|f| f.value);
        assert_eq!(value("put256_vs_etcd"), Some(Some(2.5)));
        assert_eq!(value("put256_vs_mariadb"), Some(Some(2.0)));
        assert_eq!(value("half_p99_vs_etcd"), Some(Some(0.25)));
        assert_eq!(value("get256_vs_etcd"), Some(None));
        let unary = report.figures.iter().find(|f| f.key == "put256_unary_vs_etcd").expect("is there");
        assert_eq!(unary.moon, Some(5.0));
    }

    #[test]
    fn a_section_that_was_not_asked_for_has_no_figures() {
        let plan = Plan { sections: vec![Section::Half], ..Plan::new(Length::Tiny) };
        let report = report(&plan, &results(), None).expect("encodes");
        assert_eq!(report.figures.iter().map(|f| f.key).collect::<Vec<_>>(), ["half_p99_vs_etcd"]);
    }
}
