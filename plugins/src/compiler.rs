//! Compiling in a process of its own, which leaves the compiled form in the cache: what a compiler does with a hostile file (time, memory,
//! a crash) ends with that process, and the memory it needed goes back to the system.
//!
//! The other process is this program again, started with [`ARGUMENT`]. It reads the component on its standard input and says on its standard
//! error what is wrong with it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::engine::Grade;
use crate::error::LoadError;
use crate::priority::{keep_to_half, stand_back};

/// The command by which a program that serves as compiler is told to be one: it then calls [`serve`] with what follows.
pub const ARGUMENT: &str = "compile-plugin";

/// An interpreter in WebAssembly (35 MB) takes half a minute on two idle processors.
const MAX_TIME: Duration = Duration::from_secs(120);
/// The largest plugins need about one.
const MAX_MEMORY: u64 = 2 << 30;
/// How often it is looked at what the process uses.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Up to so many bytes a process that stands back leaves half of the processors alone: with one of two it needs 0.5 s for a plugin of 380 KB
/// instead of 0.4. The largest would take too long.
const SMALL: usize = 1 << 20;
/// A process that stands back is given so long to show that processors are free, and again after that to keep showing it.
const PATIENCE: Duration = Duration::from_millis(200);
/// It has to get at least one in so many of a processor's time: what is small may use half as many of them, and what is large has to be done
/// in time.
const SHARE: u32 = 2;
const SHARE_OF_SMALL: u32 = 4;
/// While nothing was free so long ago, the next process does not stand back.
const BUSY_FOR: Duration = Duration::from_secs(10);
/// The unit of `/proc/PID/stat`: `USER_HZ`, which Linux fixes at 100 per second on every architecture that Rust builds for.
const TICK: Duration = Duration::from_millis(10);
/// What the process says that is passed on.
const MAX_MESSAGE: u64 = 4 * 1024;
/// So many notes are kept of what was compiled.
const MAX_NOTES: usize = 1_000;
/// So long after a compiled form was written it is noted, at most.
const NOTED_WITHIN: Duration = Duration::from_secs(2);
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
    /// When a process last stood back in vain.
    busy: Mutex<Option<Instant>>,
    starter: Starter,
}

/// Starts processes that press. Whoever wants one stands behind workers, and so would what it starts: this thread does not.
#[derive(Debug)]
struct Starter(Option<Sender<Start>>);

type Start = (Command, SyncSender<std::io::Result<Child>>);

impl Starter {
    fn new() -> Self {
        let (orders, wanted) = channel::<Start>();
        let run = move || {
            // A process must not outlive the thread that started it (`serve`): this one ends with the gateway.
            for (mut command, reply) in wanted {
                drop(reply.send(command.spawn()));
            }
        };
        let thread = std::thread::Builder::new().name("weir-starter".to_owned()).spawn(run);
        Self(thread.is_ok().then_some(orders))
    }

    fn start(&self, mut command: Command) -> std::io::Result<Child> {
        let Some(orders) = &self.0 else { return command.spawn() };
        let (reply, started) = sync_channel(1);
        let gone = || std::io::Error::other("the thread that starts compilers has ended");
        orders.send((command, reply)).map_err(|_| gone())?;
        started.recv().map_err(|_| gone())?
    }
}

/// What the other process takes of the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// What nobody else wants: requests do not notice it.
    StandingBack,
    /// Its share, though a smaller one than workers: a plugin must come to life on a machine that has nothing to spare, too.
    Pressing,
}

impl Pace {
    /// The word for the other process.
    const fn name(self) -> &'static str {
        match self {
            Self::StandingBack => "standing-back",
            Self::Pressing => "pressing",
        }
    }
}

impl Compiler {
    /// This program, for an engine with so much address space for each memory.
    pub(crate) fn new(program: &Path, cache: &Path, reservation: u64) -> Self {
        let arguments = vec![ARGUMENT.to_owned(), cache.display().to_string(), reservation.to_string()];
        let (max_time, max_memory) = (MAX_TIME, MAX_MEMORY);
        let (program, notes, busy, starter) = (program.to_owned(), cache.join("notes"), Mutex::default(), Starter::new());
        Self { program, arguments, notes, max_time, max_memory, busy, starter }
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
            Err(Failed::Slow) => Err(LoadError::Compile(format!("takes more than {:?} to compile", self.max_time))),
            Err(Failed::System(reason)) => {
                tracing::warn!("plugins are compiled in this process, no other can be had: {reason}");
                Ok(())
            }
        }
    }

    fn compile(&self, grade: Grade, component: &[u8]) -> Result<(), Failed> {
        if self.was_busy() {
            return self.compile_at(Pace::Pressing, grade, component);
        }
        match self.compile_at(Pace::StandingBack, grade, component) {
            Err(Failed::Slow) => {
                *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                self.compile_at(Pace::Pressing, grade, component)
            }
            ended => ended,
        }
    }

    /// Whether nothing was left of the processors a moment ago.
    pub(crate) fn was_busy(&self) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.is_some_and(|since| since.elapsed() < BUSY_FOR)
    }

    fn compile_at(&self, pace: Pace, grade: Grade, component: &[u8]) -> Result<(), Failed> {
        let mut child = self.start(pace, grade, component).map_err(|error| Failed::System(error.to_string()))?;
        let ended = self.wait(&mut child, pace, share(component.len()));
        let status = match ended {
            Ok(status) => status,
            Err(failed) => {
                bury(child);
                return Err(failed);
            }
        };
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

    fn start(&self, pace: Pace, grade: Grade, component: &[u8]) -> std::io::Result<Child> {
        // A file has no end that somebody must read.
        let mut input = File::from(rustix::fs::memfd_create("component", MemfdFlags::CLOEXEC)?);
        input.write_all(component)?;
        input.rewind()?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args([grade.name(), pace.name()])
            .env_clear()
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        match pace {
            Pace::StandingBack => command.spawn(),
            Pace::Pressing => self.starter.start(command),
        }
    }

    /// Waits for the end of the process, within its limits.
    fn wait(&self, child: &mut Child, pace: Pace, share: u32) -> Result<ExitStatus, Failed> {
        let started = Instant::now();
        // Told of its end at once, where the system can tell; else it is asked now and then.
        let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok();
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return Err(Failed::System(error.to_string())),
            }
            let so_far = started.elapsed();
            let starved = pace == Pace::StandingBack && is_starved(processor_time(child.id()), so_far, share);
            if starved || so_far >= self.max_time {
                return Err(Failed::Slow);
            }
            if resident(child.id()).is_some_and(|bytes| bytes > self.max_memory) {
                return Err(Failed::Plugin(format!("needs more than {} MiB of memory to compile", self.max_memory >> 20)));
            }
            pause(end.as_ref());
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
    /// It takes too long, or nothing was left for it to begin with.
    Slow,
}

/// Whether a process that stands back gets next to nothing: `used` is what it had of the processors since it began.
fn is_starved(used: Option<Duration>, so_far: Duration, share: u32) -> bool {
    so_far >= PATIENCE && used.is_some_and(|used| used < so_far / share)
}

const fn is_small(bytes: usize) -> bool {
    bytes <= SMALL
}

const fn share(bytes: usize) -> u32 {
    if is_small(bytes) { SHARE_OF_SMALL } else { SHARE }
}

/// Ends a process, and waits for that elsewhere: one that stands back has to wait for a processor even to end.
fn bury(mut child: Child) {
    drop(child.kill());
    let wait = move || drop(child.wait());
    // Without a thread it is a zombie until the gateway ends, which costs a number.
    drop(std::thread::Builder::new().name("weir-bury".to_owned()).spawn(wait));
}

/// Until the process has ended, or for a moment.
fn pause(end: Option<&OwnedFd>) {
    let waited = end.map(|end| {
        let moment = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
        poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&moment))
    });
    if waited.is_none_or(|waited| waited.is_err()) {
        std::thread::sleep(LOOK_EVERY);
    }
}

/// User and system time of a process.
fn processor_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The 14th and the 15th field; the second is the program's name in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u32>().ok();
    Some(TICK * ticks(11)?.saturating_add(ticks(12)?))
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
    let [cache, reservation, grade, pace] = arguments else {
        return Err(system("expected: CACHE RESERVATION GRADE PACE".to_owned()));
    };
    // Workers that share the processors come first.
    let stands_back = pace == Pace::StandingBack.name() && stand_back().is_ok();
    if !stands_back {
        let _ = rustix::process::nice(2);
    }
    let reservation: u64 = reservation.parse().map_err(|_| system("RESERVATION is no number".to_owned()))?;
    let mut component = Vec::new();
    std::io::stdin().read_to_end(&mut component).map_err(|error| system(error.to_string()))?;
    let grade = if grade == Grade::Draft.name() { Grade::Draft } else { Grade::Serving };
    let engine = grade.compiler(Path::new(cache), reservation).map_err(system)?;
    if stands_back && is_small(component.len()) {
        // Where it may not it has all of them.
        let _ = keep_to_half();
    }
    Component::new(&engine, &component).map_err(|error| (BAD, format!("{error:#}")))?;
    prune(Path::new(cache), MAX_CACHE);
    Ok(())
}

/// Removes the oldest compiled forms while there are too many bytes of them, and the notes of those. The cache's own cleaning takes a
/// process that lives on, and knows nothing of notes: what is noted and not there would be compiled by the gateway itself.
fn prune(cache: &Path, most: u64) {
    let directories = fs::read_dir(cache.join("modules")).into_iter().flatten().flatten();
    let mut forms: Vec<_> = directories.flat_map(|directory| files(&directory.path())).collect();
    let mut bytes: u64 = forms.iter().map(|(_, length, _)| length).sum();
    forms.sort();
    let mut gone_until = None;
    for (modified, length, path) in forms {
        if bytes <= most {
            break;
        }
        bytes = bytes.saturating_sub(length);
        gone_until = modified;
        // Somebody else may have removed it.
        drop(fs::remove_file(path));
    }
    let Some(gone_until) = gone_until.and_then(|until| until.checked_add(NOTED_WITHIN)) else { return };
    // A note too few costs another process.
    let stale = files(&cache.join("notes")).into_iter().filter(|(noted, ..)| noted.is_some_and(|noted| noted <= gone_until));
    stale.for_each(|(.., path)| drop(fs::remove_file(path)));
}

/// When the files of a directory were modified, their bytes and paths.
fn files(directory: &Path) -> Vec<(Option<SystemTime>, u64, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let file = |entry: fs::DirEntry| {
        let metadata = entry.metadata().ok()?;
        Some((metadata.modified().ok(), metadata.len(), entry.path()))
    };
    entries.filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::priority::{Behind, stand};

    fn shell(script: &str) -> Compiler {
        let arguments = ["-c", script].map(str::to_owned).to_vec();
        let (max_time, max_memory) = (Duration::from_secs(30), 64 << 20);
        let (notes, busy, starter) = ("/nonexistent".into(), Mutex::default(), Starter::new());
        Compiler { program: "/bin/sh".into(), arguments, notes, max_time, max_memory, busy, starter }
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
    fn what_gets_next_to_nothing_is_starved_once_it_had_the_time_to_show() {
        let millis = Duration::from_millis;
        let large =
            [(0, 100, false), (0, 200, true), (99, 200, true), (100, 200, false), (400, 1_000, true), (600, 1_000, false)];
        let small = [(0, 100, false), (0, 200, true), (49, 200, true), (50, 200, false), (200, 1_000, true), (300, 1_000, false)];
        for (bytes, cases) in [(SMALL + 1, large), (SMALL, small)] {
            for (used, so_far, starved) in cases {
                let is_starved = is_starved(Some(millis(used)), millis(so_far), share(bytes));
                assert_eq!(is_starved, starved, "{used} of {so_far} ms for {bytes} bytes");
            }
        }
        assert!(!is_starved(None, Duration::from_secs(60), SHARE), "where the system does not say");
    }

    #[test]
    fn what_presses_is_as_nice_as_the_gateway_whoever_wants_it() {
        let before = rustix::process::getpriority_process(None).unwrap();
        let compiler = shell(&format!("test $(nice) = {before}"));
        let run = move || {
            stand(Behind::Far);
            [Pace::Pressing, Pace::StandingBack].map(|pace| compiler.compile_at(pace, Grade::Serving, b"component").is_ok())
        };
        assert_eq!(std::thread::spawn(run).join().unwrap(), [true, before == 19]);
    }

    #[test]
    fn where_nothing_is_left_the_compiler_takes_its_share() {
        // Stands back and waits, as if it got no processor; else it is done at once. The shell has `-c`, so `$0` is the grade.
        let compiler = shell("test $1 = pressing || exec sleep 600");
        let started = Instant::now();
        assert_eq!(compiler.compile(Grade::Serving, b""), Ok(()));
        assert!(started.elapsed() >= PATIENCE, "it was given the time to show");
        assert!(compiler.was_busy());
        let again = shell("test $1 = pressing || { sleep 600; exit 7; }");
        *again.busy.lock().unwrap() = Some(Instant::now());
        let started = Instant::now();
        assert_eq!(again.compile(Grade::Draft, b""), Ok(()));
        assert!(started.elapsed() < Duration::from_secs(600), "the next one does not wait for what is not there");
    }

    #[test]
    fn the_time_of_a_process_is_read() {
        let busy = std::process::id();
        let until = Instant::now() + Duration::from_secs(60);
        while processor_time(busy).unwrap() < TICK {
            assert!(Instant::now() < until, "this process computes");
        }
        assert_eq!(processor_time(u32::MAX), None);
    }

    #[test]
    fn time_and_memory_are_bounded() {
        let hasty = Compiler { max_time: Duration::from_millis(100), ..shell("exec sleep 600") };
        assert_eq!(hasty.compile(Grade::Serving, b""), Err(Failed::Slow));
        // Keeps the last line, and there is only one.
        let greedy = shell("exec tail /dev/zero");
        assert_eq!(
            greedy.compile(Grade::Serving, b""),
            Err(Failed::Plugin("needs more than 64 MiB of memory to compile".to_owned()))
        );
    }

    #[test]
    fn the_oldest_compiled_forms_go_first_and_their_notes_with_them() {
        let cache = std::env::temp_dir().join(format!("weir-prune-{}", std::process::id()));
        let (modules, notes) = (cache.join("modules/wasmtime"), cache.join("notes"));
        [&modules, &notes].into_iter().for_each(|directory| fs::create_dir_all(directory).unwrap());
        let start = SystemTime::now();
        for age in 0..5 {
            for (directory, length) in [(&modules, 100), (&notes, 0)] {
                let file = File::create(directory.join(format!("{age}"))).unwrap();
                file.set_len(length).unwrap();
                file.set_modified(start - Duration::from_secs(60 * age)).unwrap();
            }
        }
        let left = |directory: &Path| {
            let mut left: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            left
        };
        prune(&cache, 500);
        assert_eq!((left(&modules).len(), left(&notes).len()), (5, 5), "there is room for all");
        prune(&cache, 250);
        assert_eq!(left(&modules), ["0", "1"]);
        assert_eq!(left(&notes), ["0", "1"], "what is noted is there");
        fs::remove_dir_all(cache).unwrap();
    }
}
