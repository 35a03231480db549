// ---- report: the table of `mindseye report`, what each value of one setting changes -------------------------------

function showReport() {
  const report = DATA.report;
  byId("report").hidden = !report;
  if (!report) return;
  byId("report-summary").textContent = `What each ${report.by} changes`;
  byId("report-about").textContent =
    `Difference to ${report.by}=${report.reference}, paired over facets and all other settings, with its 95 % interval; ▲ better and ▼ worse where the interval leaves 0 out.`;
  const heads = [report.by, ...report.measures.map(spoken), "pairs"];
  const own = [`${report.reference} itself`, ...report.means.map((mean) => (mean === null ? "–" : mean.toFixed(3))), ""];
  const rows = report.rows.map((row) => [row.variant, ...row.cells.map((cell, i) => reportCell(cell, report.measures[i])), String(row.pairs)]);
  byId("report-table").replaceChildren(tableOf(heads, [own, ...rows], "plain figures report"));
}

function reportCell(cell, name) {
  if (!cell) return "–";
  const [difference, low, high] = cell;
  const signed = (value) => (Math.abs(value) < 5e-4 ? "0.000" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`);
  const measure = MEASURES[measureIndex(name)];
  const better = measure?.better === "larger" ? difference > 0 : measure?.better === "smaller" ? difference < 0 : null;
  const clear = (low > 0 || high < 0) && better !== null;
  return make("span", { class: clear ? (better ? "good" : "bad") : "" }, [
    make("b", { text: `${signed(difference)}${clear ? (better ? " ▲" : " ▼") : ""}` }),
    make("small", { text: `${signed(low)} … ${signed(high)}` }),
  ]);
}
