// Refuses clients by words in their User-Agent: what `weir plugin new` writes in Rust, in JavaScript.
//
// The exports are the functions of `handler` in weir:policy, in camel case. A phase that `describe` does not list is never
// called, but the contract wants every function to be there.

import { write } from "weir:policy/log@0.1.1";

const schema = {
  type: "object",
  additionalProperties: false,
  required: ["agents"],
  properties: { agents: { type: "array", items: { type: "string", minLength: 1 } } },
};

const next = { tag: "next" };

let agents = [];

export const handler = {
  describe() {
    return JSON.stringify({
      name: "block-agent-js",
      version: "0.1.0",
      phases: ["request"],
      capabilities: ["log"],
      schema,
    });
  },

  configure(config) {
    const words = JSON.parse(config).agents;
    const empty = words.findIndex((word) => word.trim() === "");
    if (empty >= 0) {
      // What is thrown is the error of the result.
      throw `agents[${empty}]: an empty word refuses everybody`;
    }
    agents = words.map((word) => word.toLowerCase());
    return "";
  },

  onRequest(request) {
    // Header values are bytes, and a character each is enough to look for words.
    const agent = String.fromCharCode(...(request.header("user-agent") ?? [])).toLowerCase();
    const word = agents.find((word) => agent.includes(word));
    if (word === undefined) {
      return next;
    }
    write("debug", `${word} in ${agent}`);
    return { tag: "deny", val: { status: 403, rule: word, reason: "agent_blocked" } };
  },

  onConnection: () => next,
  onRequestBody: () => next,
  onResponse: () => next,
  onResponseBody: (_request, chunk) => chunk,
  onComplete() {},
};
