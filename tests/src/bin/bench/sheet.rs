//! Figures that are not CPU time per request: a table of text, and what came out of it.

/// A table and its outcomes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sheet {
    /// The figure's number in the design's list.
    pub(crate) id: &'static str,
    /// What is measured.
    pub(crate) title: String,
    /// The heads of the columns.
    pub(crate) columns: &'static [&'static str],
    /// One text per column.
    pub(crate) rows: Vec<Vec<String>>,
    /// What came out.
    pub(crate) outcomes: Vec<Outcome>,
}

/// One line of the report's end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// The figure's number.
    pub(crate) id: &'static str,
    /// What came out; nothing when it was not measured.
    pub(crate) value: Option<f64>,
    /// What the value counts.
    pub(crate) unit: &'static str,
    /// The value to stay under, when there is one.
    pub(crate) goal: Option<f64>,
}

/// The table as text, every column as wide as its widest text and to the right but the first.
pub(crate) fn table(sheet: &Sheet) -> String {
    let width = |column: usize| {
        let texts =
            sheet.rows.iter().filter_map(|row| row.get(column).map(String::as_str)).chain(sheet.columns.get(column).copied());
        texts.map(str::len).max().unwrap_or(0)
    };
    let line = |texts: &mut dyn Iterator<Item = &str>| {
        let cells = texts.enumerate().map(|(column, text)| match column {
            0 => format!("{text:<width$}", width = width(0)),
            _ => format!("  {text:>width$}", width = width(column)),
        });
        let line: String = cells.collect();
        format!("{}\n", line.trim_end())
    };
    let mut text = format!("{} {}\n{}", sheet.id, sheet.title, line(&mut sheet.columns.iter().copied()));
    for row in &sheet.rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// `P1 1.23 x nginx (goal <= 0.95)`
pub(crate) fn line(outcome: &Outcome) -> String {
    let goal = outcome.goal.map_or_else(|| "no goal".to_owned(), |goal| format!("goal <= {goal}"));
    let value = match outcome.value {
        Some(value) if value.abs() >= 100.0 => format!("{value:.0} {}", outcome.unit),
        Some(value) => format!("{value:.2} {}", outcome.unit),
        None => "not measured".to_owned(),
    };
    format!("{} {value} ({goal})", outcome.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_the_figure_and_its_goal() {
        let outcome = |value, goal| Outcome { id: "P1", value, unit: "x nginx", goal };
        assert_eq!(line(&outcome(Some(1.234), Some(0.95))), "P1 1.23 x nginx (goal <= 0.95)");
        assert_eq!(line(&outcome(Some(312.4), Some(250.0))), "P1 312 x nginx (goal <= 250)");
        assert_eq!(line(&outcome(None, None)), "P1 not measured (no goal)");
    }

    #[test]
    fn columns_are_as_wide_as_their_texts() {
        let rows = vec![vec!["nginx".to_owned(), "16.0".to_owned()], vec!["w".to_owned(), "9.5".to_owned()]];
        let sheet = Sheet { id: "P6", title: "t".to_owned(), columns: &["proxy", "KiB"], rows, outcomes: Vec::new() };
        assert_eq!(table(&sheet), "P6 t\nproxy   KiB\nnginx  16.0\nw       9.5\n");
    }
}
