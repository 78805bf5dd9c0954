"""One HTML page that shows tables: readable text, packed numbers, a document that runs no other code."""
