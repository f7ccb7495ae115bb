//! Instructions on memory in pieces, so that a guest gives way while it fills or copies much.
//!
//! The engine looks at the clock at the head of loops and functions. A single `memory.fill` of 64 MiB runs to its end, and most of its time
//! goes to the system, which finds and clears a page for each 4 KiB that were not there before. So each of these instructions that may be
//! long becomes a call of a function, added at the end of its module, that does the same in a loop.

use std::borrow::Cow;
use std::collections::BTreeMap;

use wasm_encoder::{BlockType, CodeSection, Encode, Function, InstructionSink};
use wasmparser::{
    BinaryReader, CodeSectionReader, FunctionBody, FunctionSectionReader, ImportSectionReader, Operator, TypeRef,
    TypeSectionReader,
};

/// What one instruction does at most: 16 pages, which the system makes in 10 to 30 µs.
const PIECE: u32 = 64 * 1024;

/// Components within components. Each is copied into the one around it.
const MAX_DEPTH: usize = 16;

const HEADER: usize = 8;
const CUSTOM: u8 = 0;
const TYPES: u8 = 1;
const IMPORTS: u8 = 2;
const FUNCTIONS: u8 = 3;
const CODE: u8 = 10;
/// In a component.
const MODULE: u8 = 1;
const COMPONENT: u8 = 4;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The component with all its instructions on memory in pieces.
///
/// # Errors
/// It could not be read.
pub(crate) fn cut(component: &[u8]) -> std::result::Result<Cow<'_, [u8]>, String> {
    let cut = cut_component(component, 0).map_err(|error| error.to_string())?;
    Ok(cut.map_or(Cow::Borrowed(component), Cow::Owned))
}

/// A section: its number, what it holds, and both with its length.
struct Section<'a> {
    id: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

fn sections(bytes: &[u8]) -> Result<Vec<Section<'_>>> {
    let mut reader = BinaryReader::new(bytes, 0);
    reader.read_bytes(HEADER)?;
    let mut sections = Vec::new();
    while !reader.eof() {
        let start = reader.current_position();
        let (id, length) = (reader.read_u8()?, reader.read_var_u32()?);
        let content = reader.read_bytes(usize::try_from(length)?)?;
        let whole = bytes.get(start..reader.current_position()).unwrap_or_default();
        sections.push(Section { id, content, whole });
    }
    Ok(sections)
}

fn put(made: &mut Vec<u8>, id: u8, content: &[u8]) {
    made.push(id);
    content.encode(made);
}

/// The component that lies so deep in others; none when there is nothing to cut.
fn cut_component(component: &[u8], depth: usize) -> Result<Option<Vec<u8>>> {
    if depth >= MAX_DEPTH {
        return Err("components lie too deep in each other".into());
    }
    let mut made = component.get(..HEADER).unwrap_or_default().to_vec();
    let mut changed = false;
    for section in sections(component)? {
        let new = match section.id {
            MODULE => cut_module(section.content)?,
            COMPONENT => cut_component(section.content, depth + 1)?,
            _ => None,
        };
        changed |= new.is_some();
        match new {
            Some(new) => put(&mut made, section.id, &new),
            None => made.extend_from_slice(section.whole),
        }
    }
    Ok(changed.then_some(made))
}

/// A module; none when there is nothing to cut.
fn cut_module(module: &[u8]) -> Result<Option<Vec<u8>>> {
    let sections = sections(module)?;
    let Some(code) = only(&sections, CODE)? else { return Ok(None) };
    let functions = only(&sections, FUNCTIONS)?.unwrap_or_default();
    let types = only(&sections, TYPES)?.unwrap_or_default();
    let imports = only(&sections, IMPORTS)?;
    let (own, imported) = (FunctionSectionReader::new(reader(functions))?.count(), imports.map_or(Ok(0), imported)?);
    let mut helpers = Helpers { first: imported + own, of: BTreeMap::new() };
    let Some(code) = cut_code(code, &mut helpers)? else { return Ok(None) };
    let mut made = module.get(..HEADER).unwrap_or_default().to_vec();
    for section in &sections {
        match section.id {
            TYPES => put(&mut made, TYPES, &longer(types, 1, &HELPER_TYPE)?),
            FUNCTIONS => put(&mut made, FUNCTIONS, &helpers.declared(functions, type_count(types)?)?),
            CODE => put(&mut made, CODE, &code),
            // Hints about branches name places in the code that was.
            CUSTOM if section.content.get(1..).is_some_and(|name| name.starts_with(b"metadata.code.")) => {}
            _ => made.extend_from_slice(section.whole),
        }
    }
    Ok(Some(made))
}

fn reader(bytes: &[u8]) -> BinaryReader<'_> {
    BinaryReader::new(bytes, 0)
}

/// What the one section of a kind holds.
fn only<'a>(sections: &[Section<'a>], id: u8) -> Result<Option<&'a [u8]>> {
    let mut found = sections.iter().filter(|section| section.id == id);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err("a section is there twice".into()),
        (first, None) => Ok(first.map(|section| section.content)),
    }
}

/// How many functions are imported.
fn imported(imports: &[u8]) -> Result<u32> {
    let mut count = 0;
    for import in ImportSectionReader::new(reader(imports))?.into_imports() {
        count += u32::from(matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)));
    }
    Ok(count)
}

/// How many types there are: a group of them is one entry of the section.
fn type_count(types: &[u8]) -> Result<u32> {
    let mut count = 0;
    for group in TypeSectionReader::new(reader(types))? {
        count += u32::try_from(group?.types().len())?;
    }
    Ok(count)
}

/// A list of entries with so many more.
fn longer(list: &[u8], more: u32, entries: &[u8]) -> Result<Vec<u8>> {
    let mut old = reader(list);
    let count = old.read_var_u32()?;
    let mut made = Vec::with_capacity(list.len() + entries.len() + 5);
    count.saturating_add(more).encode(&mut made);
    made.extend_from_slice(list.get(old.current_position()..).unwrap_or_default());
    made.extend_from_slice(entries);
    Ok(made)
}

/// An instruction that may be long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Long {
    Fill { mem: u32 },
    Copy { dst_mem: u32, src_mem: u32 },
    Init { mem: u32, data_index: u32 },
}

impl Long {
    /// Whether it is one that takes its length as its last argument.
    fn of(operator: &Operator<'_>) -> Option<Self> {
        match *operator {
            Operator::MemoryFill { mem } => Some(Self::Fill { mem }),
            Operator::MemoryCopy { dst_mem, src_mem } => Some(Self::Copy { dst_mem, src_mem }),
            Operator::MemoryInit { data_index, mem } => Some(Self::Init { mem, data_index }),
            _ => None,
        }
    }

    fn put(self, code: &mut InstructionSink<'_>) {
        match self {
            Self::Fill { mem } => code.memory_fill(mem),
            Self::Copy { dst_mem, src_mem } => code.memory_copy(dst_mem, src_mem),
            Self::Init { mem, data_index } => code.memory_init(mem, data_index),
        };
    }
}

/// The functions that are added: one for each instruction that differs.
struct Helpers {
    first: u32,
    of: BTreeMap<Long, u32>,
}

impl Helpers {
    fn of(&mut self, long: Long) -> u32 {
        let next = self.first.saturating_add(u32::try_from(self.of.len()).unwrap_or(u32::MAX));
        *self.of.entry(long).or_insert(next)
    }

    /// In the order of their numbers.
    fn in_order(&self) -> Vec<Long> {
        let mut all: Vec<_> = self.of.iter().map(|(long, index)| (*index, *long)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, long)| long).collect()
    }

    /// The section of functions with them, of the type with this number.
    fn declared(&self, functions: &[u8], helper_type: u32) -> Result<Vec<u8>> {
        let mut entries = Vec::new();
        self.of.iter().for_each(|_| helper_type.encode(&mut entries));
        longer(functions, u32::try_from(self.of.len())?, &entries)
    }
}

/// The section of code with calls instead of instructions, and with the functions called; none when there are no such instructions.
fn cut_code(code: &[u8], helpers: &mut Helpers) -> Result<Option<Vec<u8>>> {
    let mut made = CodeSection::new();
    for body in CodeSectionReader::new(reader(code))? {
        made.raw(&cut_function(code, &body?, helpers)?);
    }
    if helpers.of.is_empty() {
        return Ok(None);
    }
    for long in helpers.in_order() {
        made.function(&in_pieces(long));
    }
    let mut section = Vec::new();
    made.encode(&mut section);
    // The encoder puts the length of the section first.
    let mut content = reader(&section);
    content.read_var_u32()?;
    Ok(section.get(content.current_position()..).map(<[u8]>::to_vec))
}

fn cut_function(code: &[u8], body: &FunctionBody<'_>, helpers: &mut Helpers) -> Result<Vec<u8>> {
    let range = body.range();
    let part = |from: usize, to: usize| code.get(from..to).unwrap_or_default();
    let mut made = Vec::with_capacity(range.len() + 16);
    let (mut kept, mut short) = (range.start, false);
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let (operator, start) = operators.read_with_offset()?;
        if let Some(long) = Long::of(&operator).filter(|_| !short) {
            made.extend_from_slice(part(kept, start));
            kept = operators.original_position();
            InstructionSink::new(&mut made).call(helpers.of(long));
        }
        short = matches!(operator, Operator::I32Const { value } if value.cast_unsigned() <= PIECE);
    }
    made.extend_from_slice(part(kept, range.end));
    Ok(made)
}

/// Of the functions that are added: three numbers, nothing back.
const HELPER_TYPE: [u8; 6] = [0x60, 3, 0x7f, 0x7f, 0x7f, 0];

/// Its arguments: where to, where from (or the byte to fill with), how much.
const TO: u32 = 0;
const FROM: u32 = 1;
const LENGTH: u32 = 2;

/// A function that does what an instruction does, in pieces: all of it, or a trap before the first byte.
fn in_pieces(long: Long) -> Function {
    let mut function = Function::new([]);
    let mut code = function.instructions();
    let has_source = !matches!(long, Long::Fill { .. });
    code.block(BlockType::Empty);
    // What is short, and what ends behind the last address of all, is left to the instruction itself.
    code.local_get(LENGTH).i32_const(PIECE.cast_signed()).i32_le_u().br_if(0);
    for start in [TO, FROM].into_iter().take(1 + usize::from(has_source)) {
        code.local_get(start).local_get(LENGTH).i32_add().local_get(start).i32_lt_u().br_if(0);
    }
    // No byte at the end: a trap unless all bytes before are there. Memory does not shrink.
    code.local_get(TO).local_get(LENGTH).i32_add().local_get(FROM);
    if has_source {
        code.local_get(LENGTH).i32_add();
    }
    code.i32_const(0);
    long.put(&mut code);
    if matches!(long, Long::Copy { .. }) {
        // To a higher address: the last piece first, for they may overlap.
        code.local_get(TO).local_get(FROM).i32_gt_u().if_(BlockType::Empty).loop_(BlockType::Empty);
        move_by(&mut code, LENGTH, -1);
        code.local_get(TO).local_get(LENGTH).i32_add().local_get(FROM).local_get(LENGTH).i32_add();
        code.i32_const(PIECE.cast_signed());
        long.put(&mut code);
        again_if_long(&mut code);
        code.end().br(1).end();
    }
    code.loop_(BlockType::Empty);
    code.local_get(TO).local_get(FROM).i32_const(PIECE.cast_signed());
    long.put(&mut code);
    move_by(&mut code, TO, 1);
    if has_source {
        move_by(&mut code, FROM, 1);
    }
    move_by(&mut code, LENGTH, -1);
    again_if_long(&mut code);
    code.end().end();
    code.local_get(TO).local_get(FROM).local_get(LENGTH);
    long.put(&mut code);
    code.end();
    function
}

fn move_by(code: &mut InstructionSink<'_>, local: u32, pieces: i32) {
    code.local_get(local).i32_const(PIECE.cast_signed() * pieces).i32_add().local_set(local);
}

fn again_if_long(code: &mut InstructionSink<'_>) {
    code.local_get(LENGTH).i32_const(PIECE.cast_signed()).i32_gt_u().br_if(0);
}

#[cfg(test)]
mod tests;
