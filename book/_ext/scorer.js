// Sphinx's scores, with one addition: a chapter comes before pages that only mention its subject.
var Scorer = {
  score: (result) => result[4] + (result[0].startsWith("notebooks/") ? 8 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
