// The page of a run of `dipeo-nb serve`.
import { here, hideToken, shownRun } from "./server.js";
import { h } from "./words.js";

async function open(place) {
  hideToken();
  const { whole } = await shownRun(place, here, (run) => location.assign(`${here.replace(/[^/]+$/, encodeURIComponent(run))}/page`)); // Back leads to this one
  await whole;
}

const place = document.getElementById("run");
open(place).catch((error) => place.append(h("p", { role: "alert" }, error.message)));
