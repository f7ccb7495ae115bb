//! The end of the process: what runs may finish, nothing new begins.

use weir_tests::{Connection, Gate, LONG, Reply, Request, Setup, Upstream, eventually};

#[test]
fn a_request_in_progress_finishes_before_the_process_ends() {
    let gate = Gate::default();
    let behind = gate.clone();
    let origin = Upstream::scripted(move |_| Reply::Behind(behind.clone(), Box::new(Reply::text("finished"))));
    let mut gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    client.send(Request::get("/slow").bytes()).unwrap();
    eventually(LONG, "the request reaches the origin", || origin.count() == 1);

    gateway.signal("TERM");
    let address = gateway.plain();
    eventually(LONG, "nothing new is accepted", || Connection::open(address).is_err());
    assert!(gateway.is_running());
    gate.open();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "finished"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(gateway.wait().success());
    assert_eq!(gateway.log_of(&answer)["status"], 200, "its line is written before the end");
}

#[test]
fn idle_connections_do_not_keep_the_process() {
    let origin = Upstream::text("ok");
    let mut gateway = Setup::before(&origin).start();
    let mut idle = gateway.connect();
    assert_eq!(idle.ask(&Request::get("/")).unwrap().status, 200);
    let silent = gateway.connect();
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    assert!(idle.is_closed());
    drop(silent);
}

#[test]
fn a_request_that_never_ends_is_cut_when_the_time_is_over() {
    let origin = Upstream::scripted(|_| Reply::Behind(Gate::default(), Box::new(Reply::text("never"))));
    let mut gateway = Setup::before(&origin).section("[limits]\ndrain = \"500ms\"").start();
    let mut client = gateway.connect();
    client.send(Request::get("/").bytes()).unwrap();
    eventually(LONG, "the request reaches the origin", || origin.count() == 1);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
}
