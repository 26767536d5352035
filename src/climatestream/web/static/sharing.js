// @ts-check
/** What can be taken away: the address, a query, tables, the map as a picture. */

import { color } from "./charts.js";
import { address, getJson } from "./wire.js";
import * as words from "./words.js";

/** @typedef {Record<string, string | null>} Looked what is looked at, as parameters */

/** @param {string} id @returns {any} */
const at = (id) => document.getElementById(id);

/** Tell who listens. @param {string} sentence */
export function say(sentence) {
  at("said").textContent = sentence;
}

/** @param {string} what @param {string} copied @param {HTMLElement} from */
export async function copy(what, copied, from) {
  try {
    await navigator.clipboard.writeText(what);
    say(copied);
    from.classList.add("done");
    setTimeout(() => from.classList.remove("done"), 1200);
  } catch {
    say("the browser does not allow copying here");
  }
}

/** The query behind a panel, to read, copy and run; and its answer as a file.
 * @param {string} panel
 * @param {Looked} looked */
export async function showQuery(panel, looked) {
  const said = await getJson(`/sql/${panel}`, looked);
  at("query-title").textContent = said.title;
  at("query-text").textContent = said.description;
  at("query-sql").textContent = said.sql;
  at("query-csv").href = address(`/export/${panel}.csv`, looked);
  at("query-parquet").href = address(`/export/${panel}.parquet`, looked);
  at("query").showModal();
}

/** @param {Looked} looked */
export function showExports(looked) {
  for (const panel of ["field", "series"]) {
    for (const form of ["csv", "parquet"]) {
      at(`export-${panel}-${form}`).href = address(`/export/${panel}.${form}`, looked);
    }
  }
  at("export").showModal();
}

/**
 * The map as it is seen, with what it shows and its legend.
 * @param {import("./map.js").ClimateMap} map
 * @param {import("./wire.js").Field} field
 * @param {import("./wire.js").Choice} choice
 * @param {string | null} notice
 */
export async function savePicture(map, field, choice, notice) {
  const { dataset, variable, time } = field;
  const blob = await map.picture(color("ground"), (context, width, height) => {
    context.fillStyle = color("ink");
    context.font = "600 20px system-ui, sans-serif";
    context.fillText(`${choice.label} · ${words.time(time)} UTC`, 20, 34);
    context.font = "13px system-ui, sans-serif";
    context.fillStyle = color("muted");
    context.fillText(`${dataset}${notice ? ` · ${notice}` : ""}`, 20, 54);
    context.fillText(at("credit").hidden ? "" : at("credit").textContent, 20, height - 12);
    const top = height - 240;
    context.drawImage(at("bar"), width - 80, top, 16, 200);
    choice.knots.forEach((knot, i) => {
      const share = i / (choice.knots.length - 1);
      context.fillText(String(Number(knot.toPrecision(6))), width - 56, top + 204 - 200 * share);
    });
    context.fillText(choice.unit, width - 80, top - 10);
  });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${dataset}-${variable}-${words.iso(time)}.png`.replaceAll(/[/:]/g, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

at("query-copy").addEventListener("click", () => void copy(at("query-sql").textContent, "query copied", at("query-copy")));
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector(".close")?.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
