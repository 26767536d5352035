// Draws what the server says is newest. It asks, gets one answer, draws it, and asks again:
// however slow this browser is, nothing waits for it anywhere.

const SILENCE_MS = 15_000; // the server answers every 5 s even when nothing is new
const RETRY_MS = [500, 1000, 2000, 5000];
const SERIES_TIMES = 120;
const SVG = "http://www.w3.org/2000/svg";

const at = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const address = new URLSearchParams(location.search);
const wish = { dataset: address.get("dataset"), variable: address.get("variable") };

let socket = null;
let seen = null; // the token of what is drawn
let silence = 0; // the timer that takes the server for dead
let attempts = 0;
let turn = 0; // counts answers, so that a picture that arrives late is dropped
let series = { key: null, points: [], unit: "" };
let ticking = false; // whether any time shown has seconds: then all are shown with them

// ------------------------------------------------------------------------ connection

async function start() {
  status("connecting");
  const asked = Object.entries(wish).filter(([, value]) => value);
  try {
    const answer = await fetch(`/state?${new URLSearchParams(asked)}`);
    const said = await answer.json();
    await show(answer.ok ? { state: said } : said);
  } catch (error) {
    console.error(error);
    lost();
    return;
  }
  connect();
}

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket.onopen = ask;
  socket.onclose = lost;
  socket.onmessage = async (event) => {
    clearTimeout(silence);
    attempts = 0;
    const message = JSON.parse(event.data);
    seen = message.token;
    try {
      await show(message);
    } catch (error) {
      console.error(error);
      lost();
      return;
    }
    if (!document.hidden) ask();
  };
}

function ask() {
  if (socket?.readyState !== WebSocket.OPEN) return;
  clearTimeout(silence);
  silence = setTimeout(lost, SILENCE_MS);
  socket.send(JSON.stringify({ ...wish, seen }));
}

function lost() {
  clearTimeout(silence);
  if (socket) {
    socket.onopen = socket.onclose = socket.onmessage = null;
    socket.close();
  }
  socket = null;
  seen = null;
  series.key = null;
  document.body.classList.add("stale");
  status("disconnected");
  problem("The server does not answer: what you see is the last that it said. Trying again.");
  setTimeout(start, RETRY_MS[Math.min(attempts++, RETRY_MS.length - 1)]);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) ask();
});

function choose(change) {
  Object.assign(wish, change);
  seen = null;
  ask();
}

// ---------------------------------------------------------------------------- drawing

async function show({ state, error }) {
  const mine = ++turn;
  if (error) {
    status("trouble");
    problem(`${error}. Trying again.`);
    return;
  }
  if (state.frame && !(await picture(state.frame, mine))) return;
  document.body.classList.remove("stale");
  status("live");
  problem(null);
  const times = [...series.points.map(([time]) => time), Date.parse(state.frame?.time ?? 0)];
  ticking = times.some((time) => time % 60_000);
  figures(state);
  choices(state);
  field(state);
  legend(state.legend);
  await chart(state);
}

function status(word) {
  const element = at("status");
  if (element.dataset.status === word) return;
  element.dataset.status = word;
  element.textContent = word === "trouble" ? "store trouble" : word;
}

function text(id, words) {
  const element = at(id);
  element.hidden = !words;
  if (words && element.textContent !== words) element.textContent = words;
}

const problem = (words) => text("problem", words);

function figures({ readings, dead_letters, frame, pace }) {
  const known = (value, show) => (value === null || value === undefined ? "–" : show(value));
  const ms = (value) => `${value < 10 ? value.toFixed(1) : whole.format(value)} ms`;
  at("rate").textContent = known(pace?.rate, (rate) => whole.format(rate));
  at("p50").textContent = known(pace?.p50_ms, ms);
  at("p95").textContent = known(pace?.p95_ms, ms);
  at("lag").textContent = known(pace?.lag, (lag) => whole.format(lag));
  at("readings").textContent = whole.format(readings);
  at("cells").textContent = known(frame?.cells, (cells) => whole.format(cells));
  at("dead").textContent = whole.format(dead_letters);
  at("dead").classList.toggle("alarm", dead_letters > 0);
}

function choices({ datasets, dataset, variables, variable, note, notice }) {
  const select = at("dataset");
  if (once("datasets", datasets)) {
    select.replaceChildren(...datasets.map((name) => new Option(name, name)));
    select.disabled = datasets.length === 0;
  }
  if (dataset) select.value = dataset;
  if (once("variables", variables)) {
    at("variables").replaceChildren(...variables.map(radio));
  }
  for (const input of at("variables").querySelectorAll("input")) {
    input.checked = input.value === variable;
  }
  text("note", note && `${note}; this is ${variable} of ${dataset}`);
  text("notice", notice);
  Object.assign(wish, { dataset, variable });
  if (dataset) history.replaceState(null, "", `?${new URLSearchParams({ dataset, variable: variable ?? "" })}`);
}

function radio({ name, label, unit }) {
  const row = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { type: "radio", name: "variable", value: name });
  input.addEventListener("change", () => choose({ variable: name }));
  const words = document.createElement("span");
  words.textContent = label;
  const small = document.createElement("small");
  small.textContent = unit;
  row.append(input, words, small);
  return row;
}

at("dataset").addEventListener("change", (event) =>
  choose({ dataset: event.target.value, variable: wish.variable }),
);

const last = {};
function once(key, value) {
  const said = JSON.stringify(value);
  if (last[key] === said) return false;
  last[key] = said;
  return true;
}

async function picture({ picture: source }, mine) {
  const image = at("picture");
  if (image.getAttribute("src") === source) return true;
  const next = new Image();
  next.src = source;
  try {
    await next.decode();
  } catch {
    return false; // the server went, or the slice has changed since: the next answer tells
  }
  if (mine !== turn) return false;
  image.src = source;
  await image.decode();
  return true;
}

function field({ dataset, variable, frame, legend, datasets }) {
  at("field").hidden = !frame;
  at("nothing").hidden = Boolean(frame);
  text("credit", frame && dataset.startsWith("era5") && credit(frame.time));
  if (!frame) {
    at("clock").textContent = "no readings yet";
    text("nothing", datasets.length ? `no values of ${variable} at the newest time` : "waiting for the first readings");
    for (const id of ["low", "mean", "high"]) at(id).textContent = "–";
    for (const unit of document.querySelectorAll(".values small")) unit.textContent = "";
    document.title = "climatestream";
    return;
  }
  const { south, north, west, east, low, mean, high } = frame;
  const squeeze = Math.max(Math.cos((((south + north) / 2) * Math.PI) / 180), 0.1);
  at("field").style.setProperty("--ratio", ((east - west) * squeeze) / (north - south));
  const time = clock(frame.time);
  at("clock").textContent = time;
  for (const [id, number] of Object.entries({ low, mean, high })) at(id).textContent = value(number, "");
  for (const unit of document.querySelectorAll(".values small")) unit.textContent = legend.unit;
  at("picture").alt =
    `${legend.label} of ${dataset} at ${time}, ${whole.format(frame.cells)} cells, ` +
    `${value(low, legend.unit)} to ${value(high, legend.unit)}`;
  document.title = `${value(mean, legend.unit)} · ${legend.label} · climatestream`;
  if (once("edges", [south, north, west, east])) graticule(frame);
}

// the words that the licence of the data asks for
function credit(iso) {
  return (
    `Generated using Copernicus Climate Change Service information ${new Date(iso).getUTCFullYear()}. ` +
    "Neither the European Commission nor ECMWF is responsible for any use of it."
  );
}

function clock(iso) {
  const time = new Date(iso).toISOString();
  return `${time.slice(0, 10)} ${time.slice(11, ticking ? 19 : 16)} UTC`;
}

function value(number, unit, size = Math.abs(number)) {
  const digits = size >= 1000 || size === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  const words = number.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: Math.min(digits, 1) });
  return `${words.replace("-", "−")}${unit ? ` ${unit}` : ""}`;
}

function graticule({ south, north, west, east }) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60];
  const step = steps.find((s) => Math.max(east - west, north - south) / s <= 8) ?? 60;
  const lines = [];
  const labels = [];
  const mark = (kind, from, to, name) => {
    for (let n = Math.ceil(from / step - 1e-9); n * step <= to + 1e-9; n++) {
      const share = (n * step - from) / (to - from);
      const line = document.createElementNS(SVG, "line");
      const along = `${(kind === "lon" ? share : 1 - share) * 100}%`;
      const ends = kind === "lon" ? [along, "0%", along, "100%"] : ["0%", along, "100%", along];
      ["x1", "y1", "x2", "y2"].forEach((key, i) => line.setAttribute(key, ends[i]));
      lines.push(line);
      const label = document.createElement("span");
      label.className = kind;
      label.style.setProperty("--at", share);
      label.textContent = name(Math.round(n * step * 10) / 10);
      labels.push(label);
    }
  };
  const degrees = (number, positive, negative) =>
    `${Math.abs(number)}°${number > 0 ? ` ${positive}` : number < 0 ? ` ${negative}` : ""}`;
  mark("lon", west, east, (lon) => degrees(lon > 180 ? lon - 360 : lon, "E", "W"));
  mark("lat", south, north, (lat) => degrees(lat, "N", "S"));
  at("graticule").replaceChildren(...lines);
  at("degrees").replaceChildren(...labels);
}

function legend(said) {
  at("legend").hidden = !said;
  if (!said || !once("legend", said)) return;
  at("legend-label").textContent = said.label;
  at("legend-unit").textContent = said.unit;
  at("bar").style.setProperty("--colors", said.colors.join(","));
  at("ticks").replaceChildren(
    ...said.ticks.map((tick, i) => {
      const label = document.createElement("span");
      label.style.setProperty("--at", i / (said.ticks.length - 1));
      label.textContent = tick;
      return label;
    }),
  );
}

// -------------------------------------------------------------------------- the series

async function chart({ dataset, variable, frame, legend }) {
  const key = JSON.stringify([dataset, variable]);
  if (!dataset || !variable) return;
  if (series.key !== key) {
    const answer = await fetch(`/series?${new URLSearchParams({ dataset, variable })}`);
    const rows = await answer.json();
    if (!answer.ok) {
      problem(`${rows.error}. Trying again.`);
      return;
    }
    series = { key, points: rows.map(([time, ...values]) => [Date.parse(time), ...values]), unit: "" };
  }
  series.unit = legend.unit;
  if (frame) {
    const point = [Date.parse(frame.time), frame.low, frame.mean, frame.high];
    const newest = series.points.at(-1)?.[0] ?? -Infinity;
    if (point[0] === newest) series.points[series.points.length - 1] = point;
    if (point[0] > newest) series.points.push(point);
    series.points = series.points.slice(-SERIES_TIMES);
  }
  plot();
}

function plot() {
  const { points, unit } = series;
  const svg = at("chart");
  const { width, height } = svg.getBoundingClientRect();
  if (points.length === 0 || width === 0) {
    svg.replaceChildren();
    return;
  }
  const [left, right, top, bottom] = [46, 4, 8, 22];
  let lowest = Math.min(...points.map((p) => p[1]));
  let highest = Math.max(...points.map((p) => p[3]));
  const pad = (highest - lowest) * 0.06 || Math.abs(highest) * 0.06 || 1;
  [lowest, highest] = [lowest - pad, highest + pad];
  const [first, final] = [points[0][0], points.at(-1)[0]];
  const x = (time) => left + (width - left - right) * (final > first ? (time - first) / (final - first) : 0.5);
  const y = (number) => top + (height - top - bottom) * (1 - (number - lowest) / (highest - lowest));
  const make = (name, attributes, words) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, said] of Object.entries(attributes)) element.setAttribute(key, said);
    if (words) element.textContent = words;
    return element;
  };
  const line = (column) => points.map((p) => `${x(p[0]).toFixed(1)},${y(p[column]).toFixed(1)}`);
  const parts = [];
  const reach = Math.max(Math.abs(lowest), Math.abs(highest)); // one number of decimals for all
  for (const share of [0, 0.5, 1]) {
    const number = lowest + pad + (highest - lowest - 2 * pad) * share;
    parts.push(make("line", { class: "grid", x1: left, x2: width - right, y1: y(number), y2: y(number) }));
    parts.push(make("text", { x: left - 7, y: y(number) + 4, "text-anchor": "end" }, value(number, "", reach)));
  }
  if (points.length > 1) {
    parts.push(make("polygon", { class: "band", points: [...line(3), ...line(1).reverse()].join(" ") }));
  }
  for (const [name, column] of [["low", 1], ["high", 3], ["mean", 2]]) {
    parts.push(
      points.length > 1
        ? make("polyline", { class: name, points: line(column).join(" ") })
        : make("circle", { class: name, cx: x(first), cy: y(points[0][column]), r: 3 }),
    );
  }
  const short = final - first < 86_400_000 ? (time) => clock(time).slice(11, -4) : (time) => clock(time).slice(5, 10);
  parts.push(make("text", { x: left, y: height - 4 }, short(first)));
  if (final > first) parts.push(make("text", { x: width - right, y: height - 4, "text-anchor": "end" }, short(final)));
  svg.replaceChildren(...parts);
  const newest = points.at(-1);
  svg.setAttribute(
    "aria-label",
    `${points.length} times from ${clock(first)} to ${clock(final)}; newest: lowest ${value(newest[1], unit)}, ` +
      `mean ${value(newest[2], unit)}, highest ${value(newest[3], unit)}`,
  );
}

new ResizeObserver(plot).observe(at("chart"));

start();
