"use strict";
// Shows what the server sends, and sends what is typed. Whatever a model wrote becomes text nodes and nothing else.
(() => {
  const by = (id) => document.getElementById(id);
  const form = by("form");
  const question = by("question");
  const blind = by("blind");
  const status = by("status");
  const rounds = new Map(); // number → { shown: what was sent last, element }
  let key = "";
  let busy = false;

  const make = (tag, className, ...content) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...content);
    return element;
  };
  const trouble = (words) => {
    by("trouble").textContent = words;
    by("trouble").hidden = !words;
  };
  const say = (words) => {
    if (status.textContent !== words) status.textContent = words;
  };

  const post = async (path, body) => {
    const answer = await fetch(path, {
      method: "POST",
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.error.message ?? said.error);
    return said;
  };
  const attempt = async (path, body) => {
    try {
      await post(path, body);
      trouble("");
      return true;
    } catch (error) {
      trouble(error instanceof TypeError ? "Thriftbit does not answer. Is it still running in the terminal?" : error.message);
      return false;
    }
  };

  // The columns
  const texts = (pieces, original) => pieces.map(([text, differs]) => {
    if (!differs) return document.createTextNode(text);
    return make(original ? "del" : "ins", "", text);
  });
  const columnOf = (column) => {
    const element = make("div", column.original ? "column of-original" : "column");
    const title = make("h4", "", column.title);
    if (column.original) title.append(" ", make("span", "badge", "original"));
    element.append(title);
    const text = make("p", "text", ...texts(column.pieces, column.original));
    text.dir = "auto";
    if (!text.textContent && column.state !== "ended") {
      text.append(make("span", "waiting", column.state === "waiting" ? "waits for its turn" : "writing …"));
    } else if (!text.textContent && !column.error) {
      text.append(make("span", "waiting", "(it wrote nothing)"));
    }
    element.append(text);
    if (column.error) element.append(make("p", "failed", column.error));
    if (column.remark) element.append(make("p", "remark", column.remark));
    if (column.numbers.length) {
      const rows = column.numbers.map(([name, value]) => make("div", "", make("dt", "", name), make("dd", "", value)));
      element.append(make("dl", "", ...rows));
    }
    return element;
  };

  // Votes
  const choices = (round) => [["1", round.columns[0].title, 0], ["2", round.columns[1].title, 1], ["3", "I can't tell", null]];
  const vote = async (number, picked) => {
    for (const button of rounds.get(number).element.querySelectorAll(".vote button")) button.disabled = true;
    const kept = await attempt("/api/vote", { number, picked });
    if (!kept) for (const button of rounds.get(number).element.querySelectorAll(".vote button")) button.disabled = false;
  };
  const voteOf = (round) => {
    const element = make("fieldset", "vote", make("legend", "", "Which one is the original?"));
    element.tabIndex = -1;
    if (round.remark) element.append(make("p", "fine", round.remark));
    const buttons = choices(round).map(([name, words, picked]) => {
      const button = make("button", "", words, make("kbd", "", name));
      button.type = "button";
      button.setAttribute("aria-keyshortcuts", name);
      button.addEventListener("click", () => vote(round.number, picked));
      return button;
    });
    element.append(make("div", "", ...buttons));
    return element;
  };
  const verdictOf = (round) => {
    const original = round.columns.findIndex((column) => column.original) + 1;
    const words = {
      original: `Right: answer ${original} is the original's.`,
      other: `No: answer ${original} is the original's.`,
      "cannot tell": `Answer ${original} is the original's.`,
    }[round.picked];
    return make("p", round.picked === "other" ? "verdict-line wrong" : "verdict-line", make("b", "", words), ` ${round.result}`);
  };

  const show = (round) => {
    const known = rounds.get(round.number);
    const element = make("article", "round");
    element.setAttribute("aria-labelledby", `round-${round.number}`);
    const title = make("h3", "", round.question);
    title.id = `round-${round.number}`;
    title.dir = "auto";
    element.append(title, make("p", "fine", `${round.blind ? "Blind test. " : ""}${round.settings}`));
    if (round.picked) element.append(verdictOf(round));
    if (round.void) element.append(make("p", "verdict-line wrong", "This one does not count: an answer was stopped or failed."));
    element.append(make("div", "columns", ...round.columns.map(columnOf)));
    if (round.can_vote) element.append(voteOf(round));
    if (known) known.element.replaceWith(element);
    else by("rounds").prepend(element);
    rounds.set(round.number, { shown: round, element });
    by("nothing").hidden = true;
    tell(round, known?.shown);
    return element;
  };

  // What a screen reader is told: that something began or ended, and not every word
  const tell = (round, before) => {
    if (!round.ended) {
      const writing = round.columns.find((column) => column.state === "writing");
      say(round.blind ? "Both are answering; you see them when both are done." : writing ? `${writing.title} is answering …` : "Answering …");
    } else if (before && !before.ended) {
      say(round.can_vote ? "Both have answered. Which one is the original?" : "All have answered.");
      if (round.can_vote && !question.value && [question, document.body, by("stop")].includes(document.activeElement)) {
        rounds.get(round.number).element.querySelector(".vote").focus();
      }
    } else if (before && round.picked && !before.picked) {
      say(rounds.get(round.number).element.querySelector(".verdict-line").textContent);
      question.focus({ preventScroll: true });
    }
  };

  const showFiles = (known) => {
    by("files").replaceChildren(...known.files.map((file, number) => {
      const name = make("b", "", file.label);
      if (number === 0) name.append(make("span", "badge", "original"));
      return make("li", "", name, make("span", "", `${file.name} · ${file.size} · ${file.bits} bits per weight`));
    }));
    by("how").textContent = known.how;
    const options = (texts) => texts.map(([value, text]) => new Option(text, value));
    if (!by("longest").options.length) {
      by("longest").replaceChildren(...options(known.lengths.map((length) => [length, `up to ${length} tokens`])));
      by("longest").value = known.lengths[1];
      by("against").replaceChildren(...options(known.files.map((file, number) => [number, file.label]).slice(1)));
    }
    document.title = `${known.files.map((file) => file.label).join(" and ")} – Thriftbit`;
    showChoices();
  };
  const showChoices = () => {
    by("against-label").hidden = !blind.checked || by("against").options.length < 2;
  };

  const take = (said) => {
    if (said.files) {
      rounds.clear();
      by("rounds").replaceChildren();
      showFiles(said);
    }
    if (said.tallies) {
      by("tallies").replaceChildren(...said.tallies.map((text) => make("li", text.startsWith("You") ? "some" : "", text)));
    }
    for (const round of said.rounds ?? []) show(round);
    if ("busy" in said) {
      busy = said.busy;
      by("send").disabled = busy;
      by("stop").hidden = !busy;
    }
  };

  // One long answer, a line for every change; when it breaks off, another is asked for
  const follow = async () => {
    const answer = await fetch("/api/changes", { headers: { Authorization: `Bearer ${key}` } });
    if (!answer.ok) {
      const { error } = await answer.json();
      return error.message ?? error;
    }
    trouble("");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return "";
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) take(JSON.parse(line));
    }
  };
  const enter = async () => {
    const said = new URLSearchParams(location.hash.slice(1));
    key = said.get("key") ?? "";
    if (said.get("ticket")) {
      try {
        key = (await post("/api/enter", { ticket: said.get("ticket") })).key;
        history.replaceState(null, "", `#key=${key}`);
      } catch (error) {
        trouble(error.message);
        return;
      }
    }
    for (;;) {
      let refused = "";
      try {
        refused = await follow();
      } catch { /* it is gone, and is asked again */ }
      trouble(refused || "Thriftbit has ended. Start it again in the terminal, and open the address that it prints.");
      busy = true;
      by("send").disabled = true;
      if (refused) return;
      await new Promise((resolve) => { setTimeout(resolve, 2000); });
    }
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy || !question.value.trim()) return;
    const asked = question.value;
    busy = true;
    const accepted = await attempt("/api/ask", {
      question: asked,
      blind: blind.checked,
      against: Number(by("against").value),
      temperature: Number(by("temperature").value),
      longest: Number(by("longest").value),
    });
    if (accepted && question.value === asked) question.value = "";
    if (!accepted) busy = false;
  });
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  by("stop").addEventListener("click", () => attempt("/api/stop", {}));
  blind.addEventListener("change", showChoices);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && busy) attempt("/api/stop", {});
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("textarea, input, select")) return;
    const open = [...rounds.values()].filter(({ shown }) => shown.can_vote).at(-1);
    const choice = open && choices(open.shown).find(([name]) => name === event.key);
    const button = choice && open.element.querySelectorAll(".vote button")[Number(choice[0]) - 1];
    if (button && !button.disabled) button.click();
  });
  addEventListener("hashchange", () => location.reload());
  enter();
})();
