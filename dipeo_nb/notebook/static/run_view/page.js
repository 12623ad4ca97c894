// A run in a file of its own: the data are in the page.
import { createRunView } from "./main.js";
import { tr } from "./strings.js";
import { h } from "./words.js";

/** JSON that was compressed. @param {string} packed */
async function unpacked(packed) {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text());
}

async function open() {
  const place = document.getElementById("run"), [run, ...others] = await unpacked(document.getElementById("data").textContent);
  const known = new Map(others.map((one) => [one.head.run_id, one]));
  const ask = async ({ run: id }) => {
    if (!known.has(id)) throw new Error(tr("page.missing"));
    return known.get(id);
  };
  const view = createRunView(place, { head: run.head, host: { send() {}, ask: others.length ? ask : undefined } });
  view.push(run.events);
  // run.html#120 opens at event 120.
  const go = () => { if (/^#\d+$/.test(location.hash)) view.seek(Number(location.hash.slice(1))); };
  addEventListener("hashchange", go);
  go();
}

open().catch((error) => document.getElementById("run").append(h("p", {}, `This file cannot be read: ${error.message}`)));
