"use strict";
// Asks the server and shows the answer as it comes. Text goes in by textContent alone, never as HTML.
const at = (id) => document.getElementById(id);
const make = (tag, name, text) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};
const talk = at("talk"), state = at("state"), question = at("question"), send = at("send");
let turns = [], running = null;

function empty() {
  talk.replaceChildren(make("p", "empty", "Ask a question. Easy ones get a direct answer, hard ones a chain of thought."));
}

function headers() {
  const made = { "Content-Type": "application/json" };
  if (at("key").value) made.Authorization = "Bearer " + at("key").value;
  return made;
}

async function listModels() {
  try {
    const answer = await fetch("v1/models", { headers: headers() });
    if (answer.status === 401) {
      at("ask").querySelector("details").open = true;
      state.textContent = "This server needs an API key";
      return;
    }
    const names = (await answer.json()).data.map((model) => model.id);
    const chosen = at("model").value;
    at("model").replaceChildren(...names.map((name) => make("option", "", name)));
    at("model").value = names.includes(chosen) ? chosen : names[0];
    state.textContent = "Ready";
  } catch {
    state.textContent = "The server does not answer";
  }
}

function reply() {
  const box = make("article", "reply");
  box.setAttribute("aria-label", "Answer");
  const parts = {
    box, route: make("p", "route"), thought: make("details"), title: make("summary", "", "Thinking"),
    chain: make("div", "chain"), tree: make("div"), answer: make("div", "answer"), spent: make("p", "spent"),
  };
  parts.chain.tabIndex = 0;
  parts.thought.append(parts.title, parts.chain);
  parts.thought.open = true;
  parts.thought.hidden = true;
  // A screen reader hears the answer once, when it is complete; see `ask`.
  box.append(parts.route, parts.thought, parts.tree, parts.answer, parts.spent);
  return parts;
}

function showRoute(parts, about) {
  if (!about.route) return;
  parts.route.replaceChildren(make("b", "", about.route.name.replace("_", " ")), " on " + about.model + ": " + about.why);
}

function showTree(parts, candidates) {
  const groups = new Map();
  for (const each of candidates) groups.set(each.answer, [...(groups.get(each.answer) || []), each]);
  const scores = candidates.map((each) => each.score);
  const low = Math.min(...scores), high = Math.max(...scores);
  const sorted = [...groups].sort((a, b) => b[1].length - a[1].length);
  const root = make("ul", "tree");
  for (const [answer, members] of sorted) {
    const branch = make("li", "", `${answer || "(no answer)"}: ${members.length} of ${candidates.length}`);
    const leaves = make("ul");
    for (const member of members) {
      const leaf = make("li", member.chosen ? "leaf chosen" : "leaf");
      const bar = make("meter");
      bar.min = 0; bar.max = 1;
      bar.value = high > low ? (member.score - low) / (high - low) : 1;
      bar.setAttribute("aria-hidden", "true");
      leaf.append(bar, make("span", "", `score ${member.score.toFixed(3)}, ${member.tokens} tokens${member.chosen ? ", chosen" : ""}`));
      leaves.append(leaf);
    }
    branch.append(leaves);
    root.append(branch);
  }
  const shown = make("details");
  shown.open = true;
  shown.append(make("summary", "", `${candidates.length} candidates, ${groups.size} answers`), root);
  parts.tree.replaceChildren(shown);
}

function showSpent(parts, usage, seconds) {
  const thought = usage.completion_tokens_details.reasoning_tokens;
  parts.spent.textContent = `${usage.completion_tokens} tokens (${thought} of thinking), ${seconds.toFixed(1)} s`;
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const lines = held.split("\n\n");
    held = lines.pop();
    for (const line of lines) {
      const data = line.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function ask(text) {
  if (!turns.length) talk.replaceChildren();
  talk.append(make("div", "asked", text));
  turns.push({ role: "user", content: text });
  const parts = reply(), began = performance.now();
  talk.append(parts.box);
  parts.box.setAttribute("aria-busy", "true");
  parts.box.scrollIntoView({ block: "end" });
  running = new AbortController();
  send.textContent = "Stop";
  state.textContent = "Working";
  const body = {
    model: at("model").value, messages: turns, stream: true, stream_options: { include_usage: true },
    max_completion_tokens: Number(at("limit").value) || 256,
    temperature: Number(at("temperature").value), reasoning_display: at("display").value,
  };
  if (at("effort").value) body.reasoning_effort = at("effort").value;
  let said = "";
  try {
    const answer = await fetch("v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(body), signal: running.signal,
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    for await (const part of events(answer)) {
      if (part.error) throw new Error(part.error.message);
      if (part.ergo) {
        showRoute(parts, part.ergo);
        if (part.ergo.progress) state.textContent = `${part.ergo.progress.done} of ${part.ergo.progress.of} candidates`;
        if (part.ergo.candidates) showTree(parts, part.ergo.candidates);
      }
      if (part.usage) showSpent(parts, part.usage, (performance.now() - began) / 1000);
      const delta = part.choices.length ? part.choices[0].delta : {};
      if (delta.reasoning) {
        parts.thought.hidden = false;
        parts.chain.textContent += delta.reasoning;
        parts.chain.scrollTop = parts.chain.scrollHeight;
      }
      if (delta.content) {
        if (!said && !parts.thought.hidden) {
          parts.thought.open = false;
          parts.title.textContent = "Thought";
        }
        said += delta.content;
        parts.answer.textContent = said;
        parts.box.scrollIntoView({ block: "nearest" });
      }
    }
    state.textContent = "Answered";
    at("heard").textContent = said;
  } catch (error) {
    const stopped = error.name === "AbortError";
    parts.box.append(make("p", stopped ? "spent" : "error", stopped ? "Stopped" : error.message));
    state.textContent = stopped ? "Stopped" : "Error";
    at("heard").textContent = stopped ? "" : error.message;
  }
  if (said) turns.push({ role: "assistant", content: said });
  else turns.pop();
  parts.box.removeAttribute("aria-busy");
  running = null;
  send.textContent = "Ask";
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) return running.abort();
  const text = question.value.trim();
  if (!text) return;
  question.value = "";
  ask(text);
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
});
at("clear").addEventListener("click", () => {
  if (running) running.abort();
  turns = [];
  empty();
  question.focus();
});
at("key").addEventListener("change", listModels);
empty();
listModels();
question.focus();
