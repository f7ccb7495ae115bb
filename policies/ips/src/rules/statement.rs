//! Telling SQL from sentences.

use std::ops::Range;

use super::reader::{Reader, closing_quotes, near, places, words};

/// `union [all] select` around `union`.
pub(super) fn union_select(text: &[u8], union: Range<usize>) -> Option<Range<usize>> {
    let mut reader = Reader::new(text, union.end);
    reader.skip(b" \n(");
    if reader.eat_word(b"all") || reader.eat_word(b"distinct") {
        reader.skip(b" \n(");
    }
    (reader.at > union.end && (reader.eat_word(b"select") || reader.eat_word(b"values"))).then_some(union.start..reader.at)
}

/// Whether what follows `;` is a statement rather than a sentence: directly behind a value any verb is enough.
pub(super) fn stacked(text: &[u8]) -> Option<Range<usize>> {
    places(text, b";").find_map(|start| {
        let before = start.checked_sub(1).and_then(|at| text.get(at)).copied();
        let behind_value = before.is_some_and(|byte| byte.is_ascii_digit() || matches!(byte, b'\'' | b'"' | b')'));
        let mut reader = Reader::new(text, start + 1);
        reader.skip_space();
        let verb = reader.word();
        let behind_verb = reader;
        let spaced = reader.skip_space();
        let object = reader.word();
        let follows = match verb {
            b"drop" | b"alter" | b"create" => OBJECTS.contains(&object),
            b"truncate" => object == b"table",
            b"insert" => object == b"into",
            b"delete" => object == b"from",
            b"update" => reader.skip_space() && reader.eat_word(b"set"),
            b"exec" | b"execute" => {
                object.starts_with(b"xp_") || object.starts_with(b"sp_") || object == b"master" || reader.peek() == Some(b'(')
            }
            b"declare" => reader.peek() == Some(b'@'),
            b"waitfor" => object == b"delay" || object == b"time",
            b"shutdown" => object == b"with" || reader.is_end() || reader.peek() == Some(b'-'),
            b"select" => projection(behind_verb).is_some(),
            _ => false,
        };
        let verb_behind_value = behind_value && spaced && VERBS.contains(&verb);
        (follows || verb_behind_value).then_some(start..reader.at)
    })
}

const OBJECTS: &[&[u8]] =
    &[b"table", b"database", b"user", b"procedure", b"function", b"view", b"index", b"trigger", b"login", b"schema"];
const VERBS: &[&[u8]] = &[
    b"select",
    b"insert",
    b"update",
    b"delete",
    b"drop",
    b"alter",
    b"create",
    b"truncate",
    b"exec",
    b"execute",
    b"declare",
    b"waitfor",
    b"merge",
];

/// `sleep(5)` rather than "sleep (8 hours)", around `sleep(`.
pub(super) fn delay(text: &[u8], call: Range<usize>) -> Option<Range<usize>> {
    let mut reader = Reader::new(text, call.end);
    reader.skip(b" \n(@-'\"");
    let argument = reader.word();
    reader.skip(b" \n'\".");
    let closed =
        reader.peek().is_none_or(|byte| matches!(byte, b')' | b'(' | b',' | b'*' | b'+' | b'-' | b'/') || byte.is_ascii_digit());
    (!argument.is_empty() && closed).then_some(call.start..reader.at)
}

/// `' or a = b`
pub(super) fn condition_behind_quote(text: &[u8]) -> Option<Range<usize>> {
    closing_quotes(text).find_map(|start| {
        let mut reader = Reader::new(text, start + 1);
        reader.skip(b" \n)'\"");
        connector(&mut reader)?;
        condition(&mut reader, Constants::NotNeeded).then_some(start..reader.at)
    })
}

/// `1 = 1` behind a connector.
pub(super) fn constant_condition(text: &[u8], connector: Range<usize>) -> Option<Range<usize>> {
    let mut reader = Reader::new(text, connector.end);
    condition(&mut reader, Constants::Needed).then_some(connector.start..reader.at)
}

fn connector(reader: &mut Reader<'_>) -> Option<()> {
    let named: [&[u8]; 5] = [b"or", b"and", b"xor", b"having", b"where"];
    let symbols: [&[u8]; 2] = [b"||", b"&&"];
    (named.iter().any(|word| reader.eat_word(word)) || symbols.iter().any(|symbol| reader.eat(symbol))).then_some(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Constants {
    Needed,
    NotNeeded,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operand {
    Constant,
    Name,
    Call,
}

/// `a = b`, `a like 'b'`, or a constant on which the text (or the statement) ends.
fn condition(reader: &mut Reader<'_>, constants: Constants) -> bool {
    reader.skip(b" \n(!~");
    if reader.eat_word(b"not") || reader.eat_word(b"binary") {
        reader.skip(b" \n(!~");
    }
    let Some(left) = operand(reader) else { return false };
    let only_constants = constants == Constants::Needed;
    if only_constants && left != Operand::Constant {
        return false;
    }
    reader.skip(b" \n)");
    if reader.skip(b"=<>!") {
        reader.skip(b" \n(");
        let right = operand(reader);
        return if only_constants { right == Some(Operand::Constant) } else { right.is_some() || reader.is_end() };
    }
    let mut ahead = *reader;
    if !ahead.eat_word(b"is") && !ahead.eat_word(b"not") {
        ahead = *reader;
    }
    ahead.skip_space();
    let compares =
        [&b"like"[..], b"rlike", b"regexp", b"between", b"in", b"null", b"glob"].iter().any(|word| ahead.eat_word(word));
    if compares {
        ahead.skip(b" \n(");
        return operand(&mut ahead).is_some_and(|right| right == Operand::Constant);
    }
    !only_constants && left != Operand::Name && ends_statement(reader)
}

/// A number, a quoted string (its end may be missing), a name or a call.
fn operand(reader: &mut Reader<'_>) -> Option<Operand> {
    reader.skip(b"-+@");
    if let Some(quote @ (b'\'' | b'"')) = reader.peek() {
        reader.at += 1;
        let length = reader.rest().iter().take_while(|byte| **byte != quote).count();
        reader.at = (reader.at + length + 1).min(reader.text.len());
        return Some(Operand::Constant);
    }
    let word = reader.word();
    let first = *word.first()?;
    if reader.peek() == Some(b'.') {
        reader.at += 1;
        reader.word();
    }
    if first.is_ascii_digit() || matches!(word, b"true" | b"false" | b"null") {
        return Some(Operand::Constant);
    }
    Some(if reader.peek() == Some(b'(') { Operand::Call } else { Operand::Name })
}

fn ends_statement(reader: &Reader<'_>) -> bool {
    reader.is_end() || matches!(reader.rest(), [b'#' | b';', ..] | [b'-', b'-', ..] | [b'/', b'*', ..])
}

/// Someone may quote and then write a dash, so a distant comment counts only when the quote has no partner.
pub(super) fn comment_behind_quote(text: &[u8]) -> Option<Range<usize>> {
    let lonely = [b'\'', b'"', b'`'].map(|quote| (quote, places(text, &[quote]).count() % 2 == 1));
    closing_quotes(text).find_map(|start| {
        let mut reader = Reader::new(text, start + 1);
        let closed = reader.skip(b");");
        let spaced = reader.skip_space();
        reader.skip(b");");
        let comment = matches!(reader.rest(), [b'#', ..] | [b'-', b'-', ..] | [b'/', b'*', ..]);
        let at_end = reader.rest().len() <= 4;
        let quote = *text.get(start)?;
        let lonely = lonely.contains(&(quote, true));
        let fragment = reader.peek() == Some(b'#') && !at_end;
        (comment && !fragment && (at_end || closed || (!spaced && lonely))).then(|| start..(reader.at + 2).min(text.len()))
    })
}

/// A list that only SQL would select, around `select`.
pub(super) fn subselect(text: &[u8], select: Range<usize>) -> Option<Range<usize>> {
    let end = projection(Reader::new(text, select.end))?;
    Some(select.start..end)
}

/// How far before `where` a statement may begin, in bytes.
const STATEMENT_MAX: usize = 200;

/// `select a from b where c = d` around `where`: the condition tells a statement from a sentence.
pub(super) fn select_where(text: &[u8], filter: Range<usize>) -> Option<Range<usize>> {
    let mut reader = Reader::new(text, filter.end);
    if !condition(&mut reader, Constants::NotNeeded) {
        return None;
    }
    let begin = filter.start.saturating_sub(STATEMENT_MAX);
    let before = text.get(begin..filter.start)?;
    let select = words(before, &[b"select"]).next()?;
    words(before, &[b"from"]).any(|from| from.start > select.end).then_some(begin + select.start..reader.at)
}

/// Where a list that only SQL would select ends: `*`, a constant, a variable or a call, then `from`, `,` or an end.
fn projection(mut reader: Reader<'_>) -> Option<usize> {
    let nested = reader.skip(b" \n(");
    if reader.eat_word(b"distinct") || reader.eat_word(b"all") {
        reader.skip(b" \n(");
    }
    if !nested {
        return None;
    }
    if reader.eat(b"*") {
        reader.skip(b" \n)");
        return reader.eat_word(b"from").then_some(reader.at);
    }
    let variable = reader.eat(b"@@");
    let what = operand(&mut reader)?;
    if what == Operand::Call && reader.eat(b"(") {
        reader.skip(b" \n(");
        let inner = reader.skip(b"*@-'\"") || !reader.word().is_empty() || reader.peek() == Some(b')');
        return inner.then_some(reader.at);
    }
    if what != Operand::Constant && !variable {
        return None;
    }
    let closed = reader.skip(b" \n)");
    let ends = reader.is_end() || matches!(reader.peek(), Some(b',' | b'-' | b'#' | b'|'));
    (ends || (closed && reader.eat_word(b"from"))).then_some(reader.at)
}

/// How near a keyword in a name its punctuation is, in bytes.
const NAME_REACH: usize = 64;

/// An SQL keyword with SQL punctuation near it.
pub(super) fn statement_in_name(text: &[u8], keyword: Range<usize>) -> Option<Range<usize>> {
    let near = near(text, &keyword, NAME_REACH);
    places(near, b";'(").next().map(|_| keyword)
}

/// A single quote.
pub(super) fn quote_in_name(text: &[u8]) -> Option<Range<usize>> {
    places(text, b"'").next().map(|at| at..at + 1)
}

/// `order by 5 --` around `order by`.
pub(super) fn order_by_number(text: &[u8], order: Range<usize>) -> Option<Range<usize>> {
    let mut reader = Reader::new(text, order.end);
    reader.skip_space();
    let number = reader.word();
    reader.skip_space();
    let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    (is_number && ends_statement(&reader)).then_some(order.start..reader.at)
}
