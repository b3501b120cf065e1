// An equation wider than its box is set smaller, as on a phone, but not smaller than this part of its size.
const SMALLEST = 0.7;
const fitEquations = () => {
  const boxes = [...document.querySelectorAll("div.math")];
  boxes.forEach((box) => (box.style.fontSize = ""));
  const ratios = boxes.map((box) => box.clientWidth / box.scrollWidth);
  boxes.forEach((box, place) => {
    if (ratios[place] < 1) box.style.fontSize = `${100 * Math.max(SMALLEST, ratios[place])}%`;
  });
};

// What is wider still scrolls, and so do tables; they must be reachable by keyboard, too.
const markScrollable = () =>
  document.querySelectorAll("div.math, .pst-scrollable-table-container").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });

const fit = () => {
  fitEquations();
  markScrollable();
};
window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  fit();
});
window.addEventListener("resize", fit);
