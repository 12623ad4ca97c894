// The page of all runs of `dipeo-nb serve`.
import { createHistory } from "./history.js";
import { asked, got, here, hideToken, shownRun } from "./server.js";
import { h } from "./words.js";

const pathTo = (run) => `${here}/${encodeURIComponent(run)}`;

hideToken();
createHistory(document.getElementById("run"), {
  query: ({ descending, ...query }) => got(here, { ...query, descending: descending ? "1" : "" }),
  compared: (before, after) => got(`${pathTo(after)}/compared`, { with: before }),
  async remove(runs) { for (const run of runs) await asked(pathTo(run), { method: "DELETE" }); return {}; },
  async open(run, place, opened) {
    const shown = await shownRun(place, pathTo(run), opened);
    shown.whole.catch((error) => place.append(h("p", { role: "alert" }, error.message)));
    return shown;
  },
});
