/** What rehearsal.cjs requires, as a file of its own. */
module.exports = {};
