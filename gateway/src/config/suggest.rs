//! "Did you mean": the nearest of a set of names.

/// A hint for `word`: the nearest of `names` when one is near, otherwise the names there are.
pub(super) fn hint<'a>(word: &str, label: &str, names: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    match closest(word, names.clone()) {
        Some(name) => Some(format!("did you mean `{name}`?")),
        None => listed(names).map(|names| format!("{label}: {names}")),
    }
}

/// How many names a hint lists before it only counts the rest.
const LISTED: usize = 24;

fn listed<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let mut sorted: Vec<_> = names.collect();
    sorted.sort_unstable();
    let rest = sorted.len().saturating_sub(LISTED);
    sorted.truncate(LISTED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    (!sorted.is_empty()).then(|| format!("{}{more}", sorted.join(", ")))
}

fn closest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().collect();
    // A third of the letters may be wrong, and one always: more than that is another word.
    let limit = (word.len() / 3).max(1);
    names.filter_map(|name| distance(&word, name, limit).map(|distance| (distance, name))).min().map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap neighbours) from `word` to `name`, or none when there are more than `limit`.
fn distance(word: &[char], name: &str, limit: usize) -> Option<usize> {
    let name: Vec<char> = name.to_lowercase().chars().collect();
    // A name of one or two letters is within a typo of anything as short.
    if word.len().abs_diff(name.len()) > limit || name.len() <= limit {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=name.len()).collect();
    let mut last_letter = None;
    for (row, letter) in word.iter().enumerate() {
        let mut current = vec![row + 1];
        let mut left = row + 1;
        let mut last_other = None;
        for (column, other) in name.iter().enumerate() {
            let diagonal = previous.get(column).copied().unwrap_or(usize::MAX);
            let above = previous.get(column + 1).copied().unwrap_or(usize::MAX);
            let mut best = (diagonal + usize::from(letter != other)).min(above + 1).min(left + 1);
            if column > 0 && last_letter == Some(other) && last_other == Some(letter) {
                best = best.min(before.get(column - 1).map_or(usize::MAX, |swapped| swapped + 1));
            }
            current.push(best);
            left = best;
            last_other = Some(other);
        }
        if current.iter().min().is_none_or(|least| *least > limit) {
            return None;
        }
        before = std::mem::replace(&mut previous, current);
        last_letter = Some(letter);
    }
    previous.last().copied().filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["timeouts", "tls", "servers", "bind", "health", "retry"];
        let cases = [
            ("timeout", Some("timeouts")),
            ("tiemouts", Some("timeouts")),
            ("Servers", Some("servers")),
            ("retyr", Some("retry")),
            ("tlss", Some("tls")),
            ("password", None),
            ("x", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(closest(word, names.into_iter()), expected, "{word}");
        }
    }

    #[test]
    fn a_hint_lists_what_there_is_when_nothing_is_near() {
        assert_eq!(hint("zzzz", "known", ["b", "a"].into_iter()).as_deref(), Some("known: a, b"));
        assert_eq!(hint("zzzz", "known", std::iter::empty()), None);
        let many: Vec<String> = (0..30).map(|n| format!("n{n:02}")).collect();
        let hint = hint("zzzz", "known", many.iter().map(String::as_str)).unwrap();
        assert!(hint.ends_with("n23 and 6 more"), "{hint}");
    }
}
