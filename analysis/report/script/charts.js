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
