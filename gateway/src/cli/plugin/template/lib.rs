//! Refuses clients by what they say they are: the words of `agents`, anywhere in the User-Agent.

use serde::Deserialize;
use weir_sdk::prelude::*;

/// `config` of `[policy.{{name}}]`; `schema.json` describes it to the gateway.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Words in any case.
    agents: Vec<String>,
}

/// Its words are in lower case.
struct {{Type}}(Config);

#[policy(schema = "schema.json")]
impl Policy for {{Type}} {
    type Config = Config;

    fn configure(mut config: Config) -> Result<Self, String> {
        for (place, agent) in config.agents.iter_mut().enumerate() {
            if agent.trim().is_empty() {
                return Err(format!("agents[{place}]: an empty word refuses everybody"));
            }
            *agent = agent.to_lowercase();
        }
        Ok(Self(config))
    }

    fn request(&self, request: Request<'_>) -> Verdict {
        let agent = request.header_text("user-agent").unwrap_or_default();
        let agent = agent.to_lowercase();
        for word in &self.0.agents {
            if agent.contains(word) {
                return Verdict::deny(word, "agent_blocked");
            }
        }
        Verdict::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same cases run in the gateway's own host: `weir plugin test`.
    #[test]
    fn cases_pass() {
        weir_sdk::testing::run_cases::<{{Type}}>("cases");
    }
}
