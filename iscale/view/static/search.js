// A box in which genes are searched as one types: the pattern of an ARIA combobox with a list.

import { ask, newest } from "./ask.js";

export class Search {
  // chosen: told the name that is taken; failed: told what went wrong.
  constructor(input, list, chosen, failed) {
    Object.assign(this, { input, list, chosen, failed, value: "", names: [], at: -1 });
    this.look = newest(60, () => this.#look());
    input.addEventListener("input", () => this.look());
    input.addEventListener("focus", () => { input.select(); this.look(); });
    input.addEventListener("blur", () => { this.#close(); input.value = this.value; });
    input.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const option = event.target.closest("[role=option]");
      if (option) this.#take(option.dataset.name);
    });
  }

  set(name) {
    this.value = this.input.value = name ?? "";
  }

  async #look() {
    if (document.activeElement !== this.input) return;
    const text = this.input.value === this.value ? "" : this.input.value;
    try {
      const { found, genes } = await ask("api/genes", { q: text, most: 30 });
      if (document.activeElement === this.input) this.#open(found, genes);
    } catch (error) { this.failed(error); }
  }

  #open(found, genes) {
    this.names = genes.map(({ name }) => name);
    this.list.replaceChildren(...genes.map(({ name, written }, i) => {
      const option = document.createElement("li");
      Object.assign(option, { id: `${this.list.id}-${i}`, role: "option" });
      option.setAttribute("role", "option");
      option.dataset.name = name;
      option.append(name);
      if (!written) option.append(Object.assign(document.createElement("span"), { className: "soft small", textContent: " computed on demand" }));
      return option;
    }));
    if (!genes.length || found > genes.length) {
      const note = document.createElement("li");
      note.className = "soft small";
      note.setAttribute("role", "presentation");
      note.textContent = genes.length ? `${(found - genes.length).toLocaleString("en")} more: type on` : "no gene has this in its name";
      this.list.append(note);
    }
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.#mark(genes.length && this.input.value !== this.value ? 0 : -1);
  }

  #mark(at) {
    this.at = at;
    const options = [...this.list.querySelectorAll("[role=option]")];
    options.forEach((option, i) => option.setAttribute("aria-selected", String(i === at)));
    if (options[at]) {
      this.input.setAttribute("aria-activedescendant", options[at].id);
      options[at].scrollIntoView({ block: "nearest" });
    } else this.input.removeAttribute("aria-activedescendant");
  }

  #key(event) {
    const open = !this.list.hidden, last = this.names.length - 1;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!open) { this.look(); return; }
      const step = event.key === "ArrowDown" ? 1 : -1;
      this.#mark(this.at + step > last ? 0 : this.at + step < 0 ? last : this.at + step);
    } else if (event.key === "Enter") {
      event.preventDefault();
      const name = open && this.at >= 0 ? this.names[this.at] : this.input.value.trim();
      if (name) this.#take(name);
    } else if (event.key === "Escape") {
      if (open) { event.preventDefault(); event.stopPropagation(); this.#close(); }
      this.input.value = this.value;
    }
  }

  #take(name) {
    this.set(name);
    this.#close();
    this.chosen(name);
  }

  #close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }
}
