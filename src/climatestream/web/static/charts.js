// @ts-check
/** The charts: drawn by Plotly, which is fetched once the map is there. */

import * as words from "./words.js";

/** @typedef {import("./wire.js").Choice} Choice */
/** @typedef {import("./timeline.js").Timeline} Timeline */

const LEFT = 46;
const RIGHT = 10;
const SECTORS = 36;
const CLASSES = 6;

/** @type {any} */
let plotly = null;

/** @returns {Promise<any>} */
export function loadPlotly() {
  plotly ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "/plotly.js";
    script.onload = () => done(/** @type {any} */ (window).Plotly);
    script.onerror = () => failed(new Error("the chart library did not load"));
    document.head.append(script);
  });
  return plotly;
}

/** A colour of the page. @param {string} name */
export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const font = () => ({ family: "inherit", size: 11, color: color("muted") });

/** @param {object} [more] */
const axis = (more) => ({
  gridcolor: color("grid"),
  linecolor: color("line"),
  zeroline: false,
  tickfont: font(),
  ticks: "",
  tickangle: 0,
  automargin: false,
  ...more,
});

/** @param {object} [more] */
function layout(more) {
  return {
    margin: { l: LEFT, r: RIGHT, t: 6, b: 20 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: font(),
    showlegend: false,
    hoverlabel: { bgcolor: color("raised"), bordercolor: color("line"), font: { color: color("ink"), size: 12 } },
    autosize: true,
    ...more,
  };
}

const CONFIG = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false };

/** Colours of lines, one a variable. */
const LINES = ["line-1", "line-2", "line-3", "line-4", "line-5"];

/** @param {string} hex @param {number} alpha */
function faint(hex, alpha) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

/**
 * A card with a title, what it says now, its query, and room for a chart.
 * @param {string} id
 * @param {string} title
 * @param {(name: string) => void} showQuery
 * @param {string} panel
 */
export function card(id, title, showQuery, panel) {
  const root = document.createElement("article");
  root.className = "chart";
  root.id = id;
  const head = document.createElement("div");
  head.className = "head";
  const name = document.createElement("h3");
  name.textContent = title;
  const says = document.createElement("strong");
  const sql = document.createElement("button");
  sql.type = "button";
  sql.className = "sql";
  sql.textContent = "SQL";
  sql.setAttribute("aria-label", `SQL of ${title}`);
  sql.addEventListener("click", () => showQuery(panel));
  head.append(name, says, sql);
  const plot = document.createElement("div");
  plot.className = "plot";
  root.append(head, plot);
  return { root, name, says, plot };
}

/** Lowest, mean and highest of a variable, and the marked cell's own line. */
export class SeriesChart {
  /**
   * @param {Choice} choice
   * @param {number} place
   * @param {Timeline} timeline
   * @param {{choose: (name: string) => void, query: (panel: string, variable: string) => void}} act
   */
  constructor(choice, place, timeline, act) {
    this.choice = choice;
    this.timeline = timeline;
    this.line = LINES[place % LINES.length];
    const made = card(`series-${choice.name}`, choice.label, (panel) => act.query(panel, choice.name), "series");
    Object.assign(this, made);
    this.root = made.root;
    this.plot = made.plot;
    this.says = made.says;
    this.root.classList.add("series");
    const pick = document.createElement("button");
    pick.type = "button";
    pick.className = "pick";
    pick.textContent = choice.label;
    pick.title = `Show ${choice.label} on the map`;
    pick.addEventListener("click", () => act.choose(choice.name));
    made.name.replaceChildren(pick);
    this.cursor = document.createElement("div");
    this.cursor.className = "cursor";
    this.cursor.hidden = true;
    this.plot.append(this.cursor);
    this.plot.setAttribute("role", "img");
    this.plot.setAttribute("aria-label", `${choice.label}: loading`);
    /** @type {any} */
    this.data = null;
    /** @type {any} */
    this.cell = null;
    this.visible = false;
    this.heard = false;
    /** @type {[number, number]} */
    this.range = [0, 1];
  }

  /**
   * @param {any} data
   * @param {any} cell
   * @param {[number, number]} range
   */
  async show(data, cell, range) {
    Object.assign(this, { data, cell, range });
    const { choice } = this;
    const x = data.time.map(words.iso);
    const ink = color(this.line);
    const edge = { color: faint(ink, 0.75), width: 1 };
    const unit = choice.unit ? ` ${choice.unit}` : "";
    const line = (/** @type {string} */ name, /** @type {object} */ more) => ({
      x,
      y: data[name],
      name: name === "avg" ? "mean" : name === "max" ? "highest" : "lowest",
      type: "scatter",
      mode: x.length > 1 ? "lines" : "lines+markers",
      hovertemplate: `%{y:.4~g}${unit}`,
      ...more,
    });
    /** @type {object[]} */
    const traces = [
      line("max", { line: edge }),
      line("min", { line: edge, fill: "tonexty", fillcolor: faint(ink, 0.16) }),
      line("avg", { line: { color: ink, width: 2.2 } }),
    ];
    if (cell) {
      traces.push({
        x: cell.time.map(words.iso),
        y: cell.value,
        name: "cell",
        type: "scatter",
        mode: "lines",
        line: { color: color("cell"), width: 1.8, dash: "dot" },
        hovertemplate: `%{y:.4~g}${unit}`,
      });
    }
    const Plotly = await loadPlotly();
    await Plotly.react(
      this.plot,
      traces,
      layout({
        hovermode: "x unified",
        dragmode: "zoom",
        xaxis: axis({ type: "date", range: range.map(words.iso), nticks: 4, showgrid: false }),
        yaxis: axis({ fixedrange: true, nticks: 4 }),
      }),
      CONFIG,
    );
    if (!this.heard) {
      this.heard = true;
      const plot = /** @type {any} */ (this.plot);
      plot.on("plotly_relayout", (/** @type {any} */ said) => {
        const [from, to] = [said["xaxis.range[0]"], said["xaxis.range[1]"]];
        if (from && to) this.timeline.zoom([utc(from), utc(to)]);
      });
      plot.on("plotly_doubleclick", () => this.timeline.zoom(null));
      plot.on("plotly_click", (/** @type {any} */ said) => this.timeline.go(utc(said.points[0].x)));
      this.plot.append(this.cursor);
    }
    const values = data.avg.filter((/** @type {number | null} */ one) => one !== null);
    const label = values.length
      ? `${choice.label}: ${data.time.length} times, from ${words.shown(Math.min(...data.min), choice)} ` +
        `to ${words.shown(Math.max(...data.max), choice)}, mean last ${words.shown(values.at(-1), choice)}`
      : `${choice.label}: no values`;
    this.plot.setAttribute("aria-label", label);
    this.point(this.timeline.time);
  }

  /** The time shown on the map. @param {number | null} time */
  point(time) {
    const { data, range } = this;
    if (!data?.time.length) return;
    const shown = time ?? data.time[data.time.length - 1];
    const share = (shown - range[0]) / (range[1] - range[0] || 1);
    this.cursor.hidden = share < -0.001 || share > 1.001;
    const width = this.plot.clientWidth - LEFT - RIGHT;
    this.cursor.style.transform = `translateX(${(LEFT + share * width).toFixed(1)}px)`;
    this.says.textContent = words.shown(data.avg[nearest(data.time, shown)], this.choice);
  }
}

/** @param {number[]} times @param {number} time */
function nearest(times, time) {
  let best = 0;
  let away = Infinity;
  for (let i = 0; i < times.length; i++) {
    const one = Math.abs(times[i] - time);
    if (one > away) break;
    best = i;
    away = one;
  }
  return best;
}

/** Plotly's own spelling of a time, in ms. @param {string} text */
function utc(text) {
  const plain = String(text).replace(" ", "T");
  return Date.parse(/[zZ]|[+]\d\d:/.test(plain) ? plain : `${plain}${plain.length > 10 ? "Z" : ""}`);
}

/**
 * How many cells have which value.
 * @param {HTMLElement} plot
 * @param {any} panel
 * @param {Choice} choice
 * @param {(value: number) => string} shade
 */
export async function histogram(plot, panel, choice, shade) {
  const { low, width } = panel.words;
  const bars = 120;
  const y = new Array(bars).fill(0);
  for (const [bin, cells] of panel.rows) {
    if (bin !== null) y[Math.min(Math.max(Math.round(bin), 0), bars - 1)] += cells;
  }
  const x = y.map((_, i) => (low + (i + 0.5) * width) * choice.factor);
  const total = y.reduce((sum, one) => sum + one, 0);
  const Plotly = await loadPlotly();
  await Plotly.react(
    plot,
    [
      {
        x,
        y,
        type: "bar",
        marker: { color: x.map(shade) },
        hovertemplate: `%{x:.4~g} ${choice.unit}: %{y} cells<extra></extra>`,
      },
    ],
    layout({
      bargap: 0,
      dragmode: false,
      margin: { l: 34, r: 6, t: 6, b: 22 },
      xaxis: axis({ nticks: 5, fixedrange: true, showgrid: false }),
      yaxis: axis({ nticks: 4, fixedrange: true }),
    }),
    CONFIG,
  );
  plot.setAttribute("aria-label", `${panel.title} of ${choice.label} over ${total} cells`);
}

/** The classes of a wind rose, with their colours. @param {number} width of a class [m/s] */
export function classes(width) {
  const list = document.createElement("ol");
  list.className = "classes";
  for (let i = 0; i < CLASSES; i++) {
    const item = document.createElement("li");
    item.textContent = i < CLASSES - 1 ? String(i * width) : `${i * width}+ m/s`;
    item.className = `speed-${i + 1}`;
    list.append(item);
  }
  return list;
}

/**
 * From where the wind blows.
 * @param {HTMLElement} plot
 * @param {any} panel
 */
export async function rose(plot, panel) {
  const cells = Array.from({ length: CLASSES }, () => new Array(SECTORS).fill(0));
  let total = 0;
  for (const [sector, speed, n] of panel.rows) {
    if (sector === null || speed === null) continue;
    cells[Math.round(speed)][((Math.round(sector) % SECTORS) + SECTORS) % SECTORS] += n;
    total += n;
  }
  const { width } = panel.words;
  const theta = Array.from({ length: SECTORS }, (_, i) => (i * 360) / SECTORS);
  const traces = cells.map((r, i) => ({
    type: "barpolar",
    r: total ? r.map((n) => (100 * n) / total) : r,
    theta,
    width: theta.map(() => 360 / SECTORS),
    name: i < CLASSES - 1 ? `${i * width}–${(i + 1) * width} m/s` : `over ${i * width} m/s`,
    marker: { color: color(`speed-${i + 1}`), line: { width: 0 } },
    hovertemplate: "from %{theta}°: %{r:.1f} %<extra>%{fullData.name}</extra>",
  }));
  const Plotly = await loadPlotly();
  await Plotly.react(
    plot,
    traces,
    layout({
      margin: { l: 22, r: 22, t: 18, b: 18 },
      dragmode: false,
      polar: {
        bgcolor: "rgba(0,0,0,0)",
        angularaxis: axis({
          direction: "clockwise",
          rotation: 90,
          tickmode: "array",
          tickvals: [0, 45, 90, 135, 180, 225, 270, 315],
          ticktext: ["N", "", "E", "", "S", "", "W", ""],
        }),
        radialaxis: axis({ showticklabels: false, nticks: 3, linewidth: 0 }),
      },
    }),
    CONFIG,
  );
  const strongest = cells.reduce((sum, r) => r.map((n, i) => n + (sum[i] ?? 0)), /** @type {number[]} */ ([]));
  const most = strongest.indexOf(Math.max(...strongest));
  plot.setAttribute("aria-label", total ? `${panel.title}: most from ${words.bearing(most * 10)}` : `${panel.title}: no wind`);
}

/**
 * Lines over time of a pipeline panel.
 * @param {HTMLElement} plot
 * @param {{name: string, x: number[], y: (number | null)[], ink: string, fill?: boolean}[]} lines
 * @param {{unit: string, range: [number, number] | null, log?: boolean, bars?: boolean, legend?: boolean, label: string}} says
 */
export async function lines(plot, lines, says) {
  const Plotly = await loadPlotly();
  await Plotly.react(
    plot,
    lines.map(({ name, x, y, ink, fill }) => ({
      x: x.map(words.iso),
      y,
      name,
      type: says.bars ? "bar" : "scatter",
      mode: "lines",
      line: { color: color(ink), width: 1.8, shape: "linear" },
      marker: { color: color(ink) },
      ...(fill ? { fill: "tozeroy", fillcolor: faint(color(ink), 0.16) } : {}),
      hovertemplate: `%{y:.4~g} ${says.unit}`,
    })),
    layout({
      hovermode: "x unified",
      dragmode: false,
      showlegend: Boolean(says.legend),
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: font(), bgcolor: "rgba(0,0,0,0)" },
      margin: { l: LEFT, r: RIGHT, t: says.legend ? 24 : 6, b: 20 },
      xaxis: axis({ type: "date", nticks: 4, showgrid: false, fixedrange: true, ...(says.range ? { range: says.range.map(words.iso) } : {}) }),
      yaxis: axis({ nticks: 4, fixedrange: true, rangemode: "tozero", ...(says.log ? logarithmic(lines.flatMap(({ y }) => y)) : {}) }),
    }),
    CONFIG,
  );
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", says.label);
}

/**
 * An axis of powers of ten, and of what lies between them where those are few, from the tick below
 * the values to the one above. Each is told whole: Plotly's own are single digits between powers.
 * @param {(number | null)[]} values
 */
function logarithmic(values) {
  const known = values.filter((one) => one !== null && one > 0).map((one) => Math.log10(Number(one)));
  const [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
  const steps = high - low > 2.5 ? [1] : [1, 2, 5];
  const tickvals = [];
  for (let power = Math.floor(low) - 1; power <= Math.ceil(high); power++) {
    for (const step of steps) tickvals.push(step * 10 ** power);
  }
  const logs = tickvals.map(Math.log10);
  return {
    type: "log",
    range: [logs.findLast((one) => one <= low) ?? low, logs.find((one) => one > high) ?? high],
    tickvals,
    ticktext: tickvals.map((one) => (one < 1 ? String(Number(one.toPrecision(1))) : words.short(one))),
  };
}

/** @param {HTMLElement} plot */
export async function resize(plot) {
  if (!plot.classList.contains("js-plotly-plot") || !plot.clientWidth) return;
  const Plotly = await loadPlotly();
  await Plotly.relayout(plot, { width: plot.clientWidth, height: plot.clientHeight });
}

