use std::path::Path;

use serde_json::Value;

use super::*;
use crate::observe::fixture;

const LONG: Duration = Duration::from_secs(10);

fn recorder(settings: &Settings) -> Recorder {
    Recorder::start(settings, Arc::default()).unwrap()
}

fn to_file(path: &Path) -> Settings {
    Settings { access_log: Output::File(path.to_owned()), ..Settings::default() }
}

fn events(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned()).collect()
}

/// A directory of this process that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-observe-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_record_is_one_line_of_the_file() {
    let directory = Directory::new("lines");
    let path = directory.0.join("access.log");
    let recorder = recorder(&to_file(&path));
    for _ in 0..100 {
        recorder.record(Box::new(fixture::relayed()));
        recorder.record_connection(fixture::connection());
    }
    assert!(recorder.shutdown(LONG));
    assert_eq!(events(&path), ["request", "connection"].repeat(100));
    recorder.record(Box::new(fixture::relayed()));
    assert_eq!(recorder.metrics().dropped_total(Signal::Log), 1, "nobody writes after the end");
    assert!(!recorder.shutdown(LONG), "a second end does nothing");
}

#[test]
fn a_rotated_log_goes_on_under_its_name() {
    let directory = Directory::new("rotate");
    let (path, old) = (directory.0.join("access.log"), directory.0.join("access.log.1"));
    let recorder = recorder(&to_file(&path));
    let mut lines = recorder.subscribe();
    recorder.record(Box::new(fixture::relayed()));
    wait(&mut lines);
    std::fs::rename(&path, &old).unwrap();
    recorder.reopen();
    recorder.record_connection(fixture::connection());
    assert!(recorder.shutdown(LONG));
    assert_eq!((events(&old), events(&path)), (vec!["request".to_owned()], vec!["connection".to_owned()]));
}

#[test]
fn settings_change_while_it_runs() {
    let directory = Directory::new("apply");
    let (first, second) = (directory.0.join("1.log"), directory.0.join("2.log"));
    let recorder = recorder(&to_file(&first));
    recorder.record(Box::new(fixture::relayed()));
    assert!(recorder.apply(&to_file(&directory.0.join("missing/3.log"))).is_err());
    recorder.record(Box::new(fixture::relayed()));
    recorder.apply(&Settings { otlp: Some("http://127.0.0.1:1".to_owned()), sample: 1.0, ..to_file(&second) }).unwrap();
    assert!(recorder.begin_trace(None).sampled);
    recorder.record(Box::new(fixture::relayed()));
    recorder.apply(&Settings::default()).unwrap();
    assert!(!recorder.begin_trace(None).sampled, "nothing is sampled without a collector");
    recorder.record(Box::new(fixture::relayed()));
    assert!(recorder.shutdown(LONG));
    assert_eq!((events(&first).len(), events(&second).len()), (2, 1));
}

#[test]
fn subscribers_see_lines_without_a_log_and_cost_nothing_when_gone() {
    let recorder = recorder(&Settings::default());
    recorder.record(Box::new(fixture::relayed()));
    assert!(!recorder.shared.wants().lines());
    let (mut one, mut other) = (recorder.subscribe(), recorder.subscribe());
    recorder.record(Box::new(fixture::denied()));
    assert_eq!(wait(&mut one), wait(&mut other));
    drop(one);
    recorder.record(Box::new(fixture::relayed()));
    assert_eq!(wait(&mut other)["status"], 200);
    drop(other);
    assert!(!recorder.shared.wants().lines());
}

#[test]
fn the_latest_lines_are_kept_when_asked() {
    let recorder = recorder(&Settings { recent: 3, ..Settings::default() });
    for status in 200..210 {
        recorder.record(Box::new(AccessRecord { status, ..fixture::relayed() }));
    }
    assert!(recorder.shutdown(LONG));
    let statuses: Vec<_> =
        recorder.recent().iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [207, 208, 209]);
}

#[test]
fn a_stuck_log_drops_lines_but_never_blocks() {
    let directory = Directory::new("stuck");
    let path = directory.0.join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Opened for reading too, so that the recorder's open succeeds; nobody reads, so its writes block once the pipe is full.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let recorder = recorder(&to_file(&path));
    let mut records = 0;
    let mut record = || {
        records += 1;
        recorder.record(Box::new(fixture::relayed()));
        recorder.metrics().dropped_total(Signal::Log)
    };
    let began = Instant::now();
    // The thread is stuck once it makes no room for a while; before, it may be slow only.
    let (mut dropped, mut full) = (0, 0);
    while full < 20 {
        let now = record();
        full = if now > dropped { full + 1 } else { 0 };
        if full > 0 {
            thread::sleep(Duration::from_millis(5));
        }
        dropped = now;
        assert!(began.elapsed() < LONG, "the thread writes on, and nobody reads");
    }
    assert!(dropped < records, "{dropped}");
    assert!(matches!(recorder.apply(&Settings::default()), Err(Error::Stuck)));
    assert!(!recorder.shutdown(Duration::from_millis(10)), "the thread is stuck, the caller is not");
    drop(reader);
}

#[track_caller]
fn wait(lines: &mut Subscription) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let line = runtime.block_on(async { tokio::time::timeout(LONG, lines.next()).await });
    serde_json::from_str(&line.unwrap().unwrap()).unwrap()
}
