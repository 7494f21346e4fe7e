// ---- views

const bold = (text) => text.split("**").map((part, i) => (i % 2 ? h("strong", {}, visible(part)) : visible(part)));

function stateCounts() {
  const counts = {};
  for (const run of [...RUNS, ...DATA.absent.map(() => ({ state: "missing" }))]) counts[run.state] = (counts[run.state] ?? 0) + 1;
  return h("p", { class: "row" }, Object.entries(counts).map(([state, count]) => h("span", { class: `state ${state}` }, `${count} ${state}`)));
}

function verdictView() {
  const said = ({ text, runs }) => h("section", {}, h("p", { class: "verdict" }, bold(text)),
    copyButton(() => [text.replaceAll("**", ""), ...runs.map((i) => RUNS[i].id)].join("\n"), "copy with run ids"));
  return [h("h1", {}, "Verdict"), stateCounts(), DATA.verdict.map(said),
    tableSection(TABLES.table1), figureSection("fig4")];
}

function settingsView() {
  const { shared, groups, methods } = DATA.settings;
  const everyRun = RUNS.map((_, i) => i);
  const rows = (table) => table.rows.map(([key, ...values]) => [key, values.map((text, i) => cellOf(text, table.runs[i]))]);
  const block = (title, table) => table.rows.length ? h("section", {}, h("h2", {}, title), sortableTable(title, "setting", table.columns, rows(table))) : null;
  return [h("h1", {}, "Settings"), h("p", {}, `${shared.length} settings are the same in all ${RUNS.length} runs. They stand last; first what differs.`),
    block("Groups: settings that differ", groups), block("Rules", methods),
    h("section", {}, h("h2", {}, "Shared by all runs"), sortableTable("Shared by all runs", "setting", ["value"], shared.map(([key, value]) => [key, [cellOf(value, everyRun)]])))];
}

function tablesView() {
  return [h("h1", {}, "Tables"), h("p", {}, "Press a header to sort, a number to see the runs behind it."),
    DATA.tables.filter((table) => !OWN_TABLES.includes(table.name)).map(tableSection)];
}

const hint = () => h("p", { class: "note" }, "Point at curves, or focus them and press ← →, to read values. A name in a legend hides its curve. Copied numbers carry their run ids.");
const curvesView = () => [h("h1", {}, "Curves"), hint(), figureGrid([...CURVES, ...otherFigures()])];
const figureGrid = (names) => h("div", { class: "sections" }, names.map(figureSection));
const otherFigures = () => Object.keys(FIGURES).filter((name) => !CURVES.includes(name) && !STABILITY.includes(name));
const stabilityView = () => [h("h1", {}, "Stability"), hint(), tableSection(TABLES.table_stability), figureGrid(STABILITY)];

/** The table of runs with links; table_runs has its rows in the order of RUNS. After them come absent runs: seeds that a group has
 * and one of its methods lacks. */
function runsView() {
  const { columns, rows, notes } = TABLES.table_runs;
  const absent = DATA.absent.map((run) => [`${run.method}/seed=${run.seed}`, [{ ...cellOf("missing"), node: h("span", { class: "state missing" }, "missing") },
    ...columns.slice(1).map((name) => (name === "reason" ? { ...cellOf("–"), node: ["made by: ", h("code", {}, visible(run.command))] } : cellOf("–"))), cellOf("–")]]);
  const tokens = (run) => ({ ...cellOf(String(run.traces.length)), node: run.traces.length ? h("a", { href: link("tokens", run.key) }, `${run.traces.length} recorded`) : "–" });
  const linked = RUNS.map((run, i) => [runLink(run), [{ ...rows[i][1][0], node: badge(run) }, ...rows[i][1].slice(1), tokens(run)]]);
  return [h("h1", {}, "Runs"), stateCounts(), sortableTable("Runs", "run", [...columns, "steps with tokens"], [...linked, ...absent]), notes.map((note) => h("p", { class: "note" }, visible(note)))];
}

const badge = (run) => h("span", { class: `state ${run.state}` }, run.state + (run.collapse !== null && run.state !== "collapsed" ? ", collapse marked" : ""));

function runView(key) {
  const run = runByKey(key);
  if (!run) return noSuchRun(key);
  const list = (pairs) => h("dl", { class: "settings" }, pairs.map(([name, value]) => [h("dt", {}, visible(name)), h("dd", {}, visible(value))]));
  const folded = (title, pairs, ...more) => h("details", {}, h("summary", {}, title), list(pairs), copyButton(() => pairText(run, pairs), "copy with run id"), more);
  const charts = (title, of) => { const panels = runPanels([run]).filter((panel) => of(panel.title)); return h("section", {}, h("h2", {}, title), panels.length ? h("div", { class: "panels" }, panels.map((panel) => chart(panel))) : h("p", { class: "quiet" }, "Nothing recorded.")); };
  return [h("h1", {}, visible(run.key)), h("p", { class: "row" }, badge(run), h("span", {}, `step ${run.step} of ${run.steps}`), run.collapse === null ? null : h("span", {}, `collapse at step ${run.collapse}`), h("code", {}, visible(run.id)), copyButton(() => pairText(run, stateOf(run)), "copy with run id")),
    run.warnings.map((text) => h("p", { class: "warning" }, visible(text))),
    h("p", { class: "row" }, run.traces.length ? h("a", { href: link("tokens", run.key) }, "its tokens") : h("span", {}, "no recorded tokens"), h("a", { href: link("compare", run.key) }, "compare with another run")),
    h("section", {}, h("h2", {}, "Command"), run.command ? [h("pre", { tabindex: 0 }, visible(run.command)), copyButton(() => run.command)] : h("p", { class: "quiet" }, "The run did not record one.")),
    folded("Provenance", run.provenance, attemptsTable(run)), folded("Settings", run.settings), folded("Operation: what changes no number", run.operation),
    hint(), charts("Curves", (title) => !OWN_SECTION.test(title)), charts("Health", (title) => HEALTH.test(title)), charts("Mismatch", (title) => MISMATCH.test(title)), charts("Cost", (title) => COST.test(title))];
}

const HEALTH = /^health\//, MISMATCH = /^(mismatch|staleness)\//, COST = /^(time|cost)\//, OWN_SECTION = /^(health|mismatch|staleness|time|cost)\//;
const pairText = (run, pairs) => [run.id, ...pairs.map(([name, value]) => `${name} = ${value}`)].join("\n");
const stateOf = (run) => [["state", run.state], ["step", `${run.step} of ${run.steps}`], ["collapse", run.collapse ?? "none"], ["device-hours", run.hours ?? "unknown"]];
const attemptsTable = ({ attempts, id }) => (attempts.rows.length ? sortableTable("Attempts", attempts.columns[0], attempts.columns.slice(1), attempts.rows.map(([first, ...rest]) => [first, rest.map((text) => cellOf(text, [RUNS.findIndex((run) => run.id === id)]))])) : null);

const noSuchRun = (key) => [h("h1", {}, "No such run"), h("p", {}, `This page has no run “${visible(key)}”. `, h("a", { href: "#runs" }, "All runs"))];

/** A panel for the evaluation, one for each metric, and one for each family of metrics, where any of the runs recorded it. */
function runPanels(runs) {
  const panel = (title, xlabel, ylabel, series) => ({ title, xlabel, ylabel, log_x: false, log_y: false, marks: [], series });
  const bySteps = (title, ylabel, curve) => panel(title, "step", ylabel, runs.flatMap((run, i) => runSeries(run, curve(run), i)));
  const panels = [bySteps("evaluation", "score (points)", (run) => run.scores)];
  for (const [key, metric] of Object.entries({ ...DATA.metrics, "time/step": { unit: "s" } })) {
    if (key === RATIO_FAMILY) panels.push(panel("mismatch/ratio, quantiles", "step", "ratio", runs.flatMap(ratioSeries)));
    else if (key.endsWith(BUCKETS)) panels.push(panel(key.replace(BUCKETS, ""), "relative position in the response", metric.unit || "mean over steps", runs.flatMap((run, i) => runSeries({ ...run, collapse: null }, run.positions[key.replace(BUCKETS, "")], i))));
    else panels.push(bySteps(key, metric.unit || key, (run) => run.curves[key]));
  }
  return panels.filter((one) => one.series.length);
}

const RATIO_FAMILY = "mismatch/ratio_<quantile>", BUCKETS = "/<bucket>";
const QUANTILES = { min: ":", p01: "--", p50: "-", p99: "--", max: ":" };
const ratioSeries = (run, i, runs) => Object.entries(QUANTILES).flatMap(([name, dash]) =>
  runSeries(run, run.curves[`mismatch/ratio_${name}`], i).map((one) => ({ ...one, label: runs.length > 1 ? `${run.key}, ${name}` : name, dash })));

function runSeries(run, curve, i) {
  if (!curve || !curve[0].length) return [];
  const [x, y] = curve;
  const near = run.collapse === null ? -1 : x.findLastIndex((step) => step <= run.collapse);
  const collapse = near < 0 ? null : [x[near], y[near]];
  const line = { run: RUNS.findIndex((one) => one.id === run.id), x, y, collapse, finished: run.state === "completed" || run.state === "collapsed" };
  return [{ label: run.key, colour: run.colour, dash: i ? "--" : "-", x: [], mean: [], low: [], high: [], lines: [line] }];
}

function compareView(key) {
  const [first, second] = key.split("/vs/").map(runByKey);
  const one = first ?? RUNS[0], other = second ?? RUNS.find((run) => run !== one) ?? one;
  const go = (a, b) => { location.hash = link("compare", `${a}/vs/${b}`); };
  const pickers = h("p", { class: "row" }, picker("A", one, (k) => go(k, other.key)), picker("B", other, (k) => go(one.key, k)));
  const facts = (run) => Object.fromEntries([["state", run.state], ["step", `${run.step}/${run.steps}`], ["collapse", String(run.collapse ?? "–")], ["device-hours", short(run.hours)], ["command", run.command], ["marked", run.warnings.join("; ") || "–"], ...run.provenance, ...run.settings, ...run.operation]);
  const [a, b] = [facts(one), facts(other)];
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => a[name] !== b[name]);
  const place = (run) => [RUNS.indexOf(run)];
  const rows = names.map((name) => [name, [cellOf(a[name] ?? "–", place(one)), cellOf(b[name] ?? "–", place(other))]]);
  return [h("h1", {}, "Compare two runs"), pickers,
    h("section", {}, h("h2", {}, "What differs"), rows.length ? sortableTable("What differs", "setting", ["A", "B"], rows) : h("p", {}, "Nothing.")),
    h("section", {}, h("h2", {}, "Curves"), hint(), h("div", { class: "panels" }, runPanels(one === other ? [one] : [one, other]).map((panel) => chart(panel))))];
}

/** A select of runs. Without a chosen run it begins with an empty option: if the first run were preselected, choosing it would
 * fire no change event. */
function picker(name, chosen, onpick, runs = RUNS) {
  const options = runs.map((run) => h("option", { value: run.key, selected: run === chosen }, `${visible(run.key)} (${run.state})`));
  const none = chosen ? null : h("option", { value: "", selected: true });
  return h("label", {}, `${name} `, h("select", { id: `picker-${name}`, onchange: (event) => onpick(event.target.value) }, none, options));
}
