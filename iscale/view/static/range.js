// A histogram in the colours of the map, and the range that these run over: two sliders and two numbers.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, parent, namespace) {
  const made = namespace ? document.createElementNS(namespace, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

export const short = (value) => value === null || value === undefined ? "–"
  : value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e5) ? value.toExponential(2) : String(+value.toPrecision(4));

// Bars of counts; colour: share of the range => colour. A second histogram on the same bins is drawn as a line.
export function bars(holder, found, colour, said) {
  const svg = element("svg", { viewBox: "0 0 256 56", preserveAspectRatio: "none", role: "img", "aria-label": said }, null, SVG);
  const most = Math.max(1, ...found.counts), n = found.counts.length || 1;
  found.counts.forEach((count, i) => {
    const height = count ? Math.max(0.8, 54 * Math.sqrt(count / most)) : 0;
    const value = found.low + ((i + 0.5) / n) * (found.high - found.low);
    element("rect", { x: (256 * i) / n, y: 56 - height, width: 256 / n, height, fill: colour(value) }, svg, SVG);
  });
  holder.replaceChildren(svg);
  return svg;
}

export class Range {
  // changed: told [low, high], or nulls where the range is automatic again.
  constructor(holder, name, changed) {
    this.changed = changed;
    this.picture = element("div", { class: "bars" }, holder);
    const sliders = element("div", { class: "sliders" }, holder);
    this.sliders = ["lowest", "highest"].map((end) => element("input", {
      type: "range", min: 0, max: 1000, step: 1, "aria-label": `${name}: ${end} colour at`,
    }, sliders));
    const row = element("div", { class: "ends" }, holder);
    this.numbers = ["from", "to"].map((end) => element("input", {
      type: "number", step: "any", "aria-label": `${name}: range ${end}`,
    }, row));
    this.auto = element("button", { type: "button", class: "link" }, null);
    this.auto.textContent = "automatic";
    this.numbers[0].after(this.auto);
    this.auto.addEventListener("click", () => changed(null, null));
    this.sliders.forEach((slider, i) => slider.addEventListener("input", () => {
      const ends = [this.low, this.high];
      const { low, high } = this.found;
      ends[i] = low + (slider.value / 1000) * (high - low);
      const least = (high - low) / 1000;
      if (ends[1] - ends[0] < least) ends[i] = i ? ends[0] + least : ends[1] - least;
      changed(+ends[0].toPrecision(4), +ends[1].toPrecision(4));
    }));
    this.numbers.forEach((number, i) => number.addEventListener("change", () => {
      const ends = [this.low, this.high];
      ends[i] = parseFloat(number.value);
      if (ends[0] < ends[1]) changed(...ends); else this.show(this.found, this.low, this.high, this.colour);
    }));
  }

  show(found, low, high, colour) {
    Object.assign(this, { found, low, high, colour });
    const said = found.n ? `Histogram of ${found.gene}: mean ${short(found.mean)}, up to ${short(found.high)}` : "no values";
    bars(this.picture, found, colour, said);
    [low, high].forEach((end, i) => {
      const span = found.high - found.low;
      this.sliders[i].value = Math.round((1000 * (end - found.low)) / span);
      this.sliders[i].setAttribute("aria-valuetext", short(end));
      if (document.activeElement !== this.numbers[i]) this.numbers[i].value = +end.toPrecision(4);
    });
  }
}
