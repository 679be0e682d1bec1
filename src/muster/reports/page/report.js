"use strict";
// The cases of a report. Everything that is shown goes in as text, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const HEIGHT = 30;
  const OVERSCAN = 8;
  const parse = (element) => JSON.parse(element.textContent);
  const head = parse($("head"));
  const STATUS = ["ok", "failed", "error"];
  const MARKS = ["✓ ok", "✗ failed", "⚠ error"];
  // Fields of a row, in the order in which they are written.
  const LABEL = 0, SUITE = 1, ID = 2, STATE = 3, SCORE = 4, REPEAT = 5, PROMPT = 6, TAGS = 7,
    COST = 8, TIME = 9, TOKENS = 10, KIND = 11;

  const rows = [];
  for (const element of document.querySelectorAll("script.rows")) rows.push(...parse(element));
  const chunks = [...document.querySelectorAll("script.details")];
  const starts = chunks.map((element) => Number(element.dataset.from));

  // --- details, which are parsed when they are looked at -----------------------------------------

  const parsed = new Map();
  function chunkAt(number) {
    let low = 0, high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle] <= number) low = middle; else high = middle - 1;
    }
    return low;
  }
  function chunk(place) {
    if (!parsed.has(place)) {
      if (parsed.size > 8) parsed.delete(parsed.keys().next().value);
      parsed.set(place, parse(chunks[place]));
    }
    return parsed.get(place);
  }
  function detailOf(number) {
    const place = chunkAt(number);
    return chunk(place)[number - starts[place]];
  }

  // --- which rows are shown, in which order ------------------------------------------------------

  let shown = rows.map((_, number) => number);
  let active = -1; // a place in `shown`
  let opened = -1; // a number of a row
  let sortBy = null, descending = false;
  let search = 0; // the search that is under way
  const haystacks = [];

  const NAMES = { state: STATE, id: ID, suite: SUITE, target: LABEL, score: SCORE, cost: COST, time: TIME, tokens: TOKENS };
  const collator = new Intl.Collator(undefined, { numeric: true });
  const order = new Map();
  function textRank(column) { // places of names, so that rows compare as numbers
    if (!order.has(column)) {
      const of = column === ID ? rows.map((row) => row[ID]) : column === SUITE ? head.suites : head.labels;
      const names = [...new Set(of)].sort(collator.compare);
      const rank = new Map(names.map((name, place) => [name, place]));
      order.set(column, column === ID ? (row) => rank.get(row[ID]) : (row) => rank.get(of[row[column]]));
    }
    return order.get(column);
  }
  function sorted(numbers) {
    if (sortBy === null) return numbers.sort((a, b) => a - b);
    const column = NAMES[sortBy];
    const value = column === ID || column === SUITE || column === LABEL
      ? textRank(column) : (row) => row[column];
    const sign = descending ? -1 : 1;
    return numbers.sort((a, b) => {
      const one = value(rows[a]), two = value(rows[b]);
      if (one === two) return a - b;
      if (one === null) return 1; // what is not known comes last, either way
      if (two === null) return -1;
      return sign * (one - two) || a - b;
    });
  }

  const states = STATUS.map((name) => $("state-" + name));
  const chosen = (id) => { const found = $(id); return found && found.value !== "" ? Number(found.value) : null; };
  function filter() {
    const turn = ++search;
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const target = chosen("target"), suite = chosen("suite"), tag = chosen("tag"), kind = chosen("kind");
    const wanted = states.map((box) => box.checked);
    const candidates = [];
    rows.forEach((row, number) => {
      if (wanted[row[STATE]] && (target === null || row[LABEL] === target)
        && (suite === null || row[SUITE] === suite) && (kind === null || row[KIND] === kind)
        && (tag === null || (row[TAGS] !== 0 && row[TAGS].includes(tag)))) candidates.push(number);
    });
    if (words.length === 0) { show(candidates); return; }
    const found = [], rest = [];
    for (const number of candidates) {
      (words.every((word) => nameOf(number).includes(word)) ? found : rest).push(number);
    }
    show(found.slice(), rest.length > 0);
    lookInside(turn, words, rest, found);
  }
  function nameOf(number) {
    const row = rows[number];
    const tags = row[TAGS] === 0 ? "" : row[TAGS].map((tag) => head.tags[tag]).join(" ");
    return [row[ID], row[PROMPT] || "", head.suites[row[SUITE]], head.labels[row[LABEL]],
      row[KIND] === null ? "" : head.kinds[row[KIND]], tags].join("\n").toLowerCase();
  }
  // Answers are looked at a few at a time, so that the page stays awake.
  function lookInside(turn, words, rest, found) {
    let place = 0, told = performance.now();
    function go() {
      if (turn !== search) return;
      const until = performance.now() + 12;
      while (place < rest.length && performance.now() < until) {
        const number = rest[place++];
        const text = haystack(number) + "\n" + nameOf(number);
        if (words.every((word) => text.includes(word))) found.push(number);
      }
      const done = place >= rest.length;
      if (done || performance.now() - told > 150) { told = performance.now(); show(found.slice(), !done); }
      if (!done) setTimeout(go);
    }
    setTimeout(go);
  }
  function haystack(number) {
    if (haystacks[number] === undefined) {
      const place = chunkAt(number);
      chunk(place).forEach((detail, at) => { haystacks[starts[place] + at] = textsOf(detail); });
    }
    return haystacks[number];
  }
  function textsOf(detail) {
    if (detail === null) return "";
    const parts = [detail.input, detail.output, detail.expected_output, detail.criteria, detail.error, detail.model];
    const walk = (scores) => {
      for (const score of scores || []) {
        parts.push(score.name, score.error);
        for (const said of score.assertions || []) parts.push(said.text, said.evidence);
        walk(score.scores);
      }
    };
    walk(detail.scores);
    for (const turn of detail.turns || []) { parts.push(turn.input, turn.output); walk(turn.scores); }
    return parts.filter((part) => typeof part === "string").join("\n").toLowerCase();
  }

  function show(numbers, looking) {
    shown = sorted(numbers);
    active = shown.indexOf(opened);
    const some = shown.length === rows.length ? "" : `${shown.length.toLocaleString("en")} of `;
    $("count").textContent = `${some}${rows.length.toLocaleString("en")} results${looking ? ", looking…" : ""}`;
    $("none").hidden = shown.length > 0 || looking === true;
    $("grid").setAttribute("aria-rowcount", String(shown.length + 1));
    $("space").style.height = `${shown.length * HEIGHT}px`;
    draw(true);
  }

  // --- the rows that can be seen -----------------------------------------------------------------

  const body = $("body"), pool = new Map();
  function draw(anew) {
    if (anew) { for (const element of pool.values()) element.remove(); pool.clear(); }
    const first = Math.max(0, Math.floor(body.scrollTop / HEIGHT) - OVERSCAN);
    const last = Math.min(shown.length, Math.ceil((body.scrollTop + body.clientHeight) / HEIGHT) + OVERSCAN);
    for (const [place, element] of pool) {
      if (place < first || place >= last) { element.remove(); pool.delete(place); }
    }
    for (let place = first; place < last; place++) {
      if (!pool.has(place)) { const element = line(place); pool.set(place, element); body.append(element); }
      pool.get(place).setAttribute("aria-selected", String(place === active));
    }
    const grid = $("grid");
    if (pool.has(active)) grid.setAttribute("aria-activedescendant", `row-${active}`);
    else grid.removeAttribute("aria-activedescendant");
  }
  function line(place) {
    const row = rows[shown[place]];
    const name = row[ID] + (row[PROMPT] ? ` [${row[PROMPT]}]` : "") + (row[REPEAT] ? ` · repeat ${row[REPEAT]}` : "");
    const state = row[STATE] === 2 && row[KIND] !== null ? head.kinds[row[KIND]] : MARKS[row[STATE]];
    const element = h("div", { class: "row", role: "row", id: `row-${place}`, "aria-rowindex": place + 2 },
      cell(state, STATUS[row[STATE]]), cell(name), cell(head.suites[row[SUITE]]), cell(head.labels[row[LABEL]]),
      cell(row[SCORE] === null ? "–" : row[SCORE].toFixed(3), "number"), cell(money(row[COST]), "number"),
      cell(milliseconds(row[TIME]), "number"), cell(row[TOKENS] === null ? "–" : String(row[TOKENS]), "number"));
    element.style.top = `${place * HEIGHT}px`;
    element.addEventListener("click", () => { $("grid").focus({ preventScroll: true }); open(place); });
    return element;
  }
  function cell(text, name) { return h("span", { role: "gridcell", class: name || "", title: visible(text) }, text); }

  function money(value) {
    if (value === null) return "–";
    return value === 0 ? "$0" : value >= 1 ? `$${value.toFixed(2)}` : `$${Number(value.toPrecision(3)).toFixed(8).replace(/0+$/, "")}`;
  }
  function milliseconds(value) {
    if (value === null) return "–";
    return value < 9.95 ? `${value.toFixed(1)} ms` : value < 9999.5 ? `${value.toFixed(0)} ms` : `${(value / 1000).toFixed(1)} s`;
  }

  // --- elements ----------------------------------------------------------------------------------

  // What turns text around or hides in it is shown as what it is.
  const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
  function visible(text) {
    return String(text).replace(HIDDEN, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`);
  }
  function h(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value !== "" && value !== null) element.setAttribute(key, String(value));
    }
    for (const child of children.flat()) {
      if (child !== null && child !== undefined) element.append(child instanceof Node ? child : visible(child));
    }
    return element;
  }

  // --- one result --------------------------------------------------------------------------------

  function open(place) {
    active = place;
    opened = shown[place];
    $("detail").replaceChildren(...detail(opened));
    $("detail").scrollTop = 0;
    if ($("detail").hidden) { $("detail").hidden = false; $("split").classList.add("open"); }
    draw(false);
  }
  function close() {
    $("detail").hidden = true;
    $("split").classList.remove("open");
    opened = -1;
    $("grid").focus({ preventScroll: true });
  }
  function detail(number) {
    const row = rows[number], found = detailOf(number);
    const shut = h("button", { type: "button", class: "push", "aria-label": "Close the result" }, "✕");
    shut.addEventListener("click", close);
    const parts = [h("div", { class: "headline" },
      h("h3", { id: "detail-title", tabindex: -1 }, row[ID]),
      h("span", { class: STATUS[row[STATE]] }, MARKS[row[STATE]] + (row[SCORE] === null ? "" : ` · ${row[SCORE].toFixed(3)}`)), shut)];
    if (found === null) {
      parts.push(h("p", {}, "What was said is left out here, to keep the file small; it is in the run's results.jsonl."));
      return parts;
    }
    if (found.error) parts.push(title("Error"), said(found.error));
    parts.push(title("Input"), said(found.input));
    if (found.turns) parts.push(...turns(found.turns));
    else parts.push(...answer(found));
    if (found.criteria) parts.push(title("Criteria"), said(found.criteria));
    if (found.scores.length) parts.push(title("Scores"), ...found.scores.map(grader));
    parts.push(title("About"), about(row, found));
    if (found.messages && found.messages.length) {
      parts.push(h("details", {}, h("summary", {}, `Messages (${found.messages.length})`),
        ...found.messages.map((message) => h("pre", {}, JSON.stringify(message, null, 1)))));
    }
    return parts;
  }
  const title = (text) => h("h3", {}, text);
  const said = (text) => h("div", { class: "said" }, text === "" ? "(nothing)" : text);

  function answer(found) {
    const { output, expected_output: expected } = found;
    if (output === null) return expected ? [title("Expected"), said(expected)] : [];
    if (!expected) return [title("Answer"), said(output)];
    if (expected === output) return [title("Answer, which is the expected"), said(output)];
    const [left, right] = wordDiff(expected, output);
    return [title("Expected"), marked(left, "del"), title("Answer"), marked(right, "ins"),
      h("p", { class: "soft" }, h("del", {}, "struck"), ": expected words that are not in the answer; ",
        h("ins", {}, "marked"), ": words of the answer that were not expected.")];
  }
  function marked(parts, name) {
    return h("div", { class: "said" }, ...parts.map(([text, differs]) => (differs ? h(name, {}, text) : text)));
  }

  const WORD = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|\p{N}+(?:[.,]\p{N}+)+|[\p{L}\p{M}\p{N}_]+|\s+|./gsu;
  const MOST = 4e6;
  // Two texts as parts [text, differs], by the longest common sequence of words; spaces are no words.
  function wordDiff(one, two) {
    const a = one.match(WORD) || [], b = two.match(WORD) || [];
    const places = (words) => words.flatMap((word, place) => (word.trim() ? [place] : []));
    const ai = places(a), bi = places(b);
    const keepA = new Set(), keepB = new Set();
    let start = 0, endA = ai.length, endB = bi.length;
    const keep = (i, j) => { keepA.add(ai[i]); keepB.add(bi[j]); };
    while (start < endA && start < endB && a[ai[start]] === b[bi[start]]) { keep(start, start); start++; }
    while (endA > start && endB > start && a[ai[endA - 1]] === b[bi[endB - 1]]) keep(--endA, --endB);
    const n = endA - start, m = endB - start;
    if (n * m <= MOST && n < 65535 && m < 65535) {
      const width = m + 1, common = new Uint16Array((n + 1) * width);
      for (let i = n - 1; i >= 0; i--) {
        for (let j = m - 1; j >= 0; j--) {
          common[i * width + j] = a[ai[start + i]] === b[bi[start + j]]
            ? common[(i + 1) * width + j + 1] + 1
            : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
        }
      }
      for (let i = 0, j = 0; i < n && j < m;) {
        if (a[ai[start + i]] === b[bi[start + j]]) { keep(start + i, start + j); i++; j++; }
        else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) i++;
        else j++;
      }
    }
    return [joined(a, keepA), joined(b, keepB)];
  }
  function joined(words, kept) {
    const parts = [];
    let space = "";
    words.forEach((word, place) => {
      if (!word.trim()) { space += word; return; }
      const differs = !kept.has(place), last = parts[parts.length - 1];
      if (last && last[1] === differs) { last[0] += space + word; space = ""; return; }
      if (space) { parts.push([space, false]); space = ""; }
      parts.push([word, differs]);
    });
    if (space) parts.push([space, false]);
    return parts;
  }

  function turns(list) {
    return list.flatMap((turn, place) => [
      title(`Turn ${place + 1}`), said(plain(turn.input)), h("p", { class: "soft" }, "answer"),
      said(turn.output === null || turn.output === undefined ? "(none)" : turn.output),
      ...(turn.scores || []).map(grader)]);
  }
  const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));

  const VERDICTS = { pass: ["✓ pass", "ok"], fail: ["✗ fail", "failed"], skip: ["⚠ not judged", "error"] };
  function grader(score) {
    const [text, name] = VERDICTS[score.verdict] || [String(score.verdict || ""), ""];
    const facts = [`score ${typeof score.score === "number" && score.verdict !== "skip" ? Number(score.score.toFixed(4)) : "–"}`];
    if (score.counted !== undefined && score.counted !== null) facts.push(`counted ${score.counted}`);
    if (score.weight !== undefined && score.weight !== 1) facts.push(`weight ${score.weight}`);
    if (score.required) facts.push("required");
    const kind = score.type && score.type !== score.name ? ` (${score.type})` : "";
    return h("div", { class: "grader" },
      h("div", {}, h("strong", {}, score.name || score.type || "grader"), `${kind} `, h("span", { class: name }, text), ` · ${facts.join(" · ")}`),
      score.error ? h("div", { class: "error" }, score.error) : null,
      h("ul", {}, ...(score.assertions || []).map((one) => h("li", {},
        h("span", { class: one.passed ? "ok" : "failed" }, one.passed ? "✓ " : "✗ "), one.text || "",
        one.evidence ? h("div", { class: "soft" }, one.evidence) : null))),
      score.details ? h("details", {}, h("summary", {}, "details"), h("pre", {}, JSON.stringify(score.details, null, 1))) : null,
      ...(score.scores || []).map(grader));
  }
  function about(row, found) {
    const tags = row[TAGS] === 0 ? "" : row[TAGS].map((tag) => head.tags[tag]).join(", ");
    const list = h("dl", {});
    const facts = {
      suite: head.suites[row[SUITE]], target: head.labels[row[LABEL]], "answered by": found.target_used,
      run: head.runs[row[LABEL]], repeat: row[REPEAT] || null, prompt: row[PROMPT] || null, tags,
      threshold: found.threshold, model: found.model, provider: found.provider, "finish reason": found.finish_reason,
      attempts: found.attempts, "from the cache": found.cached ? "yes" : null, tokens: found.token_usage ? JSON.stringify(found.token_usage) : null,
      cost: row[COST] === null ? null : money(row[COST]),
      judging: found.judge_calls ? `${found.judge_calls} calls, ${money(found.judge_cost_usd ?? null)}` : null,
      time: row[TIME] === null ? null : milliseconds(row[TIME]), started: found.started_at,
      cluster: found.cluster, metadata: found.metadata ? JSON.stringify(found.metadata) : null,
    };
    for (const [name, value] of Object.entries(facts)) {
      if (value !== null && value !== undefined && value !== "") list.append(h("dt", {}, name), h("dd", {}, value));
    }
    return list;
  }

  // --- hands and keys ----------------------------------------------------------------------------

  function goTo(place) {
    if (!shown.length) return;
    active = Math.max(0, Math.min(shown.length - 1, place));
    const top = active * HEIGHT;
    if (top < body.scrollTop) body.scrollTop = top;
    else if (top + HEIGHT > body.scrollTop + body.clientHeight) body.scrollTop = top + HEIGHT - body.clientHeight;
    if (!$("detail").hidden) open(active);
    draw(false);
  }
  $("grid").addEventListener("keydown", (event) => {
    if (event.target.closest("#titles")) return;
    const page = Math.max(1, Math.floor(body.clientHeight / HEIGHT) - 1);
    const keys = {
      ArrowDown: () => goTo(active + 1), ArrowUp: () => goTo(active - 1), j: () => goTo(active + 1), k: () => goTo(active - 1),
      PageDown: () => goTo(active + page), PageUp: () => goTo(active - page), Home: () => goTo(0), End: () => goTo(shown.length - 1),
      Enter: () => { if (shown.length) { open(Math.max(active, 0)); $("detail-title").focus(); } },
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "Escape" && !$("detail").hidden && !typing) close();
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); $("search").focus(); }
  });
  for (const button of document.querySelectorAll("#titles button")) {
    button.addEventListener("click", () => {
      const name = button.dataset.sort, number = ["score", "cost", "time", "tokens"].includes(name);
      if (sortBy !== name) { sortBy = name; descending = number && name !== "score"; }
      else if (descending === (number && name !== "score")) descending = !descending;
      else { sortBy = null; descending = false; }
      for (const other of document.querySelectorAll("#titles button")) {
        const state = other.dataset.sort !== sortBy ? "none" : descending ? "descending" : "ascending";
        other.parentElement.setAttribute("aria-sort", state);
      }
      body.scrollTop = 0;
      show(shown);
    });
  }
  function fill(id, names) {
    const select = $(id);
    names.forEach((name, place) => select.append(h("option", { value: place }, name)));
    select.parentElement.hidden = names.length < (id === "tag" || id === "kind" ? 1 : 2);
    select.addEventListener("change", again);
  }
  function again() { body.scrollTop = 0; filter(); }
  fill("target", head.labels); fill("suite", head.suites); fill("tag", head.tags); fill("kind", head.kinds);
  for (const box of states) box.addEventListener("change", again);
  let typed;
  $("search").addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(again, 120); });
  body.addEventListener("scroll", () => requestAnimationFrame(() => draw(false)), { passive: true });
  new ResizeObserver(() => draw(false)).observe(body);
  const root = document.documentElement;
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  filter();
})();
