// ---- token viewer

const COLOURINGS = { divergence: "divergence", budget: "prefix drift S / budget", ratio: "ratio", entropy: "entropy", weight: "weight", keep: "kept / dropped only" };
const DRIFT = "S = S_prev + Z", BUDGET = "budget = δ + δ_b·W_prev";
const sixDigits = (value) => Number(value.toPrecision(6));
const viewer = { run: null, step: null, response: 0, rule: "own", by: "divergence", token: 0 };

const series = (response, place, i) => { const found = response.series[place]; return Array.isArray(found) ? found[i] : found; };
const traceAt = () => viewer.run.traces.find((trace) => trace.step === viewer.step);
const responseAt = () => traceAt().responses[viewer.response];
const decisionAt = () => responseAt().rules[viewer.rule];

/** The numbers of token i under the chosen rule: those stored, and computed from them the drift S after the token and its budget. */
function tokenFacts(i) {
  const response = responseAt(), decision = decisionAt(), trace = traceAt();
  const get = (place) => (place === undefined ? undefined : series(response, place, i));
  const facts = { logprob: get(response.logprobs), "rollout log-prob": get(response.rollout_logprobs), ratio: get(response.ratio), divergence: get(response.divergence), entropy: get(response.entropy), weight: get(decision.weight), keep: get(decision.keep) };
  for (const [name, place] of Object.entries(decision.aux)) facts[name] = get(place);
  const delta = trace.rules[viewer.rule]?.settings?.delta;
  if (["S_prev", "Z", "W_prev", "delta_b"].every((name) => typeof facts[name] === "number") && typeof delta === "number") {
    facts[DRIFT] = sixDigits(facts.S_prev + facts.Z);
    facts[BUDGET] = sixDigits(delta + facts.delta_b * facts.W_prev);
  }
  return facts;
}

function tokensView(key, options) {
  const traced = RUNS.filter((run) => run.traces.length);
  const title = h("h1", {}, "Tokens");
  const run = key ? runByKey(key) : traced[0];
  if (key && !run) return noSuchRun(key);
  if (!run || !run.traces.length) return [title, noTraces(run), traced.length ? h("p", { class: "row" }, picker("Run", null, (k) => { location.hash = link("tokens", k); }, traced)) : null];
  chooseFromLink(run, options);
  const parts = { controls: h("div", { class: "controls" }), about: h("div"), tokens: h("div", { class: "tokens", role: "listbox", "aria-label": "Tokens of the response", tabindex: -1 }), jump: h("div", { class: "controls" }), facts: h("div", { class: "facts" }), chart: h("div", { class: "panels" }) };
  drawViewer(parts, traced);
  parts.tokens.addEventListener("keydown", (event) => tokenKeys(event, parts));
  requestAnimationFrame(() => showToken(parts));
  return [title, parts.controls, parts.about, parts.jump, parts.tokens, legendOfTokens(), parts.facts, parts.chart];
}

const noTraces = (run) => (run?.left_out.length ? noRoom(run) : neverTraced(run));
const noRoom = (run) => h("p", {}, `${visible(run.key)} recorded tokens, and they are too long for a page of so many runs. Give its folder alone: `, h("code", {}, visible(`python -m analysis runs/${run.id} --out results/${run.id} --only report`)));
const neverTraced = (run) => h("p", {}, run ? `${visible(run.key)} (${run.state}) has no recorded tokens. ` : "No run here has recorded tokens. ",
  "Runs record some every ", h("code", {}, "record.shadow_every"), " steps; a run shorter than that, or with 0, has none: ", h("code", {}, "python -m harness record.shadow_every=7"));

function chooseFromLink(run, options) {
  const steps = run.traces.map((trace) => trace.step), wanted = Number(options.step ?? steps.at(-1));
  viewer.run = run;
  viewer.step = steps.reduce((best, step) => (Math.abs(step - wanted) < Math.abs(best - wanted) ? step : best), steps[0]);
  viewer.response = Number(options.response ?? 0) || 0;
  viewer.rule = options.rule ?? "own";
  viewer.by = options.by in COLOURINGS ? options.by : "divergence";
  viewer.token = Number(options.token ?? 0) || 0;
  clampViewer();
}

function clampViewer() {
  const within = (value, length) => Math.max(0, Math.min(length - 1, value));
  viewer.response = within(viewer.response, traceAt().responses.length);
  if (!responseAt().rules[viewer.rule]) viewer.rule = "own";
  viewer.token = within(viewer.token, responseAt().tokens.length);
}

function drawViewer(parts, traced) {
  if (!parts.controls.childNodes.length) {
    parts.redraw = (changes) => { Object.assign(viewer, changes); clampViewer(); remember(); drawViewer(parts, traced); showToken(parts); };
    parts.controls.append(...controls(parts.redraw, traced, parts));
    parts.jump.append(...jumps(parts));
  }
  syncControls(parts);
  parts.about.replaceChildren(...aboutResponse());
  const all = responseAt().tokens.map((_, i) => tokenFacts(i));
  parts.elements = all.map((facts, i) => tokenElement(facts, i, parts));
  parts.chosen = parts.elements[viewer.token];
  parts.tokens.replaceChildren(...parts.elements.flatMap(brokenIntoLines));
  drawFacts(parts);
  parts.chart.replaceChildren(...driftCharts(all, (place) => selectToken(parts, place - 1)));
}

/** The token's element, followed by a line break on the page if the token contains one. */
const brokenIntoLines = (element, i) => (responseAt().tokens[i].includes("\n") ? [element, h("span", { class: "break", role: "presentation" })] : [element]);

/** Draws the chosen token's numbers. If a button among them had the focus, the new button of the chosen rule gets it. */
function drawFacts(parts) {
  const hadFocus = parts.facts.contains(document.activeElement);
  parts.facts.replaceChildren(...factsOf(parts.redraw));
  if (hadFocus) parts.facts.querySelector(".rule[aria-pressed=true]").focus();
}

/** Scrolls the box of tokens, but not the page, so that the chosen token is visible. */
function showToken({ tokens, chosen }) {
  const above = chosen.offsetTop - tokens.scrollTop, below = above + chosen.offsetHeight - tokens.clientHeight;
  if (above < 0 || below > 0) tokens.scrollTop = chosen.offsetTop - tokens.clientHeight / 2;
}

/** Controls for long responses: a field to go to a token by number, buttons to go to the next or previous dropped token. */
function jumps(parts) {
  const number = h("input", { type: "number", min: 1, onchange: (event) => selectToken(parts, Math.round(Number(event.target.value) || 1) - 1, event.target) });
  parts.number = number;
  const button = (text, by) => h("button", { type: "button", onclick: (event) => selectToken(parts, nextDropped(by), event.target) }, text);
  return [h("label", {}, "Token ", number), button("◀ dropped", -1), button("dropped ▶", 1)];
}

/** Index of the next token that the chosen rule drops, in direction `by` (1 or −1); that of the chosen token if there is none. */
function nextDropped(by) {
  for (let i = viewer.token + by; i >= 0 && i < responseAt().tokens.length; i += by) if (series(responseAt(), decisionAt().keep, i) < 1) return i;
  return viewer.token;
}

/** Updates the link to what is shown, 150 ms after the last change: browsers refuse hundreds of updates in a row. */
let resting = null;
function remember() {
  clearTimeout(resting);
  resting = setTimeout(writeLink, 150);
}

/** Replaces the current history entry, so that not every key press adds one. */
function writeLink() {
  const { step, response, rule, by, token } = viewer;
  const options = { step, ...(response && { response }), ...(rule !== "own" && { rule }), ...(by !== "divergence" && { by }), ...(token && { token }) };
  history.replaceState(null, "", link("tokens", viewer.run.key, options));
}

function controls(redraw, traced, parts) {
  const steps = viewer.run.traces.map((trace) => trace.step), at = () => steps.indexOf(viewer.step);
  const move = (by) => redraw({ step: steps[Math.max(0, Math.min(steps.length - 1, at() + by))] });
  parts.move = move;
  parts.slider = h("input", { type: "range", min: 0, max: steps.length - 1, value: at(), "aria-label": "recorded step", oninput: (event) => redraw({ step: steps[Number(event.target.value)] }) });
  parts.where = h("output", {});
  parts.selects = { response: h("select", { onchange: (event) => redraw({ response: Number(event.target.value), token: 0 }) }), rule: h("select", { onchange: (event) => redraw({ rule: event.target.value }) }), by: h("select", { onchange: (event) => redraw({ by: event.target.value }) }, Object.entries(COLOURINGS).map(([key, text]) => h("option", { value: key }, text))) };
  const button = (text, label, onclick) => h("button", { type: "button", "aria-label": label, onclick }, text);
  const collapse = viewer.run.collapse === null ? null : button(`collapse @ ${viewer.run.collapse}`, "to the recorded step nearest to the collapse", () => redraw({ step: steps.reduce((best, step) => (Math.abs(step - viewer.run.collapse) < Math.abs(best - viewer.run.collapse) ? step : best)) }));
  return [picker("Run", viewer.run, (key) => { location.hash = link("tokens", key, { step: viewer.step }); }, traced),
    h("span", { class: "row" }, button("◀", "earlier step", () => move(-1)), parts.slider, button("▶", "later step", () => move(1)), collapse, parts.where),
    h("label", {}, "Response ", parts.selects.response), h("label", {}, "Rule ", parts.selects.rule), h("label", {}, "Colour ", parts.selects.by)];
}

function syncControls({ slider, where, selects, number }) {
  const trace = traceAt();
  slider.value = viewer.run.traces.indexOf(trace);
  where.textContent = `step ${viewer.step}`;
  number.value = viewer.token + 1;
  number.max = responseAt().tokens.length;
  const option = (value, text, chosen) => h("option", { value, selected: chosen }, text);
  selects.response.replaceChildren(...trace.responses.map((one, i) => option(i, visible(`${one.problem_id}, sample ${one.sample}, reward ${one.reward}`), i === viewer.response)));
  selects.rule.replaceChildren(...Object.keys(responseAt().rules).map((name) => option(name, ruleLabel(name), name === viewer.rule)));
  selects.by.value = viewer.by;
}

const ruleLabel = (name) => visible(name === "own" ? `own: ${traceAt().rules.own?.rule ?? ""}, as trained` : name);

function aboutResponse() {
  const response = responseAt(), left = viewer.run.left_out, { responses, num_responses } = traceAt();
  const kept = response.tokens.map((_, i) => series(response, decisionAt().keep, i)), dropped = kept.filter((k) => k < 1).length;
  return [h("p", { class: "prompt" }, h("span", { class: "quiet" }, "Prompt "), h("bdi", {}, visible(response.prompt))),
    h("p", { class: "row" }, h("span", {}, `reward ${plain(response.reward)}`), h("span", {}, `advantage ${plain(response.advantage)}`), response.truncated ? h("span", {}, "truncated") : null, h("strong", {}, `${dropped} of ${kept.length} tokens dropped by ${ruleLabel(viewer.rule)}`), h("span", {}, `score: ${visible(traceAt().divergence)}`)),
    responses.length < num_responses ? h("p", { class: "note" }, `To keep the page small, ${num_responses - responses.length} of the ${num_responses} recorded responses of this step are left out.`) : "",
    left.length ? h("p", { class: "note" }, `To keep the page small, steps ${left.join(", ")} of this run are left out.`) : ""];
}

function heat(facts) {
  const of = (value, full) => Math.max(0, Math.min(1, value / full));
  const bound = traceAt().rules[viewer.rule]?.settings?.delta ?? 0.15;
  switch (viewer.by) {
    case "divergence": return ["var(--warm)", facts.divergence, of(facts.divergence, bound)];
    case "budget": { const share = facts[DRIFT] / facts[BUDGET]; return ["var(--warm)", share, of(share, 1)]; }
    case "ratio": return [facts.ratio >= 1 ? "var(--warm)" : "var(--cool)", facts.ratio, of(Math.abs(Math.log(facts.ratio)), Math.log(2))];
    case "entropy": return ["var(--cool)", facts.entropy, of(facts.entropy, 1)];
    case "weight": return ["var(--cool)", facts.weight, of(facts.weight, 2)];
    default: return ["transparent", facts.keep, 0];
  }
}

function tokenElement(facts, i, parts) {
  const [colour, value, share] = heat(facts), keep = facts.keep, known = Number.isFinite(value), text = responseAt().tokens[i];
  const classes = ["token", keep < 1 ? "dropped" : "", known ? "" : "unknown"].join(" ");
  const label = `${visible(text)}, token ${i + 1}, ${keep < 1 ? "dropped" : "kept"}, ${COLOURINGS[viewer.by]} ${known ? short(value) : "not known"}`;
  return h("bdi", { class: classes, role: "option", tabindex: i === viewer.token ? 0 : -1, "aria-selected": String(i === viewer.token), "aria-label": label, title: label, onclick: () => selectToken(parts, i), "--c": colour, "--p": `${known ? Math.round(85 * share) : 0}%` }, visible(text).replace(/ /g, "␣"));
}

/** Chooses token i and redraws only what depends on the choice; the tokens' elements stay. `focused`: an element that keeps the
 * focus; without one the token gets it. */
function selectToken(parts, i, focused = null) {
  viewer.token = Math.max(0, Math.min(parts.elements.length - 1, i));
  remember();
  const mark = (element, chosen) => { element.tabIndex = chosen ? 0 : -1; element.setAttribute("aria-selected", String(chosen)); };
  mark(parts.chosen, false);
  parts.chosen = parts.elements[viewer.token];
  mark(parts.chosen, true);
  (focused ?? parts.chosen).focus({ preventScroll: focused !== null });
  showToken(parts);
  parts.number.value = viewer.token + 1;
  drawFacts(parts);
}

const PAGE = 25; // tokens

function tokenKeys(event, parts) {
  const rules = Object.keys(responseAt().rules), last = parts.elements.length - 1, at = viewer.token;
  const along = { ArrowDown: 1, ArrowUp: -1 }[event.key], across = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, PageDown: at + PAGE, PageUp: at - PAGE, Home: 0, End: last, n: nextDropped(1), p: nextDropped(-1) }[event.key];
  if ((to === undefined && !along) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (along) parts.redraw({ rule: rules[(rules.indexOf(viewer.rule) + along + rules.length) % rules.length] });
  else if (across && event.shiftKey) parts.move(across);
  selectToken(parts, along || (across && event.shiftKey) ? viewer.token : to);
}

const legendOfTokens = () => h("p", { class: "note" }, `Struck through and framed: dropped by the chosen rule. Keys in the tokens: ← → token, ↑ ↓ rule, Shift + ← → step, n and p the next and previous dropped token, Page keys ${PAGE} tokens, Home and End. A click in a curve below goes to its token. The address follows: copy it to point at this token.`);

function factsOf(redraw) {
  const response = responseAt(), i = viewer.token, facts = tokenFacts(i);
  const text = () => [viewer.run.id, `step ${viewer.step}`, `${response.problem_id}, sample ${response.sample}`, `reward = ${response.reward}`, `advantage = ${response.advantage}`, `token ${i + 1} ${JSON.stringify(response.tokens[i])}`, `rule ${viewer.rule}`, ...Object.entries(facts).map(([key, value]) => `${key} = ${value}`)].join("\n");
  const rules = Object.entries(response.rules).map(([name, rule]) => {
    const keep = series(response, rule.keep, i);
    return h("button", { type: "button", class: `small rule ${keep < 1 ? "dropped" : ""}`, "aria-pressed": String(name === viewer.rule), onclick: () => redraw({ rule: name }) }, `${ruleLabel(name)} ${keep === 1 ? "keeps" : keep === 0 ? "drops" : `keeps ${short(keep)}`}`);
  });
  return [h("h2", {}, `Token ${i + 1} of ${response.tokens.length}: “`, h("bdi", {}, visible(response.tokens[i])), `” (id ${response.token_ids[i]})`),
    h("dl", { class: "numbers" }, Object.entries(facts).map(([name, value]) => [h("dt", {}, visible(name)), h("dd", { "data-fact": name }, plain(value))])),
    copyButton(text, "copy with run id"), h("h3", {}, "What each rule does with it"), h("p", { class: "row" }, rules)];
}

/** Charts along the response: divergence with the token's threshold, prefix drift with its budget, ratio with weight. */
function driftCharts(all, onpick) {
  const x = all.map((_, i) => i + 1), run = RUNS.indexOf(viewer.run);
  const line = (label, colour, dash, pick) => ({ label, colour, dash, x: [], mean: [], low: [], high: [], lines: [{ run, x, y: all.map(pick).map((v) => (Number.isFinite(v) ? v : null)), collapse: null, finished: true }] });
  const panel = (title, ylabel, curves) => ({ title, xlabel: "token", ylabel, log_x: false, log_y: false, marks: [], series: curves.filter((one) => one.lines[0].y.some((v) => v !== null)) });
  const charts = [panel("Divergence", "divergence", [line("divergence", "#D55E00", "-", (f) => f.divergence), line("threshold c / w", "#0072B2", "--", (f) => f.c / f.w)]),
    panel("Prefix drift and its budget", "Σ w·D", [line("S", "#D55E00", "-", (f) => f[DRIFT]), line("δ + δ_b·W", "#0072B2", "--", (f) => f[BUDGET])]),
    panel("Ratio", "ratio", [line("ratio", "#009E73", "-", (f) => f.ratio), line("weight", "#0072B2", "--", (f) => f.weight)])];
  return charts.filter((one) => one.series.length).map((one) => chart(one, onpick));
}
