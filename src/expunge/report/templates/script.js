"use strict";
(() => {
  const root = document.documentElement;
  const payload = JSON.parse(document.getElementById("payload").textContent);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const options = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  root.classList.add("js");

  // Figures name colours as CSS variables; here they become the values of the scheme in force.
  const onScale = (place, style) => {
    const step = Math.min(Math.floor(4 * place), 3);
    const [from, to] = [step, step + 1].map((i) => style.getPropertyValue(`--cost-${i}`).trim());
    const channel = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
    const mixed = [0, 1, 2].map((i) => Math.round(channel(from, i) + (channel(to, i) - channel(from, i)) * (4 * place - step)));
    return `rgb(${mixed.join(",")})`;
  };
  const coloured = (item, style) => {
    if (typeof item === "string") {
      if (item.startsWith("var(")) return style.getPropertyValue(item.slice(4, -1)).trim();
      return item.startsWith("cost(") ? onScale(Number(item.slice(5, -1)), style) : item;
    }
    if (Array.isArray(item)) return item.map((part) => coloured(part, style));
    if (item && typeof item === "object") {
      return Object.fromEntries(Object.entries(item).map(([key, part]) => [key, coloured(part, style)]));
    }
    return item;
  };

  const pressed = document.querySelector('[data-scale][aria-pressed="true"]');
  const state = { scale: pressed ? pressed.dataset.scale : "log", hidden: new Map(), method: new Map(), ready: false };
  const setOf = (plot) => plot.dataset.figure.split("-")[0];

  const visible = (trace, set, name) => {
    const meta = trace.meta || {};
    if (name.includes("-time-")) return meta.method === state.method.get(set);
    const hidden = state.hidden.get(set) || new Set();
    return !(meta.method && hidden.has(meta.method));
  };

  const draw = (plot) => {
    const name = plot.dataset.figure;
    const figure = payload.figures[name];
    const style = getComputedStyle(root);
    const words = payload.hover[setOf(plot)] || [];
    const data = figure.data.map((trace) => ({
      ...coloured(trace, style),
      customdata: (trace.customdata || []).map((item) => (typeof item === "number" ? words[item] : item)),
      visible: visible(trace, setOf(plot), name),
      // What lies at 0 is drawn at the lower end of a log scale.
      ...(trace.meta && trace.meta.origin && state.scale === "linear" ? { x: [0], y: [0] } : {}),
    }));
    const layout = coloured(figure.layout, style);
    for (const [axis, ranges] of Object.entries(figure.ranges)) {
      const extra = state.scale === "log" ? {} : { tickvals: null, ticktext: null, tickmode: "auto" };
      layout[axis] = { ...layout[axis], type: state.scale, range: ranges[state.scale], ...extra };
    }
    plot.dataset.drawn = "1";
    return Plotly.react(plot, data, layout, options);
  };

  const shown = () => all(".plot").filter((plot) => !plot.closest("[data-hidden]"));
  // A hidden forget set is drawn when it is opened: its figures have no width before.
  const drawMissing = () => shown().filter((plot) => !plot.dataset.drawn).forEach(draw);
  const redraw = () => {
    all(".plot[data-drawn]").forEach((plot) => delete plot.dataset.drawn);
    shown().forEach(draw);
  };

  // Forget sets as tabs.
  const tabs = all("[role=tab]");
  const open = (tab, focus = false) => {
    tabs.forEach((other) => {
      const on = other === tab;
      other.setAttribute("aria-selected", String(on));
      other.tabIndex = on ? 0 : -1;
      const panel = document.getElementById(other.getAttribute("aria-controls"));
      panel.toggleAttribute("data-hidden", !on);
    });
    if (focus) tab.focus();
    if (state.ready) drawMissing();
  };
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) open(tabs[(i + step + tabs.length) % tabs.length], true);
    });
  });
  const follow = (scroll) => {
    const tab = tabs.find((one) => `#${one.getAttribute("aria-controls")}` === location.hash);
    if (!tab) return;
    open(tab);
    if (scroll) document.querySelector(".tabs").scrollIntoView();
  };
  if (tabs.length) {
    open(tabs[0]);
    follow(false);
    window.addEventListener("hashchange", () => follow(true));
  }

  // Scale of KLoM, for all figures at once.
  all("[data-scale]").forEach((button) => button.addEventListener("click", () => {
    state.scale = button.dataset.scale;
    all("[data-scale]").forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.scale === state.scale)));
    redraw();
  }));

  // The legend hides and shows methods.
  all("[data-legend]").forEach((legend) => all("button[data-method]", legend).forEach((button) => {
    button.addEventListener("click", () => {
      const set = legend.dataset.legend;
      const hidden = state.hidden.get(set) || new Set();
      state.hidden.set(set, hidden);
      const on = button.getAttribute("aria-pressed") === "true";
      button.setAttribute("aria-pressed", String(!on));
      hidden[on ? "add" : "delete"](button.dataset.method);
      shown().filter((plot) => setOf(plot) === set && plot.dataset.figure.includes("-plane-")).forEach(draw);
    });
  }));

  // Unlearning time, one method at once.
  all("select[data-time]").forEach((select) => {
    const set = select.dataset.time;
    const choose = () => {
      state.method.set(set, select.value);
      all(".timing", select.closest(".set")).forEach((block) => { block.hidden = block.dataset.method !== select.value; });
    };
    choose();
    select.addEventListener("change", () => {
      choose();
      shown().filter((plot) => setOf(plot) === set && plot.dataset.figure.includes("-time-")).forEach(draw);
    });
  });

  // All configurations, built when opened.
  all("details[data-table]").forEach((details) => {
    const table = payload.tables[details.dataset.table];
    let order = null;
    const build = () => {
      const element = document.createElement("table");
      const head = element.createTHead().insertRow();
      table.columns.forEach((name, column) => {
        const cell = document.createElement("th");
        cell.scope = "col";
        cell.textContent = name + (order && order.column === column ? (order.down ? " \u25be" : " \u25b4") : "");
        cell.addEventListener("click", () => {
          order = { column, down: order && order.column === column ? !order.down : false };
          build();
        });
        head.append(cell);
      });
      const rows = [...table.rows];
      if (order) {
        // Words such as "infinite" come after all numbers.
        const key = (row) => row[order.column];
        rows.sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (typeof x === "number" && typeof y === "number") return x - y;
          if (typeof x !== typeof y) return typeof x === "number" ? -1 : typeof y === "number" ? 1 : 0;
          return String(x).localeCompare(String(y));
        });
        if (order.down) rows.reverse();
      }
      const body = element.createTBody();
      rows.forEach((row) => {
        const line = body.insertRow();
        row.forEach((item) => {
          const cell = line.insertCell();
          cell.textContent = item === null ? "" : item;
          if (typeof item === "number") cell.className = "n";
          else cell.title = item === null ? "" : item;
        });
      });
      details.querySelector(".scroll").replaceChildren(element);
    };
    details.addEventListener("toggle", () => { if (details.open && !details.querySelector("table")) build(); });
    const button = details.querySelector("[data-csv]");
    button.addEventListener("click", () => {
      const field = (item) => {
        const text = item === null ? "" : String(item);
        // A leading = + - @ in a text would be a formula to a spreadsheet.
        const safe = typeof item === "string" && /^[=+\-@]/.test(text) ? `'${text}` : text;
        return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
      };
      const text = [table.columns, ...table.rows].map((row) => row.map(field).join(",")).join("\n");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text + "\n"], { type: "text/csv" }));
      link.download = `${button.dataset.csv.replace(/[^\w.-]+/g, "_")}.csv`;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  });

  // A table is sorted by a click on the name of a column, and back by another; what is no number comes last.
  all("table[data-sort] thead button").forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th");
    const down = head.getAttribute("aria-sort") === "ascending";
    const key = (row) => {
      const cell = row.cells[head.cellIndex];
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
    };
    const none = (value) => value === "" || Number.isNaN(value);
    const body = button.closest("table").tBodies[0];
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (none(x) || none(y)) return none(x) - none(y);
      const order = typeof x === "number" ? (x > y) - (x < y) : x.localeCompare(y);
      return down ? -order : order;
    });
    all("th", head.parentElement).forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  }));

  // Colour scheme: the system's, unless a reader asks for the other; always light on paper.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("scheme");
  const dark = () => (root.dataset.scheme || (system.matches ? "dark" : "light")) === "dark";
  const label = () => { button.textContent = dark() ? "light" : "dark"; };
  button.hidden = false;
  label();
  button.addEventListener("click", () => {
    root.dataset.scheme = dark() ? "light" : "dark";
    label();
    redraw();
  });
  system.addEventListener("change", () => { label(); redraw(); });
  let before;
  window.addEventListener("beforeprint", () => {
    before = root.dataset.scheme;
    root.dataset.scheme = "light";
    all(".plot").forEach(draw);
  });
  window.addEventListener("afterprint", () => {
    if (before) root.dataset.scheme = before; else delete root.dataset.scheme;
    redraw();
  });

  state.ready = true;
  drawMissing();
})();
