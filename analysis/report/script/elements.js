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
