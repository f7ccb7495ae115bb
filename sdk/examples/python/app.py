"""Refuses clients by words in their User-Agent: what `weir plugin new` writes in Rust, in Python.

The class has the functions of `handler` in weir:policy, in snake case. A phase that `describe` does not list is never called,
but the contract wants every function to be there.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import log
from wit_world.imports.types import Denial, Verdict_Deny, Verdict_Next

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["agents"],
    "properties": {"agents": {"type": "array", "items": {"type": "string", "minLength": 1}}},
}


class Handler(exports.Handler):
    def __init__(self):
        pass

    def describe(self):
        return json.dumps(
            {"name": "block-agent-py", "version": "0.1.0", "phases": ["request"], "capabilities": ["log"], "schema": SCHEMA}
        )

    def configure(self, config):
        words = json.loads(config)["agents"]
        for place, word in enumerate(words):
            if not word.strip():
                raise Err(f"agents[{place}]: an empty word refuses everybody")
        global agents
        agents = [word.lower() for word in words]
        return ""

    def on_request(self, request):
        # Header values are bytes.
        agent = (request.header("user-agent") or b"").decode("utf-8", "replace").lower()
        for word in agents:
            if word in agent:
                log.write(log.Level.DEBUG, f"{word} in {agent}")
                return Verdict_Deny(Denial(403, word, "agent_blocked"))
        return Verdict_Next()

    def on_connection(self, connection):
        return Verdict_Next()

    def on_request_body(self, request, window, complete):
        return Verdict_Next()

    def on_response(self, request, response):
        return Verdict_Next()

    def on_response_body(self, request, chunk, last):
        return chunk

    def on_complete(self, request, outcome):
        pass
