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
