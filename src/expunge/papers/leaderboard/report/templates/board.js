// The standings again, for the task, the kind of forget set and the cost that a reader asks for.
"use strict";
(() => {
  const rows = JSON.parse(document.getElementById("payload").textContent).rows;
  const table = document.getElementById("board");
  const filters = Array.from(document.querySelectorAll("[data-filter]"));
  const median = (values) => {
    const sorted = values.map((v) => (v === null ? Infinity : v)).sort((a, b) => a - b);
    const half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  };
  const percent = (share) => (share < 0.1 ? `${(100 * share).toPrecision(2)}` : `${Math.round(100 * share)}`) + "\u202f%";
  const signed = (value) => {
    if (!Number.isFinite(value)) return "infinite";
    return (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2);
  };
  const show = () => {
    const asked = Object.fromEntries(filters.map((one) => [one.dataset.filter, one.value]));
    const most = asked.cost ? Number(asked.cost) : Infinity;
    const fits = (row) => (!asked.task || row.task === asked.task) && (!asked.kind || row.kind === asked.kind);
    const body = table.tBodies[0];
    Array.from(body.rows).forEach((line) => {
      const own = rows.filter((row) => row.method === line.dataset.method && fits(row));
      line.hidden = own.length === 0;
      if (line.hidden) return;
      const good = own.filter((row) => row.good && row.cost <= most);
      const known = own.filter((row) => row.at_equal_cost !== null);
      const ahead = known.filter((row) => row.excess !== null && row.excess < row.at_equal_cost).length;
      const cost = median((good.length ? good : own).map((row) => row.cost));
      const excess = median(own.map((row) => row.excess));
      const gap = median(own.map((row) => row.gap));
      const put = (name, text, value) => {
        const cell = line.querySelector(`[data-cell="${name}"]`);
        cell.textContent = text;
        cell.dataset.value = String(value);
      };
      put("passes", `${good.length} of ${own.length}`, good.length / own.length);
      const open = own.filter((row) => row.verdict === "undecided").length;
      if (open) {
        const small = document.createElement("small");
        small.textContent = `${open} undecided`;
        line.querySelector('[data-cell="passes"]').append(small);
      }
      put("cost", percent(cost), cost);
      put("excess", signed(excess), excess);
      put("gap", signed(gap), gap);
      put("ahead", known.length ? `${ahead} of ${known.length}` : "", known.length ? ahead / known.length : NaN);
    });
    const key = (line, name) => Number(line.querySelector(`[data-cell="${name}"]`).dataset.value);
    const then = (line) => (key(line, "passes") ? key(line, "cost") : key(line, "excess"));
    const order = (a, b) => key(b, "passes") - key(a, "passes") || then(a) - then(b);
    body.append(...Array.from(body.rows).sort(order));
    table.querySelectorAll("th").forEach((one) => one.removeAttribute("aria-sort"));
  };
  filters.forEach((one) => one.addEventListener("change", show));
})();
