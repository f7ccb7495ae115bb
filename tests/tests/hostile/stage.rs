//! A gateway with the guest `hostile`, which does what the header `x-do` asks for.

use serde_json::Value;
use weir_tests::{Answer, Gateway, Request, Setup, Upstream};

/// A gateway whose one policy means harm.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) origin: Upstream,
    pub(crate) gateway: Gateway,
}

impl Stage {
    /// With these limits, such as `log = "1KiB"`.
    pub(crate) fn with(limits: &str) -> Self {
        Self::of(&format!("limits = {{ {limits} }}"), &[])
    }

    /// With these lines, called in these phases besides the request phase.
    pub(crate) fn of(lines: &str, phases: &[&str]) -> Self {
        let origin = Upstream::text("ok");
        let lines = format!("grants = [\"kv\"]\nconfig = {{ phases = {phases:?} }}\n{lines}");
        let gateway = Setup::before(&origin).server("workers = 1").replace("workers = 2\n", "").guest("hostile", &lines).start();
        Self { origin, gateway }
    }

    /// Asks for harm.
    pub(crate) fn ask(&self, order: &str) -> Answer {
        self.gateway.ask(&order_of(order))
    }

    /// Asks for harm that the policy survives: its answer, and what it came to.
    #[track_caller]
    pub(crate) fn done(&self, order: &str) -> (Value, u64) {
        let answer = self.ask(order);
        let line = self.gateway.log_of(&answer);
        assert_eq!(answer.status, 200, "{order}: {line}");
        let done = line["tags"]["done"].as_str().and_then(|done| done.parse().ok());
        let done = done.unwrap_or_else(|| panic!("{order}: {line}"));
        (line, done)
    }

    /// Asks for harm that ends the call with one of these reasons.
    #[track_caller]
    pub(crate) fn fails(&self, order: &str, reasons: &[&str]) {
        let answer = self.ask(order);
        let line = self.gateway.log_of(&answer);
        assert_eq!(answer.status, 503, "{order}: {line}");
        assert!(reasons.iter().any(|reason| line["reason"] == *reason), "{order}: {line}");
        assert_eq!(line["decided_by"], "hostile", "{order}: {line}");
    }

    /// What was left out so far, such as `log_lines`.
    pub(crate) fn dropped(&self, what: &str) -> f64 {
        self.gateway.metric(&format!("weir_plugin_counter_total{{plugin=\"hostile\",name=\"dropped\",label=\"{what}\"}}"))
    }
}

pub(crate) fn order_of(order: &str) -> Request {
    Request::get("/").header("x-do", order)
}
