// A click on the head of a column sorts the table by it, and a second one the other way; seeds stay with their run.
for (const table of document.querySelectorAll("table.sortable")) {
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    head.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const key = (body) => body.rows[0].cells[column].textContent.trim();
      const order = (first, second) => {
        const [one, two] = [key(first), key(second)];
        const difference = parseFloat(one.replaceAll(",", "")) - parseFloat(two.replaceAll(",", ""));
        return sign * (Number.isNaN(difference) ? one.localeCompare(two) : difference);
      };
      table.append(...[...table.tBodies].sort(order));
    });
  }
}
