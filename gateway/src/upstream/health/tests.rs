//! Histories of one server as tables: `(milliseconds, what happened)`, then where it stands.

use super::*;

const HOLD: Duration = Duration::from_secs(10);
const RAMP: Duration = Duration::from_secs(10);

fn probed() -> Rules {
    let probes = Probes { fall: 2, rise: 3, stall: Duration::from_secs(60) };
    Rules { probes: Some(probes), hold: HOLD, ramp: RAMP }
}

const fn unprobed() -> Rules {
    Rules { probes: None, hold: HOLD, ramp: RAMP }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Good,
    Slow,
    Bad,
    NotConnected,
    RacedLost,
    Connected,
    Answered(u32),
    Reset(u32),
    WasDown,
    WasHeld,
}
use Event::{Answered, Bad, Connected, Good, NotConnected, RacedLost, Reset, Slow, WasDown, WasHeld};

fn after(rules: Rules, events: &[(u64, Event)]) -> (Health, Instant) {
    let start = Instant::now();
    let mut health = Health::new(rules, start);
    for &(at, event) in events {
        let now = start + Duration::from_millis(at);
        match event {
            Good => health.on_probe(Probed::Good, now),
            Slow => health.on_probe(Probed::Slow, now),
            Bad => health.on_probe(Probed::Bad(Cause::ProbeFailed), now),
            NotConnected => health.on_connect_failed(Cause::Refused, now),
            RacedLost => health.on_connect_slow(now),
            Connected => health.on_connected(now),
            Answered(times) => (0..times).for_each(|_| health.on_result(true, now)),
            WasDown => health.on_inherited(false, now),
            WasHeld => health.on_inherited(true, now),
            Reset(times) => (0..times).for_each(|_| health.on_result(false, now)),
        }
    }
    (health, start)
}

/// Where it stands at a time, for most of the draws.
#[track_caller]
fn check(rules: Rules, events: &[(u64, Event)], at: u64, want: &str) {
    let (health, start) = after(rules, events);
    let now = start + Duration::from_millis(at);
    let (state, _, cause) = health.describe(now);
    assert_eq!(state, want, "{events:?} at {at} ms: {cause:?}");
    let standing = match want {
        "ready" => Standing::Ready,
        "ramping" | "held" => Standing::Spare,
        "suspect" | "returning" => Standing::Suspect,
        _ => Standing::Down,
    };
    assert_eq!(health.standing(now, 0.9999), standing, "{events:?} at {at} ms");
}

#[test]
fn probes_decide_with_hysteresis() {
    let out = [(0, Bad), (2000, Bad)];
    check(probed(), &[(0, Bad)], 0, "ready");
    check(probed(), &[(0, Bad), (2000, Good), (4000, Bad)], 4000, "ready");
    check(probed(), &out, 2000, "down");
    check(probed(), &[out.as_slice(), &[(4000, Good), (6000, Good)]].concat(), 6000, "returning");
    check(probed(), &[out.as_slice(), &[(4000, Good), (6000, Bad)]].concat(), 6000, "down");
    let back = [out.as_slice(), &[(4000, Good), (6000, Good), (8000, Good)]].concat();
    check(probed(), &back, 8000, "held");
    check(probed(), &back, 11_999, "held");
    check(probed(), &back, 12_000, "ramping");
    check(probed(), &back, 22_000, "ready");
}

#[test]
fn the_ramp_grows_from_a_tenth_to_all() {
    let (health, start) = after(probed(), &[(0, Bad), (0, Bad), (1000, Good), (2000, Good), (3000, Good)]);
    let share = |at: u64| (health.share(start + Duration::from_millis(at)) * 100.0).round() as u32;
    assert_eq!([share(3000), share(10_000), share(15_000), share(20_000)], [0, 10, 55, 100]);
    let ready = |at: u64, draw: f64| health.standing(start + Duration::from_millis(at), draw) == Standing::Ready;
    assert!(ready(10_000, 0.05) && !ready(10_000, 0.5) && ready(15_000, 0.5));
}

#[test]
fn a_stalled_application_is_no_dead_server() {
    let stall = |seconds: u64| (0..=seconds / 2).map(|index| (index * 2000, Slow)).collect::<Vec<_>>();
    check(probed(), &stall(45), 45_000, "ready");
    check(probed(), &stall(60), 60_000, "down");
    check(probed(), &[stall(40), vec![(42_000, Good)], stall(40)].concat(), 90_000, "ready");
    // Slow probes do not hide dead ones, and do not count as such.
    check(probed(), &[(0, Slow), (2000, Bad), (4000, Slow), (6000, Slow)], 6000, "ready");
    check(probed(), &[(0, Slow), (2000, Bad), (4000, Bad)], 4000, "down");
    // And they bring nobody back.
    check(probed(), &[(0, Bad), (0, Bad), (1000, Good), (2000, Good), (3000, Slow), (4000, Good)], 4000, "returning");
}

#[test]
fn a_failed_connection_makes_a_suspect_and_three_take_it_out() {
    for rules in [probed(), unprobed()] {
        check(rules, &[(0, NotConnected)], 0, "suspect");
        check(rules, &[(0, RacedLost)], 0, "suspect");
        check(rules, &[(0, RacedLost), (300, Connected)], 300, "ready");
        check(rules, &[(0, NotConnected), (1, NotConnected), (2, Connected), (3, NotConnected)], 3, "suspect");
        check(rules, &[(0, NotConnected), (1, NotConnected), (2, NotConnected)], 2, "down");
    }
    check(probed(), &[(0, NotConnected), (1000, Good)], 1000, "ready");
}

#[test]
fn with_probes_only_probes_bring_a_server_back() {
    let out = [(0, NotConnected), (0, NotConnected), (0, NotConnected)];
    check(probed(), &[out.as_slice(), &[(5000, Connected), (5000, Answered(100))]].concat(), 60_000, "down");
    check(unprobed(), &[out.as_slice(), &[(5000, Connected)]].concat(), 5000, "held");
    check(unprobed(), &[out.as_slice(), &[(5000, Connected)]].concat(), 10_000, "ramping");
}

#[test]
fn without_probes_background_connections_become_rarer() {
    let (mut health, start) = after(unprobed(), &[(0, NotConnected)]);
    assert_eq!(health.check_after(), Some(Duration::ZERO), "a suspect is looked at once");
    health.on_connect_failed(Cause::Refused, start);
    assert_eq!(health.check_after(), Some(SUSPECT_PAUSE));
    let mut pauses = Vec::new();
    for _ in 0..7 {
        health.on_connect_failed(Cause::Refused, start);
        pauses.push(health.check_after().unwrap().as_secs());
    }
    assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30]);
    health.on_connected(start);
    assert_eq!(health.check_after(), None);
    let (health, _) = after(probed(), &[(0, NotConnected), (0, NotConnected), (0, NotConnected)]);
    assert_eq!(health.check_after(), None, "probes do it");
}

#[test]
fn half_of_enough_results_take_a_server_out() {
    check(probed(), &[(0, Reset(19))], 0, "ready");
    check(probed(), &[(0, Reset(20))], 0, "down");
    check(probed(), &[(0, Reset(1)), (1, Answered(9)), (2, Reset(9)), (3, Answered(1))], 3, "down");
    check(probed(), &[(0, Reset(1)), (1, Answered(100)), (2, Reset(20))], 2, "ready");
    check(probed(), &[(0, Reset(15)), (10_000, Reset(15))], 10_000, "ready");
    check(probed(), &[(0, Answered(1000)), (1000, Reset(20))], 1000, "down");
}

#[test]
fn a_flapping_server_is_held_longer_each_time_and_trouble_begins_the_hold_again() {
    let flap = |from: u64| {
        let times = [(from, Bad), (from, Bad), (from + 100, Good), (from + 200, Good), (from + 300, Good)];
        times.to_vec()
    };
    check(probed(), &flap(0), 10_000, "ramping");
    let twice = [flap(0), flap(11_000)].concat();
    check(probed(), &twice, 30_999, "held");
    check(probed(), &twice, 31_000, "ramping");
    let thrice = [twice, flap(32_000)].concat();
    check(probed(), &thrice, 71_999, "held");
    check(probed(), &thrice, 72_000, "ramping");
    // After a quiet minute it is an ordinary outage again.
    check(probed(), &[thrice, flap(140_000)].concat(), 150_000, "ramping");
    // One failed probe while it is held is no outage, but the hold begins again.
    let shaken = [flap(0), vec![(9000, Bad), (9500, Good)]].concat();
    check(probed(), &shaken, 18_999, "held");
    check(probed(), &shaken, 19_000, "ramping");
    // What goes down while it is held was not back: the same outage.
    check(probed(), &[flap(0), flap(5000)].concat(), 14_999, "held");
    check(probed(), &[flap(0), flap(5000)].concat(), 15_000, "ramping");
    // However long it flaps, the hold has an end.
    let long = (0..40).flat_map(|index| flap(index * 400_000 % 40_000 + index * 100)).collect::<Vec<_>>();
    let (health, _) = after(probed(), &long);
    assert!(health.hold <= MAX_HOLD);
}

#[test]
fn one_hertz_flapping_switches_at_most_twice_in_a_minute() {
    // Up for half a second, down for half a second; probes at every phase of it.
    for every in [300, 700, 1000, 1900, 2000, 2100] {
        let (mut health, start) = after(probed(), &[]);
        let (mut switches, mut was) = (0, true);
        for at in (0..60_000).step_by(every) {
            let now = start + Duration::from_millis(at as u64);
            health.on_probe(if at % 1000 < 500 { Probed::Good } else { Probed::Bad(Cause::Refused) }, now);
            let is = health.standing(now, 0.5) == Standing::Ready;
            switches += u32::from(is != was);
            was = is;
        }
        assert!(switches <= 2, "{switches} with a probe every {every} ms");
    }
}

#[test]
fn what_the_process_before_knew_is_believed() {
    check(unprobed(), &[(0, WasDown)], 60_000, "down");
    check(unprobed(), &[(0, WasDown), (1000, Connected)], 1000, "held");
    check(probed(), &[(0, WasDown), (1000, Connected)], 1000, "down");
    check(probed(), &[(0, WasDown), (2000, Good), (4000, Good), (6000, Good)], 6000, "held");
    check(probed(), &[(0, WasHeld)], 9999, "held");
    check(probed(), &[(0, WasHeld)], 10_001, "ramping");
}
