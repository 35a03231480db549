// ---- curves: one small plot per loss term, each term in its own colour everywhere ---------------------------------

const SVG = "http://www.w3.org/2000/svg";
const PLOT = { width: 220, height: 92, left: 2, right: 4, top: 8, bottom: 8 };
const TERM_NAMES = {
  total: "total", dm: "DM, direction", ad: "AD, adaptive distance", mdist: "distance", penalty: "penalty P",
  tv: "total variation", r: "r (adaptive loss)", b: "b (adaptive loss)",
};

function drawn(tag, settings, children = []) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(settings)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// curve, other: [steps, values] or null; step: where the iteration slider stands, null at neither end.
function plot(term, index, curve, other, step, own) {
  const known = [curve, own ? null : other].filter(Boolean).flatMap((one) => one[1]);
  let [low, high] = own || !term.range ? [Math.min(...known), Math.max(...known)] : term.range;
  if (low === high) (low -= 0.5), (high += 0.5);
  const last = Math.max(1, ...[curve, other].filter(Boolean).map((one) => one[0].at(-1) ?? 1));
  const x = (t) => PLOT.left + (t / last) * (PLOT.width - PLOT.left - PLOT.right);
  const y = (v) => PLOT.top + (1 - (v - low) / (high - low)) * (PLOT.height - PLOT.top - PLOT.bottom);
  const path = (one) => one[0].map((t, i) => `${i ? "L" : "M"}${x(t).toFixed(1)} ${Math.min(PLOT.height, Math.max(0, y(one[1][i]))).toFixed(1)}`).join("");
  const parts = [drawn("rect", { x: 0.5, y: 0.5, width: PLOT.width - 1, height: PLOT.height - 1, class: "box" })];
  if (low < 0 && high > 0) parts.push(drawn("line", { x1: 0, x2: PLOT.width, y1: y(0), y2: y(0), class: "zero" }));
  if (step !== null) parts.push(drawn("line", { x1: x(step), x2: x(step), y1: 0, y2: PLOT.height, class: "now" }));
  if (other) parts.push(drawn("path", { d: path(other), class: "other" }));
  if (curve) parts.push(drawn("path", { d: path(curve), class: `line term-${index % 10}` }));
  const here = curve && valueAt(curve, step ?? last);
  const name = TERM_NAMES[term.name] ?? spoken(term.name);
  const image = drawn("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, role: "img", "aria-label": `${name}: ${figure(here)} at step ${step ?? last}, between ${figure(low)} and ${figure(high)}` }, parts);
  return make("figure", { class: "plot" }, [
    make("figcaption", {}, [make("span", { class: "term", text: name, dir: "auto" }), make("b", { text: figure(here) })]),
    make("div", { class: "scaled" }, [make("span", { class: "high", text: figure(high) }), make("span", { class: "low", text: figure(low) }), make("span", { class: "end", text: `${last} steps` }), image]),
  ]);
}

function valueAt(curve, step) {
  let value = null;
  for (let i = 0; i < curve[0].length && (curve[0][i] <= step || value === null); i++) value = curve[1][i];
  return value;
}

function curvesOf(cell) {
  if (cell === null || cell.run < 0) return [];
  return detailsOf(cell.run).curves[cell.facet] ?? [];
}

function showCurves(target, cell, other, step) {
  const curves = curvesOf(cell), others = curvesOf(other);
  const shown = DATA.terms.map((term, i) => [term, i]).filter(([, i]) => curves[i]?.[0].length);
  target.replaceChildren(...shown.map(([term, i]) => plot(term, i, curves[i], others[i]?.[0].length ? others[i] : null, step, !state.sameScale)));
  return shown.length > 0;
}
