//! A gateway that was replaced by another process, perhaps more than once.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::client::Answer;
use crate::gateway::Gateway;
use crate::setup::install;

impl Gateway {
    /// Replaces the running process by whatever lies at the path of its binary.
    #[must_use]
    pub fn upgrade(&self) -> Answer {
        self.admin("POST /v1/upgrade")
    }

    /// The same, and expects that it works. Answers the number of the new process.
    ///
    /// # Panics
    /// It does not.
    pub fn upgrade_ok(&self) -> u32 {
        let answer = self.upgrade();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json: Value = serde_json::from_slice(&answer.body).expect("JSON");
        json["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process id")
    }

    /// The number of the process that was started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The numbers of the processes that replaced it, oldest first, as standard error tells.
    #[must_use]
    pub fn successors(&self) -> Vec<u32> {
        let said = self.stderr();
        let lines = said.lines().filter(|line| line.contains("the new process serves") || line.contains("taking over"));
        let pid = |line: &str| line.split("pid=").nth(1)?.split_whitespace().next()?.parse().ok();
        lines.filter_map(pid).collect()
    }

    /// Puts another program in the place of [`Setup::own_binary`](crate::Setup::own_binary)'s, as an installer does: by renaming.
    ///
    /// # Panics
    /// The system refuses.
    pub fn replace_binary(&self, content: impl AsRef<[u8]>) {
        let beside = self.directory().write("weir.source", content);
        install(&beside, &self.directory().path().join("weir"));
    }
}

/// Whether a process runs: one that has ended and was not waited for does not.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    // The state follows the name, which is in parentheses.
    status.is_ok_and(|status| status.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// Sends a signal. A process that has ended gets none.
pub(crate) fn kill(signal: &str, pid: u32) {
    let kill = format!("kill -{signal} {pid} 2>/dev/null");
    drop(Command::new("sh").args(["-c", &kill]).status());
}
