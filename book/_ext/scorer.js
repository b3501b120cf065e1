// Sphinx's scores, with two additions: a chapter comes before pages that only mention its subject, and a title
// that holds the query as it was typed before one that shares a word with it.
const typedQuery = (new URLSearchParams(window.location.search).get("q") || "").trim().toLowerCase();
const holdsQuery = (title) => typedQuery !== "" && title.toLowerCase().includes(typedQuery);
var Scorer = {
  score: (result) =>
    result[4] + (result[0].startsWith("notebooks/") ? 8 : 0) + (holdsQuery(result[1]) ? 8 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
