"use strict";
// Draws all views of report.html from its embedded data. Text from runs enters the document only as text nodes and attribute
// values, never as HTML.

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;
const TABLES = Object.fromEntries(DATA.tables.map((table) => [table.name, table]));
const FIGURES = Object.fromEntries(DATA.figures.map((figure) => [figure.name, figure]));
const MAIN = document.getElementById("main");
const CURVES = ["fig4", "fig8", "fig9", "fig10", "fig11", "fig4_tokens", "fig4_device_hours", "fig1_right"];
const STABILITY = ["fig_stability", "fig2", "fig7", "fig3", "fig_position_divergence", "fig_position_masking", "fig_agreement"];
const OWN_TABLES = ["table_stability", "table_runs"]; // shown in their own views

// ---- elements

/** An HTML element. Properties: "on…" are event listeners, "--…" CSS variables, all others attributes (true: without a value). */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) element.style.setProperty(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** An SVG element; attributes that begin with "--" are CSS variables. */
function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("--")) element.style.setProperty(key, value);
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** visible(text): line breaks and tabs become symbols, other control, format and direction characters their code points, so that
 * they can't hide or reorder the text around them. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;
const SHOWN = { "\n": "↵", "\t": "⇥", "\r": "␍" };
const visible = (text) => String(text).replace(UNSEEN, (c) => SHOWN[c] ?? `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

const plain = (value) => (value === null || value === undefined ? "not finite" : String(value).replace("-", "−"));

function short(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e6)) return String(Number(value.toPrecision(4))).replace("-", "−");
  return value.toExponential(1).replace(/-/g, "−");
}

// ---- links: #view/name/of/run/key=value. They stay valid when the page is made again, so that a message can point at a token.

const OPTIONS = ["step", "response", "rule", "by", "token"];
const encode = (text) => encodeURIComponent(text).replace(/%3D/g, "=");
const link = (view, key = "", options = {}) =>
  "#" + [view, ...(key ? key.split("/") : []), ...Object.entries(options).map(([name, value]) => `${name}=${value}`)].map(encode).join("/");

function readLink() {
  const parts = location.hash.slice(1).split("/").map(decoded);
  const options = {};
  while (parts.length > 1 && OPTIONS.includes(parts.at(-1).split("=")[0]) && parts.at(-1).includes("=")) {
    const [name, ...rest] = parts.pop().split("=");
    options[name] = rest.join("=");
  }
  return { view: parts[0] || "verdict", key: parts.slice(1).join("/"), options };
}

function decoded(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

const runByKey = (key) => RUNS.find((run) => run.key === key) ?? RUNS.find((run) => run.id === key);
const runLink = (run) => h("a", { href: link("run", run.key) }, visible(run.key));

// ---- copying

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { return offer(text); }
  const said = button.textContent;
  button.textContent = "copied";
  setTimeout(() => { button.textContent = said; }, 1500);
}

/** Fallback where the browser refuses the clipboard: shows the text, selected, in a dialog. */
function offer(text) {
  const field = h("textarea", { readonly: true, rows: 12, "aria-label": "Text to copy", autofocus: true }, text);
  openDialog(h("p", {}, "Press Ctrl+C to copy:"), field);
  field.select();
}

function openDialog(...content) {
  const dialog = document.getElementById("details");
  dialog.replaceChildren(...content.flat(Infinity));
  if (!dialog.open) dialog.showModal();
}

const copyButton = (text, label = "copy", more = {}) => h("button", { type: "button", class: "small", onclick: (event) => copy(text(), event.target), ...more }, label);

/** Opens a dialog with a cell's text, its unrounded values and the runs that it comes from. */
function showDetails(title, cell) {
  const lines = [`${title}: ${cell.text}`, ...Object.entries(cell.values).map(([key, value]) => `${key} = ${value}`), ...cell.runs.map((i) => RUNS[i].id)];
  const close = () => document.getElementById("details").close();
  openDialog(
    h("h2", {}, visible(title)), h("p", { class: "big" }, visible(cell.text)),
    h("dl", {}, Object.entries(cell.values).map(([key, value]) => [h("dt", {}, key), h("dd", {}, plain(value))])),
    h("p", { class: "row" }, copyButton(() => lines.join("\n"), "copy with run ids", { autofocus: true }), h("button", { type: "button", class: "small", onclick: close }, "close")),
    h("p", {}, "From:"), h("ul", {}, cell.runs.map((i) => h("li", {}, h("a", { href: link("run", RUNS[i].key), onclick: close }, visible(RUNS[i].id))))),
    h("pre", {}, visible(lines.join(" · "))));
}

// ---- tables

const cellOf = (text, runs = []) => ({ text, values: {}, runs, emphasis: "" });

function sortValue(cell) {
  const known = cell.values.mean ?? cell.values.value ?? cell.values.p ?? cell.values.low;
  if (typeof known === "number") return known;
  const found = cell.text.replace(/−/g, "-").replace(/,/g, "").match(/^[+-]?\d+(\.\d+)?(e[+-]?\d+)?/);
  return found ? Number(found[0]) : cell.text;
}

function compareCells(a, b) {
  const [x, y] = [sortValue(a), sortValue(b)];
  if (typeof x === typeof y) return typeof x === "number" ? x - y : x.localeCompare(y);
  return typeof x === "number" ? -1 : 1;
}

/** rows: [[first cell, [cells]]]; a first cell is text or a node. A click on a header sorts by its column: descending at first,
 * then ascending and descending in turn. */
function sortableTable(caption, corner, columns, rows) {
  const body = h("tbody");
  const draw = (order) => body.replaceChildren(...order.map(([first, cells]) => tableRow(caption, columns, first, cells)));
  const state = { column: null, up: false };
  const heads = [corner, ...columns].map((name, i) => {
    const head = h("th", { scope: "col", "aria-sort": "none" }, h("button", { type: "button", onclick: () => sortBy(i) }, visible(name)));
    return head;
  });
  function sortBy(i) {
    state.up = state.column === i ? !state.up : false;
    state.column = i;
    heads.forEach((head, j) => head.setAttribute("aria-sort", j !== i ? "none" : state.up ? "ascending" : "descending"));
    const of = ([first, cells]) => (i === 0 ? cellOf(first.textContent ?? first) : cells[i - 1]);
    draw([...rows].sort((a, b) => (state.up ? 1 : -1) * compareCells(of(a), of(b))));
  }
  draw(rows);
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": visible(caption) },
    h("table", {}, h("thead", {}, h("tr", {}, heads)), body));
}

function tableRow(caption, columns, first, cells) {
  const name = first.textContent ?? first;
  const content = (cell, column) => cell.runs.length
    ? h("button", { type: "button", class: "cell", onclick: () => showDetails(`${caption}, ${name}, ${column}`, cell) }, visible(cell.text))
    : visible(cell.text);
  const entries = cells.map((cell, i) => h("td", { class: cell.emphasis }, cell.node ?? content(cell, columns[i])));
  return h("tr", {}, h("th", { scope: "row" }, typeof first === "string" ? visible(first) : first), entries);
}

function tableSection(table) {
  const body = table.rows.length ? sortableTable(table.title, table.corner, table.columns, table.rows) : h("p", { class: "quiet" }, "Nothing to show: no run has what this table needs.");
  return h("section", { id: `section-${table.name}` }, h("h2", {}, table.title), body, table.notes.map((note) => h("p", { class: "note" }, visible(note))));
}

// ---- curves: SVG with a crosshair for pointer and arrow keys

const W = 520, H = 300, LEFT = 68, RIGHT = 24, TOP = 10, BOTTOM = 42;
const DASHES = { "-": "none", "--": "7 4", "-.": "7 3 2 3", ":": "2 3" };

function scale(values, log, from, to, roomy = false) {
  const known = values.filter((v) => v !== null && (!log || v > 0));
  const ends = known.length ? known.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [known[0], known[0]]) : [1, 10];
  const f = log ? Math.log10 : (v) => v;
  let [a, b] = ends.map(f);
  if (a === b) [a, b] = a === 0 && !log ? [0, 1] : [a - Math.abs(a) * 0.05 - (log ? 0.5 : 0), b + Math.abs(b) * 0.05 + (log ? 0.5 : 0)];
  else if (roomy) [a, b] = [a === 0 && !log ? 0 : a - 0.04 * (b - a), b + 0.04 * (b - a)];
  const at = (v) => from + ((f(v) - a) / (b - a)) * (to - from);
  return { at, ticks: ticks(a, b, log), draws: (v) => v !== null && v !== undefined && (!log || v > 0) };
}

function ticks(a, b, log) {
  const rough = (b - a) / 5, power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= rough);
  if (log) step = Math.max(1, Math.round(step));
  const out = [];
  for (let t = Math.ceil(a / step - 1e-9) * step; t <= b + 1e-9 * step; t += step) out.push(log ? 10 ** t : Number(t.toPrecision(12)));
  return log && out.length < 2 ? fewTicks(10 ** a, 10 ** b) : out;
}

/** About four values evenly spaced in the logarithm, rounded to as few digits as leave two different ones between low and high. */
function fewTicks(low, high) {
  const spaced = [0, 1, 2, 3].map((i) => low * (high / low) ** (i / 3));
  const rounded = [1, 2, 3, 4].map((digits) => [...new Set(spaced.map((v) => Number(v.toPrecision(digits))))].filter((v) => v > low * (1 - 1e-9) && v < high * (1 + 1e-9)));
  return rounded.find((values) => values.length >= 2) ?? spaced;
}

/** Paths through neighbouring points that can be drawn, and dots for points without a neighbour, of which a path shows nothing. */
function curve(look, dash, x, y, xs, ys) {
  const parts = [[]];
  x.forEach((at, i) => (xs.draws(at) && ys.draws(y[i]) ? parts.at(-1).push(`${xs.at(at).toFixed(1)} ${ys.at(y[i]).toFixed(1)}`) : parts.push([])));
  const line = s("path", { class: look, d: parts.filter((part) => part.length > 1).map((part) => `M${part.join("L")}`).join(""), "stroke-dasharray": dash });
  const alone = parts.filter((part) => part.length === 1).map(([point]) => `M${point}h0`).join("");
  return alone ? [line, s("path", { class: `${look} dot`, d: alone })] : [line];
}

function frame(xs, ys, xlabel, ylabel) {
  const grid = s("g", { class: "grid" });
  for (const t of ys.ticks) grid.append(s("path", { d: `M${LEFT} ${ys.at(t)}H${W - RIGHT}` }), s("text", { x: LEFT - 6, y: ys.at(t) + 4, "text-anchor": "end" }, short(t)));
  for (const t of xs.ticks) grid.append(s("text", { x: xs.at(t), y: H - BOTTOM + 18, "text-anchor": "middle" }, short(t)));
  grid.append(
    s("path", { class: "axis", d: `M${LEFT} ${TOP}V${H - BOTTOM}H${W - RIGHT}` }),
    s("text", { x: (LEFT + W - RIGHT) / 2, y: H - 6, "text-anchor": "middle" }, visible(xlabel)),
    s("text", { transform: `translate(13 ${(TOP + H - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, visible(ylabel)));
  return grid;
}

function drawSeries(series, xs, ys, faint) {
  const group = s("g", { class: "series", "--c": series.colour });
  const band = bandPath(series, xs, ys);
  if (band) group.append(s("path", { class: "band", d: band }));
  for (const line of series.lines) {
    const dash = line.finished ? DASHES[series.dash] : "2 4";
    group.append(...curve(faint && series.x.length ? "thin" : "line", dash, line.x, line.y, xs, ys));
    if (line.collapse && xs.draws(line.collapse[0]) && ys.draws(line.collapse[1])) group.append(cross(xs.at(line.collapse[0]), ys.at(line.collapse[1])));
  }
  if (series.x.length) group.append(...curve("line", DASHES[series.dash], series.x, series.mean, xs, ys));
  return group;
}

const cross = (x, y) => s("path", { class: "cross", d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10` });

function bandPath({ x, low, high }, xs, ys) {
  const there = x.map((_, i) => i).filter((i) => low[i] !== null && high[i] !== null && ys.draws(low[i]) && ys.draws(high[i]));
  if (there.length < 2) return "";
  const point = (i, values) => `${xs.at(x[i]).toFixed(1)} ${ys.at(values[i]).toFixed(1)}`;
  return `M${there.map((i) => point(i, high)).join("L")}L${there.reverse().map((i) => point(i, low)).join("L")}Z`;
}

/** A figure with curves, crosshair and legend. onpick(x): called on a click or Enter, with the x under the cursor. */
function chart(panel, onpick = null) {
  const all = (pick) => panel.series.flatMap((one) => pick(one));
  const x = all((one) => [...one.x, ...one.lines.flatMap((line) => line.x)]).concat(panel.marks.map(([at]) => at));
  const y = all((one) => [...one.mean, ...(panel.series.length <= 5 ? [...one.low, ...one.high] : []), ...one.lines.flatMap((line) => line.y)]);
  const xs = scale(x, panel.log_x, LEFT, W - RIGHT), ys = scale(y, panel.log_y, H - BOTTOM, TOP, true);
  const banded = panel.series.length <= 5 ? panel.series : panel.series.map((one) => ({ ...one, low: one.low.map(() => null) }));
  const groups = banded.map((one) => drawSeries(one, xs, ys, true));
  const marks = panel.marks.map(([at, text]) => s("g", { class: "grid" }, s("path", { class: "mark", d: `M${xs.at(at)} ${TOP}V${H - BOTTOM}` }), s("text", { x: xs.at(at) + 4, y: TOP + 12 }, visible(text))));
  const cursor = s("path", { class: "cursor", d: "" });
  const svg = s("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: "0", "aria-label": `${visible(panel.title)}: ${visible(panel.ylabel)} against ${visible(panel.xlabel)}. Arrow keys read values.` }, frame(xs, ys, panel.xlabel, panel.ylabel), ...marks, ...groups, cursor);
  const legend = h("div", { class: "legend" }, panel.series.map((one, i) => legendEntry(one, groups[i])), copyButton(() => panelText(panel), "copy numbers"));
  const readout = h("p", { class: "readout", role: "status" });
  hover(svg, panel, xs, cursor, readout, onpick);
  return h("figure", { class: "chart" }, h("figcaption", {}, visible(panel.title)), svg, readout, legend);
}

function legendEntry(series, group) {
  const swatch = s("svg", { viewBox: "0 0 26 10", class: "swatch series", "--c": series.colour, "aria-hidden": "true" }, s("path", { class: "line", d: "M0 5H26", "stroke-dasharray": DASHES[series.dash] }));
  const toggle = (event) => event.currentTarget.setAttribute("aria-pressed", String(!group.classList.toggle("hidden")));
  return h("button", { type: "button", class: "small", "aria-pressed": "true", onclick: toggle }, swatch, " ", visible(series.label));
}

/** [x, y] of a series' mean, or of its first run if it has no mean. */
const mainCurve = (one) => (one.x.length ? [one.x, one.mean] : [one.lines[0]?.x ?? [], one.lines[0]?.y ?? []]);

function hover(svg, panel, xs, cursor, readout, onpick) {
  const places = [...new Set(panel.series.flatMap((one) => mainCurve(one)[0]))].filter((v) => xs.draws(v)).sort((a, b) => a - b);
  let index = -1;
  const show = (i) => {
    index = Math.max(0, Math.min(places.length - 1, i));
    if (!places.length) return;
    cursor.setAttribute("d", `M${xs.at(places[index])} ${TOP}V${H - BOTTOM}`);
    readout.textContent = `${panel.xlabel} ${short(places[index])}: ` + panel.series.map((one) => `${visible(one.label)} ${short(valueNear(one, places[index]))}`).join(", ");
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * W;
    show(places.reduce((best, v, i) => (Math.abs(xs.at(v) - at) < Math.abs(xs.at(places[best]) - at) ? i : best), 0));
  });
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (move) { show(index + move); event.preventDefault(); }
    if (event.key === "Enter" && onpick && index >= 0) onpick(places[index]);
  });
  if (onpick) svg.addEventListener("click", () => index >= 0 && onpick(places[index]));
}

function valueNear(series, at) {
  const [x, y] = mainCurve(series), i = x.indexOf(at);
  return i < 0 ? null : y[i];
}

function panelText(panel) {
  const rows = [["series", "run", panel.xlabel, panel.ylabel, "low", "high"]];
  for (const one of panel.series) {
    one.x.forEach((x, i) => rows.push([one.label, `mean of ${one.lines.map((line) => RUNS[line.run].id).join(" ")}`, x, one.mean[i], one.low[i] ?? "", one.high[i] ?? ""]));
    for (const line of one.lines) line.x.forEach((x, i) => rows.push([one.label, RUNS[line.run].id, x, line.y[i]]));
  }
  return rows.map((row) => row.join("\t")).join("\n");
}

// ---- matrices

function matrix(panel) {
  const known = panel.values.flat().filter((v) => v !== null && (!panel.log || v > 0));
  let [low, high] = panel.limits ?? [Math.min(...known), Math.max(...known)];
  if (panel.diverging) { high = Math.max(Math.abs(low), Math.abs(high)); low = -high; }
  const f = panel.log ? Math.log : (v) => v;
  const share = (v) => (high === low ? 0.5 : (f(v) - f(low)) / (f(high) - f(low)));
  const colour = (v) => (v === null || (panel.log && v <= 0) ? null : panel.diverging ? [share(v) >= 0.5 ? "var(--warm)" : "var(--cool)", Math.abs(share(v) - 0.5) * 2] : ["var(--cool)", share(v)]);
  const headers = panel.rows.length ? panel.rows : panel.values.map((_, i) => String(i));
  const names = panel.rows.length ? panel.rows : headers.map((i) => `${panel.ylabel} ${i}`);
  const cells = panel.values.map((values, i) => values.map((v, j) => heatCell(panel, v, i, j, colour(v))));
  const rows = cells.map((row, i) => h("tr", {}, h("th", { scope: "row" }, visible(headers[i])), row));
  const head = panel.columns.length ? h("thead", {}, h("tr", {}, h("td"), panel.columns.map((name) => h("th", { scope: "col" }, visible(name))))) : null;
  const axis = panel.columns.length ? null : h("p", { class: "note" }, panel.ylabel ? `${visible(panel.ylabel)}, downwards; ` : "", visible(panel.xlabel), panel.extent ? ` from ${short(panel.extent[0])} to ${short(panel.extent[1])}` : "");
  const range = Number.isFinite(low) ? `, ${short(low)} to ${short(high)}` : "";
  const readout = h("p", { class: "readout", role: "status" });
  const grid = h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `${visible(panel.title)}. Arrow keys read cells, Enter opens one.` }, h("table", { class: panel.columns.length ? "heat" : "heat dense" }, head, h("tbody", {}, rows)));
  readCells(grid, panel, cells, names, readout);
  return h("figure", { class: "chart" + (panel.columns.length > 6 ? " wide" : "") }, h("figcaption", {}, `${visible(panel.title)} (${visible(panel.unit)}${range})`),
    grid, axis, readout, h("div", { class: "legend" }, copyButton(() => matrixText(panel, names), "copy numbers")));
}

function heatCell(panel, value, i, j, colour) {
  const text = panel.texts?.[i]?.[j] || (panel.columns.length ? (value === null ? "" : short(value)) : "");
  return h("td", { "--c": colour ? colour[0] : "transparent", "--p": colour ? `${Math.round(75 * colour[1])}%` : "0%" }, visible(text));
}

/** Adds listeners to a matrix: pointer and arrow keys choose a cell and show its value, a click or Enter opens its details. */
function readCells(grid, panel, cells, names, readout) {
  let chosen = null;
  const nameOf = ([i, j]) => `${names[i]}, ${columnName(panel, j)}`;
  const valueOf = ([i, j]) => panel.values[i][j];
  const show = (i, j) => {
    if (chosen) cells[chosen[0]][chosen[1]].classList.remove("chosen");
    chosen = [Math.max(0, Math.min(cells.length - 1, i)), Math.max(0, Math.min(cells[0].length - 1, j))];
    cells[chosen[0]][chosen[1]].classList.add("chosen");
    readout.textContent = `${visible(nameOf(chosen))}: ${short(valueOf(chosen))} ${visible(panel.unit)}`;
  };
  const open = () => showDetails(`${panel.title}, ${nameOf(chosen)}`, { text: `${short(valueOf(chosen))} ${panel.unit}`, values: { value: valueOf(chosen) }, runs: runsBehind(panel, ...chosen) });
  const under = (event) => { const cell = event.target.closest("td"), i = cells.findIndex((row) => row.includes(cell)); return i < 0 ? null : [i, cells[i].indexOf(cell)]; };
  grid.addEventListener("pointermove", (event) => { const at = under(event); if (at) show(...at); });
  grid.addEventListener("click", (event) => { const at = under(event); if (at) { show(...at); open(); } });
  grid.addEventListener("keydown", (event) => {
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!move && event.key !== "Enter") return;
    event.preventDefault();
    if (move || !chosen) show(...(chosen ? [chosen[0] + move[0], chosen[1] + move[1]] : [0, 0]));
    if (event.key === "Enter") open();
    else cells[chosen[0]][chosen[1]].scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}

/** The name of column j. Unnamed columns are windows of steps if the panel has an extent (first and last step), else they are
 * numbered. */
function columnName(panel, j) {
  if (panel.columns.length || !panel.extent) return panel.columns[j] ?? `${panel.xlabel} ${j + 1}`;
  const [first, last] = panel.extent, width = Math.ceil((last - first + 1) / panel.values[0].length);
  const from = first + j * width, to = Math.min(last, from + width - 1);
  return `${panel.xlabel} ${from === to ? from : `${from}–${to}`}`;
}

const runsBehind = ({ behind }, i, j) => behind.sets[behind.cells ? behind.cells[i][j] : 0];

function matrixText(panel, names) {
  const rows = panel.values.flatMap((values, i) => values.map((value, j) => [names[i], columnName(panel, j), value ?? "", runsBehind(panel, i, j).map((k) => RUNS[k].id).join(" ")]));
  return [["row", "column", panel.unit, "runs"], ...rows].map((row) => row.join("\t")).join("\n");
}

function figureSection(name) {
  const figure = FIGURES[name];
  const head = h("h2", {}, visible(figure.title));
  if (figure.missing) return h("section", { class: "missing" }, head, h("p", {}, h("strong", {}, "Missing: "), visible(figure.missing), ". Made by: ", h("code", {}, visible(figure.command))));
  const panels = figure.panels.map((panel) => (panel.series ? chart(panel) : matrix(panel)));
  return h("section", { id: `section-${name}`, class: figure.panels.length > 1 || panels[0].classList.contains("wide") ? "wide" : null }, head, h("div", { class: "panels" }, panels), figure.notes.map((note) => h("p", { class: "note" }, visible(note))));
}

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

// ---- start

const VIEWS = {
  verdict: ["Verdict", verdictView], settings: ["Settings", settingsView], tables: ["Tables", tablesView],
  curves: ["Curves", curvesView], stability: ["Stability", stabilityView], runs: ["Runs", runsView],
  compare: ["Compare", compareView], tokens: ["Tokens", tokensView],
};

function route() {
  clearTimeout(resting);
  const { view, key, options } = readLink();
  const draw = view === "run" ? runView : VIEWS[view]?.[1] ?? (() => [h("h1", {}, "No such view"), h("p", {}, visible(view))]);
  MAIN.replaceChildren(...[draw(key, options)].flat(Infinity).filter((child) => child !== null));
  for (const anchor of document.querySelectorAll("#nav a")) anchor.toggleAttribute("aria-current", anchor.hash === `#${view === "run" ? "runs" : view}`);
  document.title = `${MAIN.querySelector("h1").textContent} · trust-region comparison`;
}

function start() {
  document.getElementById("nav").append(...Object.entries(VIEWS).map(([name, [text]]) => h("a", { href: `#${name}` }, text)));
  const warning = document.getElementById("warning");
  warning.textContent = visible(DATA.warning);
  warning.hidden = !DATA.warning;
  addEventListener("hashchange", follow);
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); MAIN.focus(); });
  route();
  if (DATA.live) goLive(DATA.live);
}

/** Shows the view of a changed link from its top. If a picker changed the link, its successor in the new view gets the focus and
 * the scroll position stays, so that the arrow keys go on to work. */
function follow() {
  const picker = document.activeElement?.id;
  route();
  const again = picker && picker !== MAIN.id ? document.getElementById(picker) : null;
  if (!again) scrollTo(0, 0);
  (again ?? MAIN).focus({ preventScroll: true });
}

// ---- live: only if the page comes from `analysis serve`

const FOCUSABLE = "a, button, input, select, summary, [tabindex]";

/** Asks the server again and again whether the runs have changed; if so reloads the page, at the place where the reader was. */
function goLive({ seconds, state }) {
  const line = document.getElementById("live");
  line.hidden = false;
  line.textContent = `Live: looks every ${seconds} s whether the runs have changed.`;
  comeBack();
  setInterval(async () => {
    try {
      const now = await (await fetch("/state", { cache: "no-store" })).text();
      if (now !== state && !document.querySelector("dialog[open]")) { leave(); location.reload(); }
    } catch { line.textContent = "Not live any more: the server does not answer. What stands here is what it said last."; }
  }, 1000 * seconds);
}

/** Stores the reader's place for `comeBack`: scroll position, focus, open folds. */
function leave() {
  const focus = [...document.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  const open = [...document.querySelectorAll("details")].map((one) => one.open);
  sessionStorage.setItem("place", JSON.stringify({ hash: location.hash, top: scrollY, focus, open }));
}

/** Restores the place that `leave` stored, if the page still shows the same link. */
function comeBack() {
  const place = JSON.parse(sessionStorage.getItem("place") ?? "null");
  sessionStorage.removeItem("place");
  if (place?.hash !== location.hash) return;
  document.querySelectorAll("details").forEach((one, i) => { one.open = place.open[i] ?? false; });
  document.querySelectorAll(FOCUSABLE)[place.focus]?.focus({ preventScroll: true });
  scrollTo(0, place.top);
}

start();
