// Sorting, the filter by recipe, opening what a link leads to, and the curves of runs. Everything else works without.
"use strict";

const say = (text) => { document.getElementById("said").textContent = text; };
document.getElementById("tools").hidden = false;

// A click or a key goes through: ascending, descending, as it was. What has no value stays last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const name = head.textContent;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const order = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const sorted = order === "none" ? rows : [...rows].sort((a, b) => compare(a.cells[column], b.cells[column], sign));
      body.append(...sorted);
      say(order === "none" ? "in the order of the experiment" : `sorted by ${name}, ${order}`);
    });
  });
}

function compare(a, b, sign) {
  const [x, y] = [a, b].map((cell) => cell.dataset.v ?? cell.textContent.trim());
  if (x === "" || y === "") return (x === "") - (y === "");
  const [m, n] = [x, y].map((text) => Number(text.replaceAll(",", "")));
  return sign * (isNaN(m) || isNaN(n) ? (x < y ? -1 : x > y ? 1 : 0) : m - n);
}

// The filter hides what belongs to other recipes, and headings with nothing left below them.
const choice = document.getElementById("recipe");
function filter() {
  for (const part of document.querySelectorAll("[data-recipe]")) {
    part.hidden = choice.value !== "" && part.dataset.recipe !== choice.value;
  }
  for (const section of document.querySelectorAll(".experiment, #other, #runs")) {
    section.hidden = !section.querySelector(":scope > article:not([hidden])");
  }
  const shown = document.querySelectorAll(".experiment > article:not([hidden])").length;
  say(choice.value === "" ? "" : `${shown} ${shown === 1 ? "table" : "tables"} under ${choice.value}`);
}
choice.addEventListener("change", filter);
filter(); // a browser may bring back the choice of an earlier visit

// A link leads to something that may be closed or filtered out.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.closest("[hidden]")) {
    choice.value = "";
    filter();
  }
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  const part = target.querySelector(":scope > details.part"); // a table that is part of another
  if (part) part.open = true;
  target.scrollIntoView();
  if (target.tagName === "DETAILS") target.querySelector("summary").focus({ preventScroll: true });
}
addEventListener("hashchange", reveal);
// The same link again changes no hash.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  if (link && link.getAttribute("href") === location.hash) reveal();
});

// Curves are drawn when their runs are opened.
const MOST_CURVES = 30;
let data = null; // {metrics: {column: heading}, runs: {run: {column: values}}}
for (const details of document.querySelectorAll("details.variant")) {
  details.addEventListener("toggle", () => {
    const place = details.querySelector(".curves");
    if (!details.open || place.childElementCount) return;
    data ??= JSON.parse(document.getElementById("curves").textContent);
    const rows = [...details.querySelectorAll("tbody tr")].slice(0, MOST_CURVES);
    const runs = rows.map((row) => ({ run: row.id.slice("run-".length), name: `seed ${row.cells[1].textContent}` }));
    const has = (column) => runs.some(({ run }) => column in data.runs[run]);
    for (const [column, heading] of Object.entries(data.metrics).filter(([column]) => has(column))) {
      place.append(chart(`${heading} by epoch`, runs.map((run) => ({ ...run, column }))));
    }
    place.append(
      chart("Loss by epoch: evaluation (line), training (dashed)", runs.flatMap((run) => [
        { ...run, column: "val_loss" },
        { ...run, name: null, column: "train_loss", dashed: true },
      ])),
    );
  });
}

function chart(title, curves) {
  const [width, height, left, bottom, top] = [420, 220, 44, 24, 10];
  const drawn = curves
    .map((curve) => ({ ...curve, xs: data.runs[curve.run].epoch ?? [], ys: data.runs[curve.run][curve.column] ?? [] }))
    .map((curve) => ({ ...curve, at: curve.xs.map((x, i) => [x, curve.ys[i] ?? null]) }))
    .map((curve) => ({ ...curve, at: curve.at.filter(([x, y]) => x !== null && y !== null) }))
    .filter((curve) => curve.at.length);
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  if (!drawn.length) {
    caption.textContent = `${title}: no epoch was finished`;
    figure.append(caption);
    return figure;
  }
  const [xs, ys] = [0, 1].map((i) => drawn.flatMap((curve) => curve.at.map((at) => at[i])));
  const range = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const [[x0, x1], [y0, y1]] = [range(xs), range(ys)];
  const across = (x) => left + ((x - x0) / (x1 - x0 || 1)) * (width - left - 10);
  const down = (y) => height - bottom - ((y - y0) / (y1 - y0 || 1)) * (height - bottom - top);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  svg.append(shape("path", { class: "axis", d: `M${left} ${top}V${height - bottom}H${width - 10}` }));
  for (const y of new Set([y0, (y0 + y1) / 2, y1])) {
    svg.append(shape("text", { x: left - 6, y: down(y) + 4, "text-anchor": "end" }, short(y)));
  }
  for (const x of new Set([x0, x1])) {
    svg.append(shape("text", { x: across(x), y: height - 7, "text-anchor": x === x1 ? "end" : "start" }, short(x)));
  }
  const order = [...new Set(drawn.map((curve) => curve.run))];
  for (const curve of drawn) {
    const colour = `var(--c${order.indexOf(curve.run) % 6})`;
    const style = { class: curve.dashed ? "dashed" : "", style: `stroke:${colour}` };
    const at = curve.at.map(([x, y]) => [across(x).toFixed(1), down(y).toFixed(1)]);
    if (at.length === 1) svg.append(shape("circle", { cx: at[0][0], cy: at[0][1], r: 3, style: `fill:${colour}` }));
    else svg.append(shape("polyline", { ...style, points: at.map((p) => p.join(",")).join(" ") }));
  }
  caption.append(`${title}. `);
  const named = drawn.filter((curve) => curve.name);
  for (const { run, name } of named.length > 6 ? [] : named) {
    const label = document.createElement("span");
    label.textContent = `${name} `;
    label.style.color = `var(--c${order.indexOf(run) % 6})`;
    caption.append(label);
  }
  figure.append(svg, caption);
  return figure;
}

// An element of SVG.
function shape(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const short = (value) => String(Number(value.toPrecision(3)));
