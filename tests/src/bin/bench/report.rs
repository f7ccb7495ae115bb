//! The report: tables and one line per figure, or one JSON object.

use serde_json::{Value, json};

use crate::figures::Figure;
use crate::load::{CONNECTIONS, Generator};
use crate::measure::Row;
use crate::notes::{self, Notes};
use crate::options::Options;
use crate::origin::Origin;
use crate::sheet::{self, Outcome, Sheet};

/// Prints it.
pub(crate) fn print(
    options: &Options,
    figures: &[Figure],
    sheets: &[Sheet],
    generator: &Generator,
    origin: &Origin,
    notes: &Notes,
) {
    if options.json {
        let run = json!({
            "rounds": options.rounds, "seconds": options.seconds, "connections": CONNECTIONS,
            "load": generator.name(), "origin": origin.name(), "skipped": notes.skipped, "failed": notes.failed,
            "figures": figures.iter().map(figure_json).collect::<Vec<_>>(),
            "sheets": sheets.iter().map(sheet_json).collect::<Vec<_>>(),
        });
        notes::print(&format!("{run:#}"));
        return;
    }
    for figure in figures {
        notes::print(&table(figure));
    }
    for sheet in sheets {
        notes::print(&sheet::table(sheet));
    }
    let Options { rounds, seconds, .. } = options;
    let (load, origin) = (generator.name(), origin.name());
    notes::print(&format!(
        "median of {rounds} x {seconds} s, {CONNECTIONS} connections; load over kept connections: {load}, over new ones: built-in; origin: {origin}"
    ));
    for why in &notes.skipped {
        notes::print(&format!("SKIPPED: {why}"));
    }
    for figure in figures {
        notes::print(&sheet::line(&outcome(figure)));
    }
    for outcome in sheets.iter().flat_map(|sheet| &sheet.outcomes) {
        notes::print(&sheet::line(outcome));
    }
}

fn table(figure: &Figure) -> String {
    let mut text = format!("{} {}\n", figure.id, figure.title);
    text.push_str(&format!(
        "{:<13}{:>12}{:>9}{:>10}{:>10}{:>9}{:>8}{:>9}{:>8}{:>9}\n",
        "proxy", "CPU us/req", "req/s", "p50 us", "p99 us", "non-2xx", "errors", "resumed", "RSS MB", "x nginx"
    ));
    for row in &figure.rows {
        let resumed = resumed_share(row).map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0));
        let ratio = figure.nginx_us.map_or_else(|| "-".to_owned(), |nginx| format!("{:.2}", row.cpu_us / nginx));
        text.push_str(&format!(
            "{:<13}{:>12.1}{:>9.0}{:>10.0}{:>10.0}{:>9}{:>8}{resumed:>9}{:>8.0}{ratio:>9}\n",
            row.proxy,
            row.cpu_us,
            row.sample.per_second,
            row.sample.p50_us,
            row.sample.p99_us,
            row.refused,
            row.errors,
            row.memory as f64 / 1e6,
        ));
    }
    text
}

const fn outcome(figure: &Figure) -> Outcome {
    Outcome { id: figure.id, value: figure.value, unit: figure.unit, goal: figure.goal }
}

fn sheet_json(sheet: &Sheet) -> Value {
    let outcome = |outcome: &Outcome| json!({ "value": outcome.value, "unit": outcome.unit, "goal": outcome.goal });
    json!({
        "id": sheet.id, "title": sheet.title, "columns": sheet.columns, "rows": sheet.rows,
        "outcomes": sheet.outcomes.iter().map(outcome).collect::<Vec<_>>(),
    })
}

fn figure_json(figure: &Figure) -> Value {
    json!({
        "id": figure.id, "title": figure.title, "value": figure.value, "unit": figure.unit, "goal": figure.goal,
        "proxies": figure.rows.iter().map(|row| row_json(row, figure.nginx_us)).collect::<Vec<_>>(),
    })
}

fn row_json(row: &Row, nginx_us: Option<f64>) -> Value {
    json!({
        "proxy": row.proxy, "cpu_us_per_request": row.cpu_us, "requests_per_second": row.sample.per_second,
        "p50_us": row.sample.p50_us, "p99_us": row.sample.p99_us, "non_2xx": row.refused, "errors": row.errors,
        "resumed": resumed_share(row), "rss_bytes": row.memory, "ratio_to_nginx": nginx_us.map(|nginx| row.cpu_us / nginx),
    })
}

/// The share of connections that resumed a session; nothing where a connection serves many requests.
fn resumed_share(row: &Row) -> Option<f64> {
    if row.traffic.keeps_connections() {
        return None;
    }
    row.sample.resumed.map(|resumed| resumed as f64 / row.sample.requests.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Sample, Traffic};

    fn figure(value: Option<f64>, goal: Option<f64>) -> Figure {
        let sample = Sample { requests: 200, resumed: Some(150), ..Sample::default() };
        let row =
            |proxy, cpu_us| Row { proxy, traffic: Traffic::Resumed, cpu_us, sample, memory: 20_000_000, refused: 0, errors: 0 };
        let rows = vec![row("nginx", 10.0), row("weir", 12.5)];
        Figure { id: "P1", title: "t", rows, nginx_us: Some(10.0), value, unit: "x nginx", goal }
    }

    #[test]
    fn rows_show_their_ratio_and_their_resumptions() {
        let text = table(&figure(None, None));
        let weir: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(weir, ["weir", "12.5", "0", "0", "0", "0", "0", "75", "%", "20", "1.25"]);
        let json = figure_json(&figure(None, None));
        assert_eq!(
            (json["proxies"][1]["ratio_to_nginx"].as_f64(), json["proxies"][1]["resumed"].as_f64()),
            (Some(1.25), Some(0.75))
        );
    }

    #[test]
    fn what_cannot_be_compared_has_no_ratio() {
        let alone = Figure { nginx_us: None, ..figure(None, None) };
        assert!(table(&alone).lines().last().unwrap().ends_with('-'));
    }
}
