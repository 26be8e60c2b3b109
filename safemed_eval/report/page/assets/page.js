"use strict";
// Text of models and data becomes text nodes only (see `make`); plotly, which reads some markup, gets it escaped.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const lazy = (id) => {
    let value;
    return () => (value ??= read(id));
  };
  const data = read("data");
  const details = lazy("details");
  const images = lazy("images");
  const { runs, slices } = data;
  const { columns: items, questions, options } = data.items;
  const total = items.id.length;
  const find = (id) => document.getElementById(id);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // --- small things ------------------------------------------------------------------------------------------------

  /** An element with attributes and children; a child that is not an element becomes text. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  }

  /** A number from 0 on, rounded down at its shortest decimal, as the tables of the package are. */
  function floorText(x, digits) {
    const text = String(x);
    if (text.includes("e-")) return (0).toFixed(digits);
    const [whole, part = ""] = text.split(".");
    return digits ? `${whole}.${part.padEnd(digits, "0").slice(0, digits)}` : whole;
  }

  function ceilText(x, digits) {
    const floor = floorText(x, digits);
    return Number(floor) < x ? ((Math.round(Number(floor) * 10 ** digits) + 1) / 10 ** digits).toFixed(digits) : floor;
  }

  const count = (n) => `${n.toLocaleString("en")} ${n === 1 ? "item" : "items"}`;
  const letter = (i) => String.fromCharCode(65 + i);
  const modality = (i) => slices.modality[items.modality[i]];
  const questionType = (i) => slices.question_type[items.question_type[i]];
  const optionsOf = (i) => options[items.options[i]];
  const gold = (i) => `${letter(items.label[i])} ${optionsOf(i)[items.label[i]]}`;

  // --- outcomes ----------------------------------------------------------------------------------------------------

  const OUTCOMES = {
    evaluate: {
      holds: "right throughout",
      flipped: "flipped under attack",
      moved: "right when clean, wrong officially, in a rotation or corrupted",
      wrong: "wrong when clean",
      silent: "no answer",
    },
    certify: { certified: "certified and right", mistaken: "certified, wrong", abstained: "abstained" },
  };
  const FAILED = { failed: "failed", missing: "no record" };
  const CERTIFIED = { "+": "certified", x: "mistaken", a: "abstained", "!": "failed", "-": "missing" };

  /** What became of an item in a run, the worst first. */
  function verdict(run, i) {
    const marks = run.marks.map((all) => all[i]);
    if (run.kind === "certify") return CERTIFIED[marks[0]];
    if (marks.includes("!")) return "failed";
    if (marks.every((mark) => mark === "-")) return "missing";
    const bad = (mark) => mark === "x" || mark === "?";
    if (marks.some((mark, k) => bad(mark) && run.conditions[k] === "clean")) return "wrong";
    if (marks.some((mark, k) => bad(mark) && run.attacks[k])) return "flipped";
    if (marks.some(bad)) return "moved";
    return marks.includes("-") ? "missing" : "holds";
  }

  const has = (run, i, outcome) =>
    verdict(run, i) === outcome || (outcome === "silent" && run.marks.some((all) => all[i] === "?"));

  /** The outcomes that some item has in some run. */
  function heldOutcomes() {
    const held = new Set();
    for (const run of runs) {
      for (let i = 0; i < total; i += 1) held.add(verdict(run, i));
      if (run.kind === "evaluate" && run.marks.some((all) => all.includes("?"))) held.add("silent");
    }
    return held;
  }

  /** A number to sort by: failed, wrong, flipped, right; or failed, wrong, abstained, by radius. Null: no record. */
  function rank(run, i) {
    if (run.marks.every((all) => all[i] === "-")) return null;
    const order = ["missing", "failed", "mistaken", "wrong", "abstained", "flipped", "moved", "holds", "certified"];
    const right = run.kind === "certify" ? (run.radii[i] ?? 0) : run.marks.filter((all) => all[i] === "+").length / 100;
    const place = verdict(run, i);
    return order.indexOf(place) * 1e4 + (place === "mistaken" ? -right : right);
  }

  // --- state -------------------------------------------------------------------------------------------------------

  const PAGE = 50;
  const state = { modality: 0, question_type: 0, outcome: "", run: "", words: [], column: null, up: true, page: 0 };
  let shown = [];
  const cell = (run) => run.cells[`${state.modality},${state.question_type}`];
  const chosenSlices = () =>
    Object.keys(slices)
      .map((column) => (state[column] ? slices[column][state[column] - 1] : null))
      .filter(Boolean);

  // --- figures -----------------------------------------------------------------------------------------------------

  // Okabe and Ito's colours, told apart by the colour-blind; the dark ones of light paper are exchanged on dark paper.
  const COLOURS = {
    light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"],
    dark: ["#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#f0e442", "#ffffff"],
  };
  const DASHES = ["solid", "dash", "dashdot", "dot", "longdashdot"];
  const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "triangle-left"];
  let printing = false;
  const isDark = () => dark.matches && !printing;
  const colour = (run) => COLOURS[isDark() ? "dark" : "light"][run.style % COLOURS.light.length];
  const faint = (hex) => `${hex}${isDark() ? "33" : "26"}`;
  const taken = (list, i) => list[i % list.length];

  /** Plotly reads some HTML in names and labels: give it none. */
  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  /** A name with its middle cut out where it is long: names of one model differ at their ends. */
  function legend(text) {
    const most = innerWidth < 640 ? 28 : 44;
    return escaped(text.length <= most ? text : `${text.slice(0, most / 2)}…${text.slice(1 - most / 2)}`);
  }
  const percents = (share, digits = floorText) => `${digits(100 * share, 1)}`;
  const interval = (lower, upper) => `${percents(lower)}–${percents(upper, ceilText)}`;
  const greys = (run, length) => (run.grey === null ? "" : `<br>${floorText(length * run.grey, 2)} grey levels RMS`);

  /** Fewer sizes of an attack than this are points; more are a curve. */
  const FEWEST = 3;
  const mode = (sizes) => (new Set(sizes.filter((size) => size > 0)).size < FEWEST ? "markers" : "lines+markers");

  function certifiedTraces(shown) {
    const traces = [];
    for (const run of shown.filter((one) => cell(one)?.curve?.radii)) {
      const dash = taken(DASHES, shown.indexOf(run)); // the first of a figure is solid
      const { radii, share, lower, upper } = cell(run).curve;
      const name = legend(run.name);
      const line = { shape: "vh", color: colour(run) };
      const edge = { x: radii, mode: "lines", line: { ...line, width: 0 }, hoverinfo: "skip", showlegend: false };
      const label = (r, k) => {
        const figures = `${percents(share[k])} % (${interval(lower[k], upper[k])})`;
        return `${name}<br>radius ${floorText(r, 4)}: ${figures}${greys(run, r)}`;
      };
      traces.push(
        { ...edge, y: lower, legendgroup: run.name, meta: "lower" },
        { ...edge, y: upper, legendgroup: run.name, meta: "upper", fill: "tonexty", fillcolor: faint(colour(run)) },
        {
          x: radii,
          y: share,
          name,
          meta: "share",
          legendgroup: run.name,
          mode: "lines",
          line: { ...line, width: 2, dash },
          hoverinfo: "text",
          hovertext: radii.map(label),
        },
      );
      const grounded = cell(run).grounded;
      if (grounded) {
        traces.push({
          x: grounded.radii,
          y: grounded.share,
          name: `${name}, grounded`,
          meta: "grounded",
          legendgroup: run.name,
          mode: "lines",
          line: { ...line, width: 0.8, dash },
          hoverinfo: "text",
          hovertext: grounded.radii.map(
            (r, k) => `${name}, grounded<br>radius ${floorText(r, 4)}: ${percents(grounded.share[k])} %${greys(run, r)}`,
          ),
        });
      }
    }
    return traces;
  }

  function attackedTraces(norm) {
    const evaluated = runs.filter((run) => run.kind === "evaluate" && cell(run));
    const families = runs.flatMap((run) => run.families ?? []).filter((family) => family.norm === norm);
    const names = [...new Set(families.map((family) => family.name))];
    const scale = norm === "linf" ? 255 : 1;
    return evaluated.flatMap((run) =>
      run.families
        .filter((family) => family.norm === norm)
        .map((family) => {
          const points = family.points
            .map(([eps, condition]) => ({ eps, found: cell(run).curve[condition] }))
            .filter(({ found }) => found && found[0] !== null);
          const label = ({ eps, found: [accuracy, lower, upper, n] }) => {
            const size = `eps ${floorText(eps * scale, 3)}${norm === "linf" ? "/255" : ""}`;
            const figures = `${(100 * accuracy).toFixed(1)} % (${interval(lower, upper)}), ${count(n)}`;
            const name = `${legend(run.name)}, ${legend(family.name)}`;
            return `${name}<br>${size}: ${figures}${norm === "l2" ? greys(run, eps) : ""}`;
          };
          // Symbols and dashes tell attacks apart, colours runs; of one run colours and symbols do, and lines are solid.
          const place = names.indexOf(family.name);
          const alone = evaluated.length === 1;
          const color = alone ? taken(COLOURS[isDark() ? "dark" : "light"], place) : colour(run);
          return {
            x: points.map(({ eps }) => eps * scale),
            y: points.map(({ found }) => found[0]),
            error_y: {
              type: "data",
              symmetric: false,
              array: points.map(({ found }) => found[2] - found[0]),
              arrayminus: points.map(({ found }) => found[0] - found[1]),
              thickness: 1,
              width: 4,
              color,
            },
            name: `${legend(run.name)}, ${legend(family.name)}`,
            mode: mode(points.map(({ eps }) => eps)),
            line: { color, width: 1.8, dash: alone ? "solid" : taken(DASHES, place) },
            marker: { color, size: 8, symbol: taken(SYMBOLS, place) },
            hoverinfo: "text",
            hovertext: points.map(label),
          };
        }),
    );
  }

  /** Certified accuracy as steps with a band, and below each attack a line of what it leaves. */
  function gapTraces(gap) {
    const palette = COLOURS[isDark() ? "dark" : "light"];
    const { radii, share, lower, upper } = gap.curve;
    const edge = {
      ...{ x: radii, mode: "lines", hoverinfo: "skip", showlegend: false },
      line: { shape: "vh", color: palette[0], width: 0 },
    };
    const proved = (r, k) => `certified<br>radius ${floorText(r, 4)}: ${percents(share[k])} % (${interval(lower[k], upper[k])})`;
    const attacked = Object.entries(gap.families).map(([name, points], k) => ({
      x: points.map(([eps]) => eps),
      y: points.map(([, left]) => left),
      error_y: {
        ...{ type: "data", symmetric: false, thickness: 1, width: 4, color: taken(palette, k + 1) },
        array: points.map(([, left, , high]) => high - left),
        arrayminus: points.map(([, left, low]) => left - low),
      },
      name: legend(`under ${name}`),
      mode: mode(points.map(([eps]) => eps)),
      line: { color: taken(palette, k + 1), width: 1.8, dash: taken(DASHES, k + 1) },
      marker: { color: taken(palette, k + 1), size: 8, symbol: taken(SYMBOLS, k) },
      hoverinfo: "text",
      hovertext: points.map(
        ([eps, left, low, high]) =>
          `${legend(`under ${name}`)}<br>eps ${floorText(eps, 4)}: ${percents(left, ceilText)} % (${interval(low, high)})${greys(gap, eps)}`,
      ),
    }));
    return [
      { ...edge, y: lower },
      { ...edge, y: upper, fill: "tonexty", fillcolor: faint(palette[0]) },
      {
        ...{ x: radii, y: share, name: "certified", mode: "lines" },
        line: { shape: "vh", color: palette[0], width: 2 },
        ...{ hoverinfo: "text", hovertext: radii.map(proved) },
      },
      ...attacked,
    ];
  }

  function layout(xTitle, yTitle, most, named, extra) {
    const style = getComputedStyle(document.documentElement);
    const [ink, muted, rule, paper] = ["--ink", "--muted", "--rule", "--paper"].map((name) =>
      printing
        ? { "--ink": "#000", "--muted": "#444", "--rule": "#bbb", "--paper": "#fff" }[name]
        : style.getPropertyValue(name).trim(),
    );
    const axis = {
      gridcolor: rule,
      linecolor: muted,
      zeroline: false,
      tickcolor: muted,
      ticks: "outside",
      fixedrange: false,
    };
    const narrow = innerWidth < 640 && !printing;
    return {
      height: 400 + 20 * Math.ceil(named / (narrow ? 1 : 3)),
      // Paper has a width of its own, which no window tells.
      ...(printing ? { width: 660, autosize: false } : { autosize: true }),
      margin: { l: 62, r: 18, t: 10, b: narrow ? 72 : 56 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: style.fontFamily, size: 13, color: ink },
      xaxis: { ...axis, title: { text: narrow ? xTitle.replace(" (", "<br>(") : xTitle, standoff: 8 }, range: [0, most] },
      yaxis: { ...axis, title: { text: yTitle }, range: [0, 1.03], tickformat: ".0%" },
      legend: { orientation: "h", y: 1.01, yanchor: "bottom", x: 0, itemwidth: 40 },
      hovermode: "x",
      hoverdistance: -1, // one label per run, at its own nearest step
      hoverlabel: { bgcolor: paper, bordercolor: muted, font: { color: ink, size: 12 }, align: "left" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: ink },
      // A drag on a phone scrolls the page.
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      ...extra,
    };
  }

  function nothing(traces) {
    if (traces.length) return [];
    return [{ text: "no figure under these filters", xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false }];
  }

  /** A dotted line at every ceiling, with the runs that have it. */
  function ceilings(shown) {
    const found = new Map();
    for (const run of shown.filter((one) => one.ceiling !== null)) {
      found.set(run.ceiling, [...(found.get(run.ceiling) ?? []), run]);
    }
    const lines = [...found].map(([x, [first]]) => ({
      ...{ type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper" },
      line: { color: found.size > 1 ? colour(first) : isDark() ? "#a3acb5" : "#59616a", dash: "dot", width: 1.5 },
    }));
    const words = [...found].map(([x]) => ({
      ...{ x, y: 1, yref: "paper", yanchor: "top", xanchor: "left", textangle: -90, showarrow: false },
      text: `ceiling ${floorText(x, 3)}`,
      font: { size: 11 },
    }));
    return { lines, words };
  }

  const CONFIG = {
    displaylogo: false,
    responsive: true,
    modeBarButtons: [["toImage", "resetScale2d"]],
    toImageButtonOptions: { format: "svg" },
  };

  function draw() {
    const drawn = [];
    for (const plot of document.querySelectorAll("[data-scale]")) {
      const shown = runs.filter((run) => run.kind === "certify" && run.scale === plot.dataset.scale);
      const traces = certifiedTraces(shown);
      const { lines, words } = ceilings(shown);
      const most = 1.06 * Math.max(...shown.map((run) => run.ceiling ?? 0));
      const extra = { shapes: lines, annotations: [...words, ...nothing(traces)] };
      const look = layout(plot.dataset.scale, "certified accuracy", most, traces.length / 3, extra);
      drawn.push(Plotly.react(plot, traces, look, CONFIG));
    }
    for (const plot of document.querySelectorAll("[data-norm]")) {
      const linf = plot.dataset.norm === "linf";
      const traces = attackedTraces(plot.dataset.norm);
      const sizes = runs.flatMap((run) => run.families ?? []).filter((family) => family.norm === plot.dataset.norm);
      const largest = Math.max(...sizes.flatMap((family) => family.points.map(([eps]) => eps))) * (linf ? 255 : 1);
      const title = linf ? "eps (L-infinity, grey levels of 255)" : "eps (L2)";
      const look = layout(title, "accuracy", largest, traces.length, { annotations: nothing(traces) });
      look.xaxis.range = [-0.03 * largest, 1.05 * largest];
      drawn.push(Plotly.react(plot, traces, look, CONFIG));
    }
    for (const plot of document.querySelectorAll("[data-gap]")) {
      const gap = data.gaps[plot.dataset.gap];
      const traces = gapTraces(gap);
      const ceiling = gap.curve.radii.at(-1);
      const largest = Math.max(ceiling, ...Object.values(gap.families).flatMap((points) => points.map(([eps]) => eps)));
      const line = { color: isDark() ? "#a3acb5" : "#59616a", dash: "dot", width: 1.5 };
      const extra = { shapes: [{ type: "line", x0: ceiling, x1: ceiling, y0: 0, y1: 1, yref: "paper", line }] };
      const look = layout("radius, eps (L2)", "accuracy of the smoothed model", largest, traces.length - 2, extra);
      look.xaxis.range = [-0.03 * largest, 1.06 * largest];
      drawn.push(Plotly.react(plot, traces, look, CONFIG));
    }
    return Promise.all(drawn);
  }

  /** The tables of the results, of the chosen slice. */
  function fillTables() {
    for (const kind of ["evaluate", "certify"]) {
      const body = find(`live-${kind}`);
      if (!body) continue;
      const rows = runs
        .filter((run) => run.kind === kind)
        .map((run) => {
          const found = cell(run);
          const cells = found
            ? found.row.map(([text, below, few]) =>
                make(
                  "td",
                  {},
                  text,
                  few ? make("span", { class: "dagger" }, "†") : null,
                  below ? make("small", {}, below) : null,
                ),
              )
            : [make("td", {}, "0"), make("td", { colspan: 20, class: "name" }, "no item under these filters")];
          return make("tr", {}, make("th", { scope: "row" }, run.name), cells);
        });
      body.replaceChildren(...rows);
    }
    const names = chosenSlices();
    // Runs of evaluate and of certify are often samples of different size: each says its own number.
    const sizes = [...new Set(runs.map((run) => `${cell(run)?.row[0][0] ?? "0"} of ${run.kind}`))];
    find("curves-count").textContent = `${names.length ? names.join(", ") : "All"}, items: ${sizes.join(", ")}`;
  }

  // --- table of items ----------------------------------------------------------------------------------------------

  const inSlices = () =>
    [...Array(total).keys()].filter(
      (i) =>
        (!state.modality || items.modality[i] === state.modality - 1) &&
        (!state.question_type || items.question_type[i] === state.question_type - 1),
    );

  /** What the search looks into, one lower-case text per item; made at the first search. */
  const haystack = (() => {
    let texts;
    return () => {
      texts ??= items.id.map((id, i) => {
        const words = [id, questions[items.question[i]], modality(i), questionType(i), ...optionsOf(i)];
        runs.forEach((run, r) => {
          for (const of of run.kind === "evaluate" ? details()[r] : []) words.push(of[i]?.[5] ?? "");
        });
        return words.join("\n").toLowerCase();
      });
      return texts;
    };
  })();

  const collator = new Intl.Collator("en", { numeric: true });
  const keysOf = (column) => {
    if (column === 0) return items.id;
    if (column === 1) return items.id.map((_, i) => modality(i));
    if (column === 2) return items.id.map((_, i) => questionType(i));
    if (column === 3) return items.id.map((_, i) => gold(i));
    return items.id.map((_, i) => rank(runs[column - 4], i));
  };

  function choose() {
    const among = state.run === "" ? runs : [runs[Number(state.run)]];
    const texts = state.words.length ? haystack() : null;
    shown = inSlices().filter(
      (i) =>
        (!state.outcome || among.some((run) => has(run, i, state.outcome))) &&
        (!texts || state.words.every((word) => texts[i].includes(word))),
    );
    if (state.column !== null) {
      const keys = keysOf(state.column);
      const compare = state.column < 4 ? collator.compare : (a, b) => a - b;
      const sign = state.up ? 1 : -1;
      const last = (key) => (key === null ? 1 : 0); // whichever way it is sorted
      shown.sort((a, b) => last(keys[a]) - last(keys[b]) || sign * compare(keys[a], keys[b]) || a - b);
    }
    state.page = 0;
    fillRows();
    find("items-count").textContent = `${shown.length.toLocaleString("en")} of ${count(total)}`;
  }

  const MARKS = {
    "+": ["✓", "right", "right"],
    x: ["✗", "wrong", "wrong"],
    "?": ["○", "no answer", "wrong"],
    "!": ["!", "failed", "wrong"],
    "-": ["–", "no record", null],
  };

  function outcomeCell(run, i) {
    const place = verdict(run, i);
    if (place === "missing" && run.marks.every((all) => all[i] === "-")) return make("td", {}, "–");
    if (run.kind === "certify") {
      if (place === "certified") return make("td", { class: "right" }, floorText(run.radii[i], 3));
      if (place === "mistaken") return make("td", { class: "wrong" }, `wrong, ${floorText(run.radii[i], 3)}`);
      return make("td", {}, place);
    }
    const marks = run.marks.map((all, k) => {
      const [sign, word, look] = MARKS[all[i]];
      return make("span", { class: look, title: `${run.conditions[k]}: ${word}` }, sign);
    });
    const words = run.marks.map((all, k) => `${run.conditions[k]} ${MARKS[all[i]][1]}`).join(", ");
    const note = { flipped: "flipped", failed: "failed" }[place];
    return make(
      "td",
      {},
      make("span", { class: "marks", "aria-hidden": "true" }, marks),
      make("span", { class: "hidden" }, words),
      note ? ` ${note}` : null,
    );
  }

  function fillRows() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    const rows = shown.slice(state.page * PAGE, (state.page + 1) * PAGE).map((i) =>
      make(
        "tr",
        { "data-item": i },
        make("th", { scope: "row" }, make("button", { type: "button", "aria-haspopup": "dialog" }, items.id[i])),
        make("td", {}, make("span", { class: "clamp" }, modality(i))),
        make("td", {}, make("span", { class: "clamp" }, questionType(i))),
        make("td", {}, make("span", { class: "clamp" }, gold(i))),
        runs.map((run) => outcomeCell(run, i)),
      ),
    );
    if (!rows.length) rows.push(make("tr", {}, make("td", { colspan: 4 + runs.length }, "No item matches.")));
    find("rows").replaceChildren(...rows);
    find("page-of").textContent = `Page ${state.page + 1} of ${pages.toLocaleString("en")}`;
    find("back").disabled = state.page === 0;
    find("forth").disabled = state.page >= pages - 1;
  }

  function turn(by) {
    state.page += by;
    fillRows();
    find("items").querySelector(".box").scrollIntoView({ block: "nearest" });
  }

  function sortBy(column) {
    state.up = state.column === column ? !state.up : true;
    state.column = column;
    for (const head of document.querySelectorAll("[data-column]")) {
      if (Number(head.dataset.column) === column) head.setAttribute("aria-sort", state.up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    choose();
  }

  // --- one item ----------------------------------------------------------------------------------------------------

  const dialog = find("item");
  let open = null;

  const answer = (i, prediction) =>
    prediction === null ? "no answer" : `${letter(prediction)} ${optionsOf(i)[prediction] ?? ""}`;
  const rotated = (i, answers) =>
    make("small", {}, `by rotation: ${answers.map((one) => (one === null ? "no answer" : letter(one))).join(", ")}`);
  const goldTag = () => make("span", { class: "tag" }, "gold");
  const judged = (i, prediction, rotations) =>
    make(
      "td",
      { class: `name ${prediction === items.label[i] ? "right" : "wrong"}` },
      `${prediction === items.label[i] ? "✓" : "✗"} ${answer(i, prediction)}`,
      rotations ? rotated(i, rotations) : null,
    );
  const heads = (names) =>
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        names.map((name) => make("th", { scope: "col", class: name === "Answer" ? "name" : null }, name)),
      ),
    );

  function bar(share) {
    const element = make("span", { class: "share" });
    element.style.width = `${100 * share}%`;
    return element;
  }

  function chanceText(p) {
    if (p > 0 && p < 0.001) return "<0.1";
    return p < 1 && p > 0.999 ? ">99.9" : (100 * p).toFixed(1);
  }

  function evaluated(run, entries, i) {
    const letters = optionsOf(i).map((_, k) => letter(k));
    const measured = entries.some((entry) => entry?.[1]);
    const names = [
      "Condition",
      "Answer",
      ...(measured ? letters.map((one) => `${one}, %`) : []),
      "L∞, /255",
      "L2",
      "steps",
    ];
    const rows = entries.map((entry, k) => {
      const head = make("th", { scope: "row" }, run.conditions[k]);
      if (!entry) return make("tr", {}, head, make("td", { colspan: names.length - 1, class: "name" }, "no record"));
      const [prediction, chances, linf, l2, steps, , error, rotations] = entry;
      if (error !== null)
        return make("tr", {}, head, make("td", { colspan: names.length - 1, class: "wrong name" }, `failed: ${error}`));
      const shares = measured
        ? letters.map((_, o) => make("td", {}, chances ? [chanceText(chances[o]), bar(chances[o])] : "n/a"))
        : [];
      const sizes = [
        linf === null ? "n/a" : (255 * linf).toFixed(2),
        l2 === null ? "n/a" : l2.toFixed(3),
        steps ?? "n/a",
      ];
      return make(
        "tr",
        {},
        head,
        judged(i, prediction, rotations),
        shares,
        sizes.map((size) => make("td", {}, size)),
      );
    });
    const caption = measured
      ? "Answer, probability of each option, and size of the change"
      : "Answer and size of the change";
    const table = make(
      "table",
      {},
      make("caption", {}, make("span", {}, caption)),
      heads(names),
      make("tbody", {}, rows),
    );
    const texts = entries.flatMap((entry, k) =>
      entry && entry[5] !== null
        ? [make("h4", {}, `What it wrote: ${run.conditions[k]}`), make("pre", { tabindex: 0 }, entry[5])]
        : [],
    );
    return [
      make("div", { class: "box", tabindex: 0, role: "region", "aria-label": `Answers of ${run.name}` }, table),
      ...texts,
    ];
  }

  const ABSTAINED = {
    "no answer won": "“no answer” won the vote",
    "p_lower <= 1/2": "p lower is not above 1/2",
    "wrong answer selected": "the selected answer is wrong, and no more was drawn",
    "no radius certified": "none of the radii that were asked for could be certified for the gold answer",
  };
  const ENDED = {
    certified: "all radii up to the ceiling were certified",
    futile: "the next radius was out of reach",
    cap: "no more were allowed",
  };

  function certificate(run, [entry], i) {
    const [prediction, votes0, votes, pLower, abstained, error, ladder, own] = entry;
    if (error !== null) return [make("p", { class: "wrong" }, `Failed: ${error}`)];
    const radius = run.radii[i];
    const levels = run.grey === null || radius === null ? "" : ` (${floorText(radius * run.grey, 2)} grey levels RMS)`;
    const judgement = prediction === items.label[i] ? "right" : "wrong";
    const said =
      abstained === null
        ? `Certified radius ${floorText(radius, 4)}${levels} for ${answer(i, prediction)}, which is ${judgement}.`
        : `No certificate: ${ABSTAINED[abstained]}.`;
    const bound = pLower === null ? "n/a" : floorText(pLower, 4);
    return [
      make("p", {}, said),
      ...(own ? [make("p", {}, own)] : []),
      make("p", { class: "note" }, `Noise: ${run.noise}; p lower ${bound}; ceiling ${floorText(run.ceiling, 4)}`),
      ...(ladder ? evidence(run, ladder) : counted(run, votes0, votes, i)),
    ];
  }

  function counted(run, votes0, votes, i) {
    const sum = votes?.reduce((a, b) => a + b, 0);
    const rows = (votes0 ?? votes).map((_, k) =>
      make(
        "tr",
        {},
        make(
          "th",
          { scope: "row" },
          k < optionsOf(i).length ? answer(i, k) : "no answer",
          k === items.label[i] ? goldTag() : null,
        ),
        make("td", {}, votes0 ? votes0[k].toLocaleString("en") : "n/a"),
        votes ? make("td", {}, votes[k].toLocaleString("en"), bar(votes[k] / sum)) : make("td", {}, "n/a"),
      ),
    );
    const table = make(
      "table",
      {},
      make("caption", {}, make("span", {}, "Votes of the noisy copies")),
      heads(["Answer", "to select (n0)", "to bound (n)"]),
      make("tbody", {}, rows),
    );
    return [
      make("div", { class: "box votes", tabindex: 0, role: "region", "aria-label": `Votes of ${run.name}` }, table),
    ];
  }

  /** What a sequential certificate was read from. */
  function evidence(run, { draws, gold: hits, stopped, radii }) {
    const rows = radii.map(([name, radius, logE, certified]) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, name.endsWith("s") ? `${name} = ${floorText(radius, 4)}` : name),
        make("td", {}, floorText(logE, 4)),
        make("td", {}, certified ? "✓ yes" : "no"),
      ),
    );
    const table = make(
      "table",
      {},
      make("caption", {}, make("span", {}, "Evidence for the gold answer, by radius")),
      heads(["Radius", "largest ln e", "certified"]),
      make("tbody", {}, rows),
    );
    const [right, all] = [hits, draws].map((n) => n.toLocaleString("en"));
    const needed = ceilText(-Math.log(run.alpha), 4);
    return [
      make("p", {}, `${right} of ${all} noisy copies were answered with gold; then ${ENDED[stopped]}.`),
      make("p", { class: "note" }, `A radius is certified where ln e reached ${needed}, there and at all smaller radii.`),
      make("div", { class: "box votes", tabindex: 0, role: "region", "aria-label": `Evidence of ${run.name}` }, table),
    ];
  }

  function pictures(entry, i) {
    if (entry.error) return make("p", { class: "wrong" }, entry.error);
    const [width, height] = entry.size;
    const kind = Math.max(width, height) <= 128 ? "small" : null;
    const by = entry.condition;
    const views = [
      ["clean", "clean", `Clean image of item ${items.id[i]}`],
      [
        "change",
        `change, × ${entry.factor} around mid grey`,
        `Change by ${by}, ${entry.factor} times, around mid grey`,
      ],
      ["attacked", "attacked", `Image of item ${items.id[i]} attacked by ${by}`],
    ];
    const figures = views.map(([key, words, alt]) =>
      make(
        "figure",
        {},
        make("img", { src: entry[key], alt, width, height, class: kind }),
        make("figcaption", {}, words),
      ),
    );
    return [make("h4", {}, `Images: ${entry.condition}`), make("div", { class: "pictures" }, figures)];
  }

  function describe(i) {
    const parts = [
      make("h2", { id: "item-title" }, items.id[i]),
      make(
        "p",
        { class: "note" },
        [modality(i), questionType(i), items.source[i], items.image[i]].filter(Boolean).join(" · "),
      ),
      make("p", { class: "question" }, questions[items.question[i]]),
      make(
        "ol",
        { class: "options" },
        optionsOf(i).map((text, k) =>
          k === items.label[i] ? make("li", { class: "gold" }, text, goldTag()) : make("li", {}, text),
        ),
      ),
    ];
    const kept = images()[i] ?? [];
    runs.forEach((run, r) => {
      const entries = details()[r].map((all) => all[i]);
      if (entries.every((entry) => entry === null)) return;
      parts.push(make("h3", {}, `${run.name}: ${run.kind === "certify" ? "certificate" : "answers"}`));
      parts.push(...(run.kind === "certify" ? certificate(run, entries, i) : evaluated(run, entries, i)));
      for (const entry of kept.filter((one) => one.run === r)) parts.push(...[pictures(entry, i)].flat());
    });
    return parts;
  }

  function show(i) {
    open = i;
    find("item-body").replaceChildren(...describe(i));
    const place = shown.indexOf(i);
    find("item-back").disabled = place <= 0;
    find("item-forth").disabled = place < 0 || place === shown.length - 1;
    history.replaceState(null, "", `#item=${encodeURIComponent(items.id[i])}`);
    if (!dialog.open) dialog.showModal();
    find("item-body").focus({ preventScroll: true });
    dialog.scrollTop = 0;
  }

  function showLinked() {
    if (!location.hash.startsWith("#item=")) return;
    let id;
    try {
      id = decodeURIComponent(location.hash.slice(6));
    } catch {
      return; // a link that was cut
    }
    const i = items.id.indexOf(id);
    if (i >= 0 && i !== open) show(i);
  }

  // --- terms -------------------------------------------------------------------------------------------------------

  /** A note with the meaning of a term, while it has the focus or the pointer; Escape, or a touch elsewhere, closes it. */
  function explain() {
    const tip = find("tip");
    let open = null;
    const hide = () => {
      open = null;
      if (tip.matches(":popover-open")) tip.hidePopover();
    };
    const place = () => {
      const at = open.getBoundingClientRect();
      const left = Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
      const above = at.bottom + tip.offsetHeight + 6 > innerHeight;
      tip.style.left = `${Math.max(8, left)}px`;
      tip.style.top = `${above ? at.top - tip.offsetHeight - 6 : at.bottom + 6}px`;
    };
    const show = (term) => {
      open = term;
      tip.textContent = find(term.hash.slice(1)).textContent;
      tip.showPopover();
      place();
    };
    for (const term of document.querySelectorAll(".term")) {
      for (const event of ["focus", "pointerenter"]) term.addEventListener(event, () => show(term));
      for (const event of ["blur", "pointerleave"]) term.addEventListener(event, hide);
      term.addEventListener("click", (event) => {
        event.preventDefault(); // without this script, it leads to the glossary
        show(term);
      });
    }
    addEventListener("keydown", (event) => event.key === "Escape" && hide());
    addEventListener("scroll", () => open && place(), { capture: true, passive: true });
  }

  // --- wiring ------------------------------------------------------------------------------------------------------

  function wire() {
    const selects = [...document.querySelectorAll("[data-slice]")];
    for (const select of selects) {
      const column = select.dataset.slice;
      const sizes = new Map();
      for (const one of items[column]) sizes.set(one, (sizes.get(one) ?? 0) + 1);
      select.append(make("option", { value: 0 }, "all"));
      slices[column].forEach((name, k) =>
        select.append(make("option", { value: k + 1 }, `${name} (${sizes.get(k) ?? 0})`)),
      );
      select.addEventListener("change", () => {
        state[column] = Number(select.value);
        for (const twin of selects) if (twin.dataset.slice === column) twin.value = select.value;
        fillTables();
        choose();
        draw();
      });
    }
    const kinds = new Set(runs.map((run) => run.kind));
    const known = Object.assign({}, ...[...kinds].map((kind) => OUTCOMES[kind]), FAILED);
    const held = heldOutcomes();
    for (const [value, words] of Object.entries(known)) {
      if (held.has(value)) find("outcome").append(make("option", { value }, words));
    }
    runs.forEach((run, r) => find("run").append(make("option", { value: r }, `${run.name} (${run.kind})`)));
    for (const name of ["outcome", "run"]) {
      find(name).addEventListener("change", (event) => {
        state[name] = event.target.value;
        choose();
      });
    }
    let waiting;
    find("search").addEventListener("input", (event) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
        choose();
      }, 120);
    });
    for (const head of document.querySelectorAll("[data-column]")) {
      head.querySelector("button").addEventListener("click", () => sortBy(Number(head.dataset.column)));
    }
    find("back").addEventListener("click", () => turn(-1));
    find("forth").addEventListener("click", () => turn(1));
    find("rows").addEventListener("click", (event) => {
      const row = event.target.closest("[data-item]");
      if (!row || getSelection().toString()) return;
      row.querySelector("button").focus(); // where the focus returns to
      show(Number(row.dataset.item));
    });
    find("item-close").addEventListener("click", () => dialog.close());
    find("item-back").addEventListener("click", () => show(shown[shown.indexOf(open) - 1]));
    find("item-forth").addEventListener("click", () => show(shown[shown.indexOf(open) + 1]));
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // outside of its content
    });
    dialog.addEventListener("close", () => {
      open = null;
      history.replaceState(null, "", location.pathname + location.search);
    });
    addEventListener("hashchange", showLinked);
    dark.addEventListener("change", draw);
    let closed = [];
    addEventListener("beforeprint", () => {
      printing = true;
      closed = [...document.querySelectorAll("details:not([open])")].filter((one) => !one.closest("#provenance"));
      for (const one of closed) one.open = true;
      draw();
    });
    addEventListener("afterprint", () => {
      printing = false;
      for (const one of closed) one.open = false;
      draw();
    });
  }

  wire();
  explain();
  fillTables();
  choose();
  // Plotly is long: it is read after the table stands.
  addEventListener("DOMContentLoaded", async () => {
    await draw();
    performance.mark("drawn");
    document.documentElement.dataset.ready = "yes";
    showLinked();
  });
})();
