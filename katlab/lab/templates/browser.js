// The rollout browser: filters a table of columns, shows 50 rows at a time, keeps its state in the
// fragment of the address. Texts of rows reach the page as text only, never as HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const count = document.getElementById("count");
  const pages = document.getElementById("pages");
  const SIZE = 50;
  const WORDS = new Map([[true, "right"], [false, "wrong"], [null, "unscorable"]]);
  const rows = Array.from({ length: data.rows }, (_, i) => i);
  const flagged = Object.fromEntries(
    Object.entries(data.flags).map(([name, where]) => [name, new Set(where)]));
  const facets = Object.keys(data.facets);
  const number = new Intl.NumberFormat("en");

  const get = (name, row) => data.columns[name].values[data.columns[name].index[row]];
  const holds = (text, word) => text !== null && text.toLowerCase().includes(word);

  // Of a column, the places of the values that a test lets through, as a test of rows.
  const where = (name, test) => {
    const { values, index } = data.columns[name];
    const passes = values.map(test);
    return (row) => passes[index[row]];
  };

  function state() {
    const given = new URLSearchParams(new FormData(form));
    return new URLSearchParams([...given].filter(([, value]) => value !== ""));
  }

  // One test per filter that is set; the pair view chooses the systems itself.
  function tests(chosen) {
    const found = [];
    const q = (chosen.get("q") || "").toLowerCase();
    if (q) found.push(where("id", (id) => holds(String(id), q) || holds((data.queries[id] || [""])[0], q)));
    const said = (chosen.get("said") || "").toLowerCase();
    if (said) {
      const texts = data.parts.map((name) => where(name, (text) => holds(text, said)));
      found.push((row) => texts.some((test) => test(row)));
    }
    if (chosen.get("right")) found.push(where("correct", (v) => WORDS.get(v) === chosen.get("right")));
    for (const name of facets) {
      const wanted = chosen.get(name);
      if (!wanted || (name === "system" && chosen.has("pairs"))) continue;
      found.push(where(name, (v) => (v === null ? "-" : String(v)) === wanted));
    }
    const from = chosen.get("from"), to = chosen.get("to");
    if (from || to) {
      found.push(where("step", (v) => v !== null && v >= Number(from || -Infinity) && v <= Number(to || Infinity)));
    }
    for (const name of chosen.getAll("flag")) {
      if (flagged[name]) found.push((row) => flagged[name].has(row));
    }
    return found;
  }

  // [before, after] rows of every prompt that both systems answered in the same way.
  function pairs() {
    const made = new Map();
    for (const row of rows) {
      const side = data.pair.indexOf(get("system", row));
      if (side < 0) continue;
      const key = JSON.stringify(["id", "arm", "sample"].map((name) => data.columns[name] && get(name, row)));
      if (!made.has(key)) made.set(key, []);
      made.get(key)[side] = row;
    }
    return [...made.values()].filter((two) => two[0] !== undefined && two[1] !== undefined);
  }

  const CHANGES = {
    decision: ([a, b]) => get("mode", a) !== get("mode", b),
    better: ([a, b]) => get("correct", a) === false && get("correct", b) === true,
    worse: ([a, b]) => get("correct", a) === true && get("correct", b) === false,
  };

  function add(parent, tag, text, kind) {
    const made = parent.appendChild(document.createElement(tag));
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  const verdict = (row) => WORDS.get(get("correct", row));
  const counted = (tokens) => `${number.format(tokens)} token${tokens === 1 ? "" : "s"}`;
  const told = (value) => (typeof value === "number" ? number.format(value) : String(value));

  function parts(parent, row) {
    for (const name of data.parts) {
      const text = get(name, row), tokens = get(`${name}_tokens`, row);
      add(parent, "p", `${name} · ${text === null ? "none" : counted(tokens)}`, "part");
      if (text !== null) add(parent, "pre", text);
    }
    if (get("completion", row) !== null) {
      add(parent, "p", `as written, since the format is broken: ${get("problem", row)}`, "part");
      add(parent, "pre", get("completion", row));
    }
    const line = add(parent, "p", undefined, "said");
    add(line, "span", verdict(row), verdict(row));
    add(line, "span", get("reason", row) ? `: ${get("reason", row)}` : "");
    for (const [name, label] of Object.entries(data.numbers)) {
      if (get(name, row) !== null) add(line, "span", ` · ${label} ${told(get(name, row))}`);
    }
    for (const name of Object.keys(flagged)) if (flagged[name].has(row)) add(line, "span", ` · ${name}`);
  }

  function question(parent, row) {
    const [text, expected] = data.queries[get("id", row)] || ["", ""];
    add(parent, "p", `problem ${get("id", row)}`, "part");
    if (text) add(parent, "pre", text);
    if (expected) add(parent, "p", "expected", "part");
    if (expected) add(parent, "pre", expected);
  }

  function details(row, open) {
    const made = add(list, "details", undefined, "row"), head = add(made, "summary");
    const step = get("step", row);
    add(head, "span", verdict(row), verdict(row));
    if (step !== null) add(head, "span", `step ${step}`);
    for (const name of facets) {
      const value = get(name, row);
      if (value !== null) add(head, "span", typeof value === "number" || value.length < 4 ? `${data.facets[name]} ${value}` : value);
    }
    add(head, "span", counted(get("tokens", row)));
    add(head, "span", (data.queries[get("id", row)] || [""])[0].slice(0, 160));
    const fill = () => {
      if (made.lastChild !== head) return;
      const body = add(made, "div", undefined, "body");
      question(body, row);
      parts(body, row);
      const same = add(add(body, "p", undefined, "said"), "a", "all replies to this problem");
      same.href = `#${new URLSearchParams({ q: get("id", row) })}`;
    };
    made.addEventListener("toggle", fill);
    if (open) { fill(); made.open = true; }
  }

  function sideBySide(two) {
    const made = add(list, "article");
    question(made, two[0]);
    const columns = add(made, "div", undefined, "two");
    two.forEach((row, side) => {
      const column = add(columns, "div");
      const named = facets.filter((name) => name !== "system" && get(name, row) !== null);
      const labels = named.map((name) => ` · ${data.facets[name]} ${get(name, row)}`);
      add(column, "b", data.pair[side]);
      add(column, "span", `${labels.join("")} · ${counted(get("tokens", row))}`);
      parts(column, row);
    });
  }

  function means(some) {
    const scored = some.filter((row) => get("correct", row) !== null);
    const share = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : "–");
    const tokens = some.reduce((sum, row) => sum + (get("tokens", row) || 0), 0) / (some.length || 1);
    const said = [`${share(scored.filter((row) => get("correct", row)).length, scored.length)} right`];
    for (const [label, [name, value]] of Object.entries(data.shares)) {
      said.push(`${share(some.filter((row) => get(name, row) === value).length, some.length)} ${label}`);
    }
    return `${said.join(", ")}, ${tokens.toFixed(1)} tokens on average`;
  }

  let page = 0;
  function show() {
    const chosen = state(), found = tests(chosen), paired = chosen.has("pairs") && data.pair.length > 0;
    const passes = (row) => found.every((test) => test(row));
    let shown = paired ? pairs().filter((two) => two.some(passes)) : rows.filter(passes);
    const change = CHANGES[chosen.get("change")];
    if (paired && change) shown = shown.filter(change);
    const length = (one) => get("tokens", paired ? one[1] : one);
    const sort = { longest: (a, b) => length(b) - length(a), shortest: (a, b) => length(a) - length(b) }[chosen.get("sort")];
    if (sort) shown.sort(sort);
    const last = Math.max(0, Math.ceil(shown.length / SIZE) - 1);
    page = Math.min(Math.max(page, 0), last);
    const all = paired ? "prompts" : `of ${number.format(data.rows)} replies`;
    count.textContent = `${number.format(shown.length)} ${all}` + (!shown.length ? "; nothing passes these filters" :
      paired ? [0, 1].map((side) => ` · ${data.pair[side]}: ${means(shown.map((two) => two[side]))}`).join("") :
      `: ${means(shown)}`);
    list.replaceChildren();
    for (const one of shown.slice(page * SIZE, (page + 1) * SIZE)) {
      if (paired) sideBySide(one); else details(one, chosen.has("open"));
    }
    pages.hidden = last === 0;
    pages.querySelector("span").textContent = `page ${page + 1} of ${last + 1}`;
    pages.querySelector("[data-by='-1']").disabled = page === 0;
    pages.querySelector("[data-by='1']").disabled = page === last;
    form.elements.change && (form.elements.change.disabled = !paired);
    document.documentElement.dataset.shown = shown.length;
    return chosen;
  }

  // The address says what is shown; a link into the page says what to show.
  function write() {
    const chosen = show();
    if (page) chosen.set("page", page + 1);
    history.replaceState(null, "", `#${chosen}`);
  }
  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const field of form.elements) {
      if (!field.name) continue;
      if (field.type === "checkbox") field.checked = given.getAll(field.name).includes(field.value);
      else field.value = given.get(field.name) || "";
      if (field.name === "change") field.disabled = !given.has("pairs");
    }
    page = Number(given.get("page") || 1) - 1 || 0;
    show();
  }
  form.addEventListener("input", () => { page = 0; write(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { page = 0; write(); }));
  pages.addEventListener("click", (event) => {
    page += Number(event.target.dataset.by || 0);
    write();
    count.focus();
    count.scrollIntoView();
  });
  addEventListener("hashchange", read);
  read();
  document.documentElement.dataset.ready = Math.round(performance.now());
})();
