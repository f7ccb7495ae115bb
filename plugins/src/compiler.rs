//! Compiling in a process of its own, which leaves the compiled form in the cache: what a compiler does with a hostile file (time, memory,
//! a crash) ends with that process, and the memory it needed goes back to the system.
//!
//! The other process is this program again, started with [`ARGUMENT`]. It reads the component on its standard input and says on its standard
//! error what is wrong with it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::process::Signal;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::engine::Grade;
use crate::error::LoadError;

/// The command by which a program that serves as compiler is told to be one: it then calls [`serve`] with what follows.
pub const ARGUMENT: &str = "compile-plugin";

/// An interpreter in WebAssembly (35 MB) takes half a minute on two idle processors.
const MAX_TIME: Duration = Duration::from_secs(120);
/// The largest plugins need about one.
const MAX_MEMORY: u64 = 2 << 30;
/// How often the process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// What the process says that is passed on.
const MAX_MESSAGE: u64 = 4 * 1024;
/// So many notes are kept of what was compiled.
const MAX_NOTES: usize = 1_000;
/// Compiled forms that are kept, in bytes: dozens of versions of large plugins.
const MAX_CACHE: u64 = 512 << 20;

/// The component is bad, and the process said why.
const BAD: u8 = 3;

/// Compiles apart.
#[derive(Debug)]
pub(crate) struct Compiler {
    program: PathBuf,
    arguments: Vec<String>,
    /// Notes of what was compiled within the limits: an empty file each.
    notes: PathBuf,
    max_time: Duration,
    max_memory: u64,
}

impl Compiler {
    /// This program, for an engine with so much address space for each memory.
    pub(crate) fn new(program: &Path, cache: &Path, reservation: u64) -> Self {
        let arguments = vec![ARGUMENT.to_owned(), cache.display().to_string(), reservation.to_string()];
        Self { program: program.to_owned(), arguments, notes: cache.join("notes"), max_time: MAX_TIME, max_memory: MAX_MEMORY }
    }

    /// Has a component compiled, unless it was before: this engine finds its compiled form in the cache then. Takes as long as that
    /// takes: never call it on a worker.
    pub(crate) fn fill_cache(&self, engine: &Engine, grade: Grade, component: &[u8]) -> Result<(), LoadError> {
        let note = self.notes.join(note(engine, component));
        if note.exists() {
            return Ok(());
        }
        match self.compile(grade, component) {
            Ok(()) => {
                self.tidy();
                // A note that cannot be written costs another process the next time.
                drop(fs::create_dir_all(&self.notes).and_then(|()| File::create(note)));
                Ok(())
            }
            Err(Failed::Plugin(reason)) => Err(LoadError::Compile(reason)),
            Err(Failed::System(reason)) => {
                tracing::warn!("plugins are compiled in this process, no other can be had: {reason}");
                Ok(())
            }
        }
    }

    fn compile(&self, grade: Grade, component: &[u8]) -> Result<(), Failed> {
        let mut child = self.start(grade, component).map_err(|error| Failed::System(error.to_string()))?;
        let ended = self.wait(&mut child);
        if ended.is_err() {
            drop(child.kill());
            drop(child.wait());
        }
        let status = ended?;
        let mut message = String::new();
        if let Some(stderr) = child.stderr.take() {
            drop(stderr.take(MAX_MESSAGE).read_to_string(&mut message));
        }
        match status.code() {
            Some(0) => Ok(()),
            Some(code) if code == i32::from(BAD) => Err(Failed::Plugin(message.trim().to_owned())),
            Some(1) => Err(Failed::System(format!("it ended with 1: {}", message.trim()))),
            // A compiler that panics does so over the plugin: the gateway must not try the same.
            Some(code) => Err(Failed::Plugin(format!("the compiler ended with {code}: {}", message.trim()))),
            None => {
                Err(Failed::Plugin(format!("the compiler was ended by the system ({status}): out of memory, or a fault of it")))
            }
        }
    }

    fn start(&self, grade: Grade, component: &[u8]) -> std::io::Result<Child> {
        // A file has no end that somebody must read.
        let mut input = File::from(rustix::fs::memfd_create("component", MemfdFlags::CLOEXEC)?);
        input.write_all(component)?;
        input.rewind()?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg(grade.name())
            .env_clear()
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    }

    /// Waits for the end of the process, within its limits.
    fn wait(&self, child: &mut Child) -> Result<std::process::ExitStatus, Failed> {
        let until = Instant::now() + self.max_time;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return Err(Failed::System(error.to_string())),
            }
            if Instant::now() >= until {
                return Err(Failed::Plugin(format!("takes more than {:?} to compile", self.max_time)));
            }
            if resident(child.id()).is_some_and(|bytes| bytes > self.max_memory) {
                return Err(Failed::Plugin(format!("needs more than {} MiB of memory to compile", self.max_memory >> 20)));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Removes notes when there are many: what is still used is noted again.
    fn tidy(&self) {
        if fs::read_dir(&self.notes).is_ok_and(|notes| notes.count() >= MAX_NOTES) {
            drop(fs::remove_dir_all(&self.notes));
        }
    }
}

/// Why nothing was compiled.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    /// For what it is.
    Plugin(String),
    /// For what the machine is.
    System(String),
}

/// The same component for the same engine has the same note.
fn note(engine: &Engine, component: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{}-{:016x}", crate::load::digest(component), hasher.finish())
}

/// Resident memory of a process.
fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// The other process: compiles what is on standard input into the cache. `arguments` is what follows [`ARGUMENT`].
#[must_use]
pub fn serve(arguments: &[String]) -> ExitCode {
    // Whoever wanted it has gone: nobody else would end it.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // Workers that share the processors come first.
    let _ = rustix::process::nice(2);
    match compile_input(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            drop(writeln!(std::io::stderr(), "{message}"));
            ExitCode::from(code)
        }
    }
}

fn compile_input(arguments: &[String]) -> Result<(), (u8, String)> {
    let system = |message: String| (1, message);
    let [cache, reservation, grade] = arguments else { return Err(system("expected: CACHE RESERVATION GRADE".to_owned())) };
    let reservation: u64 = reservation.parse().map_err(|_| system("RESERVATION is no number".to_owned()))?;
    let mut component = Vec::new();
    std::io::stdin().read_to_end(&mut component).map_err(|error| system(error.to_string()))?;
    let grade = if grade == Grade::Draft.name() { Grade::Draft } else { Grade::Serving };
    let engine = grade.compiler(Path::new(cache), reservation).map_err(system)?;
    Component::new(&engine, &component).map_err(|error| (BAD, format!("{error:#}")))?;
    prune(Path::new(cache), MAX_CACHE);
    Ok(())
}

/// Removes the oldest compiled forms while there are too many bytes of them. The cache's own cleaning takes a process that lives on.
fn prune(cache: &Path, most: u64) {
    let mut files = Vec::new();
    for directory in fs::read_dir(cache.join("modules")).into_iter().flatten().flatten() {
        for entry in fs::read_dir(directory.path()).into_iter().flatten().flatten() {
            if let Ok(metadata) = entry.metadata() {
                files.push((metadata.modified().ok(), metadata.len(), entry.path()));
            }
        }
    }
    let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
    files.sort();
    for (_, length, path) in files {
        if bytes <= most {
            return;
        }
        bytes = bytes.saturating_sub(length);
        // Somebody else may have removed it.
        drop(fs::remove_file(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Compiler {
        let arguments = ["-c", script].map(str::to_owned).to_vec();
        let (max_time, max_memory) = (Duration::from_secs(30), 64 << 20);
        Compiler { program: "/bin/sh".into(), arguments, notes: "/nonexistent".into(), max_time, max_memory }
    }

    #[test]
    fn the_end_of_the_process_is_the_end_of_the_matter() {
        let compiled = |script: &str| shell(script).compile(Grade::Serving, b"component");
        assert_eq!(compiled("test \"$(cat)\" = component"), Ok(()), "it reads what is to be compiled");
        assert_eq!(compiled("echo bad byte >&2; exit 3"), Err(Failed::Plugin("bad byte".to_owned())));
        assert_eq!(compiled("echo no disk >&2; exit 1"), Err(Failed::System("it ended with 1: no disk".to_owned())));
        assert_eq!(
            compiled("echo panicked >&2; exit 101"),
            Err(Failed::Plugin("the compiler ended with 101: panicked".to_owned()))
        );
        let Err(Failed::Plugin(reason)) = compiled("kill -SEGV $$") else { panic!("a crash is the plugin's fault") };
        assert!(reason.contains("ended by the system"), "{reason}");
        let nowhere = Compiler { program: "/nonexistent".into(), ..shell("") };
        assert!(matches!(nowhere.compile(Grade::Serving, b""), Err(Failed::System(_))));
    }

    #[test]
    fn time_and_memory_are_bounded() {
        let hasty = Compiler { max_time: Duration::from_millis(100), ..shell("exec sleep 600") };
        assert_eq!(hasty.compile(Grade::Serving, b""), Err(Failed::Plugin("takes more than 100ms to compile".to_owned())));
        // Keeps the last line, and there is only one.
        let greedy = shell("exec tail /dev/zero");
        assert_eq!(
            greedy.compile(Grade::Serving, b""),
            Err(Failed::Plugin("needs more than 64 MiB of memory to compile".to_owned()))
        );
    }

    #[test]
    fn the_oldest_compiled_forms_go_first() {
        let cache = std::env::temp_dir().join(format!("weir-prune-{}", std::process::id()));
        let modules = cache.join("modules/wasmtime");
        fs::create_dir_all(&modules).unwrap();
        let start = std::time::SystemTime::now();
        for age in 0..5 {
            let file = File::create(modules.join(format!("{age}"))).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(start - Duration::from_secs(age)).unwrap();
        }
        prune(&cache, 250);
        let mut left: Vec<_> = fs::read_dir(&modules).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["0", "1"]);
        fs::remove_dir_all(cache).unwrap();
    }
}
