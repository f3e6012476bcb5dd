// Small charts as SVG: bars over time, the newest at the right, with a text for screen readers.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 100;

function shape(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.append(Object.assign(document.createElementNS(SVG, "title"), { textContent: text }));
  return node;
}

// values: numbers or null; marked: values of the same length drawn as errors, or []; show: formats a value;
// least: where a logarithmic scale begins, 0 for a linear one.
export function bars(place, { values, marked = [], seconds, least = 0, show, about }) {
  const part = (value) => (least ? Math.log(Math.max(value, least * 1.1) / least) / Math.log(Math.max(most, least * 1.2) / least) : value / most);
  const most = Math.max(...values.map((value) => value ?? 0), 0);
  const svg = shape("svg", { class: "chart", viewBox: `0 0 ${values.length * 10} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  svg.setAttribute("aria-label", `${about}: ${most ? `at most ${show(most)}, now ${show(values.at(-1) ?? 0)}` : "no data yet"}`);
  svg.append(shape("line", { class: "base", x1: 0, x2: values.length * 10, y1: HEIGHT, y2: HEIGHT }));
  values.forEach((value, index) => {
    const ago = `${Math.round(((values.length - 1 - index) * seconds) / 6) / 10} min ago`;
    for (const [amount, kind] of [[value, ""], [marked[index], " error"]]) {
      if (!amount) continue;
      const height = Math.max(2, part(amount) * (HEIGHT - 4));
      svg.append(shape("rect", { class: `bar${kind}`, x: index * 10 + 1, y: HEIGHT - height, width: 8, height }, `${show(amount)}${kind}, ${ago}`));
    }
  });
  const scale = document.createElement("div");
  scale.className = "scale";
  for (const text of [`${Math.round((values.length * seconds) / 60)} min ago`, most ? `maximum: ${show(most)}` : "no data yet", "now"]) {
    scale.append(Object.assign(document.createElement("span"), { textContent: text }));
  }
  place.replaceChildren(svg, scale);
}
