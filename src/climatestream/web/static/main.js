// @ts-check
/** The page: what is chosen, shown and shared. */

import { ClimateBoard, element, PipelineBoard, QualityBoard } from "./boards.js";
import { color, loadPlotly } from "./charts.js";
import { Link } from "./link.js";
import { ClimateMap } from "./map.js";
import { along, colorAt } from "./raster.js";
import { Readout, reading } from "./readout.js";
import { copy, savePicture, say, showExports, showQuery } from "./sharing.js";
import { Sight } from "./sight.js";
import { Timeline } from "./timeline.js";
import { address, getJson, Refused } from "./wire.js";
import * as words from "./words.js";

/** @typedef {import("./wire.js").State} State */
/** @typedef {import("./wire.js").Field} Field */
/** @typedef {import("./wire.js").Choice} Choice */

/** @param {string} id @returns {any} */
const at = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);

/** @type {{dataset: string | null, variable: string | null}} */
const wish = { dataset: asked.get("dataset"), variable: asked.get("variable") };
/** @type {State | null} */
let state = null;
/** @type {Field | null} */
let field = null;
/** @type {{latitude: number, longitude: number} | null} */
let marked = pair(asked.get("cell"));

/** The outlines and the chart library wait for it: they would take its place on the processor. */
let drew = () => {};
const firstField = new Promise((done) => {
  drew = () => done(null);
  setTimeout(drew, 1500);
});

const map = new ClimateMap(at("map"));
const readout = new Readout(map, (variable) => state?.variables.find((one) => one.name === variable));
const sight = new Sight(map, cities, failed);
const timeline = new Timeline();
const link = new Link(
  () => ({ ...wish, live: timeline.live && !timeline.playing }),
  answered,
  status,
);
const around = {
  // what was answered last: a wish may name what is not there
  look: () => ({
    dataset: state?.dataset ?? null,
    variable: state?.variable ?? null,
    cell: marked,
    choices: state?.variables ?? [],
    idle: !state?.pace?.rate,
  }),
  timeline,
  choose: (/** @type {string} */ variable) => choose({ variable }),
  query,
  shade,
};
const boards = {
  climate: new ClimateBoard(at("climate"), around),
  pipeline: new PipelineBoard(at("pipeline"), around),
  quality: new QualityBoard(at("quality"), around),
};
// for the console, and for whoever measures
Object.assign(window, { climatestream: { map, timeline, link, boards, field: () => field } });

/** @param {string | null} text */
function pair(text) {
  const [latitude, longitude] = (text ?? "").split(",").map(Number);
  return text && latitude === latitude && longitude === longitude ? { latitude, longitude } : null;
}

// -------------------------------------------------------------------------------- answers

/**
 * @param {State} said
 * @param {Field | null} newest
 */
function answered(said, newest) {
  const first = state?.dataset !== said.dataset;
  state = said;
  problem(null);
  stale(false);
  Object.assign(wish, { dataset: said.dataset, variable: said.variable });
  choices(said);
  figures(said);
  timeline.choose(said.dataset, said.variable);
  void timeline.follow(said.times).catch(failed);
  if (newest && timeline.live) show(newest);
  if (timeline.live && !said.frame) nothing(said);
  text("notice", said.notice);
  text("note", said.note && `${said.note}; this is ${said.variable} of ${said.dataset}`);
  credit();
  boards.climate.build();
  for (const board of Object.values(boards)) board.refresh(first);
}

/** @param {Field} next @param {boolean} [jump] */
function show(next, jump = false) {
  const choice = state?.variables.find((one) => one.name === next.variable);
  if (!choice || next.dataset !== wish.dataset || next.variable !== wish.variable) return;
  const newChoice = field?.variable !== next.variable || field.dataset !== next.dataset;
  field = next;
  at("nothing").hidden = !next.empty;
  if (next.empty) at("nothing").textContent = `no values of ${choice.label} at this time`;
  map.show(next, choice, jump);
  requestAnimationFrame(() => requestAnimationFrame(drew));
  if (newChoice) begin();
  sight.changed();
  at("clock").textContent = `${words.time(next.time)} UTC`;
  at("cells").textContent = words.count(next.cells);
  legend(choice);
  const says = `${choice.label} of ${next.dataset} at ${words.time(next.time)} UTC, ` +
    `${words.count(next.cells)} cells, ${words.shown(next.low, choice)} to ${words.shown(next.high, choice)}, ` +
    `mean ${words.shown(next.mean, choice)}`;
  at("map").setAttribute("aria-label", `Map. ${says}`);
  title();
  boards.climate.point();
  boards.climate.field(next.time, next.version);
  readout.show();
}

/** What the address asked for, once there is something to look at. */
function begin() {
  const place = pair(asked.get("at"));
  const scale = Number(asked.get("zoom"));
  if (place && scale > 0) map.look(place.latitude, place.longitude, scale);
  asked.delete("at");
  if (marked) map.mark(marked);
}

/** @param {State} said */
function nothing(said) {
  field = null;
  map.clear();
  at("nothing").hidden = false;
  at("nothing").textContent = said.datasets.length
    ? `no values of ${said.variable ?? "any variable"} at the newest time`
    : "waiting for the first readings";
  at("clock").textContent = said.datasets.length ? "no values" : "no readings yet";
  at("legend").hidden = true;
  at("cells").textContent = "–";
}

/** @param {"live" | "trouble" | "disconnected"} word @param {string} [sentence] */
function status(word, sentence) {
  const element_ = at("status");
  if (element_.dataset.status !== word) {
    element_.dataset.status = word;
    element_.textContent = word === "trouble" ? "store trouble" : word === "live" ? "connected" : word;
  }
  if (word === "live") return;
  stale(true);
  title();
  problem(
    word === "trouble"
      ? `${sentence}. Trying again.`
      : "The server does not answer: what you see is the last that it said. Trying again.",
  );
}

/** Whether what is seen is old news. @param {boolean} is */
function stale(is) {
  if (document.body.classList.contains("stale") === is) return;
  document.body.classList.toggle("stale", is);
  if (!is) title();
  controls();
  // a time that was asked for in vain
  if (!is && !timeline.playing && timeline.time !== null && timeline.time !== field?.time) timeline.go(timeline.time);
}

/** What the tab says. */
function title() {
  const choice = state?.variables.find((one) => one.name === field?.variable);
  const { status } = at("status").dataset;
  document.title = [
    document.body.classList.contains("stale") && (status === "trouble" ? "store trouble" : status),
    field && choice && words.shown(field.mean, choice),
    field && choice?.label,
    "climatestream",
  ].filter(Boolean).join(" · ");
}

/** @param {unknown} error */
function failed(error) {
  if (error instanceof Refused) problem(error.message);
}

/** @param {string} id @param {string | null | undefined} said */
function text(id, said) {
  at(id).hidden = !said;
  if (said && at(id).textContent !== said) at(id).textContent = said;
}

/** @param {string | null} said */
const problem = (said) => text("problem", said);

/** @param {State} said */
function figures({ readings, dead_letters: dead, pace }) {
  at("rate").textContent = pace ? words.short(pace.rate) : "–";
  at("latency").textContent = words.duration(pace?.p95_ms);
  at("lag").textContent = pace?.lag === null || !pace ? "–" : words.short(pace.lag);
  at("readings").textContent = words.short(readings);
  at("dead").textContent = words.count(dead);
  at("dead").classList.toggle("alarm", dead > 0);
}

/** Cities have come; a store may have none. @param {number} count */
function cities(count) {
  if (count) at("names").hidden = false;
  credit();
}

/** Whose data is seen. */
function credit() {
  const year = new Date(field?.time ?? Date.now()).getUTCFullYear();
  const copernicus = state?.dataset?.startsWith("era5") && `Contains modified Copernicus Climate Change Service information ${year}`;
  const cities = map.named && map.places.length > 0 && "Cities: GeoNames, CC BY 4.0";
  text("credit", [copernicus, cities].filter(Boolean).join(" · ") || null);
}

// -------------------------------------------------------------------------------- choices

/** @type {Record<string, string>} */
const last = {};

/** @param {string} key @param {unknown} value */
function once(key, value) {
  const said = JSON.stringify(value);
  if (last[key] === said) return false;
  last[key] = said;
  return true;
}

/** @param {State} said */
function choices({ datasets, dataset, variables, variable }) {
  if (once("datasets", datasets)) {
    at("dataset").replaceChildren(...datasets.map((name) => new Option(name, name)));
    at("dataset").disabled = datasets.length === 0;
  }
  if (once("variables", variables.map(({ name, label, unit }) => [name, label, unit]))) {
    at("variable").replaceChildren(
      ...variables.map(({ name, label, unit }) => new Option(unit ? `${label} · ${unit}` : label, name)),
    );
    at("variable").disabled = variables.length === 0;
  }
  if (dataset && at("dataset").value !== dataset) at("dataset").value = dataset;
  if (variable && at("variable").value !== variable) at("variable").value = variable;
}

/** @param {{dataset?: string, variable?: string}} change */
function choose(change) {
  Object.assign(wish, change);
  if (change.dataset) {
    timeline.follows();
    map.touched = false;
    pick(null);
  }
  if (!timeline.live && state) timeline.choose(wish.dataset, wish.variable);
  link.ask(true);
  remember();
}

at("dataset").addEventListener("change", () => choose({ dataset: at("dataset").value }));
at("variable").addEventListener("change", () => choose({ variable: at("variable").value }));

/** @type {Choice | null} */
let shaded = null;

/** @param {Choice} choice */
function legend(choice) {
  shaded = choice;
  at("legend").hidden = false;
  if (!once("legend", [choice.label, choice.unit, choice.colors, choice.knots])) return;
  at("legend-label").textContent = choice.label.replace(/ (?=m$)/, "\u00a0");
  at("legend-unit").textContent = choice.unit;
  const context = at("bar").getContext("2d");
  const gradient = context.createLinearGradient(0, 256, 0, 0);
  choice.colors.forEach((stop, i) => gradient.addColorStop(i / (choice.colors.length - 1), stop));
  context.fillStyle = gradient;
  context.fillRect(0, 0, 1, 256);
  at("ticks").replaceChildren(
    ...choice.knots.toReversed().map((knot) => element("li", String(Number(knot.toPrecision(6))).replace("-", "\u2212"))),
  );
}

/** The colour of a value. @param {number} value */
function shade(value) {
  if (!shaded) return "#888888";
  return colorAt(shaded.colors, along(shaded.knots, value));
}

// ------------------------------------------------------------------------------- the time

timeline.addEventListener("field", (event) => {
  const next = /** @type {CustomEvent<Field>} */ (event).detail;
  show(next, !timeline.playing);
});
timeline.addEventListener("failed", (event) => failed(/** @type {CustomEvent} */ (event).detail));
timeline.addEventListener("change", controls);

function controls() {
  const { times, live, playing, span } = timeline;
  words.suit(times);
  const [first, last_] = timeline.range();
  const slider = at("slider");
  const place = timeline.place();
  slider.disabled = times.length < 2;
  slider.min = first;
  slider.max = last_;
  slider.value = place;
  const shown = timeline.time ?? times[place];
  slider.setAttribute("aria-valuetext", shown === undefined ? "no time" : `${words.time(shown)} UTC`);
  slider.style.setProperty("--share", `${last_ > first ? (100 * (place - first)) / (last_ - first) : times.length && 100}%`);
  const width = times.length ? times[last_] - times[first] : 0;
  at("from").textContent = times.length ? words.brief(times[first], width) : "";
  at("to").textContent = times.length ? words.brief(times[last_], width) : "";
  at("live").setAttribute("aria-pressed", String(live));
  const old = document.body.classList.contains("stale");
  at("live").textContent = live && old ? "not live" : "live";
  at("live").title = !live ? "Follow what arrives" : old ? "Follows what arrives, once there is an answer" : "Following what arrives";
  at("play").classList.toggle("playing", playing);
  at("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  at("play").title = playing ? "Pause" : "Play";
  for (const id of ["play", "back", "forward"]) at(id).disabled = times.length < 2;
  at("whole").hidden = !span;
  document.body.classList.toggle("past", !live);
  if (once("span", [span, wish.dataset])) for (const board of Object.values(boards)) board.refresh(true);
  boards.climate.point();
  remember();
}

at("slider").addEventListener("input", () => {
  const place = Number(at("slider").value);
  timeline.pause();
  timeline.goPlace(place);
});
at("back").addEventListener("click", () => timeline.step(-1));
at("forward").addEventListener("click", () => timeline.step(1));
at("play").addEventListener("click", () => (timeline.playing ? timeline.pause() : timeline.play()));
at("speed").addEventListener("change", () => (timeline.speed = Number(at("speed").value)));
at("whole").addEventListener("click", () => timeline.zoom(null));
at("live").addEventListener("click", () => {
  timeline.follows();
  link.ask(true);
});

// -------------------------------------------------------------------------------- the map

map.addEventListener("view", () => {
  remember();
  sight.changed();
});
map.addEventListener("hover", (event) => {
  readout.at = /** @type {CustomEvent} */ (event).detail;
  readout.show();
});
map.addEventListener("pick", (event) => void exact(/** @type {CustomEvent} */ (event).detail).then(pick).catch(failed));

/** The cell itself, where only a box of several was picked.
 * @param {import("./map.js").Cell | null} cell
 * @returns {Promise<{latitude: number, longitude: number} | null>} */
const exact = async (cell) => (cell?.boxed && field ? reading(field, cell) : cell);

/** @param {{latitude: number, longitude: number} | null} place */
function pick(place) {
  const same = place && marked && Math.hypot(place.latitude - marked.latitude, place.longitude - marked.longitude) < 1e-3;
  marked = place && !same ? { latitude: place.latitude, longitude: place.longitude } : null;
  map.mark(marked);
  say(marked ? `cell ${words.place(marked.latitude, marked.longitude)} picked: its series is in the charts` : "no cell picked");
  boards.climate.refresh(true);
  remember();
}

at("zoom-in").addEventListener("click", () => map.zoom(1.5));
at("zoom-out").addEventListener("click", () => map.zoom(1 / 1.5));
at("fit").addEventListener("click", () => map.fit());
for (const [id, key] of [["smooth", "smooth"], ["winds", "winds"], ["names", "named"]]) {
  at(id).addEventListener("click", () => {
    const on = at(id).getAttribute("aria-pressed") !== "true";
    at(id).setAttribute("aria-pressed", String(on));
    map.set({ [key]: on });
    sight.changed();
    credit();
    remember();
  });
}
if (asked.get("cells") !== null) {
  at("smooth").setAttribute("aria-pressed", "false");
  map.set({ smooth: false });
}
if (asked.get("winds") === "off") {
  at("winds").setAttribute("aria-pressed", "false");
  map.set({ winds: false });
}
if (asked.get("names") === "off") {
  at("names").setAttribute("aria-pressed", "false");
  map.set({ named: false });
}

// ------------------------------------------------------------------------- sharing, exports

let remembering = 0;

/** The view in the address, but not at each step of a wheel. */
function remember() {
  clearTimeout(remembering);
  remembering = window.setTimeout(() => history.replaceState(null, "", viewAddress()), 250);
}

/** The address of what is looked at. */
function viewAddress() {
  if (!wish.dataset) return location.pathname + location.search;
  const { view, touched } = map;
  return address("/", {
    dataset: wish.dataset,
    variable: wish.variable,
    time: timeline.live || timeline.time === null ? null : words.iso(timeline.time),
    from: timeline.span ? words.iso(timeline.span[0]) : null,
    to: timeline.span ? words.iso(timeline.span[1]) : null,
    at: touched ? `${view.latitude.toFixed(4)},${view.longitude.toFixed(4)}` : null,
    zoom: touched ? view.scale.toFixed(1) : null,
    cell: marked ? `${marked.latitude.toFixed(4)},${marked.longitude.toFixed(4)}` : null,
    cells: map.smooth ? null : "",
    winds: map.winds ? null : "off",
    names: map.named ? null : "off",
    board: board === "climate" ? null : board,
  });
}

at("share").addEventListener("click", () => {
  history.replaceState(null, "", viewAddress());
  void copy(location.href, "address copied", at("share"));
});

/** What is looked at, as parameters. @param {string} [variable] */
function looked(variable) {
  return {
    dataset: wish.dataset,
    variable: variable ?? wish.variable,
    time: field ? words.iso(field.time) : null,
    from: timeline.span ? words.iso(timeline.span[0]) : null,
    to: timeline.span ? words.iso(timeline.span[1]) : null,
    cell: marked ? `${marked.latitude},${marked.longitude}` : null,
    by: boards.quality.by,
  };
}

/** @param {string} panel @param {string} [variable] */
function query(panel, variable) {
  void showQuery(panel, looked(variable)).catch(failed);
}

at("exports").addEventListener("click", () => showExports(looked()));
at("export-sql").addEventListener("click", () => {
  at("export").close();
  query("field");
});
at("export-png").addEventListener("click", () => {
  if (field && shaded) void savePicture(map, field, shaded, state?.notice ?? null);
});

// ------------------------------------------------------------------------------ the boards

/** @type {"climate" | "pipeline" | "quality"} */
let board = "climate";
const tabs = [...document.querySelectorAll('[role="tab"]')].map((tab) => /** @type {HTMLElement} */ (tab));

/** @param {"climate" | "pipeline" | "quality"} name @param {boolean} [focus] */
function open(name, focus = false) {
  board = name;
  for (const tab of tabs) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    at(tab.getAttribute("aria-controls") ?? "").hidden = !chosen;
    if (chosen && focus) tab.focus();
  }
  boards[name].refresh(true);
  if (field) boards.climate.field(field.time, field.version);
  remember();
}

const names = /** @type {const} */ (["climate", "pipeline", "quality"]);
tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => open(names[i]));
  tab.addEventListener("keydown", (event) => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (by) open(names[(i + by + 3) % 3], true);
  });
});

// ------------------------------------------------------------------------------- the theme

function dress() {
  map.paint({
    land: color("land"),
    border: color("border"),
    outline: color("outline"),
    mark: color("mark"),
  });
  boards.climate.restyle();
  if (field) boards.climate.field(field.time, field.version);
  boards[board].refresh(true);
}

/** @param {string} theme */
function wear(theme) {
  document.documentElement.dataset.theme = theme;
  dress();
}

at("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", theme);
  wear(theme);
});
matchMedia("(prefers-color-scheme: light)").addEventListener("change", ({ matches }) => {
  if (!localStorage.getItem("theme")) wear(matches ? "light" : "dark");
});
const calm = matchMedia("(prefers-reduced-motion: reduce)");
map.still = calm.matches;
calm.addEventListener("change", ({ matches }) => map.set({ still: matches }));

new ResizeObserver(() => {
  for (const one of Object.values(boards)) void one.resize();
}).observe(at("climate").parentElement);

const shown = asked.get("board");
if (shown === "pipeline" || shown === "quality") open(shown);
const wanted = Date.parse(asked.get("time") ?? "");
if (wanted === wanted) {
  timeline.live = false;
  timeline.time = wanted;
}
const [from, to] = ["from", "to"].map((name) => Date.parse(asked.get(name) ?? ""));
if (from < to) timeline.span = [from, to];
dress();
link.adopt();
void firstField.then(() => map.loadOutlines()).catch(failed);
