// What is found in a drawn region: a table of genes, a histogram, a CSV.

import { ask } from "./ask.js";
import { bars, short } from "./range.js";

const SHOWN = 40;

export class RegionPanel {
  constructor(parts, told) {
    Object.assign(this, { ...parts, told, table: null });
    this.sort.addEventListener("change", () => this.#rows());
    this.csv.addEventListener("click", () => this.#download());
    this.rows.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) told.chosen(button.textContent);
    });
  }

  async ask(corners, gene, quantity, colour) {
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    this.note.textContent = "Reading the region…";
    this.told.busy(true);
    try {
      const table = await ask("api/region", { gene, quantity }, {
        method: "POST", body: JSON.stringify({ corners }), signal: abort.signal,
      });
      this.table = table;
      this.#show(colour);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.clear();
      this.note.textContent = error.message;
    } finally {
      if (this.abort === abort) this.told.busy(false);
    }
  }

  clear() {
    this.abort?.abort();
    this.table = null;
    this.found.hidden = true;
    this.note.textContent = "Draw over the slide to see which genes are high there.";
  }

  #show(colour) {
    const { superpixels, area_um2, rest_superpixels, rest_is_sample, histogram } = this.table;
    const sample = rest_is_sample ? ", evenly many of it," : "";
    this.note.textContent = `${superpixels.toLocaleString("en")} superpixels on tissue, ${(area_um2 / 1e6).toPrecision(3)} mm²; `
      + `the rest of the slide${sample} has ${rest_superpixels.toLocaleString("en")}.`;
    this.found.hidden = false;
    if (histogram) {
      bars(this.histogram, histogram, colour, `Histogram of ${histogram.gene} in the region`);
      const caption = document.createElement("p");
      caption.className = "soft small";
      caption.textContent = `${histogram.gene} in the region: mean ${short(histogram.mean)}, from ${short(histogram.low)} to ${short(histogram.high)}`;
      this.histogram.append(caption);
    } else this.histogram.replaceChildren();
    this.#rows();
  }

  #order() {
    const { fold, mean } = this.table; // there is no fold where the region is all of the tissue
    const by = this.sort.value === "mean" || fold.every((value) => value === null) ? mean : fold;
    return this.table.genes.map((_, i) => i).sort((a, b) => (by[b] ?? -1) - (by[a] ?? -1));
  }

  #rows() {
    const { genes, mean, rest, fold, histogram } = this.table, order = this.#order(), own = genes.indexOf(histogram?.gene);
    const first = own < 0 || order.indexOf(own) < SHOWN ? order : [own, ...order]; // the gene that is shown is in the table
    this.rows.replaceChildren(...first.slice(0, SHOWN).map((i) => {
      const row = document.createElement("tr"), head = document.createElement("th"), button = document.createElement("button");
      Object.assign(button, { type: "button", className: "link", textContent: genes[i], title: `Show ${genes[i]}` });
      head.scope = "row";
      row.className = i === own ? "shown" : "";
      head.append(button);
      row.append(head, ...[mean[i], rest[i], fold[i]].map((value) => {
        const cell = document.createElement("td");
        cell.className = "n";
        cell.textContent = short(value === null ? null : +value.toPrecision(3));
        return cell;
      }));
      return row;
    }));
  }

  text() {
    const { genes, mean, rest, fold } = this.table;
    const quoted = (name) => /[",\n]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;
    const lines = this.#order().map((i) => [quoted(genes[i]), mean[i], rest[i] ?? "", fold[i] ?? ""].join(","));
    return ["gene,mean_in_region,mean_elsewhere,fold", ...lines].join("\n") + "\n";
  }

  #download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this.text()], { type: "text/csv" }));
    link.download = "region.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
}
