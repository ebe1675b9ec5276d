// Sorts a table by the column whose head is pressed; without it the page only lacks that.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const x = key(a), y = key(b);
        const n = parseFloat(x.replace(/[<,]/g, "")), m = parseFloat(y.replace(/[<,]/g, ""));
        if (isNaN(n) !== isNaN(m)) return isNaN(n) ? 1 : -1;
        const order = isNaN(n) ? x.localeCompare(y) : n - m;
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
