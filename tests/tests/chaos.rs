//! Every way in which an upstream can misbehave, and what a client sees of it.

use std::time::Duration;

use weir_tests::chaos::{Behaviour, ChaosUpstream, Fault};
use weir_tests::{Connection, Gateway, LONG, Request, Setup, eventually, setup};

/// What a client may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    /// A whole answer of this status.
    Answer(u16),
    /// The beginning of an answer, and then no clean end.
    CutOff,
}

const CASES: [(Fault, Sees); 10] = [
    (Fault::DieMidResponse, Sees::CutOff),
    // The deadline is for the whole head.
    (Fault::SlowHead, Sees::Answer(504)),
    (Fault::SlowBody, Sees::Answer(200)),
    (Fault::ResetAfterHead, Sees::CutOff),
    (Fault::ShortBody, Sees::CutOff),
    (Fault::Garbage, Sees::Answer(502)),
    (Fault::HalfClose, Sees::Answer(502)),
    (Fault::ManyInterim, Sees::Answer(200)),
    (Fault::CloseOnReuse, Sees::Answer(200)),
    (Fault::Silence, Sees::Answer(504)),
];

struct Stage {
    gateway: Gateway,
    upstreams: Vec<(Fault, Sees, ChaosUpstream)>,
}

/// A site and an upstream for every fault.
fn stage() -> Stage {
    let start = |(fault, sees)| {
        (fault, sees, ChaosUpstream::start("127.0.0.1:0".parse().unwrap(), Behaviour::always(fault), None).unwrap())
    };
    let upstreams: Vec<(Fault, Sees, ChaosUpstream)> = CASES.into_iter().map(start).collect();
    let gateway = upstreams.iter().enumerate().fold(Setup::empty(), |setup, (number, (_, _, upstream))| {
        let url = format!("http://{}", upstream.address());
        let site = setup::site(&format!("site{number}"), &[&host(number)], &url);
        let short = format!("[upstream.site{number}.timeouts]\nfirst_byte = \"1500ms\"\n");
        setup.section(&site.replacen("[[site]]", &format!("{short}[[site]]"), 1))
    });
    Stage { gateway: gateway.start(), upstreams }
}

fn host(number: usize) -> String {
    format!("fault{number}.test")
}

fn ask(gateway: &Gateway, number: usize) -> Sees {
    let request = Request::get("/thing").host(&host(number));
    let answer = Connection::open(gateway.plain()).unwrap().ask(&request);
    answer.map_or(Sees::CutOff, |answer| Sees::Answer(answer.status))
}

#[test]
fn a_client_never_takes_a_broken_answer_for_a_whole_one() {
    let stage = stage();
    std::thread::scope(|scope| {
        for (number, (fault, sees, _)) in stage.upstreams.iter().enumerate() {
            let gateway = &stage.gateway;
            // Twice: the second comes over a kept connection, if there is one.
            scope.spawn(move || {
                for round in 1..=2 {
                    assert_eq!(ask(gateway, number), *sees, "{fault:?}, round {round}");
                }
            });
        }
    });
}

#[test]
fn an_upstream_that_behaves_again_is_used_again() {
    let stage = stage();
    for (number, (fault, _, upstream)) in stage.upstreams.iter().enumerate() {
        // Whatever the client saw, and the gateway made of it.
        let _ = ask(&stage.gateway, number);
        upstream.behave(Behaviour { delay: Duration::from_millis(1), ..Behaviour::default() });
        eventually(LONG, &format!("200 after {fault:?}"), || ask(&stage.gateway, number) == Sees::Answer(200));
    }
}
