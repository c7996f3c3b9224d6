// Every table sorts by a click on a heading, and can be downloaded; without scripts the page is complete.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const first = (cell) => cell.firstChild?.textContent ?? "";
  const number = (text) => parseFloat(text.replace("−", "-").replace(/[\u202f*]/g, ""));
  heads.forEach((head, at) => {
    const sort = () => {
      const up = head.ariaSort === "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => first(row.cells[at]);
      const compared = (a, b) => number(key(a)) - number(key(b)) || key(a).localeCompare(key(b));
      const last = (row) => key(row) === "—";
      body.append(...[...body.rows].sort((a, b) => last(a) - last(b) || (up ? compared(a, b) : compared(b, a))));
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });
  const small = (cell) => cell.querySelector("small")?.textContent ?? "";
  const noted = heads.map((_, at) => [...body.rows].some((row) => small(row.cells[at])));
  const words = (cell, at) =>
    noted[at] ? [first(cell), small(cell)] : [first(cell) + (small(cell) && ` (${small(cell)})`)];
  const quoted = (text) => `"${(/^[=@\t]|^[+-](?![\d.])/.test(text) ? "'" : "") + text.replaceAll('"', '""')}"`;
  const link = document.createElement("a");
  const lines = [...table.rows].map((row) => [...row.cells].flatMap(words).map((text) => quoted(text.replaceAll("−", "-"))));
  link.textContent = "Download as CSV";
  link.className = "download";
  link.download = `${table.caption.textContent.replace(/[^\w]+/g, "-").slice(0, 60)}.csv`;
  link.href = "data:text/csv;charset=utf-8," + encodeURIComponent("\ufeff" + lines.map((line) => line.join()).join("\r\n"));
  table.parentElement.after(link);
}
