// ---- report: the table of `mindseye report`, what each value of one setting changes -------------------------------

function showReport() {
  const report = DATA.report;
  byId("report").hidden = !report;
  if (!report) return;
  byId("report-summary").textContent = `What each ${report.by} changes`;
  const left = report.unpaired + report.stopped;
  byId("report-about").textContent =
    `Difference to ${report.by}=${report.reference}, paired over facets and all other settings, with its 95 % interval by a bootstrap over facets. Bold: the interval leaves 0 out; ▲ better, ▼ worse.${left ? ` ${left} facets have no partner or were stopped.` : ""}${report.response ? ` ${report.response[0].toUpperCase()}${report.response.slice(1)}.` : ""}`;
  const heads = [report.by, ...report.measures.map(spoken), "pairs (facets)"];
  const own = [`${report.reference} itself`, ...report.means.map((mean) => (mean === null ? "–" : mean.toFixed(3))), ""];
  const rows = report.rows.map((row) => [row.variant, ...row.cells.map((cell, i) => reportCell(cell, report.measures[i], report.means[i])), `${row.pairs} (${row.facets})`]);
  byId("report-table").replaceChildren(tableOf(heads, [own, ...rows], "plain figures report"));
  byId("report-sentences").hidden = report.sentences.length === 0;
  byId("report-sentences").replaceChildren(...report.sentences.map((text) => make("li", { text, dir: "auto" })));
}

function reportCell(cell, name, mean) {
  if (!cell) return "–";
  const [difference, low, high] = cell;
  const signed = (value) => (Math.abs(value) < 5e-4 ? "0.000" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`);
  const measure = MEASURES[measureIndex(name)] ?? { better: null };
  const gain = measure.better === null || mean === null ? 0 : quality(measure, mean + difference) - quality(measure, mean);
  const clear = low !== null && (low > 0 || high < 0);
  const arrow = !clear || gain === 0 ? "" : gain > 0 ? " ▲" : " ▼";
  return make("span", { class: arrow && (gain > 0 ? "good" : "bad") }, [
    make(clear ? "b" : "span", { text: `${signed(difference)}${arrow}` }),
    make("small", { text: low === null ? "" : `${signed(low)} … ${signed(high)}` }),
  ]);
}
