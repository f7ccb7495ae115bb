//! Modules before and after, in an engine that knows nothing of it.

use wasm_encoder::{
    CodeSection, DataCountSection, DataSection, ExportKind, ExportSection, FunctionSection, ImportSection, MemorySection,
    MemoryType, Module as Encoder, RawSection, TypeSection, ValType,
};
use wasmtime::{Engine, Instance, Module, Store};

use super::*;
use crate::engine::Grade;

const PAGE: u32 = 64 * 1024;
const PAGES: u32 = 8;
const END: u32 = PAGES * PAGE;
/// What there is to be copied into memory.
const DATA: u32 = 3 * PAGE + 17;

/// The functions `fill`, `copy` and `init` of three numbers, after as many imported functions and types as a module may have before.
fn module(length: Option<i32>) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types.ty().function([ValType::I32; 3], []);
    let mut imports = ImportSection::new();
    imports.import("host", "nothing", wasm_encoder::EntityType::Function(0));
    let (mut functions, mut exports, mut code) = (FunctionSection::new(), ExportSection::new(), CodeSection::new());
    let longs = [Long::Fill { mem: 0 }, Long::Copy { dst_mem: 0, src_mem: 0 }, Long::Init { mem: 0, data_index: 1 }];
    for (index, (name, long)) in (1..).zip(["fill", "copy", "init"].into_iter().zip(longs)) {
        functions.function(1);
        exports.export(name, ExportKind::Func, index);
        let mut function = Function::new([]);
        let mut body = function.instructions();
        body.local_get(0).local_get(1);
        match length {
            Some(length) => body.i32_const(length),
            None => body.local_get(2),
        };
        long.put(&mut body);
        body.call(0).end();
        code.function(&function);
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: PAGES.into(), maximum: None, memory64: false, shared: false, page_size_log2: None });
    exports.export("memory", ExportKind::Memory, 0);
    let mut data = DataSection::new();
    data.passive(*b"other");
    data.passive((0..DATA).map(|place| (place % 251) as u8));
    let hints = RawSection { id: CUSTOM, data: b"\x19metadata.code.branch_hint\x00" };
    let mut module = Encoder::new();
    module.section(&types).section(&imports).section(&functions).section(&memories).section(&exports);
    module.section(&DataCountSection { count: 2 }).section(&hints).section(&code).section(&data);
    module.finish()
}

/// What could not be cut must not run uncut.
#[test]
fn a_memory_of_64_bits_is_refused_by_the_engine_that_serves() {
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 1, maximum: None, memory64: true, shared: false, page_size_log2: None });
    let module = Encoder::new().section(&memories).clone().finish();
    let directory = std::env::temp_dir().join(format!("weir-memory64-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    for grade in [Grade::Draft, Grade::Serving] {
        let engine = grade.compiler(&directory, 4 << 30).unwrap();
        let error = format!("{:#}", Module::new(&engine, &module).unwrap_err());
        assert!(error.contains("memory64"), "{error}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Calls a function with three numbers in a memory with a pattern: what is in memory then, and whether it trapped.
fn run(module: &Module, name: &str, arguments: (u32, u32, u32)) -> (Vec<u8>, Option<String>) {
    let mut store = Store::new(module.engine(), ());
    let nothing = wasmtime::Func::wrap(&mut store, || {});
    let instance = Instance::new(&mut store, module, &[nothing.into()]).unwrap();
    let memory = instance.get_memory(&mut store, "memory").unwrap();
    memory.data_mut(&mut store).iter_mut().enumerate().for_each(|(place, byte)| *byte = (place * 7 + place / 256) as u8);
    let function = instance.get_typed_func::<(u32, u32, u32), ()>(&mut store, name).unwrap();
    let trap = function.call(&mut store, arguments).err().map(|error| error.root_cause().to_string());
    (memory.data(&store).to_vec(), trap)
}

#[test]
fn in_pieces_it_is_the_same() {
    let engine = Engine::default();
    let whole = Module::new(&engine, module(None)).unwrap();
    let cut = Module::new(&engine, cut_module(&module(None)).unwrap().unwrap()).unwrap();
    let lengths = [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5, DATA, END - 9, END, u32::MAX];
    let places = [0, 9, PIECE - 1, PIECE + 100, END - 2 * PIECE, END, END + 1, u32::MAX - PIECE, u32::MAX];
    let (mut traps, mut done) = (0, 0);
    for name in ["fill", "copy", "init"] {
        for length in lengths {
            for (to, from) in places.iter().flat_map(|to| places.iter().map(move |from| (*to, *from))) {
                // To fill with what is a place elsewhere, one value will do.
                if name == "fill" && from != 9 {
                    continue;
                }
                let arguments = (to, from, length);
                let (expected, seen) = (run(&whole, name, arguments), run(&cut, name, arguments));
                assert_eq!(seen.1, expected.1, "{name} {arguments:?}");
                assert!(seen.0 == expected.0, "{name} {arguments:?}: other memory");
                if seen.1.is_some() { traps += 1 } else { done += 1 }
            }
        }
    }
    assert!(traps > 100 && done > 100, "{traps} traps, {done} done");
}

#[test]
fn what_is_known_to_be_short_stays_as_it_is() {
    for (length, cut) in [(0, false), (1, false), (PIECE as i32, false), (PIECE as i32 + 1, true), (-1, true)] {
        assert_eq!(cut_module(&module(Some(length))).unwrap().is_some(), cut, "{length}");
    }
}

#[test]
fn hints_about_the_code_that_was_are_dropped() {
    let cut = cut_module(&module(None)).unwrap().unwrap();
    assert!(sections(&module(None)).unwrap().iter().any(|section| section.id == CUSTOM));
    assert!(sections(&cut).unwrap().iter().all(|section| section.id != CUSTOM));
}

/// A component that holds a module, so deep in components.
fn component(module: &[u8], depth: usize) -> Vec<u8> {
    let mut made = b"\0asm\x0d\0\x01\0".to_vec();
    match depth {
        0 => put(&mut made, MODULE, module),
        _ => put(&mut made, COMPONENT, &component(module, depth - 1)),
    }
    made
}

#[test]
fn modules_are_found_in_components() {
    let (long, short) = (module(None), module(Some(1)));
    let expected = cut_module(&long).unwrap().unwrap();
    for depth in [0, 1, MAX_DEPTH - 1] {
        assert!(*cut(&component(&long, depth)).unwrap() == component(&expected, depth), "{depth}");
        assert!(matches!(cut(&component(&short, depth)), Ok(Cow::Borrowed(_))), "{depth}");
    }
    assert!(cut(&component(&short, MAX_DEPTH)).is_err(), "too deep");
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let whole = component(&module(None), 0);
    for end in [0, 4, HEADER + 1, whole.len() / 2, whole.len() - 1] {
        assert!(cut(&whole[..end]).is_err(), "{end}");
    }
    let mut twice = module(None);
    put(&mut twice, FUNCTIONS, &[0]);
    assert!(cut_module(&twice).is_err(), "two sections of functions");
}
