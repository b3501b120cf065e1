// An equation or table wider than its box scrolls; then it must be reachable by keyboard, too.
const markScrollable = () =>
  document.querySelectorAll("div.math, .pst-scrollable-table-container").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  markScrollable();
});
window.addEventListener("resize", markScrollable);
