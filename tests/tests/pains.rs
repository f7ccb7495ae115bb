//! `docs/reference/pains.md` names tests: each is there.

use std::path::Path;

const TABLE: &str = include_str!("../../docs/reference/pains.md");

/// File and function of every test that a row names.
fn named(row: &str) -> Vec<(&str, &str)> {
    let quoted: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
    let is_file = |text: &str| text.ends_with(".rs");
    quoted.windows(2).filter(|pair| is_file(pair[0]) && !is_file(pair[1])).map(|pair| (pair[0], pair[1])).collect()
}

#[test]
fn every_complaint_has_a_row_and_every_named_test_exists() {
    let rows: Vec<&str> = TABLE.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit()).collect();
    let numbers: Vec<usize> = rows.iter().map(|row| row[2..].split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
    // No registry is spoken to.
    let without: Vec<&&str> = rows.iter().filter(|row| named(row).is_empty()).collect();
    assert!(without.iter().all(|row| row.starts_with("| 26 ")), "{without:?}");
    for (file, test) in rows.iter().flat_map(|row| named(row)) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("fn {test}()")), "{file} has no test {test}");
    }
}
