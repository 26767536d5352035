// @ts-check
/** The boards beside the map: climate, pipeline, quality. Only the one in sight asks. */

import * as charts from "./charts.js";
import { getJson } from "./wire.js";
import * as words from "./words.js";

/** @typedef {import("./wire.js").Choice} Choice */
/** @typedef {import("./timeline.js").Timeline} Timeline */

const EVERY_MS = 1000; // between two looks while data arrives
const STEADY_MS = 5000; // of the pipeline and quality boards

/**
 * @typedef {object} Around what the boards show
 * @property {() => {dataset: string | null, variable: string | null, cell: {latitude: number, longitude: number} | null, choices: Choice[], idle: boolean}} look
 * @property {Timeline} timeline
 * @property {(name: string) => void} choose
 * @property {(panel: string, variable?: string) => void} query
 * @property {(value: number) => string} shade
 */

/** @param {string} tag @param {string} [text] @param {string} [kind] */
export function element(tag, text = "", kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** Lets one thing at a time be asked, and the newest wish after it. */
class Turn {
  constructor() {
    this.busy = false;
    /** @type {(() => Promise<void>) | null} */
    this.next = null;
  }

  /** @param {() => Promise<void>} ask */
  async take(ask) {
    if (this.busy) {
      this.next = ask;
      return;
    }
    this.busy = true;
    try {
      await ask();
    } catch (error) {
      // a server that has gone, or a variable that has: the connection says so to the reader
      if (!(error instanceof Error)) throw error;
    } finally {
      this.busy = false;
      const { next } = this;
      this.next = null;
      if (next) setTimeout(() => void this.take(next), 150);
    }
  }
}

export class ClimateBoard {
  /** @param {HTMLElement} root @param {Around} around */
  constructor(root, around) {
    this.root = root;
    this.around = around;
    this.lines = element("div", "", "lines");
    const pair = element("div", "", "pair");
    this.histogram = charts.card("histogram", "Distribution", (panel) => around.query(panel), "histogram");
    this.rose = charts.card("rose", "Wind rose", (panel) => around.query(panel), "rose");
    for (const one of [this.histogram, this.rose]) {
      one.plot.setAttribute("role", "img");
      one.plot.setAttribute("aria-label", `${one.name.textContent}: loading`);
    }
    pair.append(this.histogram.root, this.rose.root);
    root.append(this.lines, pair);
    /** @type {charts.SeriesChart[]} */
    this.series = [];
    this.key = "";
    this.turn = new Turn();
    this.fieldTurn = new Turn();
    this.askedAt = 0;
    this.fieldAt = 0;
    this.version = "";
    this.seen = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          const chart = this.series.find((one) => one.root === entry.target);
          if (!chart) continue;
          chart.visible = entry.isIntersecting;
          if (entry.isIntersecting && !chart.data) this.refresh(true);
        }
      },
      { root: null, rootMargin: "60px" },
    );
  }

  /** The charts that there are: one a variable. */
  build() {
    const { dataset, choices, variable } = this.around.look();
    const key = [dataset, ...choices.map((choice) => choice.name)].join();
    if (key !== this.key) {
      this.key = key;
      this.seen.disconnect();
      this.series = choices.map(
        (choice, place) =>
          new charts.SeriesChart(choice, place, this.around.timeline, {
            choose: this.around.choose,
            query: this.around.query,
          }),
      );
      this.lines.replaceChildren(...this.series.map((chart) => chart.root));
      for (const chart of this.series) this.seen.observe(chart.root);
    }
    for (const chart of this.series) chart.root.classList.toggle("chosen", chart.choice.name === variable);
  }

  /** New data, another span or another cell. @param {boolean} [now] */
  refresh(now = false) {
    if (this.root.hidden) return;
    if (!now && performance.now() - this.askedAt < EVERY_MS) return;
    this.askedAt = performance.now();
    void this.turn.take(async () => {
      const { dataset, cell } = this.around.look();
      const { timeline } = this.around;
      if (!dataset || !timeline.times.length) return;
      const { times, span } = timeline;
      /** @type {[number, number]} */
      const range = span ?? [times[0], times[times.length - 1]];
      const said = span ? { from: words.iso(span[0]), to: words.iso(span[1]) } : {};
      for (const chart of this.series.filter((one) => one.visible)) {
        const ask = { dataset, variable: chart.choice.name, ...said };
        const [data, own] = await Promise.all([
          getJson("/series", ask),
          cell ? getJson("/cell", { ...ask, cell: `${cell.latitude},${cell.longitude}` }) : null,
        ]);
        if (dataset !== this.around.look().dataset) return;
        await chart.show(data, own, range);
      }
    });
  }

  /** Another field is shown. @param {number} time @param {string} version */
  field(time, version) {
    if (this.root.hidden) return;
    const { dataset, variable, choices } = this.around.look();
    const choice = choices.find((one) => one.name === variable);
    const key = `${dataset} ${variable} ${version} ${document.documentElement.dataset.theme}`;
    if (!choice || key === this.version || performance.now() - this.fieldAt < 300) return;
    this.version = key;
    this.fieldAt = performance.now();
    void this.fieldTurn.take(async () => {
      const said = { dataset, variable, time: words.iso(time) };
      const [bins, winds] = await Promise.all([getJson("/panel/histogram", said), getJson("/panel/rose", said)]);
      if (dataset !== this.around.look().dataset) return;
      await charts.histogram(this.histogram.plot, bins, choice, this.around.shade);
      this.histogram.says.textContent = choice.unit;
      this.rose.root.hidden = winds.rows.length === 0;
      if (!winds.rows.length) return;
      if (!this.rose.root.querySelector(".classes")) this.rose.root.append(charts.classes(winds.words.width));
      await charts.rose(this.rose.plot, winds);
    });
  }

  point() {
    for (const chart of this.series) if (chart.visible) chart.point(this.around.timeline.time);
  }

  restyle() {
    this.version = "";
    this.fieldAt = 0;
    this.refresh(true);
  }

  async resize() {
    for (const chart of this.series) {
      await charts.resize(chart.plot);
      chart.point(this.around.timeline.time);
    }
    await charts.resize(this.histogram.plot);
    await charts.resize(this.rose.plot);
  }
}

/** A table of what is known. @param {string[]} heads @param {string[][]} rows @param {string} caption */
function table(heads, rows, caption) {
  const made = document.createElement("table");
  const title = element("caption", caption, "unseen");
  const head = document.createElement("thead");
  const top = document.createElement("tr");
  for (const text of heads) {
    const cell = /** @type {HTMLTableCellElement} */ (element("th", text));
    cell.scope = "col";
    top.append(cell);
  }
  head.append(top);
  const body = document.createElement("tbody");
  for (const row of rows) {
    const line = document.createElement("tr");
    row.forEach((text, i) => {
      const cell = element(i ? "td" : "th", text);
      if (!i) /** @type {HTMLTableCellElement} */ (cell).scope = "row";
      line.append(cell);
    });
    body.append(line);
  }
  made.append(title, head, body);
  return made;
}

/** What the two boards of panels share. */
class PanelBoard {
  /** @param {HTMLElement} root @param {Around} around @param {[string, string][]} panels name and title */
  constructor(root, around, panels) {
    this.root = root;
    this.around = around;
    this.cards = Object.fromEntries(
      panels.map(([name, title]) => [name, charts.card(`panel-${name}`, title, (panel) => around.query(panel), name)]),
    );
    root.append(...Object.values(this.cards).map((one) => one.root));
    this.turn = new Turn();
    this.askedAt = 0;
    this.key = "";
  }

  /** @param {boolean} [now] */
  refresh(now = false) {
    const { dataset, variable } = this.around.look();
    const { span } = this.around.timeline;
    const key = `${dataset} ${variable} ${span}`;
    if (this.root.hidden || !dataset || !variable) return;
    if (!now && key === this.key && performance.now() - this.askedAt < STEADY_MS) return;
    this.key = key;
    this.askedAt = performance.now();
    const said = { dataset, variable, ...(span ? { from: words.iso(span[0]), to: words.iso(span[1]) } : {}) };
    void this.turn.take(() => this.draw((name, more = {}) => getJson(`/panel/${name}`, { ...said, ...more })));
  }

  /** @param {(name: string, more?: Record<string, string | null>) => Promise<any>} _ask */
  async draw(_ask) {}

  /** @param {string} name @param {HTMLElement} content */
  put(name, content) {
    this.cards[name].plot.classList.add("text");
    this.cards[name].plot.replaceChildren(content);
  }

  async resize() {
    for (const one of Object.values(this.cards)) await charts.resize(one.plot);
  }
}

export class PipelineBoard extends PanelBoard {
  /** @param {HTMLElement} root @param {Around} around */
  constructor(root, around) {
    super(root, around, [
      ["rate", "Readings a second"],
      ["lag", "Lag by partition"],
      ["latency", "Event to stored, ms"],
      ["delay", "Latencies"],
      ["letters", "Dead letters"],
    ]);
  }

  /** @param {(name: string) => Promise<any>} ask */
  async draw(ask) {
    const [rate, lag, latency] = await Promise.all(["rate", "lag", "latency"].map((name) => ask(name)));
    const column = (/** @type {any} */ panel, /** @type {number} */ i) => panel.rows.map((/** @type {any[]} */ row) => row[i]);
    const idle = "nothing has run against this store";
    const last = this.around.look().idle ? "last " : "";
    if (rate.rows.length) {
      await charts.lines(
        this.cards.rate.plot,
        [{ name: "readings/s", x: column(rate, 0), y: column(rate, 1), ink: "line-2", fill: true }],
        { unit: "readings/s", range: null, label: `${rate.title}: last ${words.value(rate.rows.at(-1)[1])}` },
      );
    } else this.put("rate", element("p", idle, "none"));
    this.cards.rate.says.textContent = rate.rows.length ? `${last}${words.short(rate.rows.at(-1)[1])}/s` : "";
    const parts = [...new Set(column(lag, 1))].sort((a, b) => a - b);
    if (parts.length) {
      await charts.lines(
        this.cards.lag.plot,
        parts.map((part, i) => {
          const rows = lag.rows.filter((/** @type {any[]} */ row) => row[1] === part);
          return { name: parts.length > 1 ? String(part) : `partition ${part}`, x: rows.map((/** @type {any[]} */ r) => r[0]), y: rows.map((/** @type {any[]} */ r) => r[2]), ink: `line-${(i % 5) + 1}` };
        }),
        { unit: "messages", range: null, legend: parts.length > 1, label: `${lag.title}: ${parts.length} partitions` },
      );
    } else this.put("lag", element("p", idle, "none"));
    const newest = new Map(lag.rows.map((/** @type {any[]} */ [, part, messages]) => [part, messages]));
    const behind = [...newest.values()].reduce((sum, messages) => sum + (messages ?? 0), 0);
    this.cards.lag.says.textContent = parts.length ? `${last}${words.short(behind)} ${behind === 1 ? "message" : "messages"}` : "";
    if (latency.rows.length) {
      await charts.lines(
        this.cards.latency.plot,
        [["p50", "line-2"], ["p95", "line-1"], ["p99", "line-5"]].map(([name, ink], i) => ({ name, ink, x: column(latency, 0), y: column(latency, i + 1) })),
        { unit: "ms", range: null, legend: true, log: true, label: `${latency.title}: last p95 ${words.duration(latency.rows.at(-1)[2])}` },
      );
    } else this.put("latency", element("p", idle, "none"));
    this.cards.latency.says.textContent = latency.rows.length ? `${last}p95 ${words.duration(latency.rows.at(-1)[2])}` : "";
    const [delay, queryable, letters] = await Promise.all(["delay", "queryable", "letters"].map((name) => ask(name)));
    const three = (/** @type {any[] | undefined} */ row) => [0, 1, 2].map((i) => words.duration(row?.[i]));
    this.put(
      "delay",
      table(
        ["latency", "p50", "p95", "p99"],
        [
          ["event to stored", ...three(latency.rows.at(-1)?.slice(1))],
          ["published to stored", ...three(delay.rows[0])],
          ["event to queryable", ...three(queryable.rows[0])],
        ],
        "Latencies",
      ),
    );
    const sum = letters.rows.reduce((/** @type {number} */ total, /** @type {any[]} */ row) => total + row[1], 0);
    this.cards.letters.says.textContent = words.count(sum);
    this.put(
      "letters",
      sum
        ? table(
            ["reason", "messages", "newest"],
            letters.rows.map((/** @type {any[]} */ [reason, n, at]) => [reason, words.count(n), words.time(at)]),
            "Dead letters by reason",
          )
        : element("p", "none: every message could be stored", "none"),
    );
  }
}

export class QualityBoard extends PanelBoard {
  /** @param {HTMLElement} root @param {Around} around */
  constructor(root, around) {
    super(root, around, [
      ["coverage", "Coverage"],
      ["times", "Cells at each time"],
      ["gaps", "Gaps"],
      ["range", "Outside the plausible range"],
      ["outside", "Cells outside the plausible range"],
    ]);
    /** The steps that were asked for; null: as fine as the span allows. @type {string | null} */
    this.by = null;
    const { root: card, says } = this.cards.coverage;
    this.steps = document.createElement("select");
    this.steps.id = "coverage-by";
    this.steps.setAttribute("aria-label", "Coverage by");
    this.steps.append(...["day", "hour", "minute"].map((by) => new Option(by, by)));
    this.steps.addEventListener("change", () => {
      this.by = this.steps.value;
      this.refresh(true);
    });
    card.querySelector(".head")?.insertBefore(this.steps, says);
  }

  /** @param {(name: string, more?: Record<string, string | null>) => Promise<any>} ask */
  async draw(ask) {
    const { choices, variable } = this.around.look();
    const choice = choices.find((one) => one.name === variable);
    if (!choice) return;
    const [coverage, times] = await Promise.all([ask("coverage", { by: this.by }), ask("times")]);
    this.cards.coverage.name.textContent = "Coverage by";
    this.steps.value = coverage.words.by;
    await charts.lines(
      this.cards.coverage.plot,
      [{ name: "coverage", x: coverage.rows.map((/** @type {any[]} */ r) => r[0]), y: coverage.rows.map((/** @type {any[]} */ r) => r[1]), ink: "line-2" }],
      { unit: "%", range: null, bars: true, label: `Coverage of ${choice.label}, ${coverage.rows.length} steps` },
    );
    const mean = coverage.rows.reduce((/** @type {number} */ s, /** @type {any[]} */ r) => s + r[1], 0) / (coverage.rows.length || 1);
    this.cards.coverage.says.textContent = coverage.rows.length ? words.value(mean, "%") : "";
    await charts.lines(
      this.cards.times.plot,
      [{ name: "cells", x: times.rows.map((/** @type {any[]} */ r) => r[0]), y: times.rows.map((/** @type {any[]} */ r) => r[1]), ink: "line-4", fill: true }],
      { unit: "cells", range: null, label: `Cells at each of ${times.rows.length} times` },
    );
    const [gaps, range, outside] = await Promise.all(["gaps", "range", "outside"].map((name) => ask(name)));
    const step = words.duration(gaps.words.step * 1000);
    this.cards.gaps.says.textContent = words.count(gaps.rows.length);
    this.put(
      "gaps",
      gaps.rows.length
        ? table(
            ["from", "to", "length"],
            gaps.rows.map((/** @type {any[]} */ [from, to, s]) => [words.time(from), words.time(to), words.duration(s * 1000)]),
            "Gaps",
          )
        : element("p", `none: every time follows the one before within ${step}`, "none"),
    );
    this.cards.range.name.textContent = `Outside the plausible range: ${choice.label}`;
    if (range.unknown || !choice.plausible) {
      this.put("range", element("p", "the registry does not know this variable's range", "none"));
      this.put("outside", element("p", "the registry does not know this variable's range", "none"));
      return;
    }
    const [values, out, low, high] = range.rows[0] ?? [0, 0, null, null];
    const shown = (/** @type {number | null} */ n) => words.value(n === null ? null : n * choice.factor, choice.unit);
    this.cards.range.says.textContent = words.count(out ?? 0);
    this.put(
      "range",
      table(
        ["values", "lowest", "highest"],
        [
          ["plausible", words.value(choice.plausible[0], choice.unit), words.value(choice.plausible[1], choice.unit)],
          [`of ${words.short(values)} values`, shown(low), shown(high)],
        ],
        "Range",
      ),
    );
    this.put(
      "outside",
      outside.rows.length
        ? table(
            ["time", "cell", "value"],
            outside.rows.map((/** @type {any[]} */ [at, cell, one]) => [words.time(at), cell, shown(one)]),
            "Cells outside the plausible range",
          )
        : element("p", "none", "none"),
    );
  }
}
