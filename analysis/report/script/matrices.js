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
