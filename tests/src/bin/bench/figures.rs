//! The figures, what each is made of, and its goal.

use crate::load::Traffic;
use crate::measure::Row;
use crate::proxies::{HAPROXY, NGINX, NOOPS, WEIR, WEIR_FOUR, WEIR_NOOPS};

/// A figure of the design's list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    /// Its number there.
    pub(crate) id: &'static str,
    /// What is measured.
    pub(crate) title: &'static str,
    /// The rows it is made of.
    pub(crate) rows: Vec<Row>,
    /// nginx's CPU time per request under the same traffic, in microseconds.
    pub(crate) nginx_us: Option<f64>,
    /// What came out; nothing when a row is missing.
    pub(crate) value: Option<f64>,
    /// What the value counts.
    pub(crate) unit: &'static str,
    /// The value to reach or to stay under, when there is one.
    pub(crate) goal: Option<f64>,
}

/// What a figure is before it is measured.
struct Plan {
    id: &'static str,
    title: &'static str,
    traffic: Traffic,
    proxies: &'static [&'static str],
    value: fn(&[Row]) -> Option<f64>,
    unit: &'static str,
    goal: Option<f64>,
}

const PLANS: [Plan; 6] = [
    Plan {
        id: "P1",
        title: "forwarding without policies",
        traffic: Traffic::Plain,
        proxies: &[NGINX, HAPROXY, WEIR],
        value: |rows| ratio(rows, WEIR),
        unit: "x nginx",
        goal: Some(0.95),
    },
    Plan {
        id: "P2",
        title: "four policies (ACL, GeoIP, IPS, SSO), beside nginx without any",
        traffic: Traffic::Plain,
        proxies: &[NGINX, WEIR_FOUR],
        value: |rows| ratio(rows, WEIR_FOUR),
        unit: "x plain nginx",
        goal: Some(1.35),
    },
    Plan {
        id: "P4",
        title: "TLS 1.3, kept connections",
        traffic: Traffic::Tls,
        proxies: &[NGINX, HAPROXY, WEIR],
        value: |rows| ratio(rows, WEIR),
        unit: "x nginx",
        goal: Some(0.95),
    },
    Plan {
        id: "P5",
        title: "a new TLS connection per request, full handshakes (ECDSA P-256)",
        traffic: Traffic::FullHandshake,
        proxies: &[NGINX, HAPROXY, WEIR],
        value: |rows| ratio(rows, WEIR),
        unit: "x nginx",
        goal: Some(0.8),
    },
    Plan {
        id: "P5r",
        title: "a new TLS connection per request, resumed sessions",
        traffic: Traffic::Resumed,
        proxies: &[NGINX, HAPROXY, WEIR],
        value: |rows| ratio(rows, WEIR),
        unit: "x nginx",
        goal: None,
    },
    Plan {
        id: "P9",
        title: "a warm policy call: eight policies that do nothing, less none, by eight",
        traffic: Traffic::Plain,
        proxies: &[WEIR, WEIR_NOOPS],
        value: call_ns,
        unit: "ns per call",
        goal: Some(250.0),
    },
];

/// Every figure, from the rows that were measured.
pub(crate) fn all(rows: &[Row]) -> Vec<Figure> {
    PLANS.iter().map(|plan| figure(plan, rows)).collect()
}

fn figure(plan: &Plan, rows: &[Row]) -> Figure {
    let same_traffic: Vec<Row> = rows.iter().filter(|row| row.traffic == plan.traffic).cloned().collect();
    let of_plan = same_traffic.iter().filter(|row| plan.proxies.contains(&row.proxy)).cloned().collect();
    Figure {
        id: plan.id,
        title: plan.title,
        rows: of_plan,
        nginx_us: cpu_us(&same_traffic, NGINX),
        value: (plan.value)(&same_traffic),
        unit: plan.unit,
        goal: plan.goal,
    }
}

fn ratio(rows: &[Row], proxy: &str) -> Option<f64> {
    Some(cpu_us(rows, proxy)? / cpu_us(rows, NGINX)?)
}

fn call_ns(rows: &[Row]) -> Option<f64> {
    Some((cpu_us(rows, WEIR_NOOPS)? - cpu_us(rows, WEIR)?) * 1e3 / f64::from(NOOPS))
}

/// Nothing when it used no measurable CPU time: there would be nothing to divide by.
fn cpu_us(rows: &[Row], proxy: &str) -> Option<f64> {
    rows.iter().find(|row| row.proxy == proxy).map(|row| row.cpu_us).filter(|cpu| *cpu > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Sample;

    fn row(proxy: &'static str, traffic: Traffic, cpu_us: f64) -> Row {
        Row { proxy, traffic, cpu_us, sample: Sample::default(), memory: 0, refused: 0, errors: 0 }
    }

    #[track_caller]
    fn check(rows: &[Row], id: &str, expected: Option<f64>) {
        let figures = all(rows);
        let figure = figures.iter().find(|figure| figure.id == id).unwrap();
        assert_eq!(figure.value, expected, "{id}");
    }

    #[test]
    fn ratios_are_taken_under_the_same_traffic() {
        let rows = [
            row(NGINX, Traffic::Plain, 10.0),
            row(WEIR, Traffic::Plain, 9.0),
            row(WEIR_FOUR, Traffic::Plain, 13.0),
            row(NGINX, Traffic::Tls, 16.0),
            row(WEIR, Traffic::Tls, 8.0),
        ];
        check(&rows, "P1", Some(0.9));
        check(&rows, "P2", Some(1.3));
        check(&rows, "P4", Some(0.5));
        check(&rows, "P5", None);
    }

    #[test]
    fn a_call_costs_an_eighth_of_the_difference() {
        let rows = [row(WEIR, Traffic::Plain, 10.0), row(WEIR_NOOPS, Traffic::Plain, 12.0)];
        check(&rows, "P9", Some(250.0));
        check(&rows[..1], "P9", None);
        check(&rows, "P1", None);
    }

    #[test]
    fn tables_show_the_rows_of_their_figure_only() {
        let rows = [row(NGINX, Traffic::Plain, 10.0), row(WEIR, Traffic::Plain, 9.0), row(WEIR_FOUR, Traffic::Plain, 13.0)];
        let figures = all(&rows);
        let p2 = figures.iter().find(|figure| figure.id == "P2").unwrap();
        assert_eq!(p2.rows.iter().map(|row| row.proxy).collect::<Vec<_>>(), [NGINX, WEIR_FOUR]);
    }
}
