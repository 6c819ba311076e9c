// The trajectory browser. All text goes in as text, never as markup.
(async () => {
  "use strict";
  const PAGE = 25;
  const byId = (id) => document.getElementById(id);

  async function unpacked(element) {
    const bytes = Uint8Array.from(atob(element.textContent.trim()), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  function make(name, options = {}, ...children) {
    const element = document.createElement(name);
    const { classes, ...rest } = options;
    if (classes) element.className = classes;
    for (const [key, value] of Object.entries(rest)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  const data = await unpacked(byId("trajectories"));
  const { sources, questions, trajectories, vocabulary } = data;
  const signed = (value, digits = 2) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
  const percent = (logprob) => `${(100 * Math.exp(logprob)).toPrecision(2)} %`;

  function label(source) {
    const seed = source.seed === null ? "" : ` seed ${source.seed}`;
    const when = source.iteration === null ? "" : `, ${source.kind === "training" ? "iteration" : "update"} ${source.iteration}`;
    return `${source.arm}${seed}${when}`;
  }

  // What a trajectory ended with, by its answer.
  function result(one) {
    if (one.answer === null) return "no answer";
    return one.f1 === 1 ? "right" : one.f1 > 0 ? "partly right" : "wrong";
  }

  const CASES = {
    "wrong answer, one right retrieval": (one) => one.f1 === 0 && one.found === 1,
    "right answer without evidence": (one) => one.f1 === 1 && one.found === 0 && questions[one.question].supporting > 0,
    "highest information gain": null,
  };

  const FILTERS = {
    of: (one) => sources[one.source].kind,
    method: (one) => sources[one.source].arm,
    iteration: (one) => (sources[one.source].iteration === null ? "none" : String(sources[one.source].iteration)),
    benchmark: (one) => questions[one.question].benchmark,
    type: (one) => questions[one.question].type || "none",
    answer: result,
    stop: (one) => one.stop.split(":")[0].replace("_", " "),
  };

  const form = byId("filters");
  const selects = {};
  for (const [name, value] of Object.entries(FILTERS)) {
    const kinds = [...new Set(trajectories.map(value))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    selects[name] = choice(name, ["all", ...kinds]);
  }
  selects.case = choice("case", ["all", ...Object.keys(CASES)]);
  const words = make("input", { type: "search", id: "words", autocomplete: "off" });
  form.append(make("label", {}, "words in it ", words));

  function choice(name, options) {
    const select = make("select", { id: `filter-${name}` }, ...options.map((text) => make("option", { value: text }, text)));
    form.append(make("label", {}, `${name} `, select));
    return select;
  }

  function haystack(one) {
    if (one.haystack === undefined) {
      const parts = [questions[one.question].question, one.answer || "", one.question];
      for (const turn of one.turns) parts.push(turn.text, turn.read || "");
      Object.defineProperty(one, "haystack", { value: parts.join("\n").toLowerCase() });
    }
    return one.haystack;
  }

  let matching = trajectories;
  let first = 0;
  let chosen = null;

  function filter() {
    const wanted = Object.entries(FILTERS).filter(([name]) => selects[name].value !== "all");
    const test = CASES[selects.case.value];
    const text = words.value.trim().toLowerCase();
    matching = trajectories.filter((one) =>
      wanted.every(([name, value]) => value(one) === selects[name].value) && (!test || test(one)) && (!text || haystack(one).includes(text)));
    if (selects.case.value === "highest information gain") {
      matching = [...matching].sort((a, b) => best(b) - best(a));
    }
    first = 0;
    list();
  }

  const best = (one) => Math.max(-Infinity, ...one.turns.map((turn) => turn.gain ?? -Infinity));

  function list() {
    const rows = matching.slice(first, first + PAGE).map((one) => {
      const button = make("button", { type: "button", "data-number": trajectories.indexOf(one) },
        make("span", { classes: "asked", dir: "auto" }, questions[one.question].question.slice(0, 160)),
        make("span", { classes: "facts" }, `${label(sources[one.source])} · ${result(one)} · ${one.turns.length === 1 ? "1 turn" : `${one.turns.length} turns`}`));
      if (one === chosen) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => open(one));
      return make("li", {}, button);
    });
    byId("list").replaceChildren(...rows);
    const last = Math.min(first + PAGE, matching.length);
    byId("count").textContent = matching.length ? `${first + 1} to ${last} of ${matching.length} trajectories` : "no trajectory matches";
    byId("before").disabled = first === 0;
    byId("after").disabled = last >= matching.length;
  }

  function open(one) {
    chosen = one;
    byId("shown").replaceChildren(...detail(one, true));
    byId("beside").replaceChildren();
    byId("pair").classList.remove("two");
    for (const button of byId("list").querySelectorAll("button")) {
      const mine = Number(button.dataset.number) === trajectories.indexOf(one);
      mine ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current");
    }
  }

  function beside(one) {
    byId("beside").replaceChildren(...detail(one, false));
    byId("pair").classList.add("two");
  }

  function detail(one, withChoice) {
    const question = questions[one.question];
    const facts = [`${label(sources[one.source])}`, `sample ${one.sample}`, `stop: ${one.stop}`, `F1 ${one.f1.toFixed(2)}`];
    if (one.outcome !== null) facts.push(`outcome ${signed(one.outcome)}`);
    const parts = [
      make("h4", { dir: "auto" }, question.question),
      make("p", { classes: "facts" }, facts.join(" · ")),
      make("p", { dir: "auto" }, make("b", {}, "gold "), question.answers.join(" | ")),
      make("p", { dir: "auto" }, make("b", {}, "answer "), one.answer === null ? "none" : one.answer),
    ];
    if (withChoice) parts.push(sideBySide(one));
    if (one.start !== null) parts.push(curve(one));
    let before = one.start;
    one.turns.forEach((turn, number) => {
      parts.push(turnPart(turn, number + 1, before));
      before = turn.gold ?? before;
    });
    return parts;
  }

  function sideBySide(one) {
    const others = trajectories.filter((other) => other.question === one.question && other !== one);
    const select = make("select", {}, make("option", { value: "" }, `none of ${others.length}`));
    others.forEach((other, number) => select.append(make("option", { value: number },
      `${sources[other.source].kind}: ${label(sources[other.source])}, sample ${other.sample}, ${result(other)}`)));
    select.addEventListener("change", () => {
      if (select.value !== "") return beside(others[Number(select.value)]);
      byId("beside").replaceChildren();
      byId("pair").classList.remove("two");
    });
    return make("label", {}, "beside it, the same question of ", select);
  }

  // The gold answer's probability after the prompt and after each search, on a logarithmic axis: from 0.04 % to 8 % is
  // a gain as large as from 0.4 % to 80 %.
  function curve(one) {
    const values = [one.start, ...one.turns.map((turn) => turn.gold).filter((gold) => gold !== null && gold !== undefined)];
    const lowest = Math.min(Math.log(1e-4), ...values);
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    const [width, height, edge] = [260, 60, 6];
    const x = (i) => edge + (i * (width - 2 * edge)) / Math.max(1, values.length - 1);
    const y = (value) => edge + (value / lowest) * (height - 2 * edge);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("class", "curve");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `probability of the gold answer by turn: ${values.map(percent).join(", ")}`);
    const line = document.createElementNS(space, "polyline");
    line.setAttribute("points", values.map((value, i) => `${x(i)},${y(value)}`).join(" "));
    svg.append(line);
    values.forEach((value, i) => {
      const dot = document.createElementNS(space, "circle");
      dot.setAttribute("cx", x(i));
      dot.setAttribute("cy", y(value));
      dot.setAttribute("r", 3);
      svg.append(dot);
    });
    return make("figure", {}, svg, make("figcaption", { classes: "note" }, `probability of the gold answer after each turn: ${percent(lowest)} to 100 %, logarithmic`));
  }

  function turnPart(turn, number, before) {
    const part = make("section", { classes: "turn" }, make("h5", {}, `turn ${number}`));
    const worth = [];
    if (turn.gold !== null && turn.gold !== undefined && before !== null) worth.push(`gold answer ${percent(before)} → ${percent(turn.gold)}`);
    if (turn.gain !== null && turn.gain !== undefined) worth.push(`information gain ${signed(turn.gain)}`);
    if (turn.reward !== null && turn.reward !== undefined) worth.push(`step reward ${signed(turn.reward)}`);
    if (turn.advantage !== null && turn.advantage !== undefined) worth.push(`advantage ${signed(turn.advantage)}`);
    if (worth.length) part.append(make("p", { classes: "worth" }, worth.join(" · ")));
    const text = make("pre", { dir: "auto" }, turn.text);
    part.append(text);
    if (turn.ids.length) part.append(tokenButton(turn, text));
    if (turn.queries.length) part.append(make("p", { dir: "auto" }, make("b", {}, turn.tool === "open" ? "opened " : "searched "), turn.queries.join(" | ")));
    if (turn.hits.length) {
      part.append(make("p", {}, make("b", {}, "found "), ...turn.hits.flatMap(([name, gold]) =>
        [make("span", { classes: gold ? "hit gold" : "hit" }, gold ? `${name} ★ supports the answer` : name), " "])));
    }
    if (turn.read) part.append(make("pre", { classes: "read", dir: "auto" }, turn.read));
    return part;
  }

  // Sampled tokens by their log-probability; what was read has no loss and is grey.
  function tokenButton(turn, text) {
    const button = make("button", { type: "button", classes: "small", "aria-pressed": "false" }, "tokens");
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") === "false";
      button.setAttribute("aria-pressed", String(on));
      if (!on) return text.replaceChildren(turn.text);
      const spans = turn.ids.map((id, i) => {
        const doubt = Math.min(1, -turn.logprobs[i] / 3);
        const span = make("span", { classes: "token", title: `log-probability ${turn.logprobs[i].toFixed(2)}` }, vocabulary[id] ?? `<${id}>`);
        span.style.setProperty("--doubt", doubt.toFixed(2));
        return span;
      });
      text.replaceChildren(...spans);
      if (turn.read) text.append(make("span", { classes: "unlearned" }, turn.read));
    });
    return button;
  }

  for (const select of Object.values(selects)) select.addEventListener("change", filter);
  words.addEventListener("input", filter);
  byId("before").addEventListener("click", () => { first = Math.max(0, first - PAGE); list(); });
  byId("after").addEventListener("click", () => { first += PAGE; list(); });
  byId("list").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...byId("list").querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (next) { next.focus(); next.click(); event.preventDefault(); }
  });
  filter();
  if (matching.length) open(matching[0]);
  byId("browser").dataset.ready = "true";
})();
