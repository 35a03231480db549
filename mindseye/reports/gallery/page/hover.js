// ---- hover: a picture that the mouse rests on is shown large beside it, until the mouse moves on -------------------

const preview = byId("preview");
const REST_MS = 350, LARGEST = 384;
let resting = 0;

function hidePreview() {
  clearTimeout(resting);
  preview.hidden = true;
}

function showPreview(element) {
  const image = element.querySelector("img");
  if (!image?.naturalWidth || !element.isConnected || document.querySelector("dialog[open]")) return;
  const at = element.getBoundingClientRect();
  const room = { left: at.left - 24, right: window.innerWidth - at.right - 24 };
  const side = Math.min(LARGEST, Math.max(room.left, room.right), window.innerHeight - 80);
  if (side < 1.2 * state.size) return; // as large already, or no room
  const words = element.title.split("\n")[0];
  const large = make("img", { src: image.getAttribute("src"), alt: "" });
  large.style.width = large.style.height = `${side}px`;
  preview.replaceChildren(large, make("p", { text: words, dir: "auto" }), ...seedsBehind(element));
  preview.hidden = false;
  const box = preview.getBoundingClientRect();
  preview.style.left = `${room.right >= side ? at.right + 8 : at.left - box.width - 8}px`;
  preview.style.top = `${Math.max(8, Math.min(at.top + at.height / 2 - box.height / 2, window.innerHeight - box.height - 8))}px`;
}

// The seeds that a folded cell stands for, each with its picture and its figure.
function seedsBehind(element) {
  if (!state.folded) return [];
  const cell = cellAt(table.placeAt(Number(element.dataset.row), Number(element.dataset.column)));
  const { seeds } = foldedOf(cell, measureIndex(state.measure), table.kind === "ranking");
  return [make("div", { class: "seeds" }, seeds.map(({ seed, run, facet, value }) =>
    make("figure", {}, [picture({ run, facet, picture: cell.picture }, { eager: true }), make("figcaption", { text: `${seed}: ${figure(value)}` })])))];
}

grid.addEventListener("pointerover", (event) => {
  const element = event.target.closest(".cell");
  hidePreview();
  if (element && event.pointerType === "mouse") resting = setTimeout(() => showPreview(element), REST_MS);
});
grid.addEventListener("pointerleave", hidePreview);
scroller.addEventListener("scroll", hidePreview);
document.addEventListener("pointerdown", hidePreview);
document.addEventListener("keydown", hidePreview);
