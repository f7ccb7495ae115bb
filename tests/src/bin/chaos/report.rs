//! The report: a row per figure, a column per proxy.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::stage::Kind;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
    /// It only explains the others.
    None,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Value {
    number: f64,
    decimals: usize,
}

impl Value {
    /// Things counted.
    pub(crate) fn count(count: usize) -> Self {
        Self::number(count as f64)
    }

    /// Any whole number.
    pub(crate) const fn number(number: f64) -> Self {
        Self { number, decimals: 0 }
    }

    /// So many times.
    pub(crate) const fn ratio(number: f64) -> Self {
        Self { number, decimals: 2 }
    }

    /// Milliseconds.
    pub(crate) fn millis(time: Duration) -> Self {
        Self { number: time.as_secs_f64() * 1e3, decimals: 1 }
    }

    fn text(self) -> String {
        format!("{:.*}", self.decimals, self.number)
    }
}

/// A figure of all proxies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Its number and what it is.
    pub(crate) figure: String,
    /// In the order of [`Kind::ALL`]; nothing when it was not measured.
    pub(crate) values: [Option<Value>; 3],
    /// What Weir's should be.
    pub(crate) goal: Goal,
}

impl Row {
    /// Whether Weir reaches the goal; nothing when there is none or it was not measured.
    #[must_use]
    pub(crate) fn is_met(&self) -> Option<bool> {
        let number = self.values.first().copied().flatten()?.number;
        match self.goal {
            Goal::AtMost(limit) => Some(number <= limit),
            Goal::AtLeast(limit) => Some(number >= limit),
            Goal::None => None,
        }
    }
}

/// The rows of one figure, from what each proxy came to.
pub(crate) fn rows(names: &[(&str, Goal)], measured: &[Option<Vec<Value>>; 3]) -> Vec<Row> {
    let row = |(index, (name, goal)): (usize, &(&str, Goal))| Row {
        figure: (*name).to_owned(),
        values: std::array::from_fn(|proxy| measured.get(proxy).and_then(|values| values.as_ref()?.get(index).copied())),
        goal: *goal,
    };
    names.iter().enumerate().map(row).collect()
}

/// All rows as a table.
#[must_use]
pub(crate) fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.figure.len()).max().unwrap_or(0).max(6);
    let mut text = format!("{:<width$}", "figure");
    for kind in Kind::ALL {
        let _ = write!(text, "{:>10}", kind.name());
    }
    text.push_str("  goal\n");
    for row in rows {
        let _ = write!(text, "{:<width$}", row.figure);
        for value in row.values {
            let _ = write!(text, "{:>10}", value.map_or_else(|| "-".to_owned(), Value::text));
        }
        let goal = match row.goal {
            Goal::AtMost(limit) => format!("  <= {limit}"),
            Goal::AtLeast(limit) => format!("  >= {limit}"),
            Goal::None => String::new(),
        };
        let missed = if row.is_met() == Some(false) { "  MISSED" } else { "" };
        let _ = writeln!(text, "{goal}{missed}");
    }
    text
}

/// The same for a program.
#[must_use]
pub(crate) fn json(rows: &[Row]) -> Json {
    let row = |row: &Row| {
        let mut object = json!({ "figure": row.figure, "met": row.is_met() });
        for (kind, value) in Kind::ALL.iter().zip(row.values) {
            object[kind.name()] = json!(value.map(|value| value.number));
        }
        object
    };
    Json::Array(rows.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_weir_has_a_goal() {
        let names = [("F1 lost", Goal::AtMost(0.0)), ("F1 requests", Goal::None), ("R1 reloads", Goal::AtLeast(1000.0))];
        let of = |numbers: [f64; 3]| Some(numbers.map(Value::number).to_vec());
        let rows = rows(&names, &[of([0.0, 9.0, 999.0]), of([3.0, 9.0, 50.0]), None]);
        assert_eq!(rows.iter().map(Row::is_met).collect::<Vec<_>>(), [Some(true), None, Some(false)]);
        let table = table(&rows);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["F1", "lost", "0", "3", "-", "<=", "0"]);
        assert_eq!(lines[2], ["F1", "requests", "9", "9", "-"]);
        assert_eq!(lines[3], ["R1", "reloads", "999", "50", "-", ">=", "1000", "MISSED"]);
        assert_eq!(json(&rows)[0]["nginx"], 3.0);
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        let rows = rows(&[("F3 p99", Goal::AtMost(5.0))], &[None, None, None]);
        assert_eq!(rows[0].is_met(), None);
        assert_eq!(Value::millis(Duration::from_micros(1234)).text(), "1.2");
    }
}
