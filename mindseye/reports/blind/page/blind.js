// One question after the other; what is right is not in this page, nor in anything that it loads.
const byId = (id) => document.getElementById(id);
const TEST = JSON.parse(byId("test").textContent);
const KEPT = `mindseye-blind-${TEST.test}`;
const THEMES = ["auto", "light", "dark"];

const fresh = () => ({
  sitting: [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
  person: "",
  answers: {},
});
let state = fresh();
let at = -1; // the question that is shown; -1 is the start, the number of questions the end

function remember() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(state));
  } catch {
    // a browser that keeps nothing: then they are in the page alone
  }
}

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT));
    if (typeof kept.sitting === "string" && typeof kept.person === "string" && kept.answers) state = kept;
  } catch {
    // as above
  }
}

const source = (name, part) => `${TEST.pictures}/${name}-${part}.webp`;
const answered = () => TEST.questions.filter((name) => state.answers[name]).length;

function show() {
  const last = TEST.questions.length;
  byId("start").hidden = at !== -1;
  byId("question").hidden = at < 0 || at >= last;
  byId("end").hidden = at < last;
  byId("progress").textContent = at < 0 ? `${last} questions` : at < last ? `${at + 1} of ${last}` : `${answered()} of ${last} answered`;
  if (at < 0) {
    byId("begin").textContent = answered() ? `Go on with ${last - answered()} left` : "Begin";
    byId("person").value = state.person;
    return;
  }
  if (at >= last) {
    const open = last - answered();
    byId("done").textContent = open ? `${open} of the questions are open. Thank you.` : "All questions are answered. Thank you.";
    byId("save").focus();
    return;
  }
  const name = TEST.questions[at];
  byId("missing").hidden = true;
  byId("shown").src = source(name, "shown");
  for (const side of ["a", "b"]) {
    byId(`image-${side}`).src = source(name, side);
    byId(side).setAttribute("aria-label", `Photograph ${side.toUpperCase()}`);
    byId(side).classList.toggle("chosen", state.answers[name] === side);
    byId(side).setAttribute("aria-pressed", String(state.answers[name] === side));
  }
  byId("ask").focus(); // neither photograph is marked before the other
  const next = TEST.questions[at + 1];
  for (const part of next ? ["shown", "a", "b"] : []) new Image().src = source(next, part);
}

function begin() {
  state.person = byId("person").value.trim();
  remember();
  const open = TEST.questions.findIndex((name) => !state.answers[name]);
  at = open < 0 ? TEST.questions.length : open;
  show();
}

// Until all three are there, what is seen may be of the question before.
const loaded = () => ["shown", "image-a", "image-b"].every((id) => byId(id).complete && byId(id).naturalWidth > 0);

function answer(side) {
  if (!loaded()) return;
  state.answers[TEST.questions[at]] = side;
  remember();
  at += 1;
  show();
}

function skip() {
  at += 1;
  show();
}

function back() {
  at = Math.max(-1, Math.min(at, TEST.questions.length) - 1);
  show();
  if (at < 0) byId("begin").focus();
}

function save() {
  const said = { format: 1, test: TEST.test, sitting: state.sitting, person: state.person, answers: state.answers };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(said, null, 1)], { type: "application/json" }));
  link.download = `answers-${TEST.test}-${state.sitting}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function anew() {
  state = fresh();
  remember();
  at = -1;
  show();
  byId("person").focus();
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || at < 0 || at >= TEST.questions.length) return;
  const does = {
    ArrowLeft: () => answer("a"), a: () => answer("a"), ArrowRight: () => answer("b"), b: () => answer("b"), Backspace: back,
  };
  if (event.repeat || !does[event.key]) return; // a key that is held down answers once
  event.preventDefault();
  does[event.key]();
}

let theme = "auto";
function paint() {
  document.documentElement.dataset.theme = theme;
  const [sign, word] = { auto: ["◐", "Auto"], light: ["☀", "Light"], dark: ["☾", "Dark"] }[theme];
  const text = document.createElement("span");
  text.className = "word";
  text.textContent = ` ${word}`;
  byId("theme").replaceChildren(sign, text);
  byId("theme").setAttribute("aria-label", `Theme: ${theme}`);
}

try {
  if (THEMES.includes(localStorage.getItem("mindseye-theme"))) theme = localStorage.getItem("mindseye-theme");
} catch {
  // as above
}
byId("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  paint();
  try {
    localStorage.setItem("mindseye-theme", theme);
  } catch {
    // as above
  }
});
byId("begin").addEventListener("click", begin);
byId("person").addEventListener("keydown", (event) => event.key === "Enter" && begin());
for (const side of ["a", "b"]) byId(side).addEventListener("click", () => answer(side));
for (const id of ["back", "review"]) byId(id).addEventListener("click", back);
for (const id of ["early", "save"]) byId(id).addEventListener("click", save);
byId("skip").addEventListener("click", skip);
byId("anew").addEventListener("click", anew);
for (const id of ["shown", "image-a", "image-b"]) {
  byId(id).addEventListener("error", () => (byId("missing").hidden = false));
}
document.addEventListener("keydown", keys);
recall();
paint();
show();
